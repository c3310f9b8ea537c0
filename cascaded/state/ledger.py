"""The durable ledger: what the compiled core decides, as the values that everybody speaks.

One event loop owns it. Calls are synchronous and take microseconds, so a cancellation cannot
split them; only `durable` waits, and one callback wakes all whose record is on the disk.
"""

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import TypeVar

import msgspec

from cascaded import _core
from cascaded.types.decision import Refusal
from cascaded.types.errors import HoldError, LedgerFaultError, LedgerOpenError
from cascaded.types.limits import (
    Admitted,
    BudgetLimit,
    BudgetWarning,
    CounterStatus,
    Crossing,
    Demand,
    Denial,
    Existing,
    Gate,
    HoldStatus,
    Limits,
    LimitView,
    LostCharge,
    Peek,
    Preview,
    RateLimit,
    Receipt,
    Scope,
)
from cascaded.types.result import Attempt, Billing

T = TypeVar("T")
TOKENS_MAX = 2**32 - 1
"""What the core's rates count up to."""
LIMIT_SETS_MAX = 65_536
"""Kinds of callers whose limits are kept looked up; the one that was used longest ago goes."""


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What a start found in its state folder."""

    incarnation: int
    """How often this state was opened, this time included."""
    records: int
    """Records that were replayed."""
    charged: int
    """Holds that were open and are now charged as unknown."""
    lost_nano_usd: int
    """What calls without a record may have cost at most: charged as one more unknown."""
    torn_bytes: int
    """Bytes of a last batch that never became durable."""
    gap: tuple[int, str] | None = None
    """Spend after this record is forgotten, by a `backup` or a `cut`; where that is accepted."""


class DurableLedger:
    """Money and rates over a state folder, or in memory. See `ports.Ledger`."""

    def __init__(
        self,
        core: _core.Ledger,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        recovered: Recovered | None = None,
    ) -> None:
        """Take a core ledger. One with a journal needs the loop that waits for its disk."""
        self.recovered = recovered
        """`None` in memory."""
        self._core = core
        self._sets: OrderedDict[Limits, _core.LimitSet] = OrderedDict()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()
        self._durable = core.durable_seq()
        self._loop = loop

    @classmethod
    def in_memory(cls, *, clock: _core.ManualClock | None = None) -> "DurableLedger":
        """A ledger that forgets: every record is durable at once."""
        return cls(_core.Ledger.in_memory(clock=clock))

    @classmethod
    def open(
        cls,
        folder: Path,
        loop: asyncio.AbstractEventLoop | None,
        *,
        users_max: int | None = None,
        checkpoint_ms: int | None = None,
        segment_bytes: int | None = None,
        linger_ms: int | None = None,
        clock: _core.ManualClock | None = None,
        gate: Gate = "strict",
        accept_gap: bool = False,
    ) -> "DurableLedger":
        """Open a state folder and charge what a crash left open. Reads the disk.

        Behind the `strict` gate a call under a hard limit waits for its own record; behind the
        `ceiling`, any call does that the ceilings on the disk do not cover. A folder that has
        forgotten spend opens only with `accept_gap`, to be told of it.

        Raises `LedgerOpenError`.
        """
        try:
            core, found = _core.Ledger.open(
                folder,
                clock=clock,
                users_max=users_max,
                checkpoint_ms=checkpoint_ms,
                segment_bytes=segment_bytes,
                linger_ms=linger_ms,
                ceiling=gate == "ceiling",
                accept_gap=accept_gap,
            )
        except _core.LedgerOpenError as error:
            raise LedgerOpenError(*error.args) from None
        incarnation, records, charged, lost, torn_bytes, gap = found
        recovered = Recovered(
            incarnation=incarnation,
            records=records,
            charged=charged,
            lost_nano_usd=lost,
            torn_bytes=torn_bytes,
            gap=gap,
        )
        return cls(core, loop, recovered=recovered)

    @staticmethod
    def verify(folder: Path) -> dict[str, int]:
        """Read a whole state folder, or a backup, that nobody has open.

        Raises `LedgerOpenError` for the first thing that is damaged.
        """
        try:
            return _core.Ledger.verify(folder)
        except _core.LedgerOpenError as error:
            raise LedgerOpenError(*error.args) from None

    @staticmethod
    def cut(folder: Path) -> tuple[int, int, list[str]] | None:
        """Give up what cannot be read of a journal that nobody has open: the last record that is
        kept, the last that is known to be lost, and the files set aside. `None` without damage.

        Raises `LedgerOpenError`.
        """
        try:
            return _core.Ledger.cut(folder)
        except _core.LedgerOpenError as error:
            raise LedgerOpenError(*error.args) from None

    def charge_gap(
        self, upto_seq: int, limits: Limits, nano_usd: int, label: tuple[str, str, str]
    ) -> int | None:
        """Charge spend that was forgotten after a record to budgets, as an unknown; its number.
        0 says that this was all, and is on record.

        Raises `ValueError`, `LedgerFaultError`.
        """
        try:
            return self._core.charge_gap(upto_seq, _specs(limits)[0], nano_usd, label)
        except (_core.LedgerFault, OverflowError) as error:
            raise _translated(error) from None

    def gap_charged(self) -> None:
        """Let the state open by itself again, once the charges are on the disk. Waits for it.

        Raises `LedgerFaultError`.
        """
        try:
            self._core.gap_charged()
        except _core.LedgerFault as error:
            raise _translated(error) from None

    # What a call goes through.

    def admit(self, demand: Demand) -> Admitted | Existing | Denial | Refusal:
        """Hold the first choice that every limit allows, or say why not.

        Raises `ValueError` for a demand that no ledger can take.
        """
        menu = [(choice.nano_usd, choice.tokens, choice.cheap) for choice in demand.menu]
        try:
            limits = self._limit_set(demand.limits)
            answer = self._core.admit(
                limits, menu, demand.idempotency, demand.price_hash, demand.label
            )
        except OverflowError as error:
            raise _out_of_range(error) from None
        if answer[0] == "admitted":
            _, hold, seq, choice, nano_usd, clear, degraded, warnings, shadow = answer
            return Admitted(
                hold=hold,
                seq=seq,
                choice=choice,
                nano_usd=nano_usd,
                clear=clear,
                degraded=degraded,
                warnings=tuple([_warning(one) for one in warnings]) if warnings else (),
                shadow=tuple([_denial(one) for one in shadow]) if shadow else (),
            )
        if answer[0] == "denied":
            return _denial(answer[1])
        if answer[0] == "existing":
            _, hold, seq, choice, nano_usd, state = answer
            return Existing(hold=hold, seq=seq, choice=choice, nano_usd=nano_usd, state=state)
        return Refusal(code=answer[1], message=answer[2])

    def peek(self, demand: Demand) -> Peek:
        """What `admit` would come to; takes nothing. Raises `ValueError`, `LedgerFaultError`."""
        choice, denial, views = self._look(self._core.peek, demand)
        return Peek(
            choice=choice,
            denial=None if denial is None else _denial(denial),
            limits=tuple([_view(view) for view in views]),
        )

    def denied(self, demand: Demand) -> Denial | None:
        """What `admit` would refuse it for. Raises as `peek` does."""
        denial = self._look(self._core.denied, demand)
        return None if denial is None else _denial(denial)

    def preview(self, demand: Demand) -> Preview:
        """As `peek`, with the limits as JSON rows."""
        choice, denial, rows = self._look(self._core.preview, demand)
        return Preview(
            choice=choice,
            denial=None if denial is None else _denial(denial),
            limits=msgspec.Raw(rows),
        )

    def _look(
        self, look: Callable[[_core.LimitSet, list[tuple[int, int, bool]]], T], demand: Demand
    ) -> T:
        menu = [(choice.nano_usd, choice.tokens, choice.cheap) for choice in demand.menu]
        try:
            return look(self._limit_set(demand.limits), menu)
        except OverflowError as error:
            raise _out_of_range(error) from None
        except _core.LedgerFault as error:
            raise LedgerFaultError(*error.args) from None

    async def durable(self, seq: int) -> None:
        """Return once the record survives a crash. Raises `LedgerFaultError`."""
        if seq <= self._durable:
            return
        self._durable = self._core.durable_seq()
        if seq <= self._durable:
            return
        self._check()
        assert self._loop is not None, "a ledger with a journal is given the loop that waits"
        if not self._waiting:
            self._listen()
        future: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._waiting, (seq, next(self._order), future))
        self._core.hurry()
        await future

    def settle(self, hold: int, attempts: Sequence[Attempt]) -> Receipt:
        """Post what the attempts cost and give back the rest. A hold resolves once.

        Raises `HoldError`, `LedgerFaultError`.
        """
        billed = [(attempt.billing, attempt.cost_nano_usd) for attempt in attempts]
        try:
            return _receipt(self._core.settle(hold, billed, _tokens(attempts)))
        except (_core.HoldError, _core.LedgerFault, OverflowError) as error:
            raise _translated(error) from None

    def post(self, hold: int, nano_usd: int, billing: Billing) -> Receipt:
        """Settle a hold at what somebody else's call cost, or may have cost.

        Its tokens stay as they were reserved. Raises `HoldError`, `LedgerFaultError`.
        """
        try:
            return _receipt(self._core.settle(hold, [(billing, nano_usd)], None))
        except (_core.HoldError, _core.LedgerFault, OverflowError) as error:
            raise _translated(error) from None

    def release(self, hold: int) -> Receipt:
        """Give a hold back: nothing was billed. Raises `HoldError`, `LedgerFaultError`."""
        try:
            return _receipt(self._core.release(hold))
        except (_core.HoldError, _core.LedgerFault, OverflowError) as error:
            raise _translated(error) from None

    def adjust(
        self, hold: int, nano_usd: int, scopes: Sequence[tuple[Scope, str, int]] = ()
    ) -> Receipt:
        """Resolve an unknown: evidence says that it cost this much.

        Of what a crash lost, `scopes` (scope, id, nano-dollars) may say whose it was.

        Raises `HoldError`, `LedgerFaultError`, and `ValueError` for an amount below zero.
        """
        try:
            return _receipt(self._core.adjust(hold, nano_usd, scopes))
        except (_core.HoldError, _core.LedgerFault, OverflowError) as error:
            raise _translated(error) from None

    # What operators do and see.

    def check(self, limits: Limits) -> None:
        """Raises `ValueError` for limits that cannot be enforced. Changes nothing."""
        try:
            self._core.compile(*_specs(limits))
        except OverflowError as error:
            raise _out_of_range(error) from None

    def set_limits(self, limits: Limits, *, reload: bool) -> int:
        """Set limits, all at once; returns how many changed.

        With `reload`, those with origin `file` or `api` that are not among them are removed.
        Raises `ValueError` for a limit that cannot be enforced, `LedgerFaultError`.
        """
        try:
            changed, _ = self._core.set_limits(*_specs(limits), reload=reload)
        except (_core.LedgerFault, OverflowError) as error:
            raise _translated(error) from None
        return changed

    def counters(self, scope: Scope | None = None, id: str | None = None) -> list[CounterStatus]:
        """The counters of one scope (quick), of a kind of scope, or all (reads every counter)."""
        return [
            CounterStatus(
                scope=kind,
                id=name,
                window=window,
                zone=zone,
                limit=limit,
                enforcement=enforcement,
                origin=origin,
                posted=posted,
                held=held,
                unknown=unknown,
                overrun=overrun,
                degraded=degraded,
                starts_at_ns=starts_at_ns,
                resets_at_ns=resets_at_ns,
            )
            for (
                (kind, name, window, zone),
                (limit, enforcement, origin),
                (posted, held, unknown, overrun),
                degraded,
                starts_at_ns,
                resets_at_ns,
            ) in self._core.counters(scope, id)
        ]

    def unresolved(self) -> list[HoldStatus]:
        """Holds that are not resolved, or whose bill is unknown; oldest first."""
        return [_hold(one) for one in self._core.unresolved()]

    def hold(self, hold: int) -> HoldStatus | None:
        """One hold, if it is not resolved or its bill is unknown."""
        try:
            found = self._core.hold(hold)
        except OverflowError:
            return None
        return None if found is None else _hold(found)

    def spend(self) -> dict[str, int]:
        """Nano-dollars: posted since the start, held for calls under way, unknown."""
        posted, held, unknown = self._core.spend()
        return {"posted": posted, "held": held, "unknown": unknown}

    def stats(self) -> dict[str, int]:
        """Figures of this instant, by name."""
        return self._core.stats()

    def fault(self) -> str | None:
        """Why the ledger works no more, if it does not."""
        return self._core.fault()

    def confirm_clock(self) -> None:
        """Believe the wall clock as it stands, after a leap that was not believed."""
        self._core.confirm_clock()

    def checkpoint(self) -> None:
        """Write a checkpoint now. Waits for the disk: call it on a thread."""
        try:
            self._core.checkpoint()
        except _core.LedgerFault as error:
            raise LedgerFaultError(*error.args) from None

    def backup(self, folder: Path) -> None:
        """Copy the state into a folder that must not exist. Waits: call it on a thread."""
        try:
            self._core.backup(folder)
        except _core.LedgerFault as error:
            raise LedgerFaultError(*error.args) from None

    def close(self) -> None:
        """Write what is queued and give the folder back. Waits for the disk.

        Raises `LedgerFaultError` when not all of it is on the disk.
        """
        self._listen(on=False)
        try:
            self._core.close()
        except _core.LedgerFault as error:
            raise LedgerFaultError(*error.args) from None
        finally:
            self._drain()
            self._fail("the ledger was closed")

    def _limit_set(self, limits: Limits) -> _core.LimitSet:
        found = self._sets.get(limits)
        if found is not None:
            self._sets.move_to_end(limits)
            return found
        found = self._sets[limits] = self._core.compile(*_specs(limits))
        if len(self._sets) > LIMIT_SETS_MAX:
            self._sets.popitem(last=False)
        return found

    def _listen(self, *, on: bool = True) -> None:
        """Hear of every flush. Only while somebody waits: a flush that nobody waits for would
        otherwise wake the loop in the middle of a call."""
        fd = self._core.event_fd()
        if fd is None or self._loop is None:
            return
        if on:
            self._loop.add_reader(fd, self._drain)
        else:
            self._loop.remove_reader(fd)

    def _drain(self) -> None:
        """Wake everybody whose record is on the disk; on a fault, everybody."""
        self._core.clear_event()
        self._durable = self._core.durable_seq()
        waiting = self._waiting
        while waiting and waiting[0][0] <= self._durable:
            future = heapq.heappop(waiting)[2]
            if not future.done():
                future.set_result(None)
        if waiting and (fault := self._core.fault()) is not None:
            self._fail(fault)
        if not waiting:
            self._listen(on=False)

    def _fail(self, why: str) -> None:
        for _, _, future in self._waiting:
            if not future.done():
                future.set_exception(LedgerFaultError(why))
        self._waiting.clear()

    def _check(self) -> None:
        fault = self._core.fault()
        if fault is not None:
            raise LedgerFaultError(fault)


def _out_of_range(error: OverflowError) -> ValueError:
    return ValueError(f"a number is out of range: {error}")


def _translated(error: Exception) -> Exception:
    """A fault of the core as one of ours."""
    if isinstance(error, _core.HoldError):
        return HoldError(*error.args)
    if isinstance(error, _core.LedgerFault):
        return LedgerFaultError(*error.args)
    return ValueError(f"a number is out of range: {error}")


def _tokens(attempts: Sequence[Attempt]) -> int | None:
    """What the attempts really used, if that is known of all of them."""
    tokens = 0
    for attempt in attempts:
        if attempt.billing == "unknown":
            return None
        tokens += attempt.usage.input_tokens + attempt.usage.output_tokens
    return min(tokens, TOKENS_MAX)


def _specs(limits: Limits) -> "tuple[list[_core._Budget], list[_core._Rate]]":
    return [_budget(budget) for budget in limits.budgets], [_rate(rate) for rate in limits.rates]


def _budget(limit: BudgetLimit) -> "_core._Budget":
    return (
        limit.scope,
        limit.id,
        limit.window,
        limit.zone,
        limit.limit_nano_usd,
        limit.enforcement,
        limit.warn_bp,
        limit.degrade_bp,
        limit.block_bp,
        limit.origin,
    )


def _rate(limit: RateLimit) -> "_core._Rate":
    return (
        limit.scope,
        limit.id,
        limit.unit,
        limit.method,
        limit.window_ns,
        limit.limit,
        limit.block,
    )


def _denial(denial: "_core._Denial") -> Denial:
    reason, scope, id, window, unit, window_ns, limit, used, asked, reset_at_ns, wait_ns = denial
    return Denial(
        reason=reason,
        scope=scope,
        id=id,
        window=window,
        unit=unit,
        window_ns=window_ns,
        limit=limit,
        used=used,
        asked=asked,
        reset_at_ns=reset_at_ns,
        retry_after_ns=wait_ns,
    )


def _warning(warning: "_core._Warning") -> BudgetWarning:
    scope, id, window, limit, spent, over = warning
    return BudgetWarning(scope=scope, id=id, window=window, limit=limit, spent=spent, over=over)


def _view(view: "_core._View") -> LimitView:
    (
        scope,
        id,
        window,
        unit,
        window_ns,
        limit,
        used,
        remaining,
        degraded,
        fits,
        enforced,
        reset_at_ns,
    ) = view
    return LimitView(
        scope=scope,
        id=id,
        window=window,
        unit=unit,
        window_ns=window_ns,
        limit=limit,
        used=used,
        remaining=remaining,
        degraded=degraded,
        fits=fits,
        enforced=enforced,
        reset_at_ns=reset_at_ns,
    )


def _hold(found: "_core._Unresolved") -> HoldStatus:
    hold, state, held, unknown, at_ns, label, charges = found
    request_id, user_id, owner = label or ("", "", "")
    return HoldStatus(
        hold=hold,
        state=state,
        held=held,
        unknown=unknown,
        at_ns=at_ns,
        request_id=request_id,
        user_id=user_id,
        owner=owner,
        lost=charges is not None,
        charges=tuple(
            LostCharge(scope=scope, id=id, window=window, zone=zone, nano_usd=nano_usd)
            for scope, id, window, zone, nano_usd in charges or ()
        ),
    )


def _receipt(receipt: "_core._Receipt") -> Receipt:
    hold, seq, state, posted, unknown, returned, overrun, crossings = receipt
    return Receipt(
        hold=hold,
        seq=seq,
        state=state,
        posted=posted,
        unknown=unknown,
        returned=returned,
        overrun=overrun,
        crossings=tuple([_crossing(one) for one in crossings]) if crossings else (),
    )


def _crossing(crossing: "_core._Crossing") -> Crossing:
    scope, id, window, threshold_bp, limit, spent = crossing
    return Crossing(
        scope=scope, id=id, window=window, threshold_bp=threshold_bp, limit=limit, spent=spent
    )
