"""Just enough of ONNX's file format to write a graph: protocol buffers, field by field.

The `onnx` package would do it too, with 20 MB of dependencies for every user of a model that is
converted once. The numbers below are those of onnx.proto; they never change.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

Attribute = int | float

FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7
_ELEMENTS = {"float32": FLOAT, "uint8": UINT8, "int8": INT8, "int32": INT32, "int64": INT64}
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INT = 1, 2
_WIRE_BYTES, _WIRE_FIXED32 = 2, 5
_TWO_TO_64 = 1 << 64
_SEVEN_BITS, _MORE = 0x7F, 0x80

MICROSOFT = "com.microsoft"
"""The operators that onnxruntime has beyond the standard; stable since its version 1.0."""


class Graph:
    """A graph under construction. Names of values are the caller's."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []

    def constant(self, name: str, value: "Array") -> str:
        """Put a tensor into the file and return its name."""
        dims = b"".join(_number(1, size) for size in value.shape)
        kind = _number(2, _ELEMENTS[value.dtype.name])
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        self._constants.append(dims + kind + _bytes(8, name) + _bytes(9, little.tobytes()))
        return name

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: str | Sequence[str],
        *,
        domain: str = "",
        **attributes: Attribute,
    ) -> str:
        """Add an operation and return the name of its first output. An empty input is left out."""
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        self._nodes.append(
            b"".join(_bytes(1, name) for name in inputs)
            + b"".join(_bytes(2, name) for name in names)
            + _bytes(3, names[0])
            + _bytes(4, op)
            + b"".join(_bytes(5, _attribute(*item)) for item in attributes.items())
            + (_bytes(7, domain) if domain else b"")
        )
        return names[0]

    def file(
        self,
        name: str,
        *,
        inputs: Mapping[str, Sequence[str | int]],
        outputs: Mapping[str, Sequence[str | int]],
        opset: int,
    ) -> bytes:
        """The finished file. Inputs are int64, outputs float; sizes are numbers or free words."""
        graph = (
            b"".join(_bytes(1, node) for node in self._nodes)
            + _bytes(2, name)
            + b"".join(_bytes(5, constant) for constant in self._constants)
            + b"".join(_bytes(11, _value(key, INT64, dims)) for key, dims in inputs.items())
            + b"".join(_bytes(12, _value(key, FLOAT, dims)) for key, dims in outputs.items())
        )
        operators = ((b"", opset), (MICROSOFT.encode(), 1))
        return (
            _number(1, 8)  # the format's version
            + _bytes(2, "cascaded")
            + _bytes(7, graph)
            + b"".join(_bytes(8, _bytes(1, key) + _number(2, at)) for key, at in operators)
        )


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, float):
        packed = _varint(2 << 3 | _WIRE_FIXED32) + struct.pack("<f", value)
        return _bytes(1, name) + packed + _number(20, _ATTRIBUTE_FLOAT)
    return _bytes(1, name) + _number(3, value % _TWO_TO_64) + _number(20, _ATTRIBUTE_INT)


def _value(name: str, element: int, dims: Sequence[str | int]) -> bytes:
    sizes = (_bytes(2, dim) if isinstance(dim, str) else _number(1, dim) for dim in dims)
    shape = b"".join(_bytes(1, size) for size in sizes)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, element) + _bytes(2, shape)))


def _bytes(field: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | _WIRE_BYTES) + _varint(len(raw)) + raw


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > _SEVEN_BITS:
        out.append(value & _SEVEN_BITS | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)
