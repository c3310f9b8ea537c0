"""Files that cannot be written as they come over the line: SQLite and Parquet."""

import sqlite3
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import msgspec

from cascaded.wire.exports import COLUMNS, Column, nano_usd_of, ns_of, parse_timestamp

TABLE = "usage"
ROWS_AT_ONCE = 5_000
LAYOUT = 1
"""Of the SQLite file, as its `user_version`."""
_SQL = {
    "text": "TEXT",
    "count": "INTEGER",
    "usd": "INTEGER",
    "ms": "INTEGER",
    "flag": "INTEGER",
    "score": "REAL",
    "json": "TEXT",
}
NULL = msgspec.Raw(b"null")
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def sql_name(column: Column) -> str:
    """SQLite has no decimals: amounts are whole nano-dollars and durations nanoseconds, and say so
    in their names."""
    if column.kind in ("usd", "ms"):
        return column.field
    return column.name


def write_sqlite(lines: Iterable[bytes], path: Path) -> None:
    """JSON lines as the table `usage` of a new file."""
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA journal_mode = OFF")  # nobody sees it before it is whole
        file.execute(f"PRAGMA user_version = {LAYOUT}")
        columns = ", ".join(f"{sql_name(one)} {_SQL[one.kind]}" for one in COLUMNS)
        file.execute(f"CREATE TABLE {TABLE} ({columns})")
        places = ", ".join("?" * len(COLUMNS))
        file.executemany(f"INSERT INTO {TABLE} VALUES ({places})", map(_sql_row, lines))
        file.execute(f"CREATE INDEX {TABLE}_at ON {TABLE} (at)")
    file.close()


def write_parquet(lines: Iterable[bytes], path: Path) -> None:
    """JSON lines as Parquet: amounts and durations are decimals, times are nanoseconds in UTC."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise click.ClickException(
            "Parquet needs pyarrow: pip install 'cascaded[parquet]'"
        ) from None
    kinds: dict[str, Any] = {
        "text": pyarrow.string(),
        "count": pyarrow.int64(),
        "usd": pyarrow.decimal128(38, 9),
        "ms": pyarrow.decimal128(38, 6),
        "flag": pyarrow.bool_(),
        "score": pyarrow.float64(),
        "json": pyarrow.string(),
    }
    schema = pyarrow.schema(
        (one.name, pyarrow.timestamp("ns", "UTC") if one.field == "at_ns" else kinds[one.kind])
        for one in COLUMNS
    )
    with parquet.ParquetWriter(path, schema, compression="zstd") as file:
        for rows in _batches(map(_parquet_row, lines)):
            columns = [
                pyarrow.array(cells, field.type)
                for cells, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            file.write_batch(pyarrow.record_batch(columns, schema=schema))


def _batches(rows: Iterator[list[object]]) -> Iterator[list[list[object]]]:
    batch: list[list[object]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _sql_row(line: bytes) -> list[object]:
    return [_sql_cell(column, value) for column, value in _values(line)]


def _sql_cell(column: Column, value: Any) -> object:
    if value is not None and column.kind == "usd":
        return nano_usd_of(value)
    if value is not None and column.kind == "ms":
        return ns_of(value)
    return value


def _parquet_row(line: bytes) -> list[object]:
    return [_parquet_cell(column, value) for column, value in _values(line)]


def _parquet_cell(column: Column, value: Any) -> object:
    if value is not None and column.kind in ("usd", "ms"):
        return Decimal(value)
    return parse_timestamp(value) if column.field == "at_ns" else value


def _values(line: bytes) -> Iterator[tuple[Column, Any]]:
    """The cells of a line: numbers with digits to keep, and what is structured, as their text."""
    row = _decode(line)
    for column in COLUMNS:
        raw = row[column.name]
        kept = column.kind in ("usd", "ms", "json") and raw != NULL
        yield column, bytes(raw).decode() if kept else msgspec.json.decode(raw)
