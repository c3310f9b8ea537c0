"""The exact cache over the socket: hits, misses, single flight, tenants, wishes, budgets, disks."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from click.testing import CliRunner, Result

from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.cli import cascaded as command
from cascaded.client import Client
from cascaded.types.errors import StoreFullError
from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.process import wait_for
from tests.support.upstream import Fails, Says, Upstream

ASKED: dict[str, Any] = {
    "model": "strong",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def lasting() -> Iterator[Daemon]:
    """For tests that ask what nobody else asks."""
    with upstream_server(Upstream()) as upstream, daemon_with(CASCADE, url=upstream.url) as daemon:
        yield daemon


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
        lasting: Daemon,
        members: dict[str, Any],
        headers: dict[str, str],
        states: list[str],
    ) -> None:
        asked = {**members, "x_case": [members, headers]}
        found = [state_of(ask(lasting, headers, **asked)) for _ in range(2)]
        assert found == states

    def test_what_is_no_wish_is_told(self, lasting: Daemon) -> None:
        refused = ask(lasting, {"x-cascaded-cache": "perhaps"})
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
        found: list[httpx2.Response] = []
        waiting = threading.Timer(0.1, lambda: found.append(ask(daemon)))
        waiting.start()
        with daemon.http() as http, pytest.raises(httpx2.TimeoutException):
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
            wait_for(lambda: upstream.received)
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


def kept_in(folder: Path) -> str:
    """A daemon whose state outlives it."""
    return CASCADE.replace("{folder}/state", str(folder))


class TestKept:
    def test_a_reload_keeps_it_and_turns_it_off(self, upstream: Upstream) -> None:
        with daemon_with(CASCADE, url=upstream.url) as daemon:
            ask(daemon)
            daemon.toml += "\n[cache]\nttl_s = 100\n"
            assert daemon.reload().status_code == 200
            assert state_of(ask(daemon)) == "hit"
            daemon.toml = daemon.toml.replace("ttl_s = 100", "enabled = false")
            assert daemon.reload().status_code == 200
            assert state_of(ask(daemon)) == "off"
            daemon.toml = daemon.toml.replace("enabled = false", "max_entries = 5")
            refused = daemon.reload()
            assert refused.status_code == 422
            assert "cache.max_entries holds until a restart" in refused.text

    def test_another_place_upstream_is_another_key(self, upstream: Upstream) -> None:
        with daemon_with(CASCADE, url=upstream.url) as daemon:
            ask(daemon)
            with upstream_server(Upstream()) as other:
                daemon.toml = daemon.toml.replace(upstream.url, other.url)
                assert daemon.reload().status_code == 200
                assert state_of(ask(daemon)) == "miss"

    def test_a_restart_keeps_it(self, upstream: Upstream, tmp_path: Path) -> None:
        with daemon_with(kept_in(tmp_path), url=upstream.url) as daemon:
            first = ask(daemon)
        with daemon_with(kept_in(tmp_path), url=upstream.url) as daemon:
            second = ask(daemon)
            assert state_of(second) == "hit"
            assert second.json() == first.json()
        assert len(upstream.received) == 1

    def test_without_a_disk_a_restart_forgets(self, upstream: Upstream, tmp_path: Path) -> None:
        config = kept_in(tmp_path) + "[cache]\ndisk = false\n"
        for _ in range(2):
            with daemon_with(config, url=upstream.url) as daemon:
                assert [state_of(ask(daemon)) for _ in range(2)] == ["miss", "hit"]
        assert not (tmp_path / "cache").exists()

    def test_a_damaged_folder_is_told_and_no_reason_not_to_serve(
        self, upstream: Upstream, tmp_path: Path
    ) -> None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "data.mdb").write_bytes(b"no database" * 1000)
        with daemon_with(kept_in(tmp_path), url=upstream.url) as daemon:
            assert [state_of(ask(daemon)) for _ in range(2)] == ["miss", "hit"]
            assert "answers are kept in memory alone" in daemon.log_lines()

    def test_a_full_disk_is_told_and_memory_goes_on(
        self, daemon: Daemon, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise StoreFullError("the disk is full")

        monkeypatch.setattr(LmdbStore, "put_many", full)
        assert [state_of(ask(daemon)) for _ in range(2)] == ["miss", "hit"]
        wait_for(lambda: "the disk is full; answers are kept in memory" in daemon.log_lines())
        monkeypatch.undo()
        assert state_of(ask(daemon, seed=1)) == "miss"
        wait_for(lambda: "answers are written again" in daemon.log_lines())
        with Client(daemon.socket) as client:
            assert client.cache().lost == 1


def invoke(daemon: Daemon, *words: str) -> Result:
    words = ("cache", *words, "--socket", daemon.socket)
    return CliRunner().invoke(command, words, prog_name="cascaded", env={"COLUMNS": "200"})


class TestLookingAfterIt:
    def test_figures(self, daemon: Daemon) -> None:
        assert "answers" in invoke(daemon, "show").output
        for _ in range(4):
            ask(daemon)
        shown = invoke(daemon, "show")
        assert shown.exit_code == 0, shown.output
        assert "3 (75% of 4)" in shown.output
        told = json.loads(invoke(daemon, "show", "--json").output)
        assert (told["entries"], told["stored"], told["on_disk"]) == (1, 1, True)
        with daemon.http() as http:
            scrape = http.get("/metrics").text
        assert "cascaded_cache_hits_total 3.0" in scrape
        assert "cascaded_cache_entries 1.0" in scrape

    def test_clear(self, daemon: Daemon) -> None:
        alice, acme = {"X-User-ID": "alice"}, {"X-Organization-ID": "acme"}
        everybody: list[dict[str, str]] = [alice, acme, {}]
        for who in everybody:
            ask(daemon, who)
        ask(daemon, model="cheap")
        cleared = invoke(daemon, "clear", "--user", "alice")
        assert cleared.output == "forgotten: 1\n"
        assert [state_of(ask(daemon, who)) for who in everybody] == ["miss", "hit", "hit"]
        with Client(daemon.socket) as client:
            assert client.clear_cache(organization="acme", model="cheap").cleared == 0
            assert client.clear_cache(organization="acme").cleared == 1
            assert client.clear_cache(model="cheap").cleared == 1
            assert client.clear_cache().cleared == 2
            assert client.verify_cache().checked == 0
        both = "/cache?organization=acme&user_id=alice"
        with daemon.http() as http:
            assert http.delete(both).status_code == 400

    def test_verify_finds_what_is_damaged(self, daemon: Daemon) -> None:
        ask(daemon)
        ask(daemon, seed=1)
        sound = invoke(daemon, "verify")
        assert (sound.exit_code, sound.output) == (
            0,
            "2 answers read, 0 were damaged and are gone\n",
        )
        cache: Any = daemon.services.caches
        store: Any = cache._exact._store
        [(key, value), _] = store.scan(b"v", b"w", 2)
        store.put_many([(key, value[:-1] + bytes([value[-1] ^ 1]))])
        found = invoke(daemon, "verify", "--json")
        assert found.exit_code == 1
        assert json.loads(found.output) == {"checked": 2, "damaged": 1}
        assert json.loads(invoke(daemon, "verify", "--json").output) == {"checked": 1, "damaged": 0}

    def test_a_disk_that_says_no_is_told(
        self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask(daemon)
        invoke(daemon, "verify")

        def broken(*_: object) -> None:
            raise StoreFullError("the disk is broken")

        for name in ("delete_range", "get_many"):
            monkeypatch.setattr(LmdbStore, name, broken)
        for words in ("verify", "clear"):
            told = invoke(daemon, words)
            assert "the disk is broken" in str(told.exception)
