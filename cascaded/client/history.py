"""Files that `cascaded export` wrote, as rows: whatever the format, cells are texts or plain
values, and the daemon reads them."""

import csv
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from cascaded.client.insight import ImportedInfo
from cascaded.types.money import format_usd
from cascaded.wire.exports import COLUMNS, NAMES, csv_text, milliseconds, timestamp

ROWS_AT_ONCE = 500
MAX_CELL_CHARACTERS = 16 * 1024 * 1024
FORMS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".db": "sqlite",
    ".parquet": "parquet",
}
"""What a file is, by its ending."""
NOTHING = ImportedInfo(added=0, known=0, too_old=0)
Row = dict[str, object]
_line = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def batches(path: str | Path, form: str | None = None) -> Iterator[list[Row]]:
    """Some hundred rows at a time. Raises `ValueError` for what is none of our files, and
    `OSError`."""
    file = Path(path)
    reader = _READERS.get(form or FORMS.get(file.suffix.lower(), ""))
    if reader is None:
        raise ValueError(f"what is {file}? Its form must be one of {', '.join(_READERS)}")
    try:
        rows = reader(file)
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            yield batch
    except (csv.Error, sqlite3.Error, msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
        raise ValueError(f"{file} is no export of usage records: {error}") from None


def added_up(one: ImportedInfo, other: ImportedInfo) -> ImportedInfo:
    """Of two parts of a file."""
    return ImportedInfo(
        added=one.added + other.added,
        known=one.known + other.known,
        too_old=one.too_old + other.too_old,
    )


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for line in lines:
            if line.strip():
                yield dict(_line(line))


def _json(path: Path) -> Iterator[Row]:
    """Our array has a row on each line, so that it is never in memory as a whole."""
    with path.open("rb") as lines:
        for line in lines:
            row = line.strip().rstrip(b",")
            if row not in (b"", b"[", b"]", b"[]"):
                yield dict(_line(row))


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    with path.open(newline="", encoding="utf-8") as lines:
        table = csv.DictReader(lines)
        if "request_id" not in (table.fieldnames or ()):
            raise csv.Error("it has no column request_id")
        for row in table:
            yield {name: csv_text(row[name] or "") for name in NAMES if name in row}


def _sqlite(path: Path) -> Iterator[Row]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
        found = file.execute("SELECT * FROM usage ORDER BY at")
        names = [column[0] for column in found.description]
        for cells in found:
            yield _of_sqlite(dict(zip(names, cells, strict=True)))


def _of_sqlite(cells: dict[str, Any]) -> Row:
    row: Row = {}
    for column in COLUMNS:
        scaled = column.kind in ("usd", "ms")
        cell = cells.get(column.field if scaled else column.name)
        if cell is not None and scaled:
            cell = milliseconds(cell) if column.kind == "ms" else format_usd(cell)
        row[column.name] = cell
    return row


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError("Parquet needs pyarrow: pip install 'cascaded[parquet]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE):
                whole = batch.column("at").cast(pyarrow.int64()).to_pylist()
                for row, at_ns in zip(batch.drop_columns(["at"]).to_pylist(), whole, strict=True):
                    cells = {name: _plain(cell) for name, cell in row.items()}
                    yield {**cells, "at": timestamp(at_ns)}
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is no export of usage records: {error}") from None


def _plain(cell: object) -> object:
    return f"{cell:f}" if isinstance(cell, Decimal) else cell


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "jsonl": _json_lines,
    "json": _json,
    "csv": _csv,
    "sqlite": _sqlite,
    "parquet": _parquet,
}
