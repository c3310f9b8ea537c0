"""What a restored backup, or a cut journal, has forgotten: what is charged for it, on the word of
an operator, until there is evidence."""

import os
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from cascaded.adapters.clock import SystemClock
from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.config import Config
from cascaded.daemon.errors import StartError
from cascaded.daemon.rules import rulebook_of
from cascaded.daemon.state import LEDGER, OVERRIDES, check_owner, state_folder
from cascaded.policy.limits import LimitBook, limits_for, named_limits
from cascaded.state.audit_log import AuditLog
from cascaded.state.ledger import DurableLedger
from cascaded.state.log_rows import MAX_PAGE
from cascaded.state.overrides import StoredOverrides
from cascaded.state.usage_log import UsageLog
from cascaded.types.errors import LedgerFaultError, LedgerOpenError, StoreError
from cascaded.types.limits import BudgetLimit, Caller, CounterStatus, Limits, Scope, Window
from cascaded.types.overrides import GLOBAL_ID
from cascaded.types.quotas import MAX_BUDGETS
from cascaded.types.records import UsageRecord
from cascaded.types.times import NS_PER_S

MAX_CHARGES = 100_000
"""Half of the holds that a ledger keeps unresolved: calls must have room beside them."""
HARD = ("block", "degrade")
NUMBERS_SKIPPED = 1 << 20
"""Of holds, before the one that says what a crash has lost: the core's word."""
MARKER = "gap"
"""The file that the journal marks a folder with."""
ROLLING_DAYS: dict[Window, int] = {"rolling_day": 1, "rolling_week": 7, "rolling_month": 30}


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator says about forgotten spend."""

    named: tuple[tuple[Scope, str, int], ...] = ()
    """Scope, id and nano-dollars: charged to every budget of that scope."""
    usage: Path | None = None
    """A usage log that knows more than the ledger: what it has is charged to whoever spent it."""
    limits: bool = False
    """Fill every hard budget's present window up to its limit."""
    nothing: bool = False
    """Charge nothing, knowingly."""


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """One charge, as an unknown that evidence can resolve."""

    hold: int | None
    """`None` until it is charged."""
    subject: str
    """`user:alice`, `global` …"""
    nano_usd: int
    windows: tuple[Window, ...]


class GapReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a gap."""

    upto_seq: int | None
    """The last record before it; `None`: there is no gap."""
    reason: str = ""
    """`backup` or `cut`."""
    charged: tuple[Charge, ...] = ()
    known: tuple[Charge, ...] = ()
    """Not charged: what the usage log of the state itself would charge."""
    closed: bool = True
    """Whether the daemon may start."""


class _Scene(msgspec.Struct, frozen=True):
    """What there is to decide by."""

    ledger: DurableLedger
    book: LimitBook
    first_forgotten: int
    """Holds from this number on are forgotten."""
    retention_days: int


class _Bill(msgspec.Struct, frozen=True):
    """What is to be charged to some budgets."""

    subject: str
    user: str
    budgets: tuple[BudgetLimit, ...]
    nano_usd: int


def charge_gap(config: Config, decision: Decision | None) -> GapReport:
    """Charge what a state folder has forgotten, and let it start. Without a decision it only looks.

    A run that is cut off may be repeated: charges that were made stay, as unknowns, and the folder
    still asks. Raises `StartError`.
    """
    folder = state_folder(config.ledger)
    check_owner(folder)
    try:
        ledger = DurableLedger.open(folder / LEDGER, None, accept_gap=True)
    except LedgerOpenError as error:
        raise StartError(f"{folder}: {error}") from None
    try:
        with closing(ledger):
            report = _decided(ledger, folder, config, decision)
        if report.closed and report.upto_seq is not None:
            _put_on_record(folder, report, config.records.retention_days)
    except (LedgerFaultError, StoreError, ValueError) as error:
        raise StartError(f"{folder}: {error}") from None
    return report


def _decided(
    ledger: DurableLedger, folder: Path, config: Config, decision: Decision | None
) -> GapReport:
    assert ledger.recovered is not None
    gap = ledger.recovered.gap
    if gap is None:
        return GapReport(upto_seq=None)
    upto_seq, reason = gap
    with closing(LmdbStore(folder / OVERRIDES)) as store:
        book = rulebook_of(config, StoredOverrides(store)).now.book
    marked_ns = (folder / LEDGER / MARKER).stat().st_mtime_ns
    first = _first_forgotten(ledger, _label(gap), marked_ns)
    scene = _Scene(ledger, book, first, config.records.retention_days)
    if decision is None:
        known = [_charge(bill, None) for bill in _spent_after(scene, folder / "usage")]
        return GapReport(upto_seq=upto_seq, reason=reason, known=tuple(known), closed=False)
    charged: list[Charge] = []
    for bills in _bills(scene, decision):
        if len(charged) + len(bills) > MAX_CHARGES:
            raise StartError(
                f"this would make {len(charged) + len(bills):,} charges and {MAX_CHARGES:,} are"
                " taken at once: charge what stands above them, such as --charge global=USD"
            )
        for bill in bills:
            label = (_label(gap), bill.user, "")
            hold = ledger.charge_gap(upto_seq, Limits(bill.budgets), bill.nano_usd, label)
            charged.append(_charge(bill, hold))
    ledger.charge_gap(upto_seq, Limits(), 0, ("", "", ""))
    ledger.gap_charged()
    return GapReport(upto_seq=upto_seq, reason=reason, charged=tuple(charged))


def _bills(scene: _Scene, decision: Decision) -> Iterator[list[_Bill]]:
    """What is to be charged; limits come last, when it is known what is left below them."""
    yield [_named(scene.ledger, scene.book, *one) for one in decision.named]
    if decision.usage is not None:
        yield _spent_after(scene, decision.usage)
    if decision.limits:
        yield list(_rooms(scene.ledger, scene.book))


def _named(ledger: DurableLedger, book: LimitBook, scope: Scope, id: str, nano_usd: int) -> _Bill:
    """An amount for all budgets of a scope: those that it has, and those that a call would make."""
    budgets = _budgets_of(ledger, book, _caller_of(scope, id))
    own = tuple(one for one in budgets if (one.scope, one.id) == (scope, id))
    subject = _subject(scope, id)
    if not own:
        raise StartError(f"{subject} has no budget that could be charged")
    return _Bill(subject, id if scope == "user" else "", own, nano_usd)


def _budgets_of(ledger: DurableLedger, book: LimitBook, caller: Caller) -> list[BudgetLimit]:
    """What a caller's calls are charged to: by the configuration and what was set at run time, and
    what else the ledger has of these scopes, such as by a stored profile."""
    owners: dict[Scope, str | None] = {
        "global": GLOBAL_ID,
        "organization": caller.organization_id,
        "workspace": caller.workspace_id,
        "team": caller.team_id,
        "user": caller.user_id or None,
        "tier": caller.tier,
        "run": caller.run_id,
    }
    scopes = [(scope, id) for scope, id in owners.items() if id is not None]
    scopes += [("tag", f"{name}={value}") for name, value in caller.tags]
    there = [_budget(one) for scope, id in scopes for one in ledger.counters(scope, id)]
    keys = {_key(budget) for budget in there}
    made = (one for one in limits_for(caller, book).budgets if (one.scope, one.id) in scopes)
    return [*there, *(one for one in made if _key(one) not in keys)][:MAX_BUDGETS]


def _caller_of(scope: Scope, id: str) -> Caller:
    """A caller whose calls are charged to this scope."""
    name, _, value = id.partition("=")
    return Caller(
        user_id=id if scope == "user" else "",
        organization_id=id if scope == "organization" else None,
        workspace_id=id if scope == "workspace" else None,
        team_id=id if scope == "team" else None,
        tier=id if scope == "tier" else None,
        run_id=id if scope == "run" else None,
        tags=((name, value),) if scope == "tag" else (),
    )


def _rooms(ledger: DurableLedger, book: LimitBook) -> Iterator[_Bill]:
    """What is left below every hard limit, each for itself."""
    counters = ledger.counters()
    seen = {_key(_budget(counter)) for counter in counters}
    for counter in counters:
        left = (counter.limit or 0) - counter.posted - counter.held - counter.unknown
        if counter.enforcement in HARD and left > 0:
            user = counter.id if counter.scope == "user" else ""
            yield _Bill(_subject(counter.scope, counter.id), user, (_budget(counter),), left)
    for budget in named_limits(book).budgets:
        if budget.enforcement in HARD and budget.limit_nano_usd and _key(budget) not in seen:
            subject = _subject(budget.scope, budget.id)
            yield _Bill(subject, "", (budget,), budget.limit_nano_usd)


def _spent_after(scene: _Scene, usage: Path) -> list[_Bill]:
    """What a usage log knows of holds that the ledger does not: for each caller, on each set of
    budgets whose windows are still the ones that it was spent in."""
    if not usage.is_dir():
        return []
    now_ns = SystemClock().wall_ns()
    sums: dict[tuple[Caller, tuple[BudgetLimit, ...]], int] = {}
    budgets_of = cache(partial(_budgets_of, scene.ledger, scene.book))
    with closing(LmdbStore(usage)) as store:
        for record in _newer(store, scene):
            caller = _caller(record, scene.book)
            live = tuple(
                budget
                for budget in budgets_of(caller)
                if record.at_ns >= _starts_ns(budget, now_ns)
            )
            if live:
                sums[caller, live] = sums.get((caller, live), 0) + record.cost_nano_usd
    return [
        _Bill(_subject("user", caller.user_id), caller.user_id, budgets, nano_usd)
        for (caller, budgets), nano_usd in sums.items()
    ]


def _first_forgotten(ledger: DurableLedger, label: str, marked_ns: int) -> int:
    """The first hold that is forgotten. From there on numbers were given anew to charges of this
    gap, and, some further on, to what opening the folder charged as lost since it was marked."""
    anew = [ledger.stats()["next_hold"]]
    for one in ledger.unresolved():
        if one.request_id == label:
            anew.append(one.hold)
        elif one.lost and one.at_ns >= marked_ns:
            anew.append(one.hold - NUMBERS_SKIPPED)
    return min(anew)


def _label(gap: tuple[int, str]) -> str:
    """What charges have in place of a request's id; no request's has a space."""
    return f"gap after record {gap[0]} ({gap[1]})"


def _newer(store: LmdbStore, scene: _Scene) -> Iterator[UsageRecord]:
    """Records of calls that were reserved after the ledger's last hold, the newest first. They end
    in another order than they began in: a whole page must be known before the rest is."""
    clock, cursor = SystemClock(), None
    with closing(
        UsageLog(store, clock, report=lambda _: None, retention_days=scene.retention_days)
    ) as log:
        while True:
            page = log.query(limit=MAX_PAGE, after=cursor, newest_first=True)
            held = [record for record in page.records if record.hold is not None]
            new = [
                one for one in held if one.hold is not None and one.hold >= scene.first_forgotten
            ]
            yield from (record for record in new if record.cost_nano_usd > 0)
            cursor = page.cursor
            if cursor is None or (held and not new):
                return


def _caller(record: UsageRecord, book: LimitBook) -> Caller:
    return Caller(
        user_id=record.user_id or "",
        tier=record.tier,
        organization_id=record.organization_id,
        workspace_id=record.workspace_id,
        team_id=record.team_id,
        run_id=record.run_id,
        tags=tuple(sorted(one for one in record.tags.items() if one[0] in book.tags)),
    )


def _starts_ns(budget: BudgetLimit, now_ns: int) -> int:
    """When a budget's present window began."""
    if budget.window == "total":
        return 0
    if budget.window in ROLLING_DAYS:
        return now_ns - ROLLING_DAYS[budget.window] * 86_400 * NS_PER_S
    now = datetime.fromtimestamp(now_ns / NS_PER_S, UTC).astimezone(ZoneInfo(budget.zone))
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if budget.window == "week":
        start -= timedelta(days=start.weekday())
    elif budget.window == "month":
        start = start.replace(day=1)
    return int(start.timestamp()) * NS_PER_S


def _budget(counter: CounterStatus) -> BudgetLimit:
    """A counter that is there, by what it is; its limit stays as it is."""
    return BudgetLimit(
        scope=counter.scope,
        id=counter.id,
        window=counter.window,
        zone=counter.zone,
        limit_nano_usd=counter.limit,
    )


def _key(budget: BudgetLimit) -> tuple[str, str, str, str]:
    return (budget.scope, budget.id, budget.window, budget.zone)


def _subject(scope: Scope, id: str) -> str:
    return "global" if scope == "global" else f"{scope}:{id}"


def _charge(bill: _Bill, hold: int | None) -> Charge:
    windows = tuple(budget.window for budget in bill.budgets)
    return Charge(hold=hold, subject=bill.subject, nano_usd=bill.nano_usd, windows=windows)


def _put_on_record(folder: Path, report: GapReport, days: int) -> None:
    """Tell the audit log, once for all: the charges themselves are among the unknowns."""
    with (
        closing(LmdbStore(folder / "audit")) as store,
        closing(
            AuditLog(store, SystemClock(), report=lambda _: None, retention_days=days)
        ) as audit,
    ):
        charged = report.charged
        audit.changed(
            "ledger",
            actor=f"uid:{os.getuid()}",
            reason=f"forgotten after record {report.upto_seq} of a {report.reason}",
            before=None,
            after={"charges": len(charged), "nano_usd": sum(one.nano_usd for one in charged)},
        )
