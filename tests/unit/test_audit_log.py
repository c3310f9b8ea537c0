"""The audit log: what each level writes, numbers without gaps, retention, loss on record."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cascaded.adapters.clock import SystemClock
from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.state import audit_log, write_behind
from cascaded.state.audit_log import WRITTEN_FROM, AuditLog
from cascaded.types.errors import StoreError
from cascaded.types.limits import Admitted, BudgetWarning, Crossing, Denial, HoldState, Receipt
from cascaded.types.profile import AUDIT_LEVELS, AuditLevel
from cascaded.types.records import AuditRecord
from cascaded.types.secret import Secret
from tests.support.fakes import FakeClock
from tests.support.memory_store import MemoryStore

ROOT = Path(__file__).parents[2]
NS = 1_000_000_000
DAY = 86_400 * NS
DENIAL = Denial(reason="budget", scope="team", id="red", window="day", limit=100, used=90, asked=20)
WARNING = BudgetWarning(scope="user", id="alice", window="month", limit=9, spent=8, over=False)
CROSSING = Crossing(scope="global", id="*", window="day", threshold_bp=7_000, limit=100, spent=71)
PLAIN = Admitted(hold=1, seq=1, choice=0, nano_usd=20)
BY: dict[str, Any] = {"actor": "uid:1000", "user_id": "alice", "request_id": "r1"}


def receipt(state: HoldState = "settled", **fields: object) -> Receipt:
    amounts = {"posted": 5, "unknown": 0, "returned": 15, "overrun": 0}
    return Receipt(hold=1, seq=2, state=state, **{**amounts, **fields})  # type: ignore[arg-type]


class Kept:
    def __init__(self, level: AuditLevel = "comprehensive") -> None:
        self.store = MemoryStore()
        self.clock = FakeClock()
        self.said: list[str] = []
        self.log = self.opened(level)

    def opened(self, level: AuditLevel = "comprehensive") -> AuditLog:
        return AuditLog(self.store, self.clock, report=self.said.append, level=level)

    def all(self) -> tuple[AuditRecord, ...]:
        self.log.flushed().result(5)
        return self.log.query(limit=1_000).records

    def everything(self, level: AuditLevel | None = None) -> None:
        """One of each."""
        steps: list[Admitted | Denial] = [
            PLAIN,
            Admitted(hold=1, seq=1, choice=0, nano_usd=20, warnings=(WARNING,)),
            Admitted(hold=1, seq=1, choice=1, nano_usd=2, degraded=True),
            Admitted(hold=1, seq=1, choice=0, nano_usd=20, shadow=(DENIAL,)),
            DENIAL,
        ]
        for step in steps:
            self.log.reserved(step, **BY, level=level)
        for end in (
            receipt(),
            receipt("released"),
            receipt("unknown", unknown=5),
            receipt(overrun=1, unknown=1),
            receipt(crossings=(CROSSING,)),
        ):
            self.log.settled(end, **BY, level=level)
        for allowed in (True, False):
            self.log.access(
                "route:/users", actor="uid:1", allowed=allowed, reason="admin_only", level=level
            )
        self.log.adjusted(receipt("adjusted"), actor="uid:0", reason="invoice 12")
        self.log.changed("limit:user:alice:day", actor="uid:0", before={"limit": 1}, after=None)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.setattr(write_behind, "GATHER_S", 0.001)
    kept = Kept()
    yield kept
    kept.store.fails = None
    kept.log.close()


def test_each_decision_has_its_outcome_and_reason(kept: Kept) -> None:
    kept.everything()
    records = kept.all()
    assert [(r.action, r.outcome, r.subject, r.reason) for r in records] == [
        ("reserve", "admitted", "user:alice", ""),
        ("reserve", "warned", "user:alice", "warning_level_reached"),
        ("reserve", "degraded", "user:alice", "budget_nearly_used"),
        ("reserve", "shadowed", "team:red", "would_refuse_budget"),
        ("reserve", "denied", "team:red", "budget"),
        ("settle", "settled", "user:alice", ""),
        ("settle", "released", "user:alice", ""),
        ("settle", "unknown", "user:alice", "unknown"),
        ("settle", "overrun", "user:alice", "overrun"),
        ("settle", "crossed", "global:*", "crossed"),
        ("access", "allowed", "route:/users", "admin_only"),
        ("access", "refused", "route:/users", "admin_only"),
        ("adjust", "adjusted", "hold:1", "invoice 12"),
        ("change", "changed", "limit:user:alice:day", ""),
    ]
    assert [r.sequence for r in records] == list(range(1, 15))
    assert {r.previous for r in records} == {b""}
    denied = records[4]
    assert (denied.actor, denied.user_id, denied.request_id) == ("uid:1000", "alice", "r1")
    assert denied.details["denial"] == {
        "reason": "budget",
        "scope": "team",
        "id": "red",
        "window": "day",
        "unit": None,
        "window_ns": None,
        "limit": 100,
        "used": 90,
        "asked": 20,
        "reset_at_ns": None,
        "retry_after_ns": None,
    }
    assert records[-1].details == {"before": {"limit": 1}, "after": None}


@pytest.mark.parametrize("level", AUDIT_LEVELS)
@pytest.mark.parametrize("per_call", [False, True])
def test_levels(kept: Kept, level: AuditLevel, per_call: bool) -> None:
    if not per_call:
        kept.log.close()
        kept.log = kept.opened(level)
    kept.everything(level if per_call else None)
    written = {record.outcome for record in kept.all()}
    rank = AUDIT_LEVELS.index(level)
    assert written == {o for o, least in WRITTEN_FROM.items() if least <= rank} - {"lost"}
    if level == "minimal":
        assert written == {"denied", "refused", "adjusted", "changed"}


def test_numbers_go_on_without_a_gap_after_a_restart_and_a_full_disk(kept: Kept) -> None:
    kept.log.reserved(DENIAL, **BY)
    kept.log.close()
    kept.log = kept.opened()
    kept.log.reserved(DENIAL, **BY)
    kept.log.flushed().result(5)
    kept.store.fails = StoreError("no space left")
    kept.log.reserved(DENIAL, **BY)
    kept.log.close()
    assert kept.log.dropped == 1
    kept.store.fails = None
    kept.log = kept.opened()
    kept.log.reserved(DENIAL, **BY)
    assert [record.sequence for record in kept.all()] == [1, 2, 3]


def test_a_loss_is_put_on_record(kept: Kept) -> None:
    kept.store.puts = 0
    kept.store.fails = StoreError("no space left")
    queue = kept.log._writer
    queue._capacity = 10
    for _ in range(40):
        kept.log.reserved(DENIAL, **BY)
    lost = kept.log.dropped
    assert lost >= 20
    kept.store.fails = None
    records = kept.all()
    assert sum(record.outcome == "denied" for record in records) == 40 - lost
    losses = [record for record in records if record.outcome == "lost"]
    assert [record.details for record in losses] == [{"records": lost}]
    assert (losses[0].actor, losses[0].subject) == ("cascaded", "log:audit")
    assert [record.sequence for record in records] == list(range(1, len(records) + 1))
    assert len(kept.said) == 2


def test_details_have_bounds_and_no_secrets(kept: Kept) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    kept.log.changed("a" * 999, actor="\udcff", before="x" * 70_000, after=None)
    kept.log.changed("b", actor="uid:0", before=Secret("hush", source="env:KEY"), after={2: 2**70})
    kept.log.changed("c", actor="uid:0", before=Secret("hush", source="env:KEY"), after=object())
    kept.log.changed("d", actor="uid:0", before="\udcff", after=deep)
    first, second, third, fourth = kept.all()
    assert first.details == {"left_out": "more than 65536 bytes"}
    assert (len(first.subject), first.actor) == (256, "?")
    assert second.details == {"left_out": "OverflowError"}
    assert third.details == {"before": "[Secret]", "after": "[object]"}
    assert "left_out" in fourth.details
    assert not any(b"hush" in value for value in kept.store.rows.values())
    assert kept.log.dropped == 0


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_and_filters(kept: Kept, newest_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "MAX_PAGE", 7)
    monkeypatch.setattr(audit_log, "MAX_SCANNED", 14)
    for number in range(60):
        kept.clock.now_ns += (number % 3 - 1) * NS  # it goes back, too
        user: dict[str, Any] = {
            "actor": "uid:1",
            "user_id": f"u{number % 10}",
            "request_id": f"r{number}",
        }
        kept.log.reserved(DENIAL if number % 2 else PLAIN, **user)
    everything = sorted(kept.all(), key=lambda record: (record.at_ns, record.sequence))
    if newest_first:
        everything.reverse()
    choices: list[dict[str, Any]] = [
        {},
        {"user_id": "u3"},
        {"outcome": "denied"},
        {"user_id": "nobody"},
    ]
    for filters in choices:
        read: list[AuditRecord] = []
        cursor, pages = None, 0
        while pages == 0 or cursor is not None:
            page = kept.log.query(limit=4, after=cursor, newest_first=newest_first, **filters)
            assert len(page.records) <= 4
            read += page.records
            cursor, pages = page.cursor, pages + 1
        expected = [
            record
            for record in everything
            if all(getattr(record, name) == value for name, value in filters.items())
        ]
        assert read == expected
    middle = everything[30].at_ns
    later = kept.log.query(middle, limit=1_000).records
    assert {r.sequence for r in later} == {r.sequence for r in everything if r.at_ns >= middle}
    with pytest.raises(ValueError, match="limit must be"):
        kept.log.query(limit=0)
    with pytest.raises(ValueError, match="none of ours"):
        kept.log.query(after="00")


def test_retention_takes_the_lowest_numbers_only(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "SWEEP_RECORDS", 3)
    for _ in range(8):
        kept.log.reserved(DENIAL, **BY)
        kept.clock.now_ns += NS
    kept.log.flushed().result(5)
    kept.clock.now_ns += 90 * DAY - 4 * NS
    kept.log.reserved(DENIAL, **BY)
    kept.log.flushed().result(5)
    kept.log.close()
    while kept.log.sweep():
        pass
    left = kept.log.query(limit=1_000).records
    assert [record.sequence for record in left] == [5, 6, 7, 8, 9]
    assert len(kept.store.rows) == 2 * 5 + 1
    kept.clock.now_ns += 91 * DAY
    while kept.log.sweep():
        pass
    assert kept.log.query().records == ()
    kept.log = kept.opened()
    kept.log.reserved(DENIAL, **BY)
    assert [record.sequence for record in kept.all()] == [10], "numbers are never used again"


def test_a_record_swept_while_it_is_read_is_left_out(kept: Kept) -> None:
    for _ in range(3):
        kept.log.reserved(DENIAL, **BY)
    kept.log.flushed().result(5)
    del kept.store.rows[b"r" + (1).to_bytes(8, "big")]
    assert [record.sequence for record in kept.log.query().records] == [2, 3]


def test_many_threads_tell_at_once(kept: Kept) -> None:
    def tell() -> None:
        for _ in range(200):
            kept.log.reserved(DENIAL, **BY)

    threads = [threading.Thread(target=tell) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [record.sequence for record in kept.all()] == list(range(1, 1_001))


def test_a_killed_writer_leaves_no_gap(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from cascaded.adapters.clock import SystemClock
from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.state.audit_log import AuditLog
log = AuditLog(LmdbStore(Path(sys.argv[1])), SystemClock(), report=print)
number = 0
while True:
    for _ in range(20):
        log.access("route:/users", actor="uid:1", allowed=False, reason="admin_only")
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
        store = LmdbStore(tmp_path)
        log = AuditLog(store, SystemClock(), report=print)
        numbers = [record.sequence for record in log.query(limit=1_000).records]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= flushed + int(line)
        flushed = len(numbers)
        log.close()
        store.close()


def test_what_is_not_written_costs_next_to_nothing(kept: Kept) -> None:
    start = time.perf_counter()
    for _ in range(2_000):
        kept.log.reserved(PLAIN, **BY, level="standard")
    assert (time.perf_counter() - start) / 2_000 < 20e-6
    assert kept.all() == ()
