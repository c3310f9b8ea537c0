"""The usage log: one record for every finished request, and totals to sum it up quickly.

`usage_reader` says how it is laid out. A batch writes all of its keys at once, so that they always
agree.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from hashlib import blake2b
from itertools import chain, islice
from time import sleep

import msgspec
from msgspec.structs import replace

from cascaded.ports import Clock, Store
from cascaded.state.corrections import corrected
from cascaded.state.log_rows import (
    DAY_NS,
    MAX_TEXT,
    PLACE_BYTES,
    VERSION,
    body,
    place_of,
    text_of,
    text_or_none,
    time_of,
    unskipped,
)
from cascaded.state.usage_reader import (
    BY_USER,
    EVERYBODY,
    IMPORTED,
    META,
    RECORD,
    TALLY,
    TOTAL,
    Tally,
    UsageReader,
    add_name,
    decode_record,
    decode_tally,
    quarter_of,
    subject_of,
)
from cascaded.state.write_behind import Report, WriteBehind
from cascaded.types.decision import CacheState, Refusal
from cascaded.types.errors import StoreError
from cascaded.types.guarding import Finding
from cascaded.types.limits import BudgetWarning, Caller
from cascaded.types.model import Kind
from cascaded.types.records import (
    ADJUSTED,
    AttemptRecord,
    Correction,
    Imported,
    UsageFilter,
    UsageRecord,
    features,
)
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Outcome, Result

RETENTION_DAYS = 90
MAX_TAGS = 32
SWEEP_RECORDS = 512
YIELD_EVERY = 4
LONGEST_CALL_NS = DAY_NS
"""From its reservation to its record: holds of applications may be open for a day."""
MAX_LOOKED_AT = 100_000
"""Records of that user in that time among which a corrected one is looked for."""
NOBODY = Caller(user_id="")


class _Finished(msgspec.Struct, frozen=True, gc=False):
    """What the event loop hands on: references only, and none to what was said."""

    at_ns: int
    request_id: str
    principal: str
    caller: Caller
    tags: Mapping[str, str]
    model: str
    stream: bool
    ladder: str | None
    domain: str | None
    complexity: str | None
    warnings: tuple[BudgetWarning, ...]
    notices: tuple[str, ...]
    hold: int | None
    status: str
    scope: str | None
    answered_by: Attempt | None
    model_used: str | None
    cache: str | None
    flagged: bool
    saved_nano_usd: int
    attempts: tuple[Attempt, ...]
    elapsed_ns: int
    kind: Kind
    first_token_ns: int | None
    findings: tuple[Finding, ...]
    cache_state: CacheState


_encode = msgspec.msgpack.Encoder().encode


class UsageLog(UsageReader):
    """A `ports.Sink`. Records are on disk a moment after they are made; `flushed` waits for it.

    Raises `StoreError` where the store cannot be read at the start.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        report: Report,
        retention_days: int = RETENTION_DAYS,
    ) -> None:
        super().__init__(store)
        self._store = store
        self._writing = threading.Lock()
        self._wall_ns = clock.wall_ns
        self._trusted_ns = unskipped(clock)
        self._retention_ns = retention_days * DAY_NS
        (saved,) = store.get_many([META])
        self._sequence = int.from_bytes(body(saved), "big") if saved else 0
        self._writer = WriteBehind[_Finished | UsageRecord | Correction](
            "usage log", write=self._write, tidy=self.sweep, report=report
        )
        self._put = self._writer.put

    @property
    def dropped(self) -> int:
        """Records that were lost since the start."""
        return self._writer.dropped

    def record(self, request: Request, outcome: Outcome) -> None:
        """See `ports.Sink.record`."""
        decision, end = outcome.decision, outcome.end
        if isinstance(end, Result):
            status, scope = "ok", None
            answered_by, model, cache = end.answered_by, end.model_used, end.cache
            flagged, saved = end.flagged, end.saved_nano_usd
        else:
            status, scope = end.code, _scope(end)
            answered_by, model, cache, flagged, saved = None, None, None, False, 0
        self._put(
            _Finished(
                self._wall_ns(),
                request.id,
                request.principal.id,
                decision.caller or NOBODY,
                request.claims.tags,
                request.model[:MAX_TEXT],
                request.stream,
                decision.ladder.name if decision.ladder else None,
                decision.domain,
                decision.complexity,
                decision.warnings,
                outcome.notices,
                decision.hold.id if decision.hold else None,
                status,
                scope,
                answered_by,
                model,
                cache,
                flagged,
                saved,
                outcome.attempts,
                outcome.elapsed_ns,
                request.kind,
                outcome.first_token_ns,
                outcome.findings,
                "hit" if cache is not None else decision.cache,
            )
        )

    def note(self, record: UsageRecord | Correction) -> None:
        """A record that is made already, or what is to be corrected. Neither blocks nor raises."""
        self._put(record)

    def flushed(self) -> "Future[None]":
        """Done when everything recorded before is on disk; see `WriteBehind.mark`."""
        return self._writer.mark()

    def close(self) -> None:
        """Write what waits. The store stays open."""
        self._writer.close()

    def sweep(self) -> bool:
        """Forget a few records that are older than the retention; whether there are more.
        The log's thread calls it; calling it besides does no harm. Raises `StoreError`."""
        cutoff_ns = self._trusted_ns() - self._retention_ns
        if cutoff_ns <= 0:
            return False
        end = place_of(cutoff_ns)
        old = self._store.scan(RECORD, RECORD + end, SWEEP_RECORDS)
        if old:
            self._store.delete_many(_keys_of(old))
        quarter = TALLY + quarter_of(cutoff_ns)
        if not self._store.scan(TALLY, quarter, 1):  # a look costs less than a transaction
            return len(old) == SWEEP_RECORDS
        tallies = self._store.delete_range(TALLY, quarter, SWEEP_RECORDS)
        return SWEEP_RECORDS in (len(old), tallies)

    def _write(self, batch: "Sequence[_Finished | UsageRecord | Correction]") -> None:
        """One batch, with its index and totals, in one transaction. On the log's thread."""
        records: list[UsageRecord] = []
        with self._writing:
            for one in batch:
                if isinstance(one, _Finished):
                    records.append(_record(one))
                elif isinstance(one, Correction):
                    records.append(corrected(one, self._original(one, records)))
                else:
                    records.append(one)
            self._append(records)

    def _original(self, of: Correction, batch: Sequence[UsageRecord]) -> UsageRecord | None:
        """The record of the call that is corrected: it ended after it was reserved."""
        wanted = UsageFilter(
            since_ns=of.at_ns, until_ns=of.at_ns + LONGEST_CALL_NS, user_id=of.user_id
        )
        earlier = chain(batch, islice(self.records(wanted), MAX_LOOKED_AT))
        return next((one for one in earlier if one.hold == of.hold and not one.imported), None)

    def bring_in(self, records: Sequence[UsageRecord]) -> Imported:
        """Append history that another log has exported, once: by the requests' ids and times.
        What is older than the retention is left out. Writes the disk. Raises `StoreError`."""
        oldest_ns = self._trusted_ns() - self._retention_ns
        fresh = [record for record in records if record.at_ns >= oldest_ns]
        with self._writing:
            new = {
                _identity(record): replace(record, imported=True, hold=None)
                for record in self._unknown(fresh)
            }
            self._append(new.values())
        return Imported(
            added=len(new), known=len(fresh) - len(new), too_old=len(records) - len(fresh)
        )

    def _unknown(self, records: Sequence[UsageRecord]) -> Iterable[UsageRecord]:
        """Those of them that this log has neither recorded nor brought in."""
        brought = self._store.get_many(_imported(record) for record in records)
        for record, place in zip(records, brought, strict=True):
            start, end = time_of(record.at_ns), time_of(record.at_ns + 1)
            own = self._store.scan(RECORD + start, RECORD + end, SWEEP_RECORDS)
            there = {_identity(decode_record(body(value))) for _, value in own}
            if place is None and _identity(record) not in there:
                yield record

    def _append(self, records: Iterable[UsageRecord]) -> None:
        items: list[tuple[bytes, bytes]] = []
        tallies: dict[bytes, Tally] = {}
        sequence = self._sequence
        for sequence, record in enumerate(records, self._sequence + 1):
            place = place_of(record.at_ns, sequence - 1)
            items.append((RECORD + place, VERSION + _encode(record)))
            if record.user_id is not None:
                items.append((BY_USER + subject_of("user", record.user_id) + place, VERSION))
            if record.imported:
                items.append((_imported(record), VERSION + place))
            _count(tallies, record)
            if sequence % YIELD_EVERY == 0:
                sleep(0)  # give the event loop its turn: it waits for us up to 5 ms otherwise
        known = self._store.get_many(tallies)
        for (key, tally), before in zip(tallies.items(), known, strict=True):
            if before is not None:
                tally.add(decode_tally(body(before)))
            items.append((key, VERSION + _encode(tally)))
        items.append((META, VERSION + sequence.to_bytes(8, "big")))
        self._store.put_many(items)
        self._sequence = sequence


def _record(finished: _Finished) -> UsageRecord:
    caller, attempts = finished.caller, finished.attempts
    best = finished.answered_by
    return UsageRecord(
        request_id=finished.request_id,
        at_ns=finished.at_ns,
        principal=finished.principal,
        user_id=text_or_none(caller.user_id),
        tier=text_or_none(caller.tier),
        organization_id=text_or_none(caller.organization_id),
        workspace_id=text_or_none(caller.workspace_id),
        team_id=text_or_none(caller.team_id),
        run_id=text_or_none(caller.run_id),
        tags=_tags(finished),
        model=text_of(finished.model),
        stream=finished.stream,
        status=finished.status,
        scope=text_or_none(finished.scope),
        ladder=finished.ladder,
        domain=finished.domain,
        complexity=finished.complexity,
        reasons=tuple(map(_reason, finished.warnings)),
        notices=finished.notices,
        hold=finished.hold,
        attempts=tuple(map(_attempt, attempts)),
        model_used=finished.model_used,
        cache=finished.cache,
        flagged=finished.flagged,
        score=best.verdict.score if best and best.verdict else None,
        input_tokens=sum(attempt.usage.input_tokens for attempt in attempts),
        output_tokens=sum(attempt.usage.output_tokens for attempt in attempts),
        cost_nano_usd=sum(attempt.cost_nano_usd for attempt in attempts),
        unknown_nano_usd=sum(a.cost_nano_usd for a in attempts if a.billing == "unknown"),
        saved_nano_usd=finished.saved_nano_usd,
        elapsed_ns=finished.elapsed_ns,
        overhead_ns=max(finished.elapsed_ns - sum(a.latency_ns for a in attempts), 0),
        kind=finished.kind,
        first_token_ns=finished.first_token_ns,
        guardrails=tuple(dict.fromkeys(map(str, finished.findings))),
        cache_state=finished.cache_state,
    )


def _reason(warning: BudgetWarning) -> str:
    state = "is over its limit" if warning.over else "has reached its warning level"
    return f"budget {warning.scope}:{text_of(warning.id)} {warning.window} {state}"


def _attempt(attempt: Attempt) -> AttemptRecord:
    usage = attempt.usage
    return AttemptRecord(
        model=attempt.model.name,
        provider=attempt.model.provider,
        rung=attempt.rung,
        billing=attempt.billing,
        error=attempt.error,
        cost_nano_usd=attempt.cost_nano_usd,
        latency_ns=attempt.latency_ns,
        first_token_ns=attempt.first_token_ns,
        score=attempt.verdict.score if attempt.verdict else None,
        failed=attempt.verdict.failed if attempt.verdict else (),
        accepted=attempt.accepted,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        input_audio_tokens=usage.input_audio_tokens,
        output_audio_tokens=usage.output_audio_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_image_tokens=usage.output_image_tokens,
        estimated=usage.estimated,
    )


def _count(tallies: dict[bytes, Tally], record: UsageRecord) -> None:
    """Add a record to its quarter-hour and to the totals: everybody's and its owners'."""
    models: dict[str, int] = {}
    for attempt in record.attempts:
        models[attempt.model] = models.get(attempt.model, 0) + attempt.cost_nano_usd
    tags, quarter = features(record), TALLY + quarter_of(record.at_ns)
    requests = int(record.status != ADJUSTED)
    for subject in _subjects(record):
        for key in (quarter + subject, TOTAL + subject):
            tally = tallies.setdefault(key, Tally())
            tally.requests += requests
            tally.cost_nano_usd += record.cost_nano_usd
            tally.saved_nano_usd += record.saved_nano_usd
        tally = tallies[quarter + subject]
        for model, cost in models.items():
            add_name(tally.models, model, cost, requests)
        for tag in tags:
            add_name(tally.tags, tag, record.cost_nano_usd, requests)


def _subjects(record: UsageRecord) -> list[bytes]:
    """Whose use it is."""
    found = [EVERYBODY]
    if record.user_id is not None:
        found.append(subject_of("user", record.user_id))
    if record.organization_id is not None:
        found.append(subject_of("organization", record.organization_id))
    if record.workspace_id is not None:
        found.append(subject_of("workspace", record.workspace_id))
    return found


def _keys_of(rows: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The keys of stored records and of their index entries."""
    keys = []
    for key, value in rows:
        keys.append(key)
        try:
            record = decode_record(body(value))
        except (StoreError, msgspec.DecodeError):
            continue  # what cannot be read may still be forgotten
        if record.user_id is not None:
            keys.append(BY_USER + subject_of("user", record.user_id) + key[1:])
        if record.imported:
            keys.append(_imported(record))
    return keys


def _tags(finished: _Finished) -> dict[str, str]:
    """The caller's tags and the declared ones, so many and so long."""
    tags = {**finished.tags, **dict(finished.caller.tags)}
    return {text_of(name): text_of(value) for name, value in list(tags.items())[:MAX_TAGS]}


def _scope(refusal: Refusal) -> str | None:
    scope = refusal.details.get("scope")
    return scope if isinstance(scope, str) else None


def _identity(record: UsageRecord) -> tuple[str, int, bool]:
    """What no two records have in common: callers may give an id to several calls."""
    return record.request_id, record.at_ns, record.status == ADJUSTED


def _imported(record: UsageRecord) -> bytes:
    id = " ".join(map(str, _identity(record)))
    return IMPORTED + blake2b(id.encode(), digest_size=PLACE_BYTES).digest()
