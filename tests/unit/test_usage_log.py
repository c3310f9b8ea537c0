"""The usage log: what is in a record, pages, sums by calendar, retention, crashes, speed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from cascaded.adapters.clock import SystemClock
from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.state import usage_log, write_behind
from cascaded.state.usage_log import UsageLog
from cascaded.state.usage_reader import OTHER
from cascaded.types.errors import StoreError
from cascaded.types.limits import Caller
from cascaded.types.records import Share, UsageRecord
from tests.support.fakes import FakeClock
from tests.support.memory_store import MemoryStore
from tests.support.records import ALICE, NS, SECRET, answered, asked, attempt, refused

ROOT = Path(__file__).parents[2]
DAY = 86_400 * NS


class At(FakeClock):
    """A clock that is set."""

    def __init__(self, at: str = "2026-11-18T12:00:00+00:00") -> None:
        super().__init__()
        self.offset_ns = 0
        self.set(at)

    def set(self, at: str) -> None:
        self.now_ns = int(datetime.fromisoformat(at).timestamp()) * NS

    def wall_ns(self) -> int:
        return self.now_ns + self.offset_ns


class Kept:
    """A log over a store in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = At()
        self.said: list[str] = []
        self.log = self.opened()

    def opened(self, **options: object) -> UsageLog:
        return UsageLog(self.store, self.clock, report=self.said.append, **options)  # type: ignore[arg-type]

    def all(self) -> tuple[UsageRecord, ...]:
        self.log.flushed().result(5)
        return self.log.query(limit=1_000).records


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.setattr(write_behind, "GATHER_S", 0.001)
    kept = Kept()
    yield kept
    kept.store.fails = None
    kept.log.close()


def test_a_record_says_everything_but_the_words(kept: Kept) -> None:
    tried = (
        attempt(100, rung=0, billing="unknown", error="upstream_timeout"),
        attempt(900, rung=1, accepted=True),
    )
    request = asked(1, tags={"feature": "search"}, stream=True)
    kept.log.record(request, answered(*tried, saved_nano_usd=-50))
    (record,) = kept.all()
    assert (record.request_id, record.at_ns) == ("r1", kept.clock.wall_ns())
    assert (record.principal, record.user_id, record.tier) == ("uid:1000", "alice", "pro")
    assert (record.model, record.model_used, record.ladder) == ("auto", "strong", "default")
    assert (record.status, record.scope, record.hold, record.stream) == ("ok", None, 7, True)
    assert (record.cost_nano_usd, record.unknown_nano_usd) == (1_000, 100)
    assert (record.saved_nano_usd, record.score, record.flagged) == (-50, 0.9, False)
    assert (record.input_tokens, record.output_tokens) == (20, 40)
    assert (record.elapsed_ns, record.overhead_ns) == (NS, NS - NS // 5)
    assert (record.reasons, record.notices) == (
        ("budget user:alice month has reached its warning level",),
        ("clamped",),
    )
    assert record.tags == {"feature": "search"}
    first, second = record.attempts
    assert (first.model, first.billing, first.error) == ("cheap", "unknown", "upstream_timeout")
    assert (second.cost_nano_usd, second.accepted, second.reasoning_tokens) == (900, True, 5)
    assert (first.failed, second.cache_write_1h_tokens) == (("length",), None)
    assert not any(SECRET.encode() in value for value in kept.store.rows.values())


def test_a_refusal_names_its_code_and_scope_not_its_words(kept: Kept) -> None:
    kept.log.record(asked(), refused("budget_exceeded", scope="team"))
    kept.log.record(asked(), refused("rate_limited", scope=3))
    first, second = kept.all()
    assert (first.status, first.scope, first.user_id) == ("budget_exceeded", "team", None)
    assert (second.status, second.scope, second.attempts) == ("rate_limited", None, ())
    assert not any(SECRET.encode() in value for value in kept.store.rows.values())


def test_the_caller_that_is_believed_wins(kept: Kept) -> None:
    bob = Caller(
        user_id="bob", workspace_id="w", team_id="t", run_id="run", tags=(("team", "red"),)
    )
    kept.log.record(asked(tags={"feature": "f"}), answered(caller=bob))
    (record,) = kept.all()
    assert (record.user_id, record.workspace_id, record.team_id) == ("bob", "w", "t")
    assert (record.run_id, record.tags) == ("run", {"feature": "f", "team": "red"})
    assert kept.log.query(user_id="somebody else").records == ()


def test_strange_texts_cost_nothing_but_themselves(kept: Kept) -> None:
    tags = {f"t{n}": "x" * 1_000 for n in range(100)}
    kept.log.record(asked(model="m" * 10_000, tags=tags), answered())
    strange = Caller(user_id="\udcff\udcfe" + "u" * 999)
    kept.log.record(asked(model="\udcff"), answered(caller=strange))
    first, second = kept.all()
    assert (len(first.model), len(first.tags), len(first.tags["t0"])) == (256, 32, 256)
    assert second.user_id is not None
    assert second.user_id.startswith("??u")
    assert second.model == "?"
    assert kept.log.query(user_id="\udcff\udcfe" + "u" * 999).records == (second,)
    assert kept.log.dropped == 0


@pytest.mark.parametrize("user_id", [None, "u1"])
@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_join_up(kept: Kept, user_id: str | None, newest_first: bool) -> None:
    for number in range(25):
        kept.clock.now_ns += NS * (number % 3)  # some at the same moment
        kept.log.record(asked(number), answered(caller=Caller(user_id=f"u{number % 2}")))
    everything = [r for r in kept.all() if user_id in (None, r.user_id)]
    read: list[UsageRecord] = []
    cursor = None
    while True:
        page = kept.log.query(user_id=user_id, limit=4, after=cursor, newest_first=newest_first)
        read += page.records
        cursor = page.cursor
        if cursor is None:
            break
    assert read == (everything[::-1] if newest_first else everything)
    middle = everything[10].at_ns
    since = kept.log.query(middle, user_id=user_id).records
    until = kept.log.query(0, middle, user_id=user_id).records
    assert [*until, *since] == everything
    assert all(record.at_ns >= middle for record in since)


@pytest.mark.parametrize("limit", [0, -1, 1_001])
def test_a_page_has_bounds(kept: Kept, limit: int) -> None:
    with pytest.raises(ValueError, match="limit must be 1 to 1000"):
        kept.log.query(limit=limit)


@pytest.mark.parametrize("cursor", ["", "zz", "00", "00" * 17, "é"])
def test_a_cursor_that_is_none(kept: Kept, cursor: str) -> None:
    with pytest.raises(ValueError, match="none of ours"):
        kept.log.query(after=cursor)


def test_sums_follow_the_calendar_of_the_zone(kept: Kept) -> None:
    times = {
        "2026-10-31T23:30:00+00:00": 1,  # November in Berlin, October in UTC
        "2026-11-01T12:00:00+00:00": 10,  # a Sunday
        "2026-11-15T22:59:00+00:00": 100,  # Sunday in Berlin
        "2026-11-15T23:00:00+00:00": 1_000,  # Monday in Berlin
        "2026-11-17T22:59:59+00:00": 10_000,
        "2026-11-17T23:00:00+00:00": 100_000,  # today in Berlin, yesterday in UTC
        "2026-11-18T11:59:00+00:00": 1_000_000,
    }
    for at, cost in times.items():
        kept.clock.set(at)
        kept.log.record(asked(), answered(attempt(cost, accepted=True), saved_nano_usd=1))
    kept.log.flushed().result(5)
    kept.clock.set("2026-11-18T12:00:00+00:00")
    now = kept.clock.wall_ns()
    berlin = kept.log.summary("alice", now, ZoneInfo("Europe/Berlin"))
    assert berlin.today_nano_usd == 1_100_000
    assert berlin.week_nano_usd == 1_111_000
    assert berlin.month_nano_usd == 1_111_111
    assert (berlin.requests_today, berlin.requests_month) == (2, 7)
    assert berlin.month_saved_nano_usd == 7
    utc = kept.log.summary("alice", now, UTC)
    assert (utc.today_nano_usd, utc.week_nano_usd) == (1_000_000, 1_110_000)
    assert utc.month_nano_usd == 1_111_110
    kathmandu = kept.log.summary("alice", now, ZoneInfo("Asia/Kathmandu"))  # +05:45
    assert kathmandu.today_nano_usd == 1_110_000
    assert kept.log.summary("bob", now).requests_month == 0
    assert kept.log.summary(None, now).month_nano_usd == 1_111_110


def test_a_week_may_begin_before_its_month(kept: Kept) -> None:
    kept.clock.set("2026-09-28T00:00:00+00:00")
    kept.log.record(asked(), answered(attempt(5)))
    kept.log.flushed().result(5)
    kept.clock.set("2026-10-01T00:00:00+00:00")
    summary = kept.log.summary("alice", kept.clock.wall_ns())
    assert (summary.today_nano_usd, summary.week_nano_usd, summary.month_nano_usd) == (0, 5, 0)


def test_a_midnight_that_does_not_exist(kept: Kept) -> None:
    kept.clock.set("2026-04-23T22:15:00+00:00")  # Cairo springs from 24:00 to 01:00
    kept.log.record(asked(), answered(attempt(5)))
    kept.log.flushed().result(5)
    kept.clock.set("2026-04-24T06:00:00+00:00")
    summary = kept.log.summary("alice", kept.clock.wall_ns(), ZoneInfo("Africa/Cairo"))
    assert summary.today_nano_usd == 5


def test_top_models_and_tags(kept: Kept) -> None:
    both = (attempt(100, rung=0), attempt(50, rung=0), attempt(900, rung=1, accepted=True))
    kept.log.record(asked(tags={"feature": "a"}), answered(*both))
    kept.log.record(asked(tags={"feature": "b"}), answered(attempt(10)))
    kept.log.flushed().result(5)
    summary = kept.log.summary("alice", kept.clock.wall_ns())
    assert summary.top_models == (Share("strong", 900, 1), Share("cheap", 160, 2))
    assert summary.top_tags == (Share("feature=a", 1_050, 1), Share("feature=b", 10, 1))
    assert kept.log.summary(None, kept.clock.wall_ns(), top=1).top_models == (
        Share("strong", 900, 1),
    )


def test_ever_new_tags_share_one_name(kept: Kept) -> None:
    for number in range(200):
        kept.log.record(asked(tags={"id": str(number)}), answered(attempt(1)))
    kept.log.flushed().result(5)
    tags = kept.log.summary(None, kept.clock.wall_ns(), top=100).top_tags
    assert len(tags) == 65
    assert tags[0] == Share(OTHER, 136, 136)
    assert sum(tag.cost_nano_usd for tag in tags) == 200


def test_old_records_go_with_their_index_and_sums(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_log, "SWEEP_RECORDS", 4)
    for number in range(10):
        kept.log.record(asked(number), answered(caller=None if number % 2 else ALICE))
        kept.clock.now_ns += NS * 900
    kept.log.flushed().result(5)
    (bad,) = [key for key in kept.store.rows if key.startswith(b"r")][:1]
    kept.store.rows[bad] = b"\x02unreadable"
    kept.clock.now_ns += 80 * DAY
    kept.log.record(asked(99), answered())
    kept.log.flushed().result(5)
    kept.log.close()
    totals = 2
    assert len(kept.store.rows) == 1 + 11 + 6 + (10 + 5) + 2 + totals, (
        "nothing may go before its time"
    )
    kept.clock.now_ns += 11 * DAY
    rounds = 1
    while kept.log.sweep():
        rounds += 1
    assert rounds > 2
    kinds = sorted(key[:1] for key in kept.store.rows if key != bad.replace(b"r", b"u", 1))
    left = {kind: kinds.count(kind) for kind in set(kinds)}
    assert left[b"r"] == 1
    assert left[b"t"] == 2
    assert left[b"m"] == 1
    assert kept.log.query(user_id="alice").records[-1].request_id == "r99"
    assert not kept.log.sweep()


def test_a_clock_set_to_a_far_year_forgets_nothing(kept: Kept) -> None:
    kept.log.record(asked(), answered())
    kept.log.flushed().result(5)
    kept.clock.offset_ns = 10 * 365 * DAY
    assert not kept.log.sweep()
    assert len(kept.all()) == 1


def test_an_early_clock_is_no_trouble(kept: Kept) -> None:
    kept.clock.now_ns = -DAY
    kept.log.record(asked(), answered())
    assert [record.at_ns for record in kept.all()] == [-DAY]
    assert not kept.log.sweep()


def test_a_full_disk_is_counted_and_said_once(kept: Kept) -> None:
    kept.store.fails = StoreError("no space left on the device")
    kept.log.record(asked(1), answered())
    kept.log.close()
    kept.log.record(asked(2), answered())
    assert kept.log.dropped == 2
    assert len(kept.said) == 1
    assert "no space left" in kept.said[0]


def test_numbers_go_on_after_a_restart(kept: Kept) -> None:
    kept.log.record(asked(1), answered())
    kept.log.close()
    kept.log = kept.opened()
    kept.log.record(asked(2), answered())  # at the very same nanosecond
    assert [record.request_id for record in kept.all()] == ["r1", "r2"]


def test_a_newer_version_is_not_guessed_at(kept: Kept) -> None:
    kept.log.record(asked(1), answered())
    kept.log.flushed().result(5)
    for key in [key for key in kept.store.rows if key.startswith((b"r", b"m"))]:
        kept.store.rows[key] = b"\x02" + kept.store.rows[key][1:]
    with pytest.raises(StoreError, match="newer version"):
        kept.log.query()
    with pytest.raises(StoreError, match="newer version"):
        kept.opened()


def test_later_fields_have_defaults() -> None:
    """A record of today must be readable when fields were added at the end."""

    class Tomorrow(UsageRecord, frozen=True, array_like=True):
        added: int = 3

    kept = Kept()
    kept.log.record(asked(1), answered())
    (record,) = kept.all()
    kept.log.close()
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=Tomorrow)
    assert (read.request_id, read.added) == ("r1", 3)


def test_a_killed_writer_keeps_what_was_flushed(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from cascaded.adapters.clock import SystemClock
from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.state.usage_log import UsageLog
from tests.support.records import answered, asked
log = UsageLog(LmdbStore(Path(sys.argv[1])), SystemClock(), report=print)
number = 0
while True:
    for _ in range(20):
        log.record(asked(number), answered())
        number += 1
    log.flushed().result()
    print(number, flush=True)
"""
    flushed = 0
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert child.stdout
        for _ in range(15):
            line = child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        flushed += int(line)
        store = LmdbStore(tmp_path)
        log = UsageLog(store, SystemClock(), report=print)
        total = log.summary(None, time.time_ns()).requests_month
        assert total >= flushed
        assert len(pages(log)) == total == len(pages(log, "alice"))
        flushed = total
        log.close()
        store.close()


def pages(log: UsageLog, user_id: str | None = None) -> list[UsageRecord]:
    read: list[UsageRecord] = []
    cursor = None
    while True:
        page = log.query(user_id=user_id, limit=1_000, after=cursor)
        read += page.records
        cursor = page.cursor
        if cursor is None:
            return read


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def test_many_records_are_quick_to_ask(tmp_path: Path) -> None:
    """Generous bounds; `benches/records.py` prints the figures."""
    store = LmdbStore(tmp_path)
    log = UsageLog(store, SystemClock(), report=print)
    users = [answered(caller=Caller(user_id=f"u{number}")) for number in range(50)]
    told = [(asked(number), users[number % 50]) for number in range(4_000)]

    def record() -> None:
        for request, outcome in told:
            log.record(request, outcome)

    each_us = timed(record) / len(told) * 1e6
    log.flushed().result(30)
    assert each_us < 50
    assert timed(lambda: log.query(user_id="u7", limit=50)) < 0.25
    assert timed(lambda: log.summary("u7", time.time_ns())) < 0.5
    assert len(pages(log)) == 4_000
    assert log.dropped == 0
    log.close()
    store.close()
