"""Usage records as text: every format that can be written as it comes."""

from collections.abc import Callable, Iterable, Iterator

from cascaded.types.insight import ExportFormat
from cascaded.types.records import UsageRecord
from cascaded.wire.exports import NAMES, cells, csv_line, json_line
from cascaded.wire.focus import FOCUS_COLUMNS, focus_rows


def written(form: ExportFormat, records: Iterable[UsageRecord]) -> Iterator[bytes]:
    """The file, row by row."""
    return _FORMATS[form](records)


def _json_lines(records: Iterable[UsageRecord]) -> Iterator[bytes]:
    for record in records:
        yield json_line(record) + b"\n"


def _json(records: Iterable[UsageRecord]) -> Iterator[bytes]:
    """One array."""
    before = b"[\n"
    for record in records:
        yield before + json_line(record)
        before = b",\n"
    yield b"[]\n" if before == b"[\n" else b"\n]\n"


def _csv(records: Iterable[UsageRecord]) -> Iterator[bytes]:
    yield csv_line(NAMES)
    for record in records:
        yield csv_line(cells(record))


def _focus(records: Iterable[UsageRecord]) -> Iterator[bytes]:
    yield csv_line(FOCUS_COLUMNS)
    for record in records:
        for row in focus_rows(record):
            yield csv_line(row)


_FORMATS: dict[ExportFormat, Callable[[Iterable[UsageRecord]], Iterator[bytes]]] = {
    "jsonl": _json_lines,
    "json": _json,
    "csv": _csv,
    "focus": _focus,
}
