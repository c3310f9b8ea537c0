"""Providers that are out: breakers, fallbacks and the books over the real socket."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import CliRunner

from cascaded.cli import cascaded
from tests.support.billing import BillingUpstream
from tests.support.daemon import Daemon, daemon_with, upstream_server
from tests.support.upstream import Fails, Garbage, Hangs, Resets, Says, Upstream

PAUSE_S = 60
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
api_key = "env:FAKE_KEY"
max_retries = 0
first_token_timeout_s = 0.5
idle_timeout_s = 0.5
total_timeout_s = 0.5
breaker_failures = 3
breaker_pause_s = 60

[providers.second]
kind = "openai_compatible"
base_url = "{url}/v1"
breaker_pause_s = 60

[models.main]
provider = "first"
input_usd_per_mtok = "1"
output_usd_per_mtok = "10"
fallback = ["spare"]
[models.alone]
provider = "first"
input_usd_per_mtok = "1"
output_usd_per_mtok = "10"
[models.spare]
provider = "second"
input_usd_per_mtok = "1"
output_usd_per_mtok = "10"

[limits.global]
daily_usd = "1"
"""
ASK = [{"role": "user", "content": "What is the capital of France?"}]
OUTAGES = [
    pytest.param(Fails(500), id="500"),
    pytest.param(Garbage(), id="nonsense"),
    pytest.param(Resets(), id="dies mid-call"),
    pytest.param(Hangs(), id="hangs"),
]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as upstream:
        upstream.on("spare", Says("It is Paris.", chunks=1))
        yield upstream


@pytest.fixture
def daemon(upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(TOML, url=upstream.url) as daemon:
        yield daemon


def post(daemon: Daemon, model: str = "main", **more: Any) -> Any:
    body = {"model": model, "messages": ASK, "max_tokens": 50, **more}
    with daemon.http() as http:
        return http.post("/v1/chat/completions", json=body)


def providers(daemon: Daemon) -> dict[str, str]:
    with daemon.http() as http:
        found: dict[str, str] = http.get("/ready").json()["providers"]
        return found


def a_minute_passes(daemon: Daemon) -> None:
    """For the breaker, which is all that waits."""
    watches: Any = daemon.services.pipeline.climber.watches
    watches["first"]._breaker.retry_ns = 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("behaviour", OUTAGES)
def test_an_outage(daemon: Daemon, upstream: Upstream, behaviour: Any, stream: bool) -> None:
    upstream.on("main", behaviour)
    for _ in range(6):
        answer = post(daemon, stream=stream)
        assert answer.status_code == 200
        assert "Paris" in answer.text
        assert ("[DONE]" in answer.text) == stream
    assert len(upstream.calls("main")) == 3
    assert providers(daemon) == {"first": "open", "second": "closed"}
    alone = post(daemon, "alone")
    assert (alone.status_code, alone.json()["error"]["code"]) == (503, "upstream_unavailable")
    assert 0 < int(alone.headers["retry-after-ms"]) <= PAUSE_S * 1000
    upstream.on("main", Says("It is Paris, again.", chunks=1))
    a_minute_passes(daemon)
    assert "again" in post(daemon).text
    assert providers(daemon)["first"] == "closed"
    assert daemon.spend["held"] == 0
    unbilled = isinstance(behaviour, Fails)
    assert (daemon.spend["unknown"] == 0) == unbilled
    told = [json.loads(line) for line in daemon.log_lines().splitlines() if '"breaker"' in line]
    assert [line["state"] for line in told] == ["open", "half_open", "closed"]
    assert PAUSE_S / 2 <= told[0]["retry_after_s"] <= PAUSE_S


def test_who_answered_is_told(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("main", Fails(503))
    answer = post(daemon)
    assert answer.headers["x-cascaded-model"] == "spare"
    notice = "'spare' answered in place of 'main': provider 'first' is failing."
    assert answer.headers["x-cascaded-notice"] == notice
    with daemon.http() as http:
        body = {"query": "What is the capital of France?", "model": "main"}
        told = http.post("/infer", json=body).json()["metadata"]
    assert told["notices"] == [notice]
    assert told["model_used"] == "spare"
    assert [line["model"] for line in told["attempts"]] == ["main", "spare"]


def test_a_stream_that_dies_in_the_middle_ends_with_one_error(
    daemon: Daemon, upstream: Upstream
) -> None:
    upstream.on("main", Resets(after_chunks=1))
    answer = post(daemon, stream=True)
    assert answer.text.count('"error"') == 1
    assert "[DONE]" not in answer.text
    assert not upstream.calls("spare")
    assert daemon.spend["held"] == 0
    assert daemon.spend["unknown"] > 0


def test_a_storm_of_500s_costs_nothing(upstream: Upstream) -> None:
    """Many callers at once, during an outage of a provider that does not bill its faults: what is
    left of the budget afterwards is what was paid for answers."""
    upstream.on("main", Fails(500))
    upstream.on("alone", Fails(500))
    patient = TOML.replace("timeout_s = 0.5", "timeout_s = 20")  # a busy machine is no outage
    with daemon_with(patient, url=upstream.url) as one, ThreadPoolExecutor(16) as callers:

        def call(number: int) -> int:
            status: int = post(one, "alone" if number % 2 else "main").status_code
            return status

        statuses = list(callers.map(call, range(120)))
        spend = one.spend
    assert set(statuses[::2]) == {200}
    assert set(statuses[1::2]) <= {502, 503}
    price = 10 * 1_000 + 5 * 10_000
    assert spend == {"posted": 60 * price, "held": 0, "unknown": 0}
    asked = len(upstream.calls("main")) + len(upstream.calls("alone"))
    assert asked < 60, f"{asked} of 120 calls went to a provider that was out"


def test_a_reload_knows_who_was_left_alone(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("main", Fails(500))
    for _ in range(3):
        post(daemon)
    daemon.toml += '[aliases]\nother = "main"\n'
    assert daemon.reload().status_code == 200
    assert providers(daemon)["first"] == "open"
    daemon.toml = daemon.toml.replace("max_retries = 0", "max_retries = 1")
    assert daemon.reload().status_code == 200
    assert providers(daemon)["first"] == "closed", "another provider, as far as anybody knows"


def test_operators_see_it(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("main", Fails(500))
    for _ in range(3):
        post(daemon)
    with daemon.http() as http:
        scrape = http.get("/metrics").text
    assert 'cascaded_breaker{provider="first",state="open"} 1.0' in scrape
    assert 'cascaded_breaker{provider="second",state="closed"} 1.0' in scrape
    said = CliRunner().invoke(cascaded, ["status", "--socket", daemon.socket])
    assert "first: left alone for now" in said.output


def test_what_providers_bill_is_in_the_books() -> None:
    """Fallbacks after calls that were billed and came to nothing, with breakers that open and close
    meanwhile: the provider's own bill is never above the ledger, call by call."""
    upstream = BillingUpstream(seed=5, prices={"main": (1_000, 10_000), "spare": (1_000, 10_000)})
    with upstream_server(upstream), daemon_with(TOML, url=upstream.url) as daemon:

        def call(number: int) -> int:
            status: int = post(daemon, stream=number % 2 == 0).status_code
            if number % 10 == 0:
                a_minute_passes(daemon)
            return status

        with ThreadPoolExecutor(8) as callers:
            list(callers.map(call, range(80)))
        deadline = time.monotonic() + 10
        while daemon.spend["held"] and time.monotonic() < deadline:
            time.sleep(0.05)
        bill = upstream.bill()
        assert {model for _, model in bill} == {"main", "spare"}
        assert daemon.spend["held"] == 0
        assert sum(bill.values()) <= daemon.spend["posted"] + daemon.spend["unknown"]
