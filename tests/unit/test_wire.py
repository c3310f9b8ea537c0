"""The chat-completions dialect: what is read, what goes on untouched, what is taken out."""

import json
from typing import Any

import msgspec
import pytest

from cascaded.types.event import ToolDelta
from cascaded.types.model import Model
from cascaded.types.usage import Usage
from cascaded.wire.openai_chat import (
    MAX_COMMAS,
    MAX_OUTPUT_TOKENS,
    Collector,
    UpstreamSaidError,
    WireError,
    last_question,
    parse_event,
    parse_request,
    unpriced_members,
    upstream_fields,
    usage_chunk,
    without_logprobs,
    without_usage,
)

MODEL = Model(name="m", provider="p", upstream_name="upstream/m")
REASONING = Model(
    name="r", provider="p", upstream_name="r", capabilities=frozenset({"reasoning", "tools"})
)
ODD = (
    b'{ "model" : "auto","messages":[ {"role":"user","content":"\\u00e9\xc3\xa9"} ],\n'
    b'"seed": 12345678901234567890123, "top_p":1.50,"future":{ "a" : [ 1e-7, null ] } }'
)
"""Spaces, escapes and numbers that no decoding and encoding again would give back."""


def sent(body: bytes, model: Model = MODEL, **how: Any) -> dict[str, msgspec.Raw]:
    _, fields = parse_request(body)
    return upstream_fields(
        fields, model, **{"output_bound": None, "stream": False, "logprobs": False, **how}
    )


def request_of(**members: Any) -> bytes:
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}], **members}
    return json.dumps(body).encode()


# --- requests ------------------------------------------------------------------------------------


def test_members_are_kept_byte_for_byte() -> None:
    chat, fields = parse_request(ODD)
    assert bytes(fields["seed"]) == b"12345678901234567890123"
    assert bytes(fields["top_p"]) == b"1.50"
    assert bytes(fields["future"]) == b'{ "a" : [ 1e-7, null ] }'
    assert bytes(fields["messages"]) == b'[ {"role":"user","content":"\\u00e9\xc3\xa9"} ]'
    assert last_question(chat.messages) == "éé"
    upstream = sent(ODD)
    assert upstream.pop("model") == msgspec.Raw(b'"upstream/m"')
    fields.pop("model")
    assert upstream == fields
    assert list(sent(ODD)) == ["model", "messages", "seed", "top_p", "future"], "in their order"


def test_the_callers_fields_are_not_changed() -> None:
    _, fields = parse_request(request_of(max_tokens=5))
    before = dict(fields)
    upstream_fields(fields, MODEL, output_bound=7, stream=True, logprobs=True)
    assert fields == before


@pytest.mark.parametrize("old", [{}, {"max_tokens": 5}, {"max_completion_tokens": 5}])
def test_our_bound_takes_the_place_of_the_callers(old: dict[str, int]) -> None:
    for model, name in [(MODEL, "max_tokens"), (REASONING, "max_completion_tokens")]:
        upstream = sent(request_of(**old), model, output_bound=7)
        bounds = {key: bytes(value) for key, value in upstream.items() if "tokens" in key}
        assert bounds == {name: b"7"}
    upstream = sent(request_of(**old))
    assert {key for key in upstream if "tokens" in key} == old.keys(), "as it was asked"


def test_streams_ask_for_their_usage() -> None:
    for options in (None, {}, {"include_usage": False}, {"include_obfuscation": False}):
        body = request_of(stream=True, **({"stream_options": options} if options else {}))
        upstream = sent(body, stream=True)
        asked = json.loads(bytes(upstream["stream_options"]))
        assert asked == {**(options or {}), "include_usage": True}
        assert bytes(upstream["stream"]) == b"true"
    null = request_of(stream=True, stream_options=None)
    assert json.loads(bytes(sent(null, stream=True)["stream_options"])) == {"include_usage": True}
    assert "stream_options" not in sent(request_of())


def test_logprobs_are_asked_for() -> None:
    assert bytes(sent(request_of(), logprobs=True)["logprobs"]) == b"true"
    assert "logprobs" not in sent(request_of())


@pytest.mark.parametrize(
    ("members", "bound"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": None, "max_completion_tokens": None}, None),
        ({"max_tokens": MAX_OUTPUT_TOKENS}, MAX_OUTPUT_TOKENS),
    ],
)
def test_the_bound_on_the_answer(members: dict[str, Any], bound: int | None) -> None:
    chat, _ = parse_request(request_of(**members))
    assert chat.output_bound == bound
    assert chat.asks.bounded is (bound is not None)


@pytest.mark.parametrize(
    ("members", "param", "words"),
    [
        ({"max_tokens": 0}, "max_tokens", "from 1 to"),
        ({"max_completion_tokens": 0, "max_tokens": 5}, "max_completion_tokens", "from 1 to"),
        ({"max_tokens": MAX_OUTPUT_TOKENS + 1}, "max_tokens", "from 1 to"),
        ({"max_tokens": "5"}, "max_tokens", "Expected `int | null`, got `str`"),
        ({"n": 129}, "n", "from 1 to 128"),
        ({"messages": []}, "messages", "must not be empty"),
        ({"messages": None}, "messages", "Expected `array`"),
        ({"model": 5}, "model", "Expected `str`"),
        ({"tools": [{"function": 5}]}, "tools[0].function", "Expected `object`"),
        ({"stream_options": {"include_usage": 5}}, "stream_options.include_usage", "`bool | null`"),
        ({"response_format": "json"}, "response_format", "Expected `object | null`"),
    ],
)
def test_mistakes_name_their_member(members: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_request(request_of(**members))
    assert caught.value.param == param
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not valid JSON"),
        (request_of() + b"x", "not valid JSON"),
        (b"\xff", "not UTF-8"),
        (request_of()[:-1], "not valid JSON"),
        (request_of(x="Q").replace(b"Q", b"\xc3"), "not UTF-8"),
        (request_of(x="Q").replace(b"Q", b"\xed\xa0\x80"), "not UTF-8"),
        (b"[" * 100_000, "nested too deeply|Expected `object`"),
        (b"5", "Expected `object`"),
    ],
)
def test_bodies_that_are_none(body: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words) as caught:
        parse_request(body)
    assert caught.value.param is None


def test_what_form_of_answer_is_asked_for() -> None:
    schema = {"type": "object"}
    chat, _ = parse_request(
        request_of(
            response_format={"type": "json_schema", "json_schema": {"schema": schema}},
            tools=[{"function": {"name": "a"}}, {"type": "custom"}],
            tool_choice="required",
        )
    )
    assert chat.asks.json_object
    assert json.loads(bytes(chat.asks.json_schema or b"")) == schema
    assert chat.asks.tools == ("a", "")
    assert chat.asks.tool_required
    for choice, required in [("auto", False), ("none", False), (None, False), ({"x": 1}, True)]:
        chat, _ = parse_request(request_of(tool_choice=choice))
        assert chat.asks.tool_required is required
    forms: list[Any] = [{"type": "text"}, {"type": "json_object"}, {"json_schema": {}}, None]
    for form in forms:
        chat, _ = parse_request(request_of(response_format=form))
        assert chat.asks.json_object is bool(form and form.get("type") == "json_object")
        assert chat.asks.json_schema is None


@pytest.mark.parametrize(
    ("messages", "question"),
    [
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "b"),
        (
            [{"role": "user", "content": [{"text": "a"}, {"image_url": {}}, {"text": "b"}]}],
            "a\n\nb",
        ),
        ([{"role": "system", "content": "a"}], ""),
        ([{"role": "user", "content": None}], ""),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": 5}], "a"),
        ([], ""),
    ],
)
def test_the_last_question(messages: list[Any], question: str) -> None:
    assert last_question([msgspec.Raw(json.dumps(one).encode()) for one in messages]) == question


# --- answers -------------------------------------------------------------------------------------


def event_of(**members: Any) -> bytes:
    return json.dumps(members).encode()


def test_a_whole_answer() -> None:
    message = {
        "content": "Paris",
        "refusal": None,
        "tool_calls": [
            {"id": "1", "function": {"name": "a", "arguments": "{}"}},
            {"id": "2", "function": None},
        ],
    }
    logprobs = {"content": [{"token": "P", "logprob": -0.5}, {"token": "aris", "logprob": -0.25}]}
    other = {"index": 1, "message": {"content": "Lyon"}}
    raw = event_of(
        choices=[
            other,
            {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs},
        ],
        usage={
            "prompt_tokens": 9,
            "completion_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": 0},
        },
    )
    event = parse_event(raw, whole=True)
    assert event.raw is raw
    assert event.speaks
    assert (event.text, event.refusal, event.finish_reason) == ("Paris", "", "stop")
    assert event.tool_deltas == (ToolDelta(0, "a", "{}"), ToolDelta(1, "", ""))
    assert (event.logprob_sum, event.logprob_count) == (-0.75, 2)
    assert event.usage == Usage(
        input_tokens=9,
        output_tokens=4,
        cache_read_tokens=3,
        cache_write_tokens=2,
        reasoning_tokens=1,
    )


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": 5}, None),
        ({"completion_tokens": 5}, None),
        ({"prompt_tokens": None, "completion_tokens": 5}, None),
        ({"prompt_tokens": -1, "completion_tokens": 5}, None),
        ({"prompt_tokens": 5, "completion_tokens": -1}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage()),
        (
            {"prompt_tokens": 5, "completion_tokens": 6, "prompt_tokens_details": None},
            Usage(input_tokens=5, output_tokens=6),
        ),
    ],
)
def test_usage_is_believed_when_it_says_both_totals(usage: Any, read: Usage | None) -> None:
    """An explicit zero is a statement; a total that is absent, or below zero, is none."""
    assert parse_event(event_of(choices=[{}], usage=usage), whole=False).usage == read


def test_chunks() -> None:
    only_usage = parse_event(
        event_of(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 2}), whole=False
    )
    assert not only_usage.has_choices
    assert not only_usage.speaks
    other = parse_event(event_of(choices=[{"index": 1, "delta": {"content": "x"}}]), whole=False)
    assert (other.text, other.has_choices) == ("", True)
    role = parse_event(event_of(choices=[{"delta": {"role": "assistant"}}]), whole=False)
    assert not role.speaks
    refusal = parse_event(event_of(choices=[{"delta": {"refusal": "no"}}]), whole=False)
    assert refusal.speaks
    bare = parse_event(event_of(choices=[{"index": 0}]), whole=False)
    assert (bare.text, bare.finish_reason) == ("", None)


@pytest.mark.parametrize(
    ("raw", "raised", "words"),
    [
        (b"", WireError, "not a chat completion"),
        (b"<html>", WireError, "not a chat completion"),
        (b"{}", WireError, "neither choices nor usage"),
        (b'{"choices": []}', WireError, "no choices"),
        (b'{"choices": [{"message": {"content": "\xff"}}]}', WireError, "not a chat completion"),
        (b'{"choices": ' + b"[" * 9_999, WireError, "not a chat completion"),
        (b'{"error": {"message": "no"}}', UpstreamSaidError, "^no$"),
        (b'{"error": {"code": 5}}', UpstreamSaidError, "'code': 5"),
        (b'{"error": "no", "choices": []}', UpstreamSaidError, "^no$"),
        (b'{"error": {"message": "\xff"}}', UpstreamSaidError, "message"),
        (b'{"error": "' + b"x" * 9_999 + b'"}', UpstreamSaidError, "^x{500}$"),
    ],
)
def test_what_is_no_answer(raw: bytes, raised: type[WireError], words: str) -> None:
    with pytest.raises(raised, match=words):
        parse_event(raw, whole=True)


def test_an_error_of_null_is_none() -> None:
    assert parse_event(b'{"error": null, "choices": [{}]}', whole=True).whole


def test_the_collector_folds_chunks_into_an_answer() -> None:
    collector = Collector()
    deltas: list[dict[str, Any]] = [
        {"delta": {"role": "assistant", "content": ""}},
        {"delta": {"content": "Par"}, "logprobs": {"content": [{"logprob": -1.0}]}},
        {"delta": {"content": "is"}, "logprobs": {"content": [{"logprob": -0.5}]}},
        {"delta": {"tool_calls": [{"index": 1, "function": {"name": "b"}}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"name": "a", "arguments": "{"}}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}},
        {"delta": {"refusal": "no"}, "finish_reason": "stop"},
    ]
    for delta in deltas:
        collector.add(parse_event(event_of(choices=[delta]), whole=False))
    for output_tokens in (1, 7):  # cumulative: the last one counts
        usage = {"prompt_tokens": 3, "completion_tokens": output_tokens}
        collector.add(parse_event(event_of(choices=[], usage=usage), whole=False))
    answer = collector.completion()
    assert (answer.text, collector.text) == ("Paris", "Paris")
    assert answer.tool_calls == (("a", "{}"), ("b", ""))
    assert (answer.refusal, answer.finish_reason, answer.mean_logprob) == ("no", "stop", -0.75)
    assert answer.usage == Usage(input_tokens=3, output_tokens=7)
    assert Collector().completion().mean_logprob is None


# --- what is taken out, and put in ---------------------------------------------------------------


def test_taking_out_leaves_the_rest_byte_for_byte() -> None:
    raw = (
        b'{"id":"\\u00e9", "created":1.50,'
        b'"choices":[{"index":0,"delta":{},"logprobs":{"x":1}}],"usage":{"a":1}}'
    )
    assert without_usage(raw) == (
        b'{"id":"\\u00e9","created":1.50,"choices":[{"index":0,"delta":{},"logprobs":{"x":1}}]}'
    )
    assert without_usage(b'{"id":1}') == b'{"id":1}'
    assert without_logprobs(raw) == (
        b'{"id":"\\u00e9","created":1.50,"choices":[{"index":0,"delta":{}}],"usage":{"a":1}}'
    )


def test_the_cost_stands_beside_the_usage() -> None:
    raw = b'{"choices":[],"usage":{"prompt_tokens":5,"extra":1.50}}'
    cost, details = msgspec.Raw(b"0.000000001"), msgspec.Raw(b'{"draft_cost":0}')
    assert usage_chunk(raw, Usage(), cost, details) == (
        b'{"choices":[],"usage":{"prompt_tokens":5,"extra":1.50,'
        b'"cost":0.000000001,"cost_details":{"draft_cost":0}}}'
    )


def test_usage_that_the_provider_did_not_tell_is_ours() -> None:
    raw = b'{"id":"x","choices":[{"index":0,"delta":{}}]}'
    told = usage_chunk(
        raw, Usage(input_tokens=3, output_tokens=4), msgspec.Raw(b"1"), msgspec.Raw(b"{}")
    )
    assert told == (
        b'{"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,'
        b'"total_tokens":7,"cost":1,"cost_details":{}}}'
    )


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ("{}", ()),
        ('{"service_tier": "auto", "web_search_options": null}', ()),
        ('{"service_tier": "flex"}', ()),
        ('{"service_tier": "priority"}', ("service_tier",)),
        ('{"web_search_options": {}}', ("web_search_options",)),
        ('{"prediction": {"type": "content", "content": "x"}}', ("prediction",)),
        ('{"prediction": null}', ()),
    ],
)
def test_members_that_no_list_prices(members: str, found: tuple[str, ...]) -> None:
    assert unpriced_members(msgspec.json.decode(members, type=dict[str, msgspec.Raw])) == found


def test_bodies_of_too_many_parts() -> None:
    """Whatever they are, and only there."""
    fits = b'{"model": "m", "messages": [0' + b",0" * (MAX_COMMAS - 1) + b"]}"
    assert len(parse_request(fits)[0].messages) == MAX_COMMAS
    with pytest.raises(WireError, match="commas"):
        parse_request(fits.replace(b"[0", b"[0,0"))
