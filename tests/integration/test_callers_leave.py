"""Callers that hang up: what is heard to its end, what is cut off, and what is charged."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cascaded.api import server
from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.process import wait_for
from tests.support.upstream import Hangs, Says, Upstream

ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
GOOD = "The capital of France is Paris."
POOR = "I'm sorry, but I can't help with that."
STRONG = 10 * 2_500 + 5 * 10_000
"""What an answer of the strong model costs, in nano-dollars."""
PATIENT = CASCADE.replace("total_timeout_s = 4", "total_timeout_s = 4\nmax_connections = 1")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as upstream:
        yield upstream


@pytest.fixture(params=[False, True], ids=["bills to the end", "cancel stops billing"])
def stops(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def daemon(upstream: Upstream, stops: bool) -> Iterator[Daemon]:
    own = f"[providers.fake]\ncancel_stops_billing = {str(stops).lower()}"
    with daemon_with(CASCADE.replace("[providers.fake]", own), url=upstream.url) as daemon:
        yield daemon


def leave(daemon: Daemon, model: str = "strong", *, stream: bool, after_s: float = 0.2) -> None:
    """Ask, and hang up when the provider has it."""
    with daemon.http() as http:  # what a first call loads is loaded then
        http.post("/check", json={"query": "Why?", "model": "strong"})
    body = {"model": model, "messages": ASK, "stream": stream, "max_tokens": 50}
    path = "/v1/chat/completions"
    with (
        daemon.http() as http,
        pytest.raises(httpx2.ReadTimeout),
        http.stream("POST", path, json=body, timeout=after_s) as answer,
    ):
        answer.read()


def settled(daemon: Daemon) -> dict[str, int]:
    wait_for(lambda: daemon.spend["held"] == 0 and not daemon.services.status.in_flight, 8)
    return daemon.spend


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_pays_what_the_provider_bills(
    daemon: Daemon, upstream: Upstream, stops: bool, stream: bool
) -> None:
    upstream.on("strong", Says(GOOD, chunks=4, delay_s=0.1, chunk_delay_s=0.35))
    if not stream:
        upstream.on("strong", Says(GOOD, delay_s=1))
    leave(daemon, stream=stream)
    spend = settled(daemon)
    wait_for(lambda: upstream.hung_up == int(stops))
    if not stops:
        assert spend == {"posted": STRONG, "held": 0, "unknown": 0}, "the bill, to the digit"
    elif stream:
        assert spend["posted"] == 0
        assert 0 < spend["unknown"] < 40 * 10_000, "what had come of it"
    else:
        assert spend["unknown"] >= 50 * 10_000, "nothing is seen of a plain answer before its end"
    assert not daemon.services.status.left_behind
    assert not daemon.services.room.taken


def test_no_new_rung_is_tried_for_who_has_left(
    daemon: Daemon, upstream: Upstream, stops: bool
) -> None:
    upstream.on("cheap", Says(POOR, delay_s=0.6))
    leave(daemon, "auto", stream=False)
    settled(daemon)
    time.sleep(0.1)
    assert [call.body["model"] for call in upstream.received] == ["cheap"]


def test_a_silent_provider_is_waited_for_only_so_long(
    daemon: Daemon, upstream: Upstream, stops: bool
) -> None:
    upstream.on("strong", Hangs(after_chunks=1))
    leave(daemon, stream=True, after_s=0.3)
    spend = settled(daemon)
    assert spend["unknown"] > 0
    assert spend["posted"] == 0


def test_only_so_many_are_heard_to_their_end(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_LEFT_BEHIND", 0)
    upstream.on("strong", Says(GOOD, delay_s=0.8))
    with daemon_with(CASCADE, url=upstream.url) as daemon:
        leave(daemon, stream=False)
        spend = settled(daemon)
    wait_for(lambda: upstream.hung_up == 1)
    assert spend["unknown"] > 0


def test_what_was_not_sent_yet_is_not_made(upstream: Upstream) -> None:
    """It waits for a connection: nothing can be billed, so nothing is heard out."""
    upstream.on("strong", Says(GOOD, delay_s=1))
    with daemon_with(PATIENT, url=upstream.url) as daemon:
        leave(daemon, stream=False, after_s=0.1)
        leave(daemon, stream=False, after_s=0.1)
        assert settled(daemon) == {"posted": STRONG, "held": 0, "unknown": 0}
    assert len(upstream.received) == 1


def test_a_daemon_that_stops_charges_what_it_cannot_wait_for(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.on("strong", Says(GOOD, delay_s=30))
    text = CASCADE.replace("drain_timeout_s = 2", "drain_timeout_s = 0.2")
    text = text.replace('dir = "{folder}/state"', f'dir = "{tmp_path}"')
    with daemon_with(text, url=upstream.url) as daemon:
        leave(daemon, stream=False)
        assert daemon.spend["held"] > 0
        began = time.monotonic()
    assert time.monotonic() - began < 3
    wait_for(lambda: upstream.hung_up == 1, 5)
    with daemon_with(text, url=upstream.url) as daemon:
        assert daemon.spend["held"] == 0
        assert daemon.spend["unknown"] >= 50 * 10_000
