"""One model in several places, over the real socket."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import CliRunner

from cascaded.cli import cascaded
from cascaded.daemon import StartError
from tests.support.daemon import Daemon, daemon_with, upstream_server
from tests.support.upstream import Fails, Says, Upstream

TOML = """
[server]
socket = "{socket}"
[ledger]
dir = "{folder}/state"
[log]
file = "{folder}/log.jsonl"

[providers.first]
kind = "openai_compatible"
base_url = "{url}/v1"
max_retries = 0
breaker_failures = 2
breaker_pause_s = 60
[providers.second]
kind = "openai_compatible"
base_url = "{url}/v1"
max_retries = 0

[models.main]
provider = "first"
upstream_name = "main-1"
input_usd_per_mtok = "1"
output_usd_per_mtok = "10"
weight = 2
deployments = ["main-2"]
[models.main-2]
provider = "second"
input_usd_per_mtok = "2"
output_usd_per_mtok = "20"

[limits.global]
daily_usd = "1"
"""
ASK = [{"role": "user", "content": "What is the capital of France?"}]
CHEAP, DEAR = 10 * 1_000 + 5 * 10_000, 10 * 2_000 + 5 * 20_000


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as upstream:
        yield upstream


@pytest.fixture
def daemon(upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(TOML, url=upstream.url) as daemon:
        yield daemon


def post(daemon: Daemon, _: object = None) -> Any:
    with daemon.http() as http:
        body = {"model": "main", "messages": ASK, "max_tokens": 50}
        return http.post("/v1/chat/completions", json=body)


def states(daemon: Daemon) -> dict[str, tuple[str, int]]:
    with daemon.http() as http:
        rows = http.get("/ready").json()["deployments"]
    assert all(row["model"] == "main" for row in rows)
    return {row["provider"]: (row["state"], row["in_flight"]) for row in rows}


def test_calls_are_spread_and_each_is_charged_at_its_price(
    daemon: Daemon, upstream: Upstream
) -> None:
    for model in ("main-1", "main-2"):
        upstream.on(model, Says("It is Paris.", delay_s=0.3, chunks=1))
    with ThreadPoolExecutor(9) as callers:
        answers = list(callers.map(lambda _: post(daemon), range(9)))
    assert {answer.headers["x-cascaded-model"] for answer in answers} == {"main"}
    here, there = len(upstream.calls("main-1")), len(upstream.calls("main-2"))
    assert here + there == 9
    assert 4 <= here <= 7, "twice as many as there, where they were all at once"
    assert daemon.spend == {"posted": here * CHEAP + there * DEAR, "held": 0, "unknown": 0}
    assert states(daemon) == {"first": ("ready", 0), "second": ("ready", 0)}


def test_who_is_busy_rests_and_who_fails_is_left_alone(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("main-2", Fails(429, headers={"retry-after": "30"}))
    for _ in range(12):
        assert post(daemon).status_code == 200
    assert len(upstream.calls("main-2")) == 1
    assert states(daemon) == {"first": ("ready", 0), "second": ("resting", 0)}
    said = CliRunner().invoke(cascaded, ["status", "--socket", daemon.socket])
    assert "main at second: busy for now" in said.output
    upstream.on("main-1", Fails(500))
    assert {post(daemon).status_code for _ in range(14)} <= {429, 502, 503}
    assert states(daemon)["first"] == ("left_alone", 0)
    with daemon.http() as http:
        scrape = http.get("/metrics").text
    line = 'cascaded_deployment{deployment="main@%s",state="%s"} 1.0'
    assert line % ("first/main-1", "left_alone") in scrape
    assert line % ("second/main-2", "resting") in scrape
    daemon.toml += '[aliases]\nother = "main"\n'
    assert daemon.reload().status_code == 200
    assert states(daemon)["second"] == ("resting", 0), "a reload knows it still"
    assert daemon.spend["unknown"] == 0


def test_each_answers_to_its_own_name(daemon: Daemon, upstream: Upstream) -> None:
    with daemon.http() as http:
        for _ in range(5):
            http.post("/v1/chat/completions", json={"model": "main-2", "messages": ASK})
    assert len(upstream.calls("main-2")) == 5


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('["main-2"]', '["main"]', "is one of them already"),
        ('["main-2"]', '["other"]', "other"),
        ("weight = 2", "weight = 0", "weight"),
    ],
)
def test_mistakes(upstream: Upstream, old: str, new: str, words: str) -> None:
    with (
        pytest.raises(AssertionError, match=words),
        daemon_with(TOML.replace(old, new), url=upstream.url),
    ):
        pass


def test_places_that_are_asked_otherwise_or_have_no_price_are_refused(upstream: Upstream) -> None:
    otherwise = TOML.replace(
        '[providers.second]\nkind = "openai_compatible"', '[providers.second]\nkind = "anthropic"'
    )
    unpriced = TOML.replace('input_usd_per_mtok = "2"\noutput_usd_per_mtok = "20"\n', "")
    for text, words in ((otherwise, "is asked in messages"), (unpriced, "price of 'main-2'")):
        with pytest.raises(StartError, match=words), daemon_with(text, url=upstream.url):
            pass
