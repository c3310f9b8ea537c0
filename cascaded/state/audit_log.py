"""The audit log: every decision about budgets and access, with its reason. Nothing is changed in
it, and only what is older than the retention is removed, the oldest first.

Keys, all numbers big-endian: `r` sequence → the record; `t` time sequence → nothing, to find a
time; `m` → the last sequence number. Numbers are given when a batch is written, in the same
transaction, so that neither a crash nor a full disk leaves a gap. Records that were lost before
they had a number are themselves put on record, as soon as the disk takes it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from time import sleep

import msgspec
from msgspec.structs import replace

from cascaded.ports import Clock, Store
from cascaded.state.log_rows import (
    DAY_NS,
    MAX_NS,
    MAX_PAGE,
    VERSION,
    body,
    checked_limit,
    narrowed,
    place_after,
    place_of,
    text_of,
    text_or_none,
    time_of,
    unskipped,
)
from cascaded.state.write_behind import Report, WriteBehind
from cascaded.types.guarding import Finding
from cascaded.types.limits import Admitted, BudgetWarning, Denial, Receipt
from cascaded.types.profile import AUDIT_LEVELS, AuditLevel
from cascaded.types.records import AuditOutcome, AuditPage, AuditRecord

RETENTION_DAYS = 90
MAX_SCANNED = 10_000
"""Records that one query looks at; it then hands out a cursor to go on from."""
MAX_RECORD_BYTES = 64 * 1024
SWEEP_RECORDS = 512
YIELD_EVERY = 4
DAEMON = "cascaded"
"""The actor of what nobody asked for."""

RECORD, BY_TIME, META = b"r", b"t", b"m"
RECORDS_END = b"s"

SWEPT = AuditRecord(0, "", "", "log", "lost")
"""In place of a record that went between finding it and reading it."""

MINIMAL, STANDARD, COMPREHENSIVE = range(len(AUDIT_LEVELS))
WRITTEN_FROM: dict[AuditOutcome, int] = {
    "denied": MINIMAL,
    "refused": MINIMAL,
    "adjusted": MINIMAL,
    "changed": MINIMAL,
    "lost": MINIMAL,
    "warned": STANDARD,
    "shadowed": STANDARD,
    "degraded": STANDARD,
    "unknown": STANDARD,
    "overrun": STANDARD,
    "crossed": STANDARD,
    "admitted": COMPREHENSIVE,
    "settled": COMPREHENSIVE,
    "released": COMPREHENSIVE,
    "allowed": COMPREHENSIVE,
}
"""The lowest level at which an outcome is written."""

_encode = msgspec.msgpack.Encoder(enc_hook=lambda value: f"[{type(value).__name__}]").encode
_decode = msgspec.msgpack.Decoder(AuditRecord).decode


class AuditLog:
    """Told by those who decide; neither blocks nor raises. `flushed` waits for the disk.

    A profile may set a level of its own, which each method takes; the log's own is for the rest.
    Raises `StoreError` where the store cannot be read at the start.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        report: Report,
        level: AuditLevel = "standard",
        retention_days: int = RETENTION_DAYS,
    ) -> None:
        self._store = store
        self._wall_ns = clock.wall_ns
        self._trusted_ns = unskipped(clock)
        self._level: AuditLevel = level
        self._retention_ns = retention_days * DAY_NS
        (saved,) = store.get_many([META])
        self._sequence = int.from_bytes(body(saved), "big") if saved else 0
        self._told_lost = 0
        self.crossed: Callable[[Receipt, str], None] | None = None
        """Told of a receipt with crossings, and whose call it was. Must neither block nor raise."""
        self._writer = WriteBehind("audit log", write=self._write, tidy=self.sweep, report=report)

    @property
    def dropped(self) -> int:
        """Records that were lost since the start."""
        return self._writer.dropped

    def reserved(
        self,
        step: Admitted | Denial,
        *,
        actor: str,
        user_id: str,
        request_id: str | None = None,
        level: AuditLevel | None = None,
    ) -> None:
        """What the ledger said to a call: admitted (perhaps degraded or warned) or denied."""
        if isinstance(step, Denial):
            outcome: AuditOutcome = "denied"
            subject, reason = f"{step.scope}:{step.id}", str(step.reason)
        else:
            outcome, subject, reason = _admission(step, f"user:{user_id}")
        if not self._writes(outcome, level):
            return
        self._put(
            AuditRecord(
                self._wall_ns(),
                actor,
                subject,
                "reserve",
                outcome,
                reason,
                user_id,
                request_id,
                {"denial" if outcome == "denied" else "admitted": step},
            )
        )

    def settled(
        self,
        receipt: Receipt,
        *,
        actor: str,
        user_id: str,
        request_id: str | None = None,
        level: AuditLevel | None = None,
    ) -> None:
        """How a hold was resolved: unknown and overrun spend, thresholds crossed, or nothing."""
        if receipt.crossings and self.crossed is not None:
            self.crossed(receipt, user_id)
        outcome = _resolution(receipt)
        if not self._writes(outcome, level):
            return
        subject = f"user:{user_id}"
        if receipt.crossings:
            subject = f"{receipt.crossings[0].scope}:{receipt.crossings[0].id}"
        self._put(
            AuditRecord(
                self._wall_ns(),
                actor,
                subject,
                "settle",
                outcome,
                "" if outcome in ("settled", "released") else outcome,
                user_id,
                request_id,
                {"receipt": receipt},
            )
        )

    def adjusted(self, receipt: Receipt, *, actor: str, reason: str) -> None:
        """Somebody resolved a hold's unknown bill with evidence."""
        self._put(
            AuditRecord(
                self._wall_ns(),
                actor,
                f"hold:{receipt.hold}",
                "adjust",
                "adjusted",
                reason,
                details={"receipt": receipt},
            )
        )

    def changed(
        self, subject: str, *, actor: str, reason: str = "", before: object, after: object
    ) -> None:
        """Somebody changed a limit, a profile, a tier or a setting. `None`: there was, or is,
        none. Never pass secrets."""
        details = {"before": before, "after": after}
        self._put(
            AuditRecord(
                self._wall_ns(), actor, subject, "change", "changed", reason, None, None, details
            )
        )

    def access(
        self,
        subject: str,
        *,
        actor: str,
        allowed: bool,
        reason: str,
        user_id: str | None = None,
        request_id: str | None = None,
        level: AuditLevel | None = None,
    ) -> None:
        """Whether somebody may do something, such as use `route:/users` or `model:gpt-4o`."""
        outcome: AuditOutcome = "allowed" if allowed else "refused"
        if self._writes(outcome, level):
            self._put(
                AuditRecord(
                    self._wall_ns(), actor, subject, "access", outcome, reason, user_id, request_id
                )
            )

    def guarded(
        self,
        findings: Sequence[Finding],
        *,
        actor: str,
        user_id: str | None,
        request_id: str,
        level: AuditLevel | None = None,
    ) -> None:
        """What guardrails found in a call: refused, or else warned of. Not what it said."""
        stopped = any(finding.action in ("block", "retry") for finding in findings)
        outcome: AuditOutcome = "refused" if stopped else "warned"
        if self._writes(outcome, level):
            subject = f"guardrail:{findings[-1].guardrail}"
            reason = ", ".join(dict.fromkeys(str(finding) for finding in findings))
            details: dict[str, object] = {"findings": list(findings)}
            self._put(
                AuditRecord(
                    self._wall_ns(),
                    actor,
                    subject,
                    "guard",
                    outcome,
                    reason,
                    user_id,
                    request_id,
                    details,
                )
            )

    def flushed(self) -> "Future[None]":
        """Done when everything told before is on disk; see `WriteBehind.mark`."""
        return self._writer.mark()

    def close(self) -> None:
        """Write what waits. The store stays open."""
        self._writer.close()

    def query(
        self,
        since_ns: int = 0,
        until_ns: int = MAX_NS,
        *,
        user_id: str | None = None,
        outcome: AuditOutcome | None = None,
        limit: int = 100,
        after: str | None = None,
        newest_first: bool = False,
    ) -> AuditPage:
        """Records with `since <= time < until`, at most `limit` (1 to `MAX_PAGE`), going on from
        the cursor `after`; a page may be short, or empty, and still have a cursor. Reads the
        disk: not for the event loop. Raises `ValueError` for a limit or cursor that is none, and
        `StoreError`."""
        size = checked_limit(limit) if user_id is None and outcome is None else MAX_PAGE
        place, named = place_after(after), text_or_none(user_id)
        found: list[AuditRecord] = []
        for _ in range(0, MAX_SCANNED, MAX_PAGE):
            low, high = narrowed(place_of(since_ns), place_of(until_ns), place, newest_first)
            rows = self._read(low, high, size, newest_first)
            for place, record in rows:
                if _wanted(record, named, outcome):
                    found.append(record)
                    if len(found) == limit:
                        return AuditPage(tuple(found), place.hex())
            if len(rows) < size:
                return AuditPage(tuple(found), None)
        return AuditPage(tuple(found), place.hex() if place else None)

    def sweep(self) -> bool:
        """Forget a few records that are older than the retention; whether there are more.
        Always the lowest numbers, so that what is left has no gap. The log's thread calls it;
        calling it besides does no harm. Raises `StoreError`."""
        cutoff_ns = self._trusted_ns() - self._retention_ns
        doomed: list[bytes] = []
        for key, value in self._oldest(cutoff_ns):
            at_ns = _decode(body(value)).at_ns
            if at_ns >= cutoff_ns:
                break
            doomed += (key, BY_TIME + place_of(at_ns)[:8] + key[1:])
        if doomed:
            self._store.delete_many(doomed)
        return len(doomed) == 2 * SWEEP_RECORDS

    def _oldest(self, cutoff_ns: int) -> list[tuple[bytes, bytes]]:
        """The lowest numbers, if anything at all is that old: a look that costs little."""
        if cutoff_ns <= 0 or not self._store.scan(BY_TIME, BY_TIME + place_of(cutoff_ns), 1):
            return []
        return self._store.scan(RECORD, RECORDS_END, SWEEP_RECORDS)

    def _writes(self, outcome: AuditOutcome, level: AuditLevel | None) -> bool:
        return WRITTEN_FROM[outcome] <= AUDIT_LEVELS.index(level or self._level)

    def _put(self, record: AuditRecord) -> None:
        self._writer.put(record)

    def _write(self, batch: Sequence[AuditRecord]) -> None:
        """Number one batch and write it in one transaction. On the log's thread."""
        lost = self._writer.dropped
        records = [self._loss(lost), *batch] if lost > self._told_lost else batch
        items: list[tuple[bytes, bytes]] = []
        sequence = self._sequence
        for record in records:
            sequence += 1
            number = sequence.to_bytes(8, "big")
            items.append((RECORD + number, VERSION + _stored(record, sequence)))
            items.append((BY_TIME + time_of(record.at_ns) + number, VERSION))
            if sequence % YIELD_EVERY == 0:
                sleep(0)  # give the event loop its turn: it waits for us up to 5 ms otherwise
        items.append((META, VERSION + sequence.to_bytes(8, "big")))
        self._store.put_many(items)
        self._sequence, self._told_lost = sequence, lost

    def _loss(self, lost: int) -> AuditRecord:
        details: dict[str, object] = {"records": lost - self._told_lost}
        return AuditRecord(
            self._wall_ns(), DAEMON, "log:audit", "log", "lost", "not written", details=details
        )

    def _read(
        self, low: bytes, high: bytes, size: int, newest_first: bool
    ) -> list[tuple[bytes, AuditRecord]]:
        """The first records between two places, each with its place."""
        rows = self._store.scan(BY_TIME + low, BY_TIME + high, size, reverse=newest_first)
        places = [key[1:] for key, _ in rows]
        values = self._store.get_many(RECORD + place[8:] for place in places)
        return [
            (place, SWEPT if value is None else _decode(body(value)))
            for place, value in zip(places, values, strict=True)
        ]


def _wanted(record: AuditRecord, user_id: str | None, outcome: AuditOutcome | None) -> bool:
    if record is SWEPT or (user_id is not None and record.user_id != user_id):
        return False
    return outcome is None or record.outcome == outcome


def _admission(step: Admitted, user: str) -> tuple[AuditOutcome, str, str]:
    """What is to be said of a hold that was taken: outcome, subject and reason. The subject is
    the first limit that had something to say."""
    limit = next(iter((*step.warnings, *step.shadow)), None)
    subject = user
    if isinstance(limit, BudgetWarning | Denial):
        subject = f"{limit.scope}:{limit.id}"
    if step.degraded:
        return "degraded", subject, "budget_nearly_used"
    if step.warnings:
        over = step.warnings[0].over
        return "warned", subject, "budget_exceeded" if over else "warning_level_reached"
    if step.shadow:
        return "shadowed", subject, f"would_refuse_{step.shadow[0].reason}"
    return "admitted", subject, ""


def _resolution(receipt: Receipt) -> AuditOutcome:
    """The most serious thing that a settlement did."""
    if receipt.overrun:
        return "overrun"
    if receipt.unknown:
        return "unknown"
    if receipt.crossings:
        return "crossed"
    return "released" if receipt.state == "released" else "settled"


def _stored(record: AuditRecord, sequence: int) -> bytes:
    """The record as bytes, with its number; texts and details within their bounds."""
    numbered = replace(
        record,
        actor=text_of(record.actor),
        subject=text_of(record.subject),
        reason=text_of(record.reason),
        user_id=text_or_none(record.user_id),
        request_id=text_or_none(record.request_id),
        sequence=sequence,
    )
    try:
        stored = _encode(numbered)
        why = f"more than {MAX_RECORD_BYTES} bytes" if len(stored) > MAX_RECORD_BYTES else None
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        why = type(error).__name__
    return _encode(replace(numbered, details={"left_out": why})) if why else stored
