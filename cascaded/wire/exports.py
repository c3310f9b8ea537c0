"""Usage records as rows of a file, and back: what each column is and says. Pure.

Money is US dollars as an exact decimal, times are ISO 8601 in UTC with nine digits of a second,
durations milliseconds with six: a row read back is the record that was written.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Literal

import msgspec

from cascaded.types.money import NANO_PER_USD, MoneyError, format_usd, parse_usd
from cascaded.types.records import AttemptRecord, UsageRecord
from cascaded.types.times import NS_PER_S
from cascaded.wire.openai_chat import WireError

ColumnKind = Literal["text", "count", "usd", "ms", "flag", "score", "json"]
Cell = str | int | float | bool | None
MAX_COUNT = 2**53
MAX_MS = 1e12
MAX_ROW_NANO_USD = 10_000 * NANO_PER_USD
"""What one call may cost at most, as for `/settle`."""
DAY_S = 86_400
NS_PER_MS = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_TEXT = 256
MAX_ENTRIES = 64
"""Tags, notices and attempts of one row that is read."""
NS_DIGITS = 9
MS_DIGITS = 6
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
"""How texts begin that spreadsheets would execute; and our mark for those."""


class Column(msgspec.Struct, frozen=True):
    """One column of an export."""

    name: str
    kind: ColumnKind
    field: str
    """Of `UsageRecord`."""


COLUMNS = (
    Column("request_id", "text", "request_id"),
    Column("at", "text", "at_ns"),
    Column("user_id", "text", "user_id"),
    Column("organization_id", "text", "organization_id"),
    Column("workspace_id", "text", "workspace_id"),
    Column("team_id", "text", "team_id"),
    Column("run_id", "text", "run_id"),
    Column("tier", "text", "tier"),
    Column("tags", "json", "tags"),
    Column("model", "text", "model"),
    Column("model_used", "text", "model_used"),
    Column("ladder", "text", "ladder"),
    Column("status", "text", "status"),
    Column("cost", "usd", "cost_nano_usd"),
    Column("unknown_cost", "usd", "unknown_nano_usd"),
    Column("cost_saved", "usd", "saved_nano_usd"),
    Column("input_tokens", "count", "input_tokens"),
    Column("output_tokens", "count", "output_tokens"),
    Column("domain", "text", "domain"),
    Column("complexity", "text", "complexity"),
    Column("quality_score", "score", "score"),
    Column("flagged", "flag", "flagged"),
    Column("cache", "text", "cache"),
    Column("cache_state", "text", "cache_state"),
    Column("latency_ms", "ms", "elapsed_ns"),
    Column("first_token_ms", "ms", "first_token_ns"),
    Column("overhead_ms", "ms", "overhead_ns"),
    Column("kind", "text", "kind"),
    Column("stream", "flag", "stream"),
    Column("scope", "text", "scope"),
    Column("principal", "text", "principal"),
    Column("hold", "count", "hold"),
    Column("imported", "flag", "imported"),
    Column("guardrails", "json", "guardrails"),
    Column("reasons", "json", "reasons"),
    Column("notices", "json", "notices"),
    Column("attempts", "json", "attempts"),
)
"""Every field of a record, in the order of interest."""
NAMES = tuple(column.name for column in COLUMNS)


def timestamp(at_ns: int) -> str:
    """`2026-11-21T18:56:40.123456789Z`."""
    seconds, rest = divmod(at_ns, NS_PER_S)
    return f"{(EPOCH + timedelta(seconds=seconds)).isoformat()[:19]}.{rest:09d}Z"


def milliseconds(ns: int) -> str:
    """Exactly."""
    whole, rest = divmod(abs(ns), NS_PER_MS)
    return f"{'-' if ns < 0 else ''}{whole}.{rest:06d}"


_encode = msgspec.json.Encoder().encode
_TEXTS: dict[ColumnKind, Callable[[int], str]] = {"usd": format_usd, "ms": milliseconds}


def _structure(value: object) -> str:
    """JSON of tags, notices and attempts."""
    if isinstance(value, tuple) and value and isinstance(value[0], AttemptRecord):
        value = [attempt_row(one) for one in value]
    return _encode(value).decode()


def cells(record: UsageRecord) -> list[Cell]:
    """One row, in the order of `COLUMNS`. Money and durations are texts with all their digits,
    what is structured is JSON text."""
    row: list[Cell] = []
    for column in COLUMNS:
        value = getattr(record, column.field)
        if column.kind == "json":
            value = _structure(value)
        elif value is not None and column.kind in _TEXTS:
            value = _TEXTS[column.kind](value)
        elif column.field == "at_ns":
            value = timestamp(value)
        row.append(value)
    return row


def json_line(record: UsageRecord) -> bytes:
    """One row as a JSON object, its numbers exact."""
    row: dict[str, object] = {}
    for column, cell in zip(COLUMNS, cells(record), strict=True):
        raw = cell is not None and (column.kind in _TEXTS or column.kind == "json")
        row[column.name] = _raw(str(cell)) if raw else cell
    return _encode(row)


def csv_cell(value: Cell) -> str:
    """As text; what a spreadsheet would take for a formula gets an apostrophe before it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return "'" + text if text.startswith(FORMULA) and not _is_amount(text) else text


def csv_line(row: Iterable[Cell]) -> bytes:
    """One line of RFC 4180."""
    line = io.StringIO()
    csv.writer(line).writerow(map(csv_cell, row))
    return line.getvalue().encode()


def csv_text(cell: str) -> str:
    """What a cell of ours says, without our mark."""
    return cell.removeprefix("'")


def _is_amount(text: str) -> bool:
    """A number below zero is no formula."""
    return text[1:].replace(".", "", 1).isdecimal() and text[0] == "-"


def attempt_row(attempt: AttemptRecord) -> dict[str, object]:
    """One call to a provider."""
    row = {name: getattr(attempt, name) for name in _ATTEMPT_PLAIN}
    row["cost"] = _raw(format_usd(attempt.cost_nano_usd))
    row["latency_ms"] = _raw(milliseconds(attempt.latency_ns))
    first = attempt.first_token_ns
    row["first_token_ms"] = None if first is None else _raw(milliseconds(first))
    return row


_ATTEMPT_PLAIN = tuple(
    name
    for name in AttemptRecord.__struct_fields__
    if not name.endswith("_ns") and not name.endswith("_nano_usd")
)


def _raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def record_of(row: Mapping[str, object]) -> UsageRecord:
    """The record of a row of any of our formats: of its cells as they are or as texts. Columns
    that are absent have nothing to say. Raises `WireError` naming the column."""
    read: dict[str, object] = {}
    for column in COLUMNS:
        try:
            read[column.field] = _cell(column, row.get(column.name))
        except (ValueError, TypeError, InvalidOperation, msgspec.DecodeError) as error:
            raise WireError(f"{column.name}: {error}", column.name) from None
    if not read["request_id"]:
        raise WireError("request_id: every row needs one, to be told apart", "request_id")
    try:
        fields = [read[name] for name in UsageRecord.__struct_fields__]
        return msgspec.convert(fields, UsageRecord)
    except msgspec.ValidationError as error:
        raise WireError(f"this row is none of ours: {error}") from None


def _cell(column: Column, value: object) -> object:
    if column.field == "at_ns":
        return parse_timestamp(value)
    if value is None or value == "":
        return _ABSENT.get(column.field, _EMPTY[column.kind])
    return _READ[column.kind](value)


def parse_timestamp(value: object) -> int:
    """Nanoseconds since the Unix epoch of an ISO 8601 time; one without a zone is in UTC. Raises
    `ValueError`."""
    if not isinstance(value, str):
        raise ValueError("a time such as 2026-11-21T18:56:40Z is needed")
    whole, _, fraction = value.strip().removesuffix("Z").partition(".")
    digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))]
    moment = datetime.fromisoformat(whole + fraction[len(digits) :])
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    elapsed = moment - EPOCH
    seconds = elapsed.days * DAY_S + elapsed.seconds
    return seconds * NS_PER_S + int(digits[:NS_DIGITS].ljust(NS_DIGITS, "0"))


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"a text of at most {MAX_TEXT} characters is needed")
    return value


def _count(value: object) -> int:
    count = int(str(value))
    if not 0 <= count <= MAX_COUNT:
        raise ValueError("this is no count")
    return count


def nano_usd_of(value: object) -> int:
    """An amount as a cell has it, perhaps below zero. Raises `MoneyError`, a `ValueError`."""
    text = str(value)
    amount = parse_usd(text.removeprefix("-"))
    if amount > MAX_ROW_NANO_USD:
        raise MoneyError("more than a call can cost")
    return -amount if text.startswith("-") else amount


def ns_of(value: object) -> int:
    """A duration in milliseconds, exactly. Raises `ValueError` and `InvalidOperation`."""
    duration = Decimal(str(value))
    if not abs(duration) < MAX_MS:
        raise ValueError("this is no duration in milliseconds")
    return int(duration.scaleb(MS_DIGITS))


def _flag(value: object) -> bool:
    found = _FLAGS.get(str(value).lower())
    if found is None:
        raise ValueError("true or false is needed")
    return found


def _structured(value: object) -> object:
    """Tags as an object, notices and attempts as a list; each perhaps as JSON text."""
    found = msgspec.json.decode(value) if isinstance(value, str) else value
    if not isinstance(found, dict | list) or len(found) > MAX_ENTRIES:
        raise ValueError(f"a list or an object of at most {MAX_ENTRIES} entries is needed")
    for one in (*found, *(found.values() if isinstance(found, dict) else ())):
        if isinstance(one, str):
            _text(one)
    return (
        [_attempt(one) if isinstance(one, dict) else one for one in found]
        if isinstance(found, list)
        else found
    )


def _attempt(row: Mapping[str, object]) -> list[object]:
    """The fields of an attempt, in their order."""
    read = {name: row.get(name) for name in AttemptRecord.__struct_fields__}
    read["cost_nano_usd"] = nano_usd_of(row.get("cost", 0))
    read["latency_ns"] = ns_of(row.get("latency_ms", 0))
    first = row.get("first_token_ms")
    read["first_token_ns"] = None if first is None else ns_of(first)
    for name in ("model", "provider"):
        _text(read[name])
    return list(read.values())


_FLAGS = {"true": True, "false": False, "1": True, "0": False}
_READ: dict[ColumnKind, Callable[[object], object]] = {
    "text": _text,
    "count": _count,
    "usd": nano_usd_of,
    "ms": ns_of,
    "flag": _flag,
    "score": lambda value: float(str(value)),
    "json": _structured,
}
_EMPTY: dict[ColumnKind, object] = {
    "text": None,
    "count": 0,
    "usd": 0,
    "ms": 0,
    "flag": False,
    "score": None,
    "json": (),
}
_ABSENT: dict[str, object] = {
    "tags": {},
    "hold": None,
    "first_token_ns": None,
    "request_id": "",
    "model": "",
    "status": "ok",
    "principal": "",
    "kind": "chat",
    "cache_state": "off",
}
