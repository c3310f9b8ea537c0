"""The exact cache over the socket: hits, misses, single flight, tenants, wishes, budgets, disks."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
import pytest

from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.upstream import Fails, Hangs, Says, Upstream

ASKED: dict[str, Any] = {
    "model": "strong",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as upstream:
        yield upstream


@pytest.fixture
def daemon(upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(CASCADE, url=upstream.url) as daemon:
        yield daemon


def ask(daemon: Daemon, headers: dict[str, str] | None = None, **members: Any) -> httpx2.Response:
    with daemon.http() as http:
        return http.post("/v1/chat/completions", json={**ASKED, **members}, headers=headers)


def state_of(response: httpx2.Response) -> str:
    assert response.status_code == 200, response.text
    return response.headers["x-cascaded-cache"]


def test_the_second_call_is_a_hit_that_costs_nothing(daemon: Daemon, upstream: Upstream) -> None:
    first, second = ask(daemon), ask(daemon, temperature=0.0, user="somebody")
    assert [state_of(one) for one in (first, second)] == ["miss", "miss"]  # 0.0 is not 0
    third = ask(daemon)
    assert state_of(third) == "hit"
    assert third.json() == first.json()
    assert third.headers["x-cascaded-model"] == "strong"
    assert third.headers["x-cascaded-cost"] == "0"
    assert third.headers["x-cascaded-cost-saved"] == first.headers["x-cascaded-cost"]
    assert len(upstream.received) == 2


class TestTheSdk:
    """Plain and streamed, whoever bought the answer."""

    SAYS = Says("Paris, of course.", chunks=4)

    def stream(self, daemon: Daemon) -> tuple[str, str, Any]:
        with daemon.sdk().chat.completions.with_streaming_response.create(
            **ASKED, stream=True, stream_options={"include_usage": True}
        ) as response:
            state = response.headers["x-cascaded-cache"]
            lines = [line for line in response.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
        said = [c["choices"][0]["delta"].get("content") for c in chunks if c["choices"]]
        ends = [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]]
        assert ends[-1] == "stop"
        assert chunks[-1]["choices"] == []
        return state, "".join(one or "" for one in said), chunks[-1]["usage"]

    def test_a_stream_replays_a_plain_answer(self, daemon: Daemon, upstream: Upstream) -> None:
        upstream.on("strong", self.SAYS)
        plain = daemon.sdk().chat.completions.create(**ASKED)
        state, text, usage = self.stream(daemon)
        assert (state, text) == ("hit", plain.choices[0].message.content)
        assert usage["completion_tokens"] == 5
        assert usage["cost"] == 0
        assert usage["cost_details"]["cache"] == "exact"
        assert len(upstream.received) == 1

    def test_a_plain_answer_replays_a_stream(self, daemon: Daemon, upstream: Upstream) -> None:
        upstream.on("strong", self.SAYS)
        state, text, _ = self.stream(daemon)
        assert (state, text) == ("miss", "Paris, of course.")
        raw = daemon.sdk().chat.completions.with_raw_response.create(**ASKED)
        answer = raw.parse()
        assert raw.headers["x-cascaded-cache"] == "hit"
        assert answer.object == "chat.completion"
        assert answer.choices[0].message.content == text
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 5
        assert self.stream(daemon)[:2] == ("hit", text)
        assert len(upstream.received) == 1


def test_the_native_dialect_tells_it(daemon: Daemon, upstream: Upstream) -> None:
    body = {"query": "What is the capital of France?", "options": {"temperature": 0}}
    with daemon.http() as http:
        first, second = (http.post("/infer", json=body).json() for _ in range(2))
    assert first["metadata"]["cache"] is None
    told = second["metadata"]
    assert second["content"] == first["content"]
    assert (told["cache"], told["total_cost"], told["savings_percent"]) == ("exact", 0, 100)
    assert told["cost_saved"] == pytest.approx(
        first["metadata"]["cost_saved"] + first["metadata"]["total_cost"]
    )
    assert told["model_used"] == first["metadata"]["model_used"]
    assert told["output_tokens"] == 5
    with daemon.http() as http:
        off, fresh = (
            http.post("/infer", json={**body, "cache": word}) for word in ("off", "refresh")
        )
        assert http.post("/infer", json={**body, "cache": "maybe"}).status_code == 400
    assert [state_of(one) for one in (off, fresh)] == ["off", "miss"]
    assert len(upstream.received) == 3


class TestWishes:
    @pytest.mark.parametrize(
        ("members", "headers", "states"),
        [
            ({"temperature": 1}, {}, ["off", "off"]),
            ({"temperature": 1}, {"x-cascaded-cache": "on"}, ["miss", "hit"]),
            ({}, {"x-cascaded-cache": "off"}, ["off", "off"]),
            ({}, {"x-cascaded-cache": "refresh"}, ["miss", "miss"]),
            ({}, {"Cache-Control": "no-store"}, ["off", "off"]),
            ({}, {"Cache-Control": "no-cache"}, ["miss", "miss"]),
            ({}, {"Cache-Control": "max-age=0"}, ["miss", "miss"]),
            ({}, {"Cache-Control": "max-age=60, private"}, ["miss", "hit"]),
            ({}, {"Cache-Control": "no-store", "x-cascaded-cache": "on"}, ["off", "off"]),
            ({"temperature": 1}, {"Cache-Control": "no-cache"}, ["off", "off"]),
            ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {}, ["off", "off"]),
        ],
    )
    def test_they_are_kept(
        self,
        daemon: Daemon,
        members: dict[str, Any],
        headers: dict[str, str],
        states: list[str],
    ) -> None:
        found = [state_of(ask(daemon, headers, **members)) for _ in range(2)]
        assert found == states

    def test_what_is_no_wish_is_told(self, daemon: Daemon) -> None:
        refused = ask(daemon, {"x-cascaded-cache": "perhaps"})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "x-cascaded-cache"

    def test_a_refresh_takes_the_place_of_what_was_there(
        self, daemon: Daemon, upstream: Upstream
    ) -> None:
        upstream.on("strong", Says("Paris."), Says("Paris!"))
        ask(daemon)
        assert ask(daemon, {"x-cascaded-cache": "refresh"}).json() == ask(daemon).json()
        assert "Paris!" in ask(daemon).text


@pytest.mark.parametrize(
    "behaviour",
    [Says(finish_reason="length"), Says(finish_reason="content_filter"), Says("")],
)
def test_what_is_cut_filtered_or_flagged_is_not_kept(
    daemon: Daemon, upstream: Upstream, behaviour: Says
) -> None:
    for model in ("cheap", "strong"):
        upstream.on(model, behaviour)
    assert [state_of(ask(daemon, model="auto")) for _ in range(2)] == ["miss", "miss"]


def test_errors_are_not_kept(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Fails(400), Says())
    assert ask(daemon).status_code == 400
    assert state_of(ask(daemon)) == "miss"


def test_two_tenants_never_share(daemon: Daemon, upstream: Upstream) -> None:
    people = [
        {"X-User-ID": "alice"},
        {"X-User-ID": "bob"},
        {"X-User-ID": "alice", "X-Organization-ID": "acme"},
        {"X-User-ID": "alice", "X-Organization-ID": "bob"},
        {},
    ]
    assert [state_of(ask(daemon, who)) for who in people] == ["miss"] * len(people)
    assert [state_of(ask(daemon, who)) for who in people] == ["hit"] * len(people)
    assert len(upstream.received) == len(people)
    colleague = {"X-User-ID": "carol", "X-Organization-ID": "acme"}
    assert state_of(ask(daemon, colleague)) == "hit"


class TestSingleFlight:
    async def together(self, daemon: Daemon, count: int) -> list[Any]:
        async with daemon.async_sdk() as sdk:

            async def one(number: int) -> Any:
                if number % 2:
                    stream = await sdk.chat.completions.create(**ASKED, stream=True)
                    return "".join(
                        [c.choices[0].delta.content or "" async for c in stream if c.choices]
                    )
                answer = await sdk.chat.completions.create(**ASKED)
                return answer.choices[0].message.content

            return await asyncio.gather(*map(one, range(count)), return_exceptions=True)

    async def test_a_hundred_calls_make_one(self, daemon: Daemon, upstream: Upstream) -> None:
        upstream.on("strong", Says("Paris.", delay_s=0.4))
        answers = await self.together(daemon, 100)
        assert answers == ["Paris."] * 100
        assert len(upstream.received) == 1
        figures = daemon.services.caches.figures
        assert (figures.misses, figures.hits, figures.shared) == (1, 99, 99)

    async def test_when_it_fails_the_next_one_leads(
        self, daemon: Daemon, upstream: Upstream
    ) -> None:
        upstream.on("strong", Fails(400), Says("Paris.", delay_s=0.1))
        answers = await self.together(daemon, 10)
        assert sum(isinstance(one, openai.BadRequestError) for one in answers) == 1
        assert answers.count("Paris.") == 9
        assert len(upstream.received) == 2

    def test_when_it_hangs_up_the_next_one_leads(self, daemon: Daemon, upstream: Upstream) -> None:
        upstream.on("strong", Says("Paris.", delay_s=1.0), Says("Paris!"))
        with daemon.http() as http, pytest.raises(httpx2.TimeoutException):
            waiting = threading.Timer(0.1, lambda: found.append(ask(daemon)))
            found: list[httpx2.Response] = []
            waiting.start()
            http.post("/v1/chat/completions", json=ASKED, timeout=0.4)
        waiting.join()
        assert found[0].json()["choices"][0]["message"]["content"] == "Paris!"
        assert daemon.spend["held"] == 0

    def test_who_waits_too_long_asks(self, upstream: Upstream) -> None:
        upstream.on("strong", Says("Paris.", delay_s=0.5), Says("Paris!"))
        with daemon_with(CASCADE + "[cache]\nwait_s = 0.1\n", url=upstream.url) as daemon:
            found: list[httpx2.Response] = []
            leader = threading.Thread(target=lambda: found.append(ask(daemon)))
            leader.start()
            while not upstream.received:
                pass
            assert state_of(ask(daemon)) == "miss"
            leader.join()
        assert len(upstream.received) == 2


class TestLimits:
    def test_at_the_end_of_a_budget_what_is_known_is_given(self, upstream: Upstream) -> None:
        # One answer of `strong` costs 75 µ$; the budget has room for the worst case of one.
        limits = '[limits.users.default]\ntotal_usd = "0.0006"\nenforcement = "degrade"\n'
        with daemon_with(CASCADE + limits, url=upstream.url) as daemon:
            upstream.on("strong", Says(output_tokens=55, input_tokens=10))
            first = ask(daemon, max_tokens=50)
            assert state_of(first) == "miss"
            refused = ask(daemon, max_tokens=50, temperature=1)
            assert refused.status_code == 429, refused.text
            assert refused.json()["error"]["code"] == "insufficient_quota"
            known = ask(daemon, max_tokens=50)
            assert state_of(known) == "hit"
            assert known.json() == first.json()
            other = ask(daemon, max_tokens=50, seed=7)
            assert other.status_code == 429
            assert daemon.spend["held"] == 0

    def test_it_counts_as_a_request_and_not_as_tokens(self, upstream: Upstream) -> None:
        limits = "[limits.users.default]\nrequests_per_hour = 3\ntokens_per_hour = 10_000\n"
        with daemon_with(CASCADE + limits, url=upstream.url) as daemon:
            states = [state_of(ask(daemon, max_tokens=50)) for _ in range(3)]
            assert states == ["miss", "hit", "hit"]
            refused = ask(daemon, max_tokens=50)
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "rate_limited"
            assert daemon.spend["held"] == 0
            with daemon.http() as http:
                told = http.post("/check", json={"query": "Hi", "max_tokens": 50}).json()["limits"]
        assert told == []  # it is refused for its requests

def test_a_tier_a_profile_and_a_ladder_may_go_without(upstream: Upstream) -> None:
    config = CASCADE.replace("[tiers.free]", "[tiers.free]\ncaching = false\nmax_tokens = 4000")
    config = config.replace("threshold = 0.6", "threshold = 0.6\ncache = false")
    with daemon_with(config, url=upstream.url) as daemon:
        assert state_of(ask(daemon, model="auto")) == "off"
        assert state_of(ask(daemon, {"X-User-Tier": "pro"})) == "miss"
        with daemon.http() as http:
            http.post("/users", json={"user_id": "eve", "enable_caching": False})
        assert state_of(ask(daemon, {"X-User-ID": "eve"})) == "off"
