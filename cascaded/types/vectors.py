"""What small models that run here say of texts."""

from typing import Literal

import msgspec

Vector = bytes
"""A text's meaning: little-endian 32-bit floats, of length 1."""

Reason = Literal["absent", "overloaded", "late", "fault"]
"""`absent`: the model cannot be loaded; `overloaded`: too many texts wait; `late`: the deadline has
passed; `fault`: it failed on the text."""


class Unavailable(msgspec.Struct, frozen=True):
    """A small model has nothing to say; whoever asked goes by rules alone. A value: expected."""

    reason: Reason
    model: str
    """Whose name it is, as in the configuration."""
    message: str
    """What is wrong, and what to do about it."""


class ModelFigures(msgspec.Struct, kw_only=True):
    """What a small model has done since it was made: texts by how they fared. Grows."""

    answered: int = 0
    remembered: int = 0
    """Known from before."""
    absent: int = 0
    overloaded: int = 0
    late: int = 0
    fault: int = 0
    batches: int = 0
    busy_ns: int = 0
    """Time of its thread, spent on batches."""

    def refused(self, reason: Reason, texts: int = 1) -> None:
        """So many more texts have no answer."""
        setattr(self, reason, getattr(self, reason) + texts)
