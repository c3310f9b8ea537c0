"""What can be asked about what was spent, and what is answered. Money is nano-dollars."""

from typing import Literal

import msgspec

from cascaded.types.records import UsageFilter

ExportFormat = Literal["jsonl", "json", "csv", "focus"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = ("jsonl", "json", "csv", "focus")


class ExportQuestion(msgspec.Struct, frozen=True, kw_only=True, tag="export"):
    """Records, one after another."""

    format: ExportFormat = "jsonl"
    filter: UsageFilter = UsageFilter()
    now_ns: int


Question = ExportQuestion


class Errand(msgspec.Struct, frozen=True):
    """A question, and the folder of the usage log that answers it."""

    folder: str
    question: Question
