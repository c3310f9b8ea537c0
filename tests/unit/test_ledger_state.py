"""The durable ledger in Python: what crosses the boundary, and who is woken."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded import _core
from cascaded.state import ledger as ledger_module
from cascaded.state.ledger import DurableLedger
from cascaded.types.decision import Refusal
from cascaded.types.errors import HoldError, LedgerFaultError, LedgerOpenError
from cascaded.types.limits import (
    Admitted,
    BudgetLimit,
    Choice,
    CounterStatus,
    Demand,
    Denial,
    Existing,
    HoldStatus,
    Limits,
    LimitView,
    RateLimit,
    Window,
)
from cascaded.types.model import Model
from cascaded.types.money import to_usd
from cascaded.types.result import Attempt, Billing
from cascaded.types.usage import Usage
from cascaded.wire import money

ROOT = Path(__file__).parents[2]
SECOND = 1_000_000_000
START = 1_780_401_600 * SECOND
"""2026-06-02, a Tuesday, noon UTC."""
SEGMENT_BYTES = 1 << 20
HEADER = 4096
"""Bytes of a segment before its first record."""
KEY = (b"k" * 16, b"b" * 16)


def attempt(billing: Billing, nano_usd: int, tokens: int = 0) -> Attempt:
    return Attempt(
        rung=0,
        model=MODEL,
        billing=billing,
        cost_nano_usd=nano_usd,
        usage=Usage(output_tokens=tokens),
    )


MODEL = Model(name="m", provider="p", upstream_name="m")


def budget(limit: int | None, **changes: object) -> BudgetLimit:
    fields = {"scope": "user", "id": "u", "window": "day", "limit_nano_usd": limit}
    return BudgetLimit(**{**fields, **changes})  # type: ignore[arg-type]


def demand(nano_usd: int, *budgets: BudgetLimit, rates: tuple[RateLimit, ...] = ()) -> Demand:
    choice = Choice(nano_usd=nano_usd, tokens=10)
    return Demand(menu=(choice,), limits=Limits(budgets, rates))


@pytest.fixture
def clock() -> _core.ManualClock:
    return _core.ManualClock(START)


@pytest.fixture
def ledger(clock: _core.ManualClock) -> Iterator[DurableLedger]:
    ledger = DurableLedger.in_memory(clock=clock)
    yield ledger
    ledger.close()


def admitted(ledger: DurableLedger, demand: Demand) -> Admitted:
    answer = ledger.admit(demand)
    assert isinstance(answer, Admitted), answer
    return answer


def only(counters: list[CounterStatus]) -> CounterStatus:
    assert len(counters) == 1
    return counters[0]


def test_a_call_is_held_settled_and_counted(ledger: DurableLedger) -> None:
    held = admitted(ledger, demand(60, budget(100)))
    assert (held.choice, held.nano_usd, held.degraded, held.warnings) == (0, 60, False, ())
    assert ledger.spend() == {"posted": 0, "held": 60, "unknown": 0}
    receipt = ledger.settle(held.hold, [attempt("billed", 20), attempt("not_billed", 0)])
    assert (receipt.state, receipt.posted, receipt.returned) == ("settled", 20, 40)
    counter = only(ledger.counters("user", "u"))
    assert (counter.posted, counter.held, counter.limit) == (20, 0, 100)
    assert counter.resets_at_ns == START + 12 * 3600 * SECOND
    assert ledger.spend() == {"posted": 20, "held": 0, "unknown": 0}
    assert ledger.counters("user") == ledger.counters() == [counter]
    assert ledger.counters("user", "nobody") == ledger.counters("team") == []


def test_a_refusal_names_its_limit(ledger: DurableLedger) -> None:
    day = budget(100, enforcement="block")
    admitted(ledger, demand(60, day))
    answer = ledger.admit(demand(60, day, budget(None, window="total")))
    assert isinstance(answer, Denial)
    assert (answer.reason, answer.scope, answer.id, answer.window) == ("budget", "user", "u", "day")
    assert (answer.limit, answer.used, answer.asked) == (100, 60, 60)
    assert answer.reset_at_ns == START + 12 * 3600 * SECOND
    assert answer.retry_after_ns == 12 * 3600 * SECOND
    assert [one.window for one in ledger.counters()] == ["day"], "a refusal creates nothing"


def test_rates_and_money_in_one_step(ledger: DurableLedger, clock: _core.ManualClock) -> None:
    calls = RateLimit(scope="user", id="u", unit="requests", window_ns=60 * SECOND, limit=2)
    tokens = RateLimit(scope="user", id="u", unit="tokens", window_ns=60 * SECOND, limit=25)
    asked = demand(10, budget(100), rates=(calls, tokens))
    first = admitted(ledger, asked)
    admitted(ledger, asked)
    answer = ledger.admit(asked)
    assert isinstance(answer, Denial)
    assert (answer.reason, answer.unit, answer.window, answer.window_ns) == (
        "rate",
        "requests",
        None,
        60 * SECOND,
    ) or answer.unit == "tokens"
    assert ledger.spend()["held"] == 20, "a refused call holds nothing"
    clock.advance(61 * SECOND)
    ledger.settle(first.hold, [attempt("billed", 1, tokens=3)])
    assert isinstance(ledger.admit(asked), Admitted)


def test_tokens_are_corrected_when_they_are_known(ledger: DurableLedger) -> None:
    tokens = RateLimit(scope="user", id="u", unit="tokens", window_ns=60 * SECOND, limit=20)
    asked = demand(10, rates=(tokens,))
    known, unknown = admitted(ledger, asked), admitted(ledger, asked)

    def used() -> int:
        return ledger.peek(asked).limits[0].used

    assert used() == 20
    ledger.settle(known.hold, [attempt("billed", 1, tokens=3)])
    assert used() == 13
    ledger.settle(unknown.hold, [attempt("billed", 1, tokens=3), attempt("unknown", 5)])
    assert used() == 13, "nobody knows how many it used"


def test_a_counter_that_is_full_is_no_fault(ledger: DurableLedger) -> None:
    admitted(ledger, demand(1 << 62, budget(None)))
    answer = ledger.admit(demand(1 << 62, budget(None)))
    assert isinstance(answer, Refusal)
    assert answer.code == "ledger_full"
    assert "64 bits" in answer.message


def test_peek_takes_nothing(ledger: DurableLedger) -> None:
    asked = demand(60, budget(100), budget(50, window="month", enforcement="warn"))
    peek = ledger.peek(asked)
    assert (peek.choice, peek.denial) == (0, None)
    assert [(one.window, one.fits, one.enforced) for one in peek.limits] == [
        ("day", True, True),
        ("month", False, False),
    ]
    assert ledger.counters() == []
    admitted(ledger, asked)
    peek = ledger.peek(asked)
    assert peek.choice is None
    assert peek.denial is not None
    assert peek.denial.window == "day"
    assert peek.limits[0].remaining == 40


@given(
    limit=st.none() | st.integers(1, 2**62),
    used=st.integers(1, 10**12),
    id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    window=st.sampled_from(get_args(Window)),
)
def test_a_preview_shows_what_a_peek_tells(
    limit: int | None, used: int, id: str, window: Window
) -> None:
    ledger = DurableLedger.in_memory(clock=_core.ManualClock(START))
    calls = RateLimit(scope="user", id=id, unit="requests", window_ns=60 * SECOND, limit=3)
    asked = demand(used, budget(limit, id=id, window=window, enforcement="warn"), rates=(calls,))
    admitted(ledger, asked)
    peek, preview = ledger.peek(asked), ledger.preview(asked)
    assert (preview.choice, preview.denial) == (peek.choice, peek.denial)
    assert ledger.denied(asked) == peek.denial
    assert json.loads(bytes(preview.limits), parse_float=Decimal) == [
        _row(one) for one in peek.limits
    ]


def _row(view: LimitView) -> dict[str, object]:
    """A limit as `/check` shows it."""
    if view.unit is None:
        amounts = (view.limit, view.used, view.remaining)
        dollars: list[object] = [None if one is None else to_usd(one) for one in amounts]
        told: dict[str, object] = dict(zip(("limit", "used", "remaining"), dollars, strict=True))
        told |= {"kind": "budget", "window": view.window}
    else:
        told = {"limit": view.limit, "used": view.used, "remaining": view.remaining}
        told |= {"kind": "rate", "unit": view.unit, "window_s": Decimal("60.0")}
    return told | {
        "scope": view.scope,
        "id": view.id,
        "fits": view.fits,
        "enforced": view.enforced,
        "degraded": view.degraded,
        "resets_at": money.moment(view.reset_at_ns),
    }


def test_warn_and_shadow_let_pass_and_tell(ledger: DurableLedger) -> None:
    soft = budget(10, enforcement="warn")
    shadow = budget(10, enforcement="shadow", window="week")
    held = admitted(ledger, demand(60, soft, shadow))
    (warning,) = held.warnings
    assert (warning.window, warning.over, warning.limit) == ("day", True, 10)
    (refusal,) = held.shadow
    assert (refusal.window, refusal.asked) == ("week", 60)


def test_near_the_end_only_cheap_choices_pass(ledger: DurableLedger) -> None:
    day = budget(100)
    admitted(ledger, demand(90, day))
    answer = ledger.admit(demand(5, day))
    assert isinstance(answer, Denial)
    assert answer.reason == "degraded"
    menu = (Choice(nano_usd=8, tokens=1), Choice(nano_usd=5, tokens=1, cheap=True))
    held = admitted(ledger, Demand(menu=menu, limits=Limits((day,))))
    assert (held.choice, held.nano_usd, held.degraded) == (1, 5, True)


def test_the_same_key_gives_the_same_hold(ledger: DurableLedger) -> None:
    asked = Demand(menu=(Choice(nano_usd=5, tokens=1),), limits=Limits(), idempotency=KEY)
    held = admitted(ledger, asked)
    again = ledger.admit(asked)
    assert isinstance(again, Existing)
    assert (again.hold, again.nano_usd, again.state) == (held.hold, 5, "open")
    ledger.release(held.hold)
    again = ledger.admit(asked)
    assert isinstance(again, Existing)
    assert again.state == "released"
    other = Demand(menu=asked.menu, limits=Limits(), idempotency=(KEY[0], b"x" * 16))
    refusal = ledger.admit(other)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "idempotency_conflict"


def test_an_unknown_is_charged_until_there_is_evidence(ledger: DurableLedger) -> None:
    held = admitted(ledger, demand(60, budget(100)))
    receipt = ledger.settle(held.hold, [attempt("billed", 5), attempt("unknown", 55)])
    assert (receipt.state, receipt.posted, receipt.unknown) == ("unknown", 5, 55)
    (crossing,) = ledger_crossings(ledger)
    assert crossing == 60
    (hold,) = ledger.unresolved()
    assert (hold.hold, hold.state, hold.unknown, hold.at_ns) == (held.hold, "unknown", 55, START)
    receipt = ledger.adjust(held.hold, 40)
    assert (receipt.state, receipt.posted, receipt.unknown) == ("adjusted", 40, 0)
    assert ledger.unresolved() == []
    assert ledger.spend() == {"posted": 45, "held": 0, "unknown": 0}


def ledger_crossings(ledger: DurableLedger) -> list[int]:
    return [one.posted + one.unknown for one in ledger.counters()]


def test_a_threshold_is_told_once(ledger: DurableLedger) -> None:
    held = admitted(ledger, demand(95, budget(100)))
    receipt = ledger.settle(held.hold, [attempt("billed", 92)])
    assert [(one.threshold_bp, one.spent) for one in receipt.crossings] == [
        (7_000, 92),
        (9_000, 92),
    ]


def test_what_cost_more_than_it_held_is_an_overrun(ledger: DurableLedger) -> None:
    held = admitted(ledger, demand(10, budget(100)))
    receipt = ledger.settle(held.hold, [attempt("billed", 30)])
    assert (receipt.posted, receipt.overrun, receipt.returned) == (30, 20, 0)
    assert ledger.spend() == {"posted": 30, "held": 0, "unknown": 0}
    assert only(ledger.counters()).overrun == 20


def test_a_hold_resolves_once(ledger: DurableLedger) -> None:
    held = admitted(ledger, demand(10))
    ledger.release(held.hold)
    for again in (
        ledger.release,
        lambda hold: ledger.settle(hold, []),
        lambda hold: ledger.adjust(hold, 1),
    ):
        with pytest.raises(HoldError) as caught:
            again(held.hold)
        assert caught.value.code == "hold_resolved"
    with pytest.raises(HoldError) as caught:
        ledger.release(999)
    assert caught.value.code == "no_such_hold"


def test_a_changed_profile_changes_the_limit(ledger: DurableLedger) -> None:
    admitted(ledger, demand(60, budget(100)))
    assert isinstance(ledger.admit(demand(60, budget(100))), Denial)
    admitted(ledger, demand(60, budget(1000)))
    assert only(ledger.counters()).limit == 1000
    assert isinstance(ledger.admit(demand(60, budget(100))), Denial), "and back again"
    counter = only(ledger.counters())
    assert (counter.limit, counter.held) == (100, 120)
    rate = RateLimit(scope="user", id="u", unit="requests", window_ns=SECOND, limit=1)
    admitted(ledger, demand(1, rates=(rate,)))
    wider = RateLimit(scope="user", id="u", unit="requests", window_ns=SECOND, limit=2)
    admitted(ledger, demand(1, rates=(wider,)))


def test_each_call_brings_its_limits_as_they_are_merged(ledger: DurableLedger) -> None:
    """Who has the last word was decided before: the ledger takes what the newest call says."""
    assert ledger.set_limits(Limits((budget(5, origin="api"),)), reload=False) == 1
    assert isinstance(ledger.admit(demand(60, budget(5, origin="api"))), Denial)
    assert only(ledger.counters()).origin == "api"
    assert isinstance(ledger.admit(demand(60, budget(100))), Admitted)
    assert only(ledger.counters()).origin == "profile"


def test_limits_are_looked_at_without_being_set(ledger: DurableLedger) -> None:
    ledger.check(Limits((budget(5),)))
    for wrong in (budget(5, zone="Mars/Olympus"), budget(1 << 63)):
        with pytest.raises(ValueError, match=r"time zone|out of range"):
            ledger.check(Limits((wrong,)))
    assert ledger.counters() == []


def test_a_reload_removes_what_the_file_no_longer_has(ledger: DurableLedger) -> None:
    both = Limits((budget(5, origin="file"), budget(6, window="week", origin="file")))
    assert ledger.set_limits(both, reload=True) == 2
    ledger.set_limits(Limits(both.budgets[:1]), reload=True)
    assert [one.limit for one in ledger.counters()] == [5, None]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"limit_nano_usd": -1}, "below zero"),
        ({"limit_nano_usd": 1 << 63}, "out of range"),
        ({"zone": "Mars/Olympus"}, "unknown time zone"),
        ({"scope": "planet"}, "unknown scope"),
        ({"window": "hour"}, "unknown window"),
        ({"enforcement": "hope"}, "unknown enforcement"),
        ({"origin": "retired"}, "unknown origin"),
        ({"block_bp": 10_001}, "block_at"),
        ({"warn_bp": -1}, "out of range"),
        ({"id": "x" * 257}, "256 bytes"),
    ],
)
def test_limits_that_cannot_be_enforced(
    ledger: DurableLedger, changes: dict[str, object], word: str
) -> None:
    bad = budget(1, **changes)
    with pytest.raises(ValueError, match=word):
        ledger.admit(demand(1, bad))
    with pytest.raises(ValueError, match=word):
        ledger.set_limits(Limits((bad,)), reload=False)
    assert ledger.counters() == []


def test_demands_that_no_ledger_can_take(ledger: DurableLedger) -> None:
    with pytest.raises(ValueError, match="below zero"):
        ledger.admit(demand(-1))
    with pytest.raises(ValueError, match="out of range"):
        ledger.admit(demand(1 << 63))
    with pytest.raises(ValueError, match="out of range"):
        ledger.peek(demand(1 << 63))
    with pytest.raises(ValueError, match="menu is empty"):
        ledger.admit(Demand(menu=(), limits=Limits()))
    with pytest.raises(ValueError, match="twice"):
        ledger.admit(demand(1, budget(1), budget(2)))
    many = tuple(budget(1, id=str(n)) for n in range(33))
    with pytest.raises(ValueError, match="more than 32 counters"):
        ledger.admit(demand(1, *many))
    short = RateLimit(scope="user", id="u", unit="tokens", window_ns=1, limit=1)
    with pytest.raises(ValueError, match="31 days"):
        ledger.admit(demand(1, rates=(short,)))
    held = admitted(ledger, demand(5))
    with pytest.raises(ValueError, match="below zero"):
        ledger.settle(held.hold, [attempt("billed", -1)])
    with pytest.raises(ValueError, match="unknown billing"):
        ledger.settle(held.hold, [attempt("maybe", 1)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="out of range"):
        ledger.settle(held.hold, [attempt("billed", 1 << 70)])
    with pytest.raises(ValueError, match="out of range"):
        ledger.adjust(held.hold, 1 << 70)
    with pytest.raises(ValueError, match="out of range"):
        ledger.release(-1)
    assert ledger.spend() == {"posted": 0, "held": 5, "unknown": 0}


def test_a_full_ledger_refuses(clock: _core.ManualClock) -> None:
    ledger = DurableLedger(_core.Ledger.in_memory(clock=clock, holds_max=1))
    held = admitted(ledger, demand(5))
    refusal = ledger.admit(demand(5))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, "open holds" in refusal.message) == ("ledger_full", True)
    ledger.release(held.hold)
    admitted(ledger, demand(5))
    users = DurableLedger(_core.Ledger.in_memory(clock=clock, users_max=1))
    admitted(users, demand(1, budget(10)))
    refusal = users.admit(demand(1, budget(10, id="another")))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "ledger_full"


def test_limit_sets_are_kept_and_bounded(
    ledger: DurableLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "LIMIT_SETS_MAX", 2)
    for id in ("a", "b", "a", "c", "a", "b"):
        admitted(ledger, demand(1, budget(10, id=id)))
    assert [limits.budgets[0].id for limits in ledger._sets] == ["a", "b"]
    assert [one.held for one in ledger.counters()] == [3, 2, 1]


def test_limits_of_another_ledger_are_refused(ledger: DurableLedger) -> None:
    other = _core.Ledger.in_memory()
    limits = other.compile([], [])
    with pytest.raises(ValueError, match="another ledger"):
        ledger._core.admit(limits, [(1, 1, False)])


def test_a_clock_that_is_set_back_or_leaps(ledger: DurableLedger, clock: _core.ManualClock) -> None:
    day = budget(100)
    admitted(ledger, demand(60, day))
    clock.set_wall(START - 86_400 * SECOND)
    assert isinstance(ledger.admit(demand(60, day)), Denial), "yesterday does not come again"
    assert ledger.stats()["clock_behind_ns"] == 86_400 * SECOND
    clock.set_wall(START + 86_400 * SECOND)
    assert isinstance(ledger.admit(demand(60, day)), Denial), "tomorrow is not here yet"
    assert ledger.stats()["clock_leap_ns"] == 86_400 * SECOND
    ledger.confirm_clock()
    admitted(ledger, demand(60, day))


async def test_memory_is_durable_at_once(ledger: DurableLedger) -> None:
    held = admitted(ledger, demand(5))
    await ledger.durable(held.seq)
    assert ledger.recovered is None
    assert ledger.fault() is None
    ledger.checkpoint()
    with pytest.raises(ValueError, match="in memory"):
        ledger.backup(Path("nowhere"))


async def test_a_closed_ledger_refuses(clock: _core.ManualClock) -> None:
    ledger = DurableLedger.in_memory(clock=clock)
    held = admitted(ledger, demand(5))
    ledger.close()
    ledger.close()
    refusal = ledger.admit(demand(5))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "ledger_unavailable"
    with pytest.raises(LedgerFaultError, match="closed"):
        ledger.settle(held.hold, [])
    with pytest.raises(LedgerFaultError, match="closed"):
        ledger.set_limits(Limits((budget(1),)), reload=False)
    with pytest.raises(LedgerFaultError, match="closed"):
        ledger.peek(demand(5))


def opened(folder: Path, clock: _core.ManualClock, checkpoint_ms: int = 3_600_000) -> DurableLedger:
    return DurableLedger.open(
        folder,
        asyncio.get_running_loop(),
        clock=clock,
        checkpoint_ms=checkpoint_ms,
        segment_bytes=SEGMENT_BYTES,
    )


async def test_what_was_durable_is_there_after_a_crash(
    tmp_path: Path, clock: _core.ManualClock
) -> None:
    ledger = opened(tmp_path / "state", clock)
    day = budget(100)
    settled, open_hold = admitted(ledger, demand(10, day)), admitted(ledger, demand(20, day))
    receipt = ledger.settle(settled.hold, [attempt("billed", 7)])
    await asyncio.gather(ledger.durable(open_hold.seq), ledger.durable(receipt.seq))
    await ledger.durable(receipt.seq)
    shutil.copytree(tmp_path / "state", tmp_path / "crashed")
    ledger.close()

    again = opened(tmp_path / "crashed", clock)
    assert again.recovered is not None
    assert (again.recovered.records, again.recovered.charged) == (3, 1)
    counter = only(again.counters("user", "u"))
    assert (counter.posted, counter.held, counter.unknown) == (7, 0, 20)
    (hold,) = again.unresolved()
    assert (hold.hold, hold.state, hold.unknown) == (open_hold.hold, "unknown", 20)
    assert again.spend() == {"posted": 0, "held": 0, "unknown": 20}
    await again.durable(again.adjust(hold.hold, 3).seq)
    again.close()

    once_more = opened(tmp_path / "crashed", clock)
    assert once_more.recovered is not None
    assert (once_more.recovered.records, once_more.recovered.charged) == (0, 0)
    assert only(once_more.counters()).posted == 10
    once_more.close()


async def test_checkpoints_are_written_and_replace_the_records(
    tmp_path: Path, clock: _core.ManualClock
) -> None:
    ledger = opened(tmp_path / "state", clock)
    for _ in range(50):
        ledger.settle(admitted(ledger, demand(10, budget(None))).hold, [attempt("billed", 1)])
    await asyncio.to_thread(ledger.checkpoint)
    assert ledger.stats()["checkpoints"] == 1
    shutil.copytree(tmp_path / "state", tmp_path / "crashed")
    await asyncio.to_thread(ledger.backup, tmp_path / "backup")
    with pytest.raises(LedgerFaultError, match="already there"):
        ledger.backup(tmp_path / "backup")
    ledger.close()
    assert DurableLedger.verify(tmp_path / "backup")["gap"] == 1
    assert DurableLedger.verify(tmp_path / "crashed")["records"] == 0
    with pytest.raises(LedgerOpenError) as caught:
        opened(tmp_path / "backup", clock)
    assert caught.value.kind == "gap"
    again = opened(tmp_path / "crashed", clock)
    assert only(again.counters()).posted == 50
    again.close()


async def test_a_second_process_is_refused(tmp_path: Path, clock: _core.ManualClock) -> None:
    ledger = opened(tmp_path, clock)
    with pytest.raises(LedgerOpenError, match=str(os.getpid())) as caught:
        opened(tmp_path, clock)
    assert caught.value.kind == "locked"
    with pytest.raises(LedgerOpenError, match="stop it first"):
        DurableLedger.verify(tmp_path)
    ledger.close()


async def test_a_damaged_journal_does_not_start_and_says_what_to_do(
    tmp_path: Path, clock: _core.ManualClock
) -> None:
    ledger = opened(tmp_path / "state", clock)
    for _ in range(20):
        await ledger.durable(admitted(ledger, demand(10, budget(None))).seq)
    shutil.copytree(tmp_path / "state", tmp_path / "crashed")
    ledger.close()
    files = [path for path in (tmp_path / "crashed").iterdir() if path.is_file()]
    written = max(files, key=lambda path: len(path.read_bytes()[HEADER:].rstrip(b"\0")))
    content = bytearray(written.read_bytes())
    content[HEADER + 24] ^= 0xFF
    written.write_bytes(content)
    with pytest.raises(LedgerOpenError, match=r"Restore a backup .* or cut") as caught:
        opened(tmp_path / "crashed", clock)
    assert caught.value.kind == "damaged"


async def test_a_waiter_that_left_wakes_nobody_else(
    tmp_path: Path, clock: _core.ManualClock
) -> None:
    ledger = opened(tmp_path, clock)
    held = admitted(ledger, demand(1))
    left = asyncio.ensure_future(ledger.durable(held.seq))  # noqa: TID251
    stays = asyncio.ensure_future(ledger.durable(held.seq))  # noqa: TID251
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait_for(stays, 5)
    assert left.cancelled() or left.done()
    ledger.close()


class FaultyCore:
    """A core whose journal fails when it is told to."""

    def __init__(self) -> None:
        self.why: str | None = None
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)

    def fail(self) -> None:
        self.why = "the journal's flush failed"
        os.eventfd_write(self.fd, 1)

    def event_fd(self) -> int:
        return self.fd

    def clear_event(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def hurry(self) -> None:
        self.hurried = True

    def durable_seq(self) -> int:
        return 7

    def fault(self) -> str | None:
        return self.why

    def checkpoint(self) -> None:
        raise _core.LedgerFault("no space")

    def close(self) -> None:
        raise _core.LedgerFault("not all is on the disk")


async def test_a_fault_fails_everybody_who_waits() -> None:
    core = FaultyCore()
    ledger = DurableLedger(core, asyncio.get_running_loop())  # type: ignore[arg-type]
    await ledger.durable(7)
    waiting = [asyncio.ensure_future(ledger.durable(8)) for _ in range(3)]  # noqa: TID251
    await asyncio.sleep(0)
    waiting[0].cancel()
    core.fail()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(isinstance(one, LedgerFaultError) for one in results[1:])
    with pytest.raises(LedgerFaultError, match="flush"):
        await ledger.durable(8)
    with pytest.raises(LedgerFaultError, match="space"):
        ledger.checkpoint()
    with pytest.raises(LedgerFaultError, match="not all"):
        ledger.close()
    os.close(core.fd)


async def test_closing_fails_who_still_waits() -> None:
    core = FaultyCore()
    ledger = DurableLedger(core, asyncio.get_running_loop())  # type: ignore[arg-type]
    waiting = asyncio.ensure_future(ledger.durable(8))  # noqa: TID251
    await asyncio.sleep(0)
    with pytest.raises(LedgerFaultError, match="not all"):
        ledger.close()
    with pytest.raises(LedgerFaultError, match="closed"):
        await waiting
    os.close(core.fd)


CALLER = """
import asyncio, pathlib, random, sys
from cascaded.state.ledger import DurableLedger
from cascaded.types.limits import BudgetLimit, Choice, Demand, Limits
from cascaded.types.model import Model
from cascaded.types.result import Attempt

model = Model(name="m", provider="p", upstream_name="m")
chance = random.Random(int(sys.argv[2]))
user = BudgetLimit(scope="user", id="u", window="total", limit_nano_usd=None)
asked = Demand(menu=(Choice(nano_usd=100, tokens=1),), limits=Limits((user,)))

async def call(ledger):
    held = ledger.admit(asked)
    await ledger.durable(held.seq)
    print("held", held.hold, flush=True)
    if chance.random() < 0.7:
        cost = chance.randrange(100)
        spent = Attempt(rung=0, model=model, cost_nano_usd=cost)
        await ledger.durable(ledger.settle(held.hold, [spent]).seq)
        print("settled", held.hold, cost, flush=True)

async def main():
    loop = asyncio.get_running_loop()
    ledger = DurableLedger.open(
        pathlib.Path(sys.argv[1]), loop, checkpoint_ms=3, segment_bytes=1 << 20
    )
    while True:
        await asyncio.gather(*[call(ledger) for _ in range(chance.randrange(1, 20))])

asyncio.run(main())
"""


def killed_run(folder: Path, seed: int) -> tuple[set[int], dict[int, int]]:
    """Holds and settlements that a caller, killed at a random moment, was told are durable."""
    command = [sys.executable, "-c", CALLER, str(folder), str(seed)]
    caller = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    held, settled = set(), {}
    until = random.Random(seed).randrange(1, 800)
    # To the end of the pipe: what it said between our decision and its death counts, too.
    for number, line in enumerate(caller.stdout, start=1):
        if number == until:
            caller.kill()
        if not line.endswith("\n"):
            break
        kind, hold, *cost = line.split()
        if kind == "held":
            held.add(int(hold))
        else:
            settled[int(hold)] = int(cost[0])
    caller.stdout.close()
    caller.wait()
    assert held, "it died before it was killed"
    return held, settled


async def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    posted = charged = 0
    loop = asyncio.get_running_loop()
    for seed in range(5):
        before = {hold.hold for hold in opened_holds(tmp_path, loop)} if seed else set()
        held, settled = killed_run(tmp_path, seed)
        ledger = DurableLedger.open(tmp_path, loop, segment_bytes=SEGMENT_BYTES)
        unknown = {hold.hold: hold for hold in ledger.unresolved()}
        assert {hold.state for hold in unknown.values()} <= {"unknown"}
        assert {hold.unknown for hold in unknown.values()} <= {100}
        assert not unknown.keys() & settled.keys(), "what was settled stays settled"
        counter = only(ledger.counters("user", "u"))
        assert counter.held == 0
        assert counter.unknown == 100 * len(unknown)
        # What was durable and not told of may be there too; what was told of must be.
        assert counter.posted >= posted + sum(settled.values())
        assert before <= unknown.keys()
        missing = held - unknown.keys() - settled.keys()
        assert counter.posted - posted - sum(settled.values()) <= 100 * len(missing)
        posted, charged = counter.posted, counter.unknown
        ledger.close()
    assert posted > 0
    assert charged > 0


async def test_behind_the_ceiling_calls_wait_for_the_first_alone(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    folder, crashed = tmp_path / "state", tmp_path / "crashed"
    ledger = DurableLedger.open(folder, loop, segment_bytes=SEGMENT_BYTES, gate="ceiling")
    warned = budget(100, enforcement="warn")
    first = admitted(ledger, demand(10, warned))
    assert not first.clear
    await ledger.durable(ledger.stats()["last_seq"])
    second = admitted(ledger, demand(10, warned))
    assert second.clear
    stats = ledger.stats()
    assert (stats["admitted"], stats["gated"]) == (2, 1)
    assert stats["flush_at_start_ns"] > 0
    await ledger.durable(stats["last_seq"])
    shutil.copytree(folder, crashed)
    ledger.close()

    again = DurableLedger.open(crashed, loop, segment_bytes=SEGMENT_BYTES)
    assert again.recovered is not None
    charged = again.recovered.lost_nano_usd
    assert charged >= 10
    lost = next(one for one in again.unresolved() if one.lost)
    assert (lost.state, lost.unknown, lost.held) == ("unknown", charged, 0)
    where = {(one.scope, one.id, one.window): one.nano_usd for one in lost.charges}
    assert where["global", "*", "total"] == charged
    assert {scope for scope, _, _ in where} == {"global", "user"}
    with pytest.raises(ValueError, match="scope"):
        again.adjust(lost.hold, 0, [("nobody", "u", 0)])  # type: ignore[list-item]
    again.adjust(lost.hold, 5, [("user", "u", 2)])
    assert only(again.counters("user", "u")).posted == 2
    assert only(again.counters("global")).posted == 5
    again.close()
    orderly = DurableLedger.open(folder, loop, segment_bytes=SEGMENT_BYTES)
    assert orderly.recovered is not None
    assert (orderly.recovered.charged, orderly.recovered.lost_nano_usd) == (2, 0)
    orderly.close()


def opened_holds(folder: Path, loop: asyncio.AbstractEventLoop) -> list[HoldStatus]:
    ledger = DurableLedger.open(folder, loop, segment_bytes=SEGMENT_BYTES)
    try:
        return ledger.unresolved()
    finally:
        ledger.close()
