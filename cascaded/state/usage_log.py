"""The usage log: one record for every finished request, and totals to sum it up quickly.

Keys, all numbers big-endian so that bytes sort as they do:
`r` time sequence → the record; `u` user time sequence → nothing, to list one user's records;
`t` quarter-hour user → what was used in it (every time zone's midnight falls on a quarter-hour);
`m` → the next sequence number. A user is the hash of their id; the hash of everybody is zeros.
A batch writes all of its keys at once, so that they always agree.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta, tzinfo
from hashlib import blake2b
from time import sleep

import msgspec

from cascaded.ports import Clock, Store
from cascaded.state.log_rows import (
    DAY_NS,
    MAX_NS,
    MAX_TEXT,
    PLACE_BYTES,
    VERSION,
    body,
    checked_limit,
    narrowed,
    place_after,
    place_of,
    text_of,
    text_or_none,
    unskipped,
)
from cascaded.state.write_behind import Report, WriteBehind
from cascaded.types.decision import Refusal
from cascaded.types.errors import StoreError
from cascaded.types.limits import BudgetWarning, Caller
from cascaded.types.model import Kind
from cascaded.types.records import AttemptRecord, Share, UsagePage, UsageRecord, UsageSummary
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Outcome, Result
from cascaded.types.times import NS_PER_S

RETENTION_DAYS = 90
MAX_TAGS = 32
MAX_NAMES = 64
"""Models or tags told apart in one quarter-hour of one user; more share `OTHER`."""
MAX_NAMES_TOTAL = 4_096
"""Of a summary."""
OTHER = "(other)"
TOP = 10
SWEEP_RECORDS = 512
KEYS_AT_ONCE = 1_024
YIELD_EVERY = 4
QUARTER_NS = 900 * NS_PER_S

RECORD, BY_USER, TALLY, META = b"r", b"u", b"t", b"m"
EVERYBODY = bytes(PLACE_BYTES)
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
    cache: str | None
    flagged: bool
    saved_nano_usd: int
    attempts: tuple[Attempt, ...]
    elapsed_ns: int
    kind: Kind


class _Tally(msgspec.Struct, array_like=True):
    """What was used in some time; models and tags as (nano-dollars, requests)."""

    requests: int = 0
    cost_nano_usd: int = 0
    saved_nano_usd: int = 0
    models: dict[str, tuple[int, int]] = {}
    tags: dict[str, tuple[int, int]] = {}

    def add(self, other: "_Tally") -> None:
        """Count another one in."""
        self.requests += other.requests
        self.cost_nano_usd += other.cost_nano_usd
        self.saved_nano_usd += other.saved_nano_usd
        for names, more in ((self.models, other.models), (self.tags, other.tags)):
            for name, (cost, requests) in more.items():
                _add(names, name, cost, requests, MAX_NAMES_TOTAL)


_encode = msgspec.msgpack.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(UsageRecord).decode
_decode_tally = msgspec.msgpack.Decoder(_Tally).decode


class UsageLog:
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
        self._store = store
        self._wall_ns = clock.wall_ns
        self._trusted_ns = unskipped(clock)
        self._retention_ns = retention_days * DAY_NS
        (saved,) = store.get_many([META])
        self._sequence = int.from_bytes(body(saved), "big") if saved else 0
        self._writer = WriteBehind("usage log", write=self._write, tidy=self.sweep, report=report)
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
            answered_by, cache = end.answered_by, end.cache
            flagged, saved = end.flagged, end.saved_nano_usd
        else:
            status, scope = end.code, _scope(end)
            answered_by, cache, flagged, saved = None, None, False, 0
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
                cache,
                flagged,
                saved,
                outcome.attempts,
                outcome.elapsed_ns,
                request.kind,
            )
        )

    def flushed(self) -> "Future[None]":
        """Done when everything recorded before is on disk; see `WriteBehind.mark`."""
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
        limit: int = 100,
        after: str | None = None,
        newest_first: bool = False,
    ) -> UsagePage:
        """Records with `since <= time < until`, at most `limit` (1 to `MAX_PAGE`), going on from
        the cursor `after`. Reads the disk: not for the event loop. Raises `ValueError` for a
        limit or cursor that is none, and `StoreError`."""
        low, high = narrowed(
            place_of(since_ns), place_of(until_ns), place_after(after), newest_first
        )
        places, values = self._found(user_id, low, high, checked_limit(limit), newest_first)
        records = tuple(_decode_record(body(value)) for value in values)
        return UsagePage(records, places[-1].hex() if len(places) == limit else None)

    def summary(
        self, user_id: str | None, now_ns: int, zone: tzinfo = UTC, *, top: int = TOP
    ) -> UsageSummary:
        """What the user (everybody, for `None`) used today, this week and this month of `zone`.
        Reads the disk: a few milliseconds. Raises `StoreError`."""
        day_ns, week_ns, month_ns = _starts(now_ns, zone)
        today, week, month = _Tally(), _Tally(), _Tally()
        for at_ns, tally in self._tallies(user_id, min(week_ns, month_ns), now_ns):
            for total, start_ns in ((today, day_ns), (week, week_ns), (month, month_ns)):
                if at_ns >= start_ns:
                    total.add(tally)
        return UsageSummary(
            user_id=user_id,
            today_nano_usd=today.cost_nano_usd,
            week_nano_usd=week.cost_nano_usd,
            month_nano_usd=month.cost_nano_usd,
            month_saved_nano_usd=month.saved_nano_usd,
            requests_today=today.requests,
            requests_month=month.requests,
            top_models=_top(month.models, top),
            top_tags=_top(month.tags, top),
        )

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
        quarter = TALLY + _quarter(cutoff_ns)
        if not self._store.scan(TALLY, quarter, 1):  # a look costs less than a transaction
            return len(old) == SWEEP_RECORDS
        tallies = self._store.delete_range(TALLY, quarter, SWEEP_RECORDS)
        return SWEEP_RECORDS in (len(old), tallies)

    def _write(self, batch: Sequence[_Finished]) -> None:
        """One batch, with its index and totals, in one transaction. On the log's thread."""
        items: list[tuple[bytes, bytes]] = []
        tallies: dict[bytes, _Tally] = {}
        for sequence, finished in enumerate(batch, self._sequence):
            record = _record(finished)
            place = place_of(record.at_ns, sequence)
            items.append((RECORD + place, VERSION + _encode(record)))
            if record.user_id is not None:
                items.append((BY_USER + _user(record.user_id) + place, VERSION))
            _count(tallies, record)
            if sequence % YIELD_EVERY == 0:
                sleep(0)  # give the event loop its turn: it waits for us up to 5 ms otherwise
        known = self._store.get_many(tallies)
        for (key, tally), before in zip(tallies.items(), known, strict=True):
            if before is not None:
                tally.add(_decode_tally(body(before)))
            items.append((key, VERSION + _encode(tally)))
        following = self._sequence + len(batch)
        items.append((META, VERSION + following.to_bytes(8, "big")))
        self._store.put_many(items)
        self._sequence = following

    def _found(
        self, user_id: str | None, low: bytes, high: bytes, limit: int, newest_first: bool
    ) -> tuple[list[bytes], list[bytes]]:
        """The places of at most `limit` records between two places, and the stored records."""
        if user_id is None:
            rows = self._store.scan(RECORD + low, RECORD + high, limit, reverse=newest_first)
            return [key[1:] for key, _ in rows], [value for _, value in rows]
        prefix = BY_USER + _user(user_id)
        rows = self._store.scan(prefix + low, prefix + high, limit, reverse=newest_first)
        places = [key[-PLACE_BYTES:] for key, _ in rows]
        values = self._store.get_many(RECORD + place for place in places)
        return places, [value for value in values if value is not None]  # swept in between

    def _tallies(
        self, user_id: str | None, since_ns: int, until_ns: int
    ) -> Iterator[tuple[int, _Tally]]:
        user = EVERYBODY if user_id is None else _user(user_id)
        times = range(since_ns - since_ns % QUARTER_NS, until_ns + 1, QUARTER_NS)
        for first in range(0, len(times), KEYS_AT_ONCE):
            some = times[first : first + KEYS_AT_ONCE]
            values = self._store.get_many(TALLY + _quarter(at_ns) + user for at_ns in some)
            for at_ns, value in zip(some, values, strict=True):
                if value is not None:
                    yield at_ns, _decode_tally(body(value))


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
        model_used=best.model.name if best else None,
        cache=finished.cache,
        flagged=finished.flagged,
        score=best.verdict.score if best and best.verdict else None,
        input_tokens=sum(attempt.usage.input_tokens for attempt in attempts),
        output_tokens=sum(attempt.usage.output_tokens for attempt in attempts),
        cost_nano_usd=sum(attempt.cost_nano_usd for attempt in attempts),
        unknown_nano_usd=sum(a.cost_nano_usd for a in attempts if a.billing == "unknown"),
        saved_nano_usd=finished.saved_nano_usd,
        elapsed_ns=finished.elapsed_ns,
        overhead_ns=finished.elapsed_ns - sum(attempt.latency_ns for attempt in attempts),
        kind=finished.kind,
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


def _count(tallies: dict[bytes, _Tally], record: UsageRecord) -> None:
    """Add a record to its quarter-hour: everybody's and its user's."""
    models: dict[str, int] = {}
    for attempt in record.attempts:
        models[attempt.model] = models.get(attempt.model, 0) + attempt.cost_nano_usd
    tags = [f"{name}={value}" for name, value in record.tags.items()]
    users = [EVERYBODY] if record.user_id is None else [EVERYBODY, _user(record.user_id)]
    for user in users:
        tally = tallies.setdefault(TALLY + _quarter(record.at_ns) + user, _Tally())
        tally.requests += 1
        tally.cost_nano_usd += record.cost_nano_usd
        tally.saved_nano_usd += record.saved_nano_usd
        for model, cost in models.items():
            _add(tally.models, model, cost, 1)
        for tag in tags:
            _add(tally.tags, tag, record.cost_nano_usd, 1)


def _add(
    names: dict[str, tuple[int, int]], name: str, cost: int, requests: int, most: int = MAX_NAMES
) -> None:
    """Count under the name, or under `OTHER` when as many are told apart as may be."""
    if name not in names and len(names) >= most:
        name = OTHER
    cost_before, requests_before = names.get(name, (0, 0))
    names[name] = (cost_before + cost, requests_before + requests)


def _top(names: Mapping[str, tuple[int, int]], top: int) -> tuple[Share, ...]:
    shares = [Share(name, cost, requests) for name, (cost, requests) in names.items()]
    shares.sort(key=lambda share: (-share.cost_nano_usd, -share.requests, share.name))
    return tuple(shares[:top])


def _keys_of(rows: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The keys of stored records and of their index entries."""
    keys = []
    for key, value in rows:
        keys.append(key)
        try:
            user_id = _decode_record(body(value)).user_id
        except (StoreError, msgspec.DecodeError):
            continue  # what cannot be read may still be forgotten
        if user_id is not None:
            keys.append(BY_USER + _user(user_id) + key[1:])
    return keys


def _starts(now_ns: int, zone: tzinfo) -> tuple[int, int, int]:
    """When the day, the week (Monday) and the month of that moment began in the zone."""
    today = datetime.fromtimestamp(now_ns // NS_PER_S, zone).date()
    days = (today, today - timedelta(days=today.weekday()), today.replace(day=1))
    # A midnight that is skipped or comes twice: fold 0 gives the day's first moment.
    midnights = (datetime(day.year, day.month, day.day, tzinfo=zone) for day in days)
    day, week, month = (int(midnight.timestamp()) * NS_PER_S for midnight in midnights)
    return day, week, month


def _tags(finished: _Finished) -> dict[str, str]:
    """The caller's tags and the declared ones, so many and so long."""
    tags = {**finished.tags, **dict(finished.caller.tags)}
    return {text_of(name): text_of(value) for name, value in list(tags.items())[:MAX_TAGS]}


def _scope(refusal: Refusal) -> str | None:
    scope = refusal.details.get("scope")
    return scope if isinstance(scope, str) else None


def _user(user_id: str) -> bytes:
    return blake2b(text_of(user_id).encode(), digest_size=PLACE_BYTES).digest()


def _quarter(at_ns: int) -> bytes:
    return max(at_ns // QUARTER_NS, 0).to_bytes(4, "big")
