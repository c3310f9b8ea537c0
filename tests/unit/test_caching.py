"""Which calls are cached, under which key; wishes; streams as wholes; single flight."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cascaded.pipeline.flights import Flights, Landing
from cascaded.policy.caching import (
    MAX_KEYED_BYTES,
    MAX_SORTED_BYTES,
    Upstream,
    canonical,
    is_kept,
    is_wanted,
    key_of,
    tenant_of,
)
from cascaded.types.decision import Decision, Plan
from cascaded.types.event import Event
from cascaded.types.limits import Caller
from cascaded.types.profile import UserProfile
from cascaded.types.recalled import Recalled, Whole
from cascaded.types.request import CacheWish, Request
from cascaded.types.result import Attempt, Completion, Result
from cascaded.types.tiers import TierConfig
from cascaded.types.usage import Usage
from cascaded.wire.caching import joined, read_wish
from cascaded.wire.openai_chat import WireError, parse_event
from cascaded.wire.whole.chat import Gathered, chunks_of
from tests.support.fakes import ladder, model, request
from tests.support.upstream import Says, chunks, whole

LADDER = ladder(model("cheap"), model("strong"))
ASKED = request(temperature=0)
DECIDED = Decision(caller=Caller(user_id="alice"), ladder=LADDER)
TENANT = "user:alice"
UPSTREAMS = {"fake": Upstream("here")}


def key(asked: Request = ASKED, decided: Decision = DECIDED, tenant: str = TENANT) -> bytes:
    return key_of(tenant, asked, decided, UPSTREAMS)


# --- the key -------------------------------------------------------------------------------------

NAMES = st.text("abcdefgh", min_size=1, max_size=4)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
MEMBERS = st.dictionaries(NAMES, VALUES, max_size=4)
SLOWLY = settings(max_examples=60)


def turned(value: Any) -> Any:
    """The same JSON with the members of every object the other way round."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    return [turned(one) for one in value] if isinstance(value, list) else value


def with_members(members: dict[str, Any]) -> Request:
    fields = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in members.items()}
    return replace(ASKED, fields={**ASKED.fields, **fields})


@SLOWLY
@given(MEMBERS)
def test_the_order_of_members_changes_nothing(members: dict[str, Any]) -> None:
    assert key(with_members(members)) == key(with_members(turned(members)))


@SLOWLY
@given(MEMBERS, MEMBERS)
def test_other_members_are_another_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    if not same:
        assert key(with_members(one)) != key(with_members(other))


@SLOWLY
@given(MEMBERS, st.data())
def test_any_change_within_is_another_key(members: dict[str, Any], data: st.DataObject) -> None:
    if members:
        name = data.draw(st.sampled_from(sorted(members)))
        value = data.draw(VALUES.filter(lambda v: json.dumps(v) != json.dumps(members[name])))
        if json.dumps(value, sort_keys=True) != json.dumps(members[name], sort_keys=True):
            assert key(with_members({**members, name: value})) != key(with_members(members))


@pytest.mark.parametrize(
    "members",
    [
        {"messages": [{"role": "user", "content": "What is the capital of Italy?"}]},
        {"messages": [{"role": "system", "content": "Be brief."}]},
        {"tools": []},
        {"temperature": 0.5},
        {"top_p": 1},
        {"n": 2},
        {"seed": 7},
        {"response_format": {"type": "json_object"}},
        {"max_tokens": 5},
        {"max_completion_tokens": 5},
        {"a_member_of_tomorrow": None},
    ],
)
def test_what_changes_the_answer_changes_the_key(members: dict[str, Any]) -> None:
    assert key(with_members(members)) != key()


@pytest.mark.parametrize(
    "members",
    [
        {"stream": True},
        {"stream_options": {"include_usage": True}},
        {"user": "u"},
        {"safety_identifier": "s"},
        {"metadata": {"a": "b"}},
        {"model": "cascade/default"},
    ],
)
def test_what_does_not_does_not(members: dict[str, Any]) -> None:
    assert key(with_members(members)) == key()


def test_circumstances_change_the_key() -> None:
    others = [
        replace(DECIDED, ladder=ladder(model("strong"))),
        replace(DECIDED, ladder=ladder(model("cheap"), model("strong"), threshold=0.7)),
        replace(DECIDED, ladder=replace(LADDER, strict=True)),
        replace(DECIDED, ladder=replace(LADDER, max_cost_nano_usd=5)),
        replace(DECIDED, preferred=("strong",)),
        replace(DECIDED, output_cap=500),
        replace(DECIDED, domain="code"),
    ]
    keys = {key(decided=one) for one in others}
    keys |= {key(replace(ASKED, max_cost_nano_usd=9)), key(tenant="user:bob"), key()}
    keys.add(key_of(TENANT, ASKED, DECIDED, {"fake": Upstream("there")}))
    assert len(keys) == len(others) + 4


def test_a_callers_own_key_counts_where_it_is_forwarded() -> None:
    mine, other = replace(ASKED, caller_key="sk-1"), replace(ASKED, caller_key="sk-2")
    assert key(mine) == key(other)
    forwarding = {"fake": Upstream("here", forwards_key=True)}
    one, two = (key_of(TENANT, asked, DECIDED, forwarding) for asked in (mine, other))
    assert one != two


@pytest.mark.parametrize(
    "raw",
    [
        b'{"b":1,"a":1,"b":2}',
        b'{"b":0.10,"a":1}',
        b'{"b":1e400,"a":1}',
        b'{"b":"\\ud800","a":1}',
        b'{"b":123456789012345678901234567890.5,"a":1}',
        b"[" * 100_000,
        b'{"b":"' + b"x" * MAX_SORTED_BYTES + b'","a":1}',
    ],
)
def test_what_does_not_read_back_as_it_was_written_counts_as_it_is(raw: bytes) -> None:
    assert canonical(raw) == raw


def test_a_tenant_is_an_organisation_or_a_user() -> None:
    both = Caller(user_id="alice", organization_id="acme")
    assert tenant_of(both) == tenant_of(Caller(user_id="bob", organization_id="acme"))
    assert tenant_of(both) != tenant_of(Caller(user_id="alice"))
    assert tenant_of(Caller(user_id="acme")) != tenant_of(both)


# --- what is cached ------------------------------------------------------------------------------

ON, OFF = CacheWish(asked=True), CacheWish(off=True)


@pytest.mark.parametrize(
    ("asked", "decided", "wanted"),
    [
        (ASKED, DECIDED, True),
        (request(), DECIDED, False),
        (replace(request(), cache=ON), DECIDED, True),
        (replace(ASKED, cache=OFF), DECIDED, False),
        (replace(ASKED, cache=CacheWish(asked=True, off=True)), DECIDED, False),
        (request(temperature=0, tools=[]), DECIDED, False),
        (request(temperature=0, tools=None), DECIDED, True),
        (request(temperature=0, web_search_options={}), DECIDED, False),
        (replace(request(temperature=0, tools=[]), cache=ON), DECIDED, True),
        (request("x" * MAX_KEYED_BYTES, temperature=0), DECIDED, False),
        (ASKED, replace(DECIDED, ladder=replace(LADDER, cache=False)), False),
        (ASKED, replace(DECIDED, tier=TierConfig(name="t")), True),
        (ASKED, replace(DECIDED, tier=TierConfig(name="t", caching=False)), False),
        (ASKED, replace(DECIDED, profile=UserProfile(user_id="a")), True),
        (ASKED, replace(DECIDED, profile=UserProfile(user_id="a", enable_caching=False)), False),
    ],
)
def test_what_is_wanted(asked: Request, decided: Decision, wanted: bool) -> None:
    assert is_wanted(asked, decided) is wanted


EVENT = parse_event(json.dumps(whole({"model": "cheap"}, Says())).encode(), whole=True)
TWO = parse_event(json.dumps(whole({"model": "cheap", "n": 2}, Says())).encode(), whole=True)
CUT = json.loads(TWO.raw)
CUT["choices"][1]["finish_reason"] = "length"
ONE_CUT = parse_event(json.dumps(CUT).encode(), whole=True)
BY = Attempt(rung=0, model=LADDER.rungs[0].model)
GOOD = Result(answer=Completion(text="Paris.", finish_reason="stop"), answered_by=BY)
TAKEN = replace(DECIDED, menu=(Plan(ladder=LADDER, max_output_tokens=5, worst_nano_usd=1),))
DEGRADED = replace(TAKEN, ladder=ladder(model("cheap")))


@pytest.mark.parametrize(
    ("asked", "decided", "end", "event", "kept"),
    [
        (ASKED, TAKEN, GOOD, EVENT, True),
        (ASKED, TAKEN, replace(GOOD, flagged=True), EVENT, False),
        (ASKED, TAKEN, replace(GOOD, answered_by=None), EVENT, False),
        (ASKED, TAKEN, replace(GOOD, answer=Completion(finish_reason="length")), EVENT, False),
        (ASKED, TAKEN, replace(GOOD, answer=Completion(finish_reason=None)), EVENT, False),
        (
            ASKED,
            TAKEN,
            replace(GOOD, answer=Completion(finish_reason="stop", refusal="No.")),
            EVENT,
            False,
        ),
        (ASKED, DEGRADED, GOOD, EVENT, False),
        (
            ASKED,
            TAKEN,
            replace(GOOD, notices=("'strong' answered in place of 'cheap'",)),
            EVENT,
            False,
        ),
        (replace(ASKED, choices=2), TAKEN, GOOD, TWO, True),
        (replace(ASKED, choices=2), TAKEN, GOOD, ONE_CUT, False),
    ],
)
def test_what_is_kept(
    asked: Request, decided: Decision, end: Result, event: Event, kept: bool
) -> None:
    assert is_kept(asked, decided, end, Whole("chat", event.raw)) is kept


@pytest.mark.parametrize(
    ("control", "own", "wish"),
    [
        (None, None, CacheWish()),
        ("private, must-revalidate", None, CacheWish()),
        ("no-store", None, OFF),
        ("No-Cache", None, CacheWish(max_age_s=0)),
        ("max-age=60", None, CacheWish(max_age_s=60)),
        ("max-age=60,max-age=30", None, CacheWish(max_age_s=30)),
        ("max-age=soon", None, CacheWish(max_age_s=0)),
        ("max-age=9999999999", None, CacheWish(max_age_s=0)),
        (None, "on", ON),
        ("no-store", "on", CacheWish(asked=True, off=True)),
        ("max-age=60", "refresh", CacheWish(asked=True, max_age_s=0)),
        (None, "off", OFF),
    ],
)
def test_wishes(control: str | None, own: str | None, wish: CacheWish) -> None:
    assert read_wish(control, own) == wish
    assert joined(wish, CacheWish()) == wish


def test_a_wish_that_is_none() -> None:
    with pytest.raises(WireError, match="on, off or refresh"):
        read_wish(None, "ON")


def whole_of(chunks: Iterable[bytes]) -> bytes:
    gathered = Gathered()
    for chunk in chunks:
        gathered.add(chunk)
    made = gathered.whole()
    assert made is not None
    return made


# --- streams and wholes --------------------------------------------------------------------------

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


@pytest.mark.parametrize(
    "says",
    [
        Says("Paris, of course.", chunks=5),
        Says("", chunks=1),
        Says(tool_calls=[CALL, {**CALL, "id": "call_2"}], finish_reason="tool_calls"),
        Says("Paris.", logprob=-0.5, chunks=2),
        Says("Paris.", usage_on="last"),
        Says("Paris.", usage_on="none"),
    ],
)
def test_a_stream_is_the_whole_that_it_makes(says: Says) -> None:
    body = {"model": "m", "logprobs": True, "stream_options": {"include_usage": True}}
    made = json.loads(whole_of(json.dumps(one).encode() for one in chunks(body, says)))
    answer = whole(body, says)
    assert made["choices"][0]["message"].get("tool_calls") == answer["choices"][0]["message"].get(
        "tool_calls"
    )
    assert (made["choices"][0]["message"]["content"] or "") == (
        answer["choices"][0]["message"]["content"] or ""
    )
    assert made["choices"][0]["finish_reason"] == says.finish_reason
    assert made.get("usage") == answer.get("usage")
    assert made["object"] == "chat.completion"


@pytest.mark.parametrize("count", [1, 3])
def test_a_whole_as_a_stream_is_the_whole_again(count: int) -> None:
    answer = whole({"model": "m", "n": count}, Says("Paris.", logprob=None))
    for choice in answer["choices"]:
        choice["message"] |= {"tool_calls": [CALL], "reasoning_content": "Hm.", "annotations": [1]}
        choice["message"]["audio"] = {"id": "a", "data": "xyz"}
        choice["logprobs"] = {"content": [{"token": "P", "logprob": -1}], "refusal": None}
    stream = chunks_of(json.dumps(answer).encode())
    assert json.loads(whole_of(stream)) == answer
    events = [parse_event(raw, whole=False) for raw in stream]
    assert "".join(event.text for event in events) == "Paris."
    assert events[-1].usage is not None


@pytest.mark.parametrize(
    "chunk",
    [
        b"[]",
        b"{",
        b'{"type": "ping"}',
        b'{"choices": [1]}',
        b'{"choices": [{"delta": {"tool_calls": 3}}]}',
    ],
)
def test_what_is_no_chunk(chunk: bytes) -> None:
    with pytest.raises(WireError):
        whole_of([chunk])


# --- single flight -------------------------------------------------------------------------------

ANSWER = Recalled(
    tenant=TENANT, raw=b"{}", model="m", usage=Usage(), cost_nano_usd=1, full_nano_usd=2, at_ns=3
)
K = b"k"


class TestFlights:
    async def waiting(self, flights: Flights, count: int) -> list["asyncio.Task[Landing]"]:
        tasks = [
            asyncio.create_task(flights.wait(K, 5))  # noqa: TID251  the test awaits it
            for _ in range(count)
        ]
        await asyncio.sleep(0)
        return tasks

    async def test_all_get_the_answer(self) -> None:
        flights = Flights()
        assert flights.lead(K)
        assert not flights.lead(K)
        tasks = await self.waiting(flights, 3)
        flights.land(K, ANSWER)
        assert await asyncio.gather(*tasks) == [ANSWER] * 3
        assert flights.lead(K)

    async def test_a_failure_passes_the_lead_on_and_who_left_is_passed_over(self) -> None:
        flights = Flights()
        flights.lead(K)
        tasks = await self.waiting(flights, 3)
        tasks[0].cancel()
        await asyncio.wait([tasks[0]])
        flights.land(K, "lead")
        assert await tasks[1] == "lead"
        assert not tasks[2].done()
        flights.land(K, "alone")
        assert await tasks[2] == "alone"

    async def test_who_leaves_with_the_lead_passes_it_on(self) -> None:
        flights = Flights()
        flights.lead(K)
        tasks = await self.waiting(flights, 2)
        flights.land(K, "lead")
        tasks[0].cancel()  # in the very moment
        assert await tasks[1] == "lead"
        assert tasks[0].cancelled()
        flights.land(K, "lead")
        assert flights.lead(K)

    async def test_who_waits_too_long_goes_alone(self) -> None:
        flights = Flights()
        flights.lead(K)
        assert await flights.wait(K, 0) == "alone"
        flights.land(K, ANSWER)
        assert flights.lead(K)


def test_of_nothing_comes_nothing() -> None:
    gathered = Gathered()
    assert gathered.whole() is None
    gathered.add(b'{"choices": []}')
    assert gathered.whole() is None
    gathered.add(EVENT.raw, whole=True)
    assert gathered.whole() == EVENT.raw
