"""A process that answers one question about what was spent, and ends: see `adapters.analysts`.

It reads the usage log's folder beside the daemon that writes it, as a polite neighbour: of low
priority, a transaction for every thousand records, and little memory.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import msgspec

from cascaded.adapters.lmdb_store import LmdbReader
from cascaded.state.usage_reader import UsageReader
from cascaded.types.errors import StoreError
from cascaded.types.insight import Errand, ExportFormat, Question
from cascaded.types.records import UsageRecord
from cascaded.wire.exports import NAMES, cells, csv_line, json_line
from cascaded.wire.focus import FOCUS_COLUMNS, focus_rows

NICENESS = 10
WRITE_BYTES = 64 * 1024

Answer = tuple[dict[str, object], Iterable[bytes]]
"""What is said first, and all the rest."""


def main(asked: BinaryIO, told: BinaryIO) -> None:
    """Read the errand, and do it."""
    os.nice(NICENESS)
    errand = msgspec.json.decode(asked.read(), type=Errand)
    try:
        with closing(LmdbReader(Path(errand.folder))) as rows:
            head, pieces = answer(UsageReader(rows), errand.question)
            told.write(msgspec.json.encode(head) + b"\n")
            _write(pieces, told)
    except StoreError as error:
        told.write(msgspec.json.encode({"error": str(error)}) + b"\n")
        sys.exit(1)


def answer(usage: UsageReader, question: Question) -> Answer:
    """What is known. Raises `StoreError`, perhaps while the rest is read."""
    total = usage.count(question.filter, question.now_ns)
    return {"records": total}, _FORMATS[question.format](usage.records(question.filter))


def _write(pieces: Iterable[bytes], told: BinaryIO) -> None:
    """In few, large writes."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) >= WRITE_BYTES:
            told.write(waiting)
            waiting.clear()
    told.write(waiting)
    told.flush()


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

if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
