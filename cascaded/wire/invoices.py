"""What providers say that they served, as they write it: OpenAI's and Anthropic's usage and cost
reports (JSON of their APIs, CSV of their consoles), and a CSV that anybody can write. Pure.

A file of ours has the columns `date`, `model` and `cost` (US dollars), and if it likes
`input_tokens`, `output_tokens`, `requests`, `request_id`.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation

import msgspec

from cascaded.types.invoices import InvoiceLine
from cascaded.types.money import NANO_PER_USD
from cascaded.wire.openai_chat import WireError

MAX_LINES = 1_000_000
CENTS = 100
Row = Mapping[str, object]

DAYS = (
    "date",
    "day",
    "usage_date_utc",
    "usage_date",
    "start_time_iso",
    "starting_at",
    "start_time",
)
MODELS = ("model", "model_version", "model_name", "line_item", "snapshot_id")
COSTS = ("cost", "cost_usd", "amount_value", "amount_usd", "usd")
INPUTS = ("input_tokens", "n_context_tokens_total", "usage_input_tokens")
INPUT_PARTS = (
    "uncached_input_tokens",
    "usage_input_tokens_no_cache",
    "cache_read_input_tokens",
    "usage_input_tokens_cache_read",
    "usage_input_tokens_cache_write_5m",
    "usage_input_tokens_cache_write_1h",
)
OUTPUTS = ("output_tokens", "n_generated_tokens_total", "usage_output_tokens")
REQUESTS = ("requests", "num_model_requests", "n_requests")
"""Names of columns and members, ours first."""


def read_invoice(content: bytes) -> list[InvoiceLine]:
    """The lines of a file, whoever wrote it. Raises `WireError` saying what was not understood."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise WireError("the file is no text in UTF-8") from None
    rows = _json_rows(text) if text.lstrip()[:1] in ("{", "[") else _csv_rows(text)
    lines: list[InvoiceLine] = []
    for number, row in enumerate(rows, 1):
        if number > MAX_LINES:
            raise WireError(f"more than {MAX_LINES} lines: give fewer days at once")
        try:
            line = _line(row)
        except (ValueError, InvalidOperation, OverflowError) as error:
            raise WireError(f"line {number}: {error}") from None
        if line is not None:
            lines.append(line)
    if not lines:
        raise WireError("the file tells of no usage: is it the right one?")
    return lines


def _csv_rows(text: str) -> Iterator[Row]:
    table = csv.DictReader(io.StringIO(text, newline=""))
    names = [name.strip().lower() for name in table.fieldnames or ()]
    for wanted, of in ((DAYS, "a day"), (MODELS, "a model")):
        if not any(name in names for name in wanted):
            raise WireError(f"no column tells {of}: there should be one of {', '.join(wanted)}")
    try:
        for row in table:
            yield {str(name).strip().lower(): cell for name, cell in row.items()}
    except csv.Error as error:
        raise WireError(f"the file is no CSV: {error}") from None


def _json_rows(text: str) -> Iterator[Row]:
    """Of one page of an API's answer, or of several in a list: results with their bucket's day."""
    try:
        found = msgspec.json.Decoder(object, float_hook=Decimal).decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(f"the file is no JSON: {error}") from None
    for page in found if isinstance(found, list) else [found]:
        buckets = page.get("data") if isinstance(page, dict) else None
        if not isinstance(buckets, list):
            raise WireError("the JSON is no usage or cost report: it has no list `data`")
        for bucket in buckets:
            if isinstance(bucket, dict):
                yield from _results(bucket)


def _results(bucket: dict[str, object]) -> Iterator[Row]:
    day = bucket.get("starting_at") or bucket.get("start_time")
    results = bucket.get("results") or bucket.get("result") or []
    for result in results if isinstance(results, list) else []:
        if isinstance(result, dict):
            yield {**_flat(result, cents="starting_at" in bucket), "day": day}


def _flat(result: dict[str, object], *, cents: bool) -> dict[str, object]:
    """A result of OpenAI's (an amount in an object) or Anthropic's (a text, in cents; parts of the
    input in an object)."""
    row, amount = dict(result), result.get("amount")
    if isinstance(amount, dict):
        row["cost"] = amount.get("value")
    elif amount is not None:
        row["cost"] = Decimal(str(amount)) / (CENTS if cents else 1)
    written = result.get("cache_creation")
    if isinstance(written, dict):
        row["usage_input_tokens_cache_write_5m"] = written.get("ephemeral_5m_input_tokens")
        row["usage_input_tokens_cache_write_1h"] = written.get("ephemeral_1h_input_tokens")
    return row


def _line(row: Row) -> InvoiceLine | None:
    """A line; `None` for one that tells of nothing."""
    model = str(_first(row, MODELS) or "").partition(",")[0].strip()
    cost, tokens_in = _first(row, COSTS), _sum(row)
    tokens_out, requests = _number(_first(row, OUTPUTS)), _number(_first(row, REQUESTS))
    if cost is None and tokens_in is None and tokens_out is None:
        return None
    id = row.get("request_id")
    return InvoiceLine(
        day=_day(_first(row, DAYS)),
        model=model or "-",
        nano_usd=None if cost is None else _nano_usd(cost),
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        requests=requests,
        request_id=str(id) if id else None,
    )


def _first(row: Row, names: tuple[str, ...]) -> object:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _sum(row: Row) -> int | None:
    """Input tokens: the total, or its parts together."""
    total = _number(_first(row, INPUTS))
    parts = [_number(row[name]) for name in INPUT_PARTS if row.get(name) not in (None, "")]
    if not parts:
        return total
    return sum(part or 0 for part in parts)


def _number(value: object) -> int | None:
    return None if value is None else int(Decimal(str(value).replace(",", "")))


def _nano_usd(value: object) -> int:
    amount = Decimal(str(value).replace("$", "").replace(",", "").strip())
    if not amount.is_finite():
        raise ValueError(f"{value} is no amount")
    return int((amount * NANO_PER_USD).to_integral_value())


def _day(value: object) -> date:
    text = str(value or "").strip()
    if text.isdecimal():
        return datetime.fromtimestamp(int(text), UTC).date()
    moment = datetime.fromisoformat(text)
    return (moment.astimezone(UTC) if moment.tzinfo else moment).date()
