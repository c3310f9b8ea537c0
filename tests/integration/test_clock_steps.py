"""A whole daemon whose clock the test owns: days with a change of the hour, ends of months and
years, leap days, and clocks that somebody sets back and forth. A budget that is enough for two
calls in its window shows how often windows begin."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cascaded import _core
from cascaded.adapters.clock import SystemClock
from cascaded.daemon import run as daemon_run
from cascaded.state.ledger import DurableLedger
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.process import wait_for
from tests.support.upstream import Says, Upstream

NS_PER_S = 1_000_000_000
GOOD = "The capital of France is Paris."
BUDGET_USD = "0.00059"
"""A call is held at 0.0003 and costs 0.000275: two are possible, and a third is not."""


class OwnedClock(SystemClock):
    """The machine's clock for waits; the test's for the time of day."""

    def __init__(self, at: datetime) -> None:
        self.wall = at
        self.ledgers = _core.ManualClock(_ns(at))

    def wall_ns(self) -> int:
        return _ns(self.wall)

    def go(self, time: timedelta) -> None:
        """Time passes."""
        self.wall = _later(self.wall, time)
        self.ledgers.advance(int(time.total_seconds()) * NS_PER_S)

    def set(self, at: datetime) -> None:
        """Somebody sets the clock."""
        self.wall = at
        self.ledgers.set_wall(_ns(at))


def _ns(at: datetime) -> int:
    return int(at.timestamp()) * NS_PER_S


def _later(at: datetime, time: timedelta) -> datetime:
    """So much real time later, on the same zone's clocks."""
    return datetime.fromtimestamp(at.timestamp() + time.total_seconds(), at.tzinfo)


@contextmanager
def running(
    clock: OwnedClock, window: str, upstream: Upstream, state: Path, monkey: pytest.MonkeyPatch
) -> Iterator[Daemon]:
    upstream.on("strong", Says(GOOD, input_tokens=10, output_tokens=25))  # 0.000275 USD
    zone = clock.wall.tzinfo
    assert isinstance(zone, ZoneInfo)
    text = CASCADE.replace("{folder}/state", str(state)) + (
        f'[limits]\nzone = "{zone.key}"\n'
        f'[limits.users.default]\n{window}_usd = "{BUDGET_USD}"\nenforcement = "block"\n'
    )
    with monkey.context() as patch:
        patch.setattr(daemon_run, "SystemClock", lambda: clock)
        opened = DurableLedger.open
        patch.setattr(DurableLedger, "open", partial(opened, clock=clock.ledgers))
        with daemon_with(text, url=upstream.url) as daemon:
            yield daemon


def answered(daemon: Daemon, times: int = 3) -> int:
    """How many of these calls were answered; the others were refused for the budget."""
    body: dict[str, Any] = {"model": "strong", "query": "Capital of France?", "max_tokens": 26}
    with daemon.http() as http:
        statuses = [http.post("/infer", json=body).status_code for _ in range(times)]
    assert set(statuses) <= {200, 429}
    return statuses.count(200)


def stats(daemon: Daemon) -> dict[str, int]:
    ledger: Any = daemon.services.pipeline.ledger
    found: dict[str, int] = ledger.stats()
    return found


def at(zone: str, *when: int) -> datetime:
    return datetime(*when, tzinfo=ZoneInfo(zone))  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    "start",
    [
        at("Europe/Berlin", 2026, 3, 28, 12),  # an hour is skipped
        at("Europe/Berlin", 2026, 10, 24, 12),  # an hour comes twice
        at("America/Santiago", 2026, 9, 5, 12),  # there is no midnight
        at("America/Havana", 2026, 10, 31, 12),  # midnight comes twice
        at("Asia/Tokyo", 2026, 12, 30, 12),
        at("UTC", 2028, 2, 28, 12),
    ],
    ids=str,
)
def test_every_day_begins_once(
    start: datetime, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = OwnedClock(start)
    by_day: Counter[str] = Counter()
    with running(clock, "daily", upstream, tmp_path / "state", monkeypatch) as daemon:
        while clock.wall < _later(start, timedelta(days=3)):
            by_day[clock.wall.date().isoformat()] += answered(daemon)
            clock.go(timedelta(minutes=239))
    assert set(by_day.values()) == {2}, by_day
    assert len(by_day) == 4


@pytest.mark.parametrize(
    ("window", "start", "days", "windows"),
    [
        ("monthly", at("Europe/Berlin", 2028, 1, 30, 23), 33, 3),  # with a leap day
        ("monthly", at("America/New_York", 2026, 12, 30, 23), 4, 2),
        ("weekly", at("Europe/Berlin", 2026, 12, 26, 12), 10, 3),  # over the end of a year
        ("total", at("UTC", 2026, 12, 30, 12), 4, 1),
    ],
)
def test_every_month_and_week_begins_once(
    window: str,
    start: datetime,
    days: int,
    windows: int,
    upstream: Upstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = {"monthly": "%Y-%m", "weekly": "%G-%V", "total": "ever"}[window]
    clock = OwnedClock(start)
    found: Counter[str] = Counter()
    with running(clock, window, upstream, tmp_path / "state", monkeypatch) as daemon:
        for _ in range(days):
            found[clock.wall.strftime(name)] += answered(daemon)
            clock.go(timedelta(days=1))
    assert set(found.values()) == {2}, found
    assert len(found) == windows


def test_a_clock_that_is_set_back_opens_nothing_again(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = OwnedClock(at("UTC", 2026, 6, 10, 22))
    with running(clock, "daily", upstream, tmp_path / "state", monkeypatch) as daemon:
        assert answered(daemon) == 2
        for days in (1, 40, 400):
            clock.set(clock.wall - timedelta(days=days))
            assert answered(daemon, 1) == 0
        clock.go(timedelta(days=3))
        assert answered(daemon, 1) == 0, "the ledger's time stands still until the clock is back"
        assert stats(daemon)["clock_behind_ns"] > 0
        wait_for(lambda: "the clock was set back" in daemon.log_lines())
    with running(clock, "daily", upstream, tmp_path / "state", monkeypatch) as daemon:
        assert answered(daemon, 1) == 0, "a start does not open it either"
        clock.set(at("UTC", 2026, 6, 10, 23))
        assert answered(daemon, 1) == 0
        clock.go(timedelta(hours=2))
        assert answered(daemon) == 2, "the next day, once"
        clock.set(at("UTC", 2026, 6, 10, 23))
        assert answered(daemon, 1) == 0


def test_a_clock_that_leaps_ahead_skips_nothing(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = OwnedClock(at("UTC", 2026, 6, 10, 22))
    with running(clock, "daily", upstream, tmp_path / "state", monkeypatch) as daemon:
        assert answered(daemon) == 2
        clock.set(at("UTC", 2026, 7, 20, 9))
        assert answered(daemon, 1) == 0, "so much time has not passed"
        assert stats(daemon)["clock_leap_ns"] > 0
        wait_for(lambda: "the clock was set ahead" in daemon.log_lines())
        clock.go(timedelta(hours=3))
        assert answered(daemon) == 2, "the machine's own time makes the next day"
        clock.set(at("UTC", 2026, 6, 11, 1))
        assert answered(daemon, 1) == 0
        assert stats(daemon)["clock_leap_ns"] == 0
        wait_for(lambda: "clock_believed" in daemon.log_lines())
        clock.set(at("UTC", 2026, 7, 20, 9))
    with running(clock, "daily", upstream, tmp_path / "state", monkeypatch) as daemon:
        assert answered(daemon) == 2, "a start believes the clock: nobody knows how long it was"
        clock.set(at("UTC", 2026, 6, 11, 1))
        assert answered(daemon, 1) == 0
    with running(clock, "daily", upstream, tmp_path / "state", monkeypatch) as daemon:
        assert answered(daemon, 1) == 0
