"""Small heads over vectors: which of a few labels a text has, by linear functions of its vector.

A head is a file in the package, fitted by `scripts/fit_heads.py` for one model's vectors.
"""

from collections.abc import Mapping
from math import exp
from typing import Literal

import msgspec

from cascaded import _core
from cascaded.types.vectors import Vector

MAX_HEAD_BYTES = 200 * 1024


class HeadError(ValueError):
    """The file is not a head. Says why."""


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a head comes from."""

    script: str
    """What fitted it, in this repository."""
    data: tuple[str, ...]
    """The files it was fitted on, each with its licence."""
    measured: Mapping[str, float] = {}
    """What the script measured, by name."""


class HeadFile(msgspec.Struct, frozen=True, kw_only=True):
    """A head as it is stored: msgpack of this."""

    model: str
    """Whose vectors it is for, such as `minilm`."""
    kind: Literal["one_of", "each"]
    """`one_of`: one label is right, and their probabilities sum to 1; `each`: any may be."""
    labels: tuple[str, ...]
    weights: bytes
    """Little-endian 32-bit floats, label by label."""
    bias: tuple[float, ...]
    temperature: float = 1.0
    """What sums are divided by, so that probabilities are calibrated."""
    provenance: Provenance


class Head:
    """A head that is ready to judge. Immutable."""

    def __init__(self, file: HeadFile) -> None:
        """Raises `HeadError`."""
        if len(file.labels) != len(file.bias) or file.temperature <= 0:
            raise HeadError(f"{len(file.labels)} labels with {len(file.bias)} biases")
        try:
            self._linear = _core.Linear(file.weights, file.bias)
        except ValueError as error:
            raise HeadError(str(error)) from None
        self.model = file.model
        self.labels = file.labels
        self.provenance = file.provenance
        self._temperature = file.temperature
        self._squash = _softmax if file.kind == "one_of" else _sigmoids

    @classmethod
    def read(cls, content: bytes) -> "Head":
        """From a file's content. Raises `HeadError`."""
        if len(content) > MAX_HEAD_BYTES:
            raise HeadError(f"it has {len(content)} bytes; at most {MAX_HEAD_BYTES} are read")
        try:
            return cls(msgspec.msgpack.decode(content, type=HeadFile))
        except msgspec.MsgspecError as error:
            raise HeadError(str(error)) from None

    @property
    def dimensions(self) -> int:
        """Numbers that its vectors have."""
        return self._linear.dimensions

    def probabilities(self, vector: Vector) -> dict[str, float]:
        """Of each label, in the head's order. Takes microseconds.

        Raises `ValueError` for a vector of another model's length.
        """
        sums = [value / self._temperature for value in self._linear.values(vector)]
        return dict(zip(self.labels, self._squash(sums), strict=True))


def similarity(one: Vector, other: Vector) -> float:
    """The cosine of two texts' vectors, -1 to 1. Raises `ValueError` where their lengths differ.

    It is high also for texts that say the opposite: numbers, negation and order need a check of
    their own.
    """
    return max(-1.0, min(1.0, _core.dot(one, other)))


def _softmax(sums: list[float]) -> list[float]:
    top = max(sums)
    raised = [exp(value - top) for value in sums]
    total = sum(raised)
    return [value / total for value in raised]


def _sigmoids(sums: list[float]) -> list[float]:
    return [_sigmoid(value) for value in sums]


def _sigmoid(value: float) -> float:
    if value < 0:
        return 1.0 - _sigmoid(-value)
    return 1.0 / (1.0 + exp(-value))
