"""A daemon with one place: who waits, who goes first, who is sent away, and what never waits."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.process import wait_for
from tests.support.upstream import Hangs, Says, Upstream

GOOD = "The capital of France is Paris."


def toml(**settings: object) -> str:
    given = {"max_concurrency": 1, "max_wait_s": 20, **settings}
    lines = "".join(f"{name} = {value}\n" for name, value in given.items())
    text = CASCADE.replace("drain_timeout_s = 2\n", f"drain_timeout_s = 2\n{lines}")
    return (
        text + '[tiers.enterprise]\n[limits.users.default]\ndaily_usd = 5\nenforcement = "block"\n'
    )


class Callers:
    """Calls from threads, by name, and how they were answered."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.answers: dict[str, httpx2.Response] = {}
        self._threads: list[threading.Thread] = []

    def call(self, name: str, tier: str | None = None, **more: Any) -> None:
        headers = {"X-User-ID": name} | ({"X-User-Tier": tier} if tier else {})
        asked = {"model": "strong", "messages": [{"role": "user", "content": name}], **more}

        def ask() -> None:
            with self.daemon.http() as http, suppress(httpx2.RemoteProtocolError):
                self.answers[name] = http.post("/v1/chat/completions", json=asked, headers=headers)

        self._threads.append(threading.Thread(target=ask))
        self._threads[-1].start()

    def wait(self, name: str, tier: str | None = None, **more: Any) -> None:
        """Call, and see it wait."""
        before = self.daemon.services.room.waiting
        self.call(name, tier, **more)
        wait_for(lambda: self.daemon.services.room.waiting == before + 1)

    def statuses(self) -> dict[str, int]:
        for thread in self._threads:
            thread.join()
        return {name: answer.status_code for name, answer in self.answers.items()}


@contextmanager
def busy(upstream: Upstream, delay_s: float, **settings: object) -> Iterator[Callers]:
    """A daemon whose only place is taken for so long."""
    upstream.on("strong", Says(GOOD, delay_s=delay_s), Says(GOOD))
    with daemon_with(toml(**settings), url=upstream.url) as daemon:
        callers = Callers(daemon)
        callers.call("first")
        wait_for(lambda: len(upstream.received) == 1)
        yield callers
        callers.statuses()


def heard(upstream: Upstream) -> list[str]:
    return [call.body["messages"][-1]["content"] for call in upstream.received]


def waited(daemon: Daemon) -> dict[str, float]:
    with daemon.http() as http:
        families = list(text_string_to_metric_families(http.get("/metrics").text))
    return {
        sample.labels["ended"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "cascaded_waited_seconds_count"
    }


@pytest.mark.parametrize("stream", [False, True])
def test_the_best_tier_first_then_who_came_first(upstream: Upstream, stream: bool) -> None:
    with busy(upstream, 1.0) as callers:
        for name, tier in (("one", "pro"), ("two", None), ("best", "enterprise")):
            callers.wait(name, tier, stream=stream)
        assert set(callers.statuses().values()) == {200}
        assert heard(upstream) == ["first", "best", "one", "two"]
        assert waited(callers.daemon) == {"entered": 3}
        assert callers.daemon.services.room.taken == 0


def test_who_waits_holds_no_money_and_asks_nobody(upstream: Upstream) -> None:
    with busy(upstream, 0.8) as callers:
        held = callers.daemon.spend["held"]
        callers.wait("patient")
        assert callers.daemon.spend["held"] == held > 0
        assert heard(upstream) == ["first"]


def test_a_full_room_and_a_wait_that_is_over(upstream: Upstream) -> None:
    with busy(upstream, 3.6, max_waiting=1, max_wait_s=1.5) as callers:
        callers.wait("patient")
        callers.call("late")
        wait_for(lambda: "late" in callers.answers)
        callers.call("better", "enterprise")
        wait_for(lambda: "patient" in callers.answers)
        wait_for(lambda: "better" in callers.answers)
        for name in ("late", "patient", "better"):
            answer = callers.answers[name]
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["x-should-retry"] == "true"
        assert "within 1.5 s" in callers.answers["better"].json()["error"]["message"]
        assert waited(callers.daemon) == {"full": 1, "displaced": 1, "late": 1}
        assert callers.statuses()["first"] == 200


def test_a_caller_that_hangs_up_leaves_its_seat(upstream: Upstream) -> None:
    with busy(upstream, 1.0) as callers:
        room = callers.daemon.services.room
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(callers.daemon.socket)
            asked = b'{"model": "strong", "messages": [{"role": "user", "content": "gone"}]}'
            line.sendall(
                b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                % (len(asked), asked)
            )
            wait_for(lambda: room.waiting == 1)
        wait_for(lambda: room.waiting == 0)
        callers.wait("next")
        assert callers.statuses() == {"first": 200, "next": 200}
        assert heard(upstream) == ["first", "next"]
        assert waited(callers.daemon) == {"left": 1, "entered": 1}
        assert callers.daemon.spend["held"] == 0


def test_a_reload_makes_places(upstream: Upstream) -> None:
    with busy(upstream, 1.2) as callers:
        callers.wait("next")
        file = callers.daemon.folder / "test.toml"
        file.write_text(file.read_text().replace("max_concurrency = 1", "max_concurrency = 2"))
        with callers.daemon.http() as http:
            assert http.post("/reload").status_code == 200
        wait_for(lambda: "next" in callers.answers)
        assert "first" not in callers.answers, "it was busy all the time"


def test_what_is_no_call_never_waits(upstream: Upstream) -> None:
    with busy(upstream, 1.2, max_waiting=0) as callers:
        with callers.daemon.http() as http:
            for path in ("/health", "/ready", "/metrics", "/models", "/budgets", "/summary"):
                assert http.get(path).status_code == 200, path
            for path in ("/unknowns", "/audit"):
                assert http.get(path).status_code == 200, path
            assert http.post("/check", json={"cost": "0.01"}).json()["allowed"]
            hold = http.post("/reserve", json={"cost": "0.01"}).json()["hold"]
            assert http.post("/settle", json={"hold": hold, "cost": "0.005"}).status_code == 200
            assert http.get("/ready").json()["in_flight"] == 1
        assert "first" not in callers.answers, "it was busy all the time"


def test_a_daemon_that_stops_sends_away_who_waits(upstream: Upstream) -> None:
    upstream.on("strong", Hangs())
    text = toml().replace("total_timeout_s = 4", "total_timeout_s = 20")
    with daemon_with(text, url=upstream.url) as daemon:
        callers = Callers(daemon)
        callers.call("first")
        wait_for(lambda: len(upstream.received) == 1)
        callers.wait("patient")
    assert callers.statuses() == {"patient": 503}, "and the other was cut off after the drain"
    assert callers.answers["patient"].json()["error"]["code"] == "draining"
    assert heard(upstream) == ["first"]
