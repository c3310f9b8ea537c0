"""Several keys of one provider, and calls at a pace, over real HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from tests.support.daemon import Daemon, daemon_with, upstream_server
from tests.support.upstream import Behaviour, Fails, Says, Upstream

TOML = """
[server]
socket = "{socket}"
[ledger]
dir = "{folder}/state"
[log]
file = "{folder}/log.jsonl"
[providers.up]
kind = "openai_compatible"
base_url = "{url}/v1"
api_keys = ["env:ONE", "env:TWO"]
total_timeout_s = 5
[models.m]
provider = "up"
input_usd_per_mtok = "1"
output_usd_per_mtok = "10"
"""
KEYS = {"ONE": "sk-first-secret", "TWO": "sk-second-secret"}


class ByKey(Upstream):
    """Says no to some keys, and repeats them."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: dict[str, int] = {}

    async def _behave(
        self, behaviour: Behaviour, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        key = request.headers["Authorization"].removeprefix("Bearer ")
        if key in self.refuses:
            said = f'{{"error": {{"message": "not with {key}, nor {KEYS["TWO"]}"}}}}'
            behaviour = Fails(self.refuses[key], {"Retry-After": "60"}, said)
        return await super()._behave(behaviour, request, body)

    def keys(self) -> list[str]:
        return [one.headers["Authorization"].removeprefix("Bearer sk-") for one in self.received]


@pytest.fixture
def upstream() -> Iterator[ByKey]:
    with upstream_server(ByKey()) as upstream:
        upstream.on("m", Says("It is Paris."))
        yield upstream


def post(daemon: Daemon) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "Where?"}], "max_tokens": 9}
    with daemon.http() as http:
        return http.post("/v1/chat/completions", json=body)


def test_keys_take_turns(upstream: ByKey) -> None:
    with daemon_with(TOML, url=upstream.url, **KEYS) as daemon:
        for _ in range(4):
            assert post(daemon).status_code == 200
    assert upstream.keys() == ["first-secret", "second-secret"] * 2


@pytest.mark.parametrize("status", [401, 429])
def test_a_key_that_is_refused_rests_and_the_next_answers(upstream: ByKey, status: int) -> None:
    upstream.refuses = {KEYS["ONE"]: status}
    with daemon_with(TOML, url=upstream.url, **KEYS) as daemon:
        for _ in range(3):
            assert post(daemon).status_code == 200
        assert daemon.spend["unknown"] == daemon.spend["held"] == 0
        assert upstream.keys() == ["first-secret", *["second-secret"] * 3]
        upstream.refuses = dict.fromkeys(KEYS.values(), status)
        answer = post(daemon)
        assert answer.status_code == {401: 502, 429: 429}[status]
        assert "***" in answer.text
        told = answer.text + daemon.log_lines()
    assert not any(key in told for key in KEYS.values())


def test_more_calls_than_a_pace_allows_wait_or_are_told(upstream: ByKey) -> None:
    slow = TOML.replace("total_timeout_s = 5", "total_timeout_s = 0.6\nrequests_per_second = 4")
    with daemon_with(slow, url=upstream.url, **KEYS) as daemon:
        watch: Any = daemon.services.pipeline.climber.providers["up"]
        assert post(daemon).status_code == 200
        assert post(daemon).status_code == 200, "it waits for its turn"
        watch._pace._free_ns += 10 * 10**9
        refused = post(daemon)
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            503,
            "upstream_unavailable",
        )
        assert int(refused.headers["retry-after"]) >= 9
        assert len(upstream.received) == 2
        assert daemon.spend["unknown"] == daemon.spend["held"] == 0
