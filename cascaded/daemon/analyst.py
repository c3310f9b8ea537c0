"""A process that answers one question about what was spent, and ends: see `adapters.analysts`.

It reads the usage log's folder beside the daemon that writes it, as a polite neighbour: of low
priority, a transaction for every thousand records, and little memory.
"""

import os
import sys
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from cascaded.adapters.lmdb_store import LmdbReader
from cascaded.jobs.analysis import advice, anomalies, breakdown, forecast
from cascaded.jobs.exporting import written
from cascaded.state.usage_reader import UsageReader
from cascaded.types.errors import StoreError
from cascaded.types.insight import (
    AdviceQuestion,
    AnomalyQuestion,
    Errand,
    ExportQuestion,
    ForecastQuestion,
    Question,
)
from cascaded.wire.insight import advice_row, anomaly_row, forecast_row, group_row

NICENESS = 10
WRITE_BYTES = 64 * 1024

Answer = tuple[dict[str, object], Iterable[bytes]]
"""What is said first, and all the rest."""


def main(asked: BinaryIO, told: BinaryIO) -> None:
    """Read the errand, and do it."""
    with suppress(PermissionError):  # under systemd our unit lets nobody change priorities
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
    if isinstance(question, ExportQuestion):
        total = usage.count(question.filter, question.now_ns)
        return {"records": total}, written(question.format, usage.records(question.filter))
    return {}, [msgspec.json.encode(_told(usage, question))]


def _told(usage: UsageReader, question: Question) -> dict[str, object]:
    if isinstance(question, ForecastQuestion):
        return forecast_row(forecast(usage, question))
    if isinstance(question, AnomalyQuestion):
        return {"anomalies": [anomaly_row(one) for one in anomalies(usage, question)]}
    if isinstance(question, AdviceQuestion):
        return {"recommendations": [advice_row(one) for one in advice(usage, question)]}
    assert not isinstance(question, ExportQuestion)
    return {"by": question.by, "groups": [group_row(one) for one in breakdown(usage, question)]}


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


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
