"""What the usage log has on the disk, to read: records by page, sums by calendar, days.

Keys, all numbers big-endian so that bytes sort as they do:
`r` time sequence → the record; `u` user time sequence → nothing, to list one user's records;
`t` quarter-hour subject → what was used in it (every time zone's midnight falls on a quarter-hour);
`s` subject → what was used since the log was begun; `i` id → where an imported record is;
`m` → the next sequence number. A subject is everybody (zeros), or the hash of a user, an
organisation or a workspace. A batch writes all of its keys at once, so that they always agree.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from hashlib import blake2b

import msgspec

from cascaded.ports import Rows
from cascaded.state.log_rows import (
    MAX_NS,
    MAX_PAGE,
    PLACE_BYTES,
    body,
    checked_limit,
    narrowed,
    place_after,
    place_of,
    text_of,
)
from cascaded.types.records import Owner, Share, UsageFilter, UsagePage, UsageRecord, UsageSummary
from cascaded.types.times import NS_PER_S

MAX_NAMES = 64
"""Models or tags told apart in one quarter-hour of one subject; more share `OTHER`."""
MAX_NAMES_TOTAL = 4_096
"""Of a summary."""
OTHER = "(other)"
TOP = 10
KEYS_AT_ONCE = 1_024
QUARTER_NS = 900 * NS_PER_S

RECORD, BY_USER, TALLY, TOTAL, IMPORTED, META = b"r", b"u", b"t", b"s", b"i", b"m"
EVERYBODY = bytes(PLACE_BYTES)


class Tally(msgspec.Struct, array_like=True):
    """What was used in some time; models and tags as (nano-dollars, requests)."""

    requests: int = 0
    cost_nano_usd: int = 0
    saved_nano_usd: int = 0
    models: dict[str, tuple[int, int]] = {}
    tags: dict[str, tuple[int, int]] = {}

    def add(self, other: "Tally") -> None:
        """Count another one in."""
        self.requests += other.requests
        self.cost_nano_usd += other.cost_nano_usd
        self.saved_nano_usd += other.saved_nano_usd
        for names, more in ((self.models, other.models), (self.tags, other.tags)):
            for name, (cost, requests) in more.items():
                add_name(names, name, cost, requests, MAX_NAMES_TOTAL)


decode_record = msgspec.msgpack.Decoder(UsageRecord).decode
decode_tally = msgspec.msgpack.Decoder(Tally).decode


class UsageReader:
    """Reads the disk: nothing of it is for the event loop."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

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
        records = tuple(decode_record(body(value)) for value in values)
        return UsagePage(records, places[-1].hex() if len(places) == limit else None)

    def summary(
        self,
        id: str | None,
        now_ns: int,
        zone: tzinfo = UTC,
        *,
        owner: Owner = "user",
        top: int = TOP,
    ) -> UsageSummary:
        """What an owner (everybody, for `None`) used today, this week and this month of `zone`.
        Reads the disk: a few milliseconds. Raises `StoreError`."""
        subject = EVERYBODY if id is None else subject_of(owner, id)
        day_ns, week_ns, month_ns = _starts(now_ns, zone)
        today, week, month = Tally(), Tally(), Tally()
        for at_ns, tally in self._tallies(subject, min(week_ns, month_ns), now_ns):
            for total, start_ns in ((today, day_ns), (week, week_ns), (month, month_ns)):
                if at_ns >= start_ns:
                    total.add(tally)
        (saved,) = self._rows.get_many([TOTAL + subject])
        ever = decode_tally(body(saved)) if saved else Tally()
        return UsageSummary(
            owner=owner,
            id=id,
            today_nano_usd=today.cost_nano_usd,
            week_nano_usd=week.cost_nano_usd,
            month_nano_usd=month.cost_nano_usd,
            month_saved_nano_usd=month.saved_nano_usd,
            requests_today=today.requests,
            requests_month=month.requests,
            top_models=_top(month.models, top),
            top_tags=_top(month.tags, top),
            total_nano_usd=ever.cost_nano_usd,
            entries=ever.requests,
        )

    def days(
        self, id: str | None, days: int, now_ns: int, zone: tzinfo = UTC, *, owner: Owner = "user"
    ) -> list[tuple[date, Tally]]:
        """What an owner (everybody, for `None`) used on each of the last days of `zone`, from the
        first that has something; today, as far as it is, is the last. Raises `StoreError`."""
        subject = EVERYBODY if id is None else subject_of(owner, id)
        today = datetime.fromtimestamp(now_ns // NS_PER_S, zone).date()
        first = today - timedelta(days=days - 1)
        found: dict[date, Tally] = {}
        for at_ns, tally in self._tallies(subject, _midnight_ns(first, zone), now_ns):
            day = datetime.fromtimestamp(at_ns // NS_PER_S, zone).date()
            found.setdefault(day, Tally()).add(tally)
        if not found:
            return []
        begun = min(found)
        length = (today - begun).days + 1
        every = (begun + timedelta(days=n) for n in range(length))
        return [(day, found.get(day) or Tally()) for day in every]

    def quarters(
        self, id: str | None, since_ns: int, until_ns: int, *, owner: Owner = "user"
    ) -> Iterator[tuple[int, Tally]]:
        """What an owner (everybody, for `None`) used in each quarter-hour in which it was
        anything. Raises `StoreError`."""
        subject = EVERYBODY if id is None else subject_of(owner, id)
        return self._tallies(subject, since_ns, until_ns)

    def records(self, wanted: UsageFilter) -> Iterator[UsageRecord]:
        """Every record that is meant, the oldest first, a thousand at a time in memory: what comes
        or is swept meanwhile may be among them or not. Raises `StoreError`."""
        low, high = place_of(wanted.since_ns), place_of(wanted.until_ns)
        while True:
            places, values = self._found(wanted.user_id, low, high, MAX_PAGE, False)
            records = map(decode_record, map(body, values))
            yield from filter(wanted.takes, records)
            if len(places) < MAX_PAGE:
                return
            low = places[-1] + b"\0"

    def count(self, wanted: UsageFilter, now_ns: int) -> int:
        """About how many records there are in the time of a filter: to the quarter-hour, and of
        its user. Raises `StoreError`."""
        subject = EVERYBODY if wanted.user_id is None else subject_of("user", wanted.user_id)
        since_ns = max(wanted.since_ns, self._oldest_ns())
        tallies = self._tallies(subject, since_ns, min(wanted.until_ns, now_ns))
        return sum(tally.requests for _, tally in tallies)

    def _oldest_ns(self) -> int:
        """When the oldest record was made; never, where there is none."""
        rows = self._rows.scan(RECORD, RECORD + b"\xff" * PLACE_BYTES, 1)
        return int.from_bytes(rows[0][0][1:9], "big") if rows else MAX_NS

    def _found(
        self, user_id: str | None, low: bytes, high: bytes, limit: int, newest_first: bool
    ) -> tuple[list[bytes], list[bytes]]:
        """The places of at most `limit` records between two places, and the stored records."""
        if user_id is None:
            rows = self._rows.scan(RECORD + low, RECORD + high, limit, reverse=newest_first)
            return [key[1:] for key, _ in rows], [value for _, value in rows]
        prefix = BY_USER + subject_of("user", user_id)
        rows = self._rows.scan(prefix + low, prefix + high, limit, reverse=newest_first)
        places = [key[-PLACE_BYTES:] for key, _ in rows]
        values = self._rows.get_many(RECORD + place for place in places)
        return places, [value for value in values if value is not None]  # swept in between

    def _tallies(self, subject: bytes, since_ns: int, until_ns: int) -> Iterator[tuple[int, Tally]]:
        times = range(since_ns - since_ns % QUARTER_NS, until_ns + 1, QUARTER_NS)
        for first in range(0, len(times), KEYS_AT_ONCE):
            some = times[first : first + KEYS_AT_ONCE]
            values = self._rows.get_many(TALLY + quarter_of(at_ns) + subject for at_ns in some)
            for at_ns, value in zip(some, values, strict=True):
                if value is not None:
                    yield at_ns, decode_tally(body(value))


def add_name(
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


def _starts(now_ns: int, zone: tzinfo) -> tuple[int, int, int]:
    """When the day, the week (Monday) and the month of that moment began in the zone."""
    today = datetime.fromtimestamp(now_ns // NS_PER_S, zone).date()
    days = (today, today - timedelta(days=today.weekday()), today.replace(day=1))
    day, week, month = (_midnight_ns(one, zone) for one in days)
    return day, week, month


def _midnight_ns(day: date, zone: tzinfo) -> int:
    # A midnight that is skipped or comes twice: fold 0 gives the day's first moment.
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * NS_PER_S


def subject_of(owner: Owner, id: str) -> bytes:
    """The key of whose use is summed up."""
    person = b"" if owner == "user" else owner.encode()
    return blake2b(text_of(id).encode(), digest_size=PLACE_BYTES, person=person).digest()


def quarter_of(at_ns: int) -> bytes:
    """The key of a quarter-hour."""
    return max(at_ns // QUARTER_NS, 0).to_bytes(4, "big")
