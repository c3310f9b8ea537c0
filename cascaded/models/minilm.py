"""all-MiniLM-L6-v2: from the published float weights to a small graph that runs fast on a CPU.

Weights are stored and multiplied as integers. A linear layer quantises each token's row of
activations by that row's own largest value, so that a text's vector depends neither on the texts
it is batched with nor on its padding; weights have seven bits, so that the 16-bit sums of CPUs
without VNNI cannot saturate and every machine computes the same. Measured in ADR 16.

The conversion is exact arithmetic on the weights: the same file comes out everywhere, and its
sha256 is pinned in the catalogue.
"""

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from cascaded.models.onnx_file import FLOAT, INT32, MICROSOFT, UINT8, Attribute, Graph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Weights = dict[str, Floats]

LAYERS = 6
HEADS = 12
EPSILON = 1e-12
OPSET = 18

ROW_LEVELS = 127
"""Activations become 1…255, with 128 for zero."""
WEIGHT_LEVELS = 63
TABLE_LEVELS = 127
"""The word table is looked up, never multiplied: it has all eight bits."""
SMALLEST_ROW = 1e-6
"""A row of zeros is divided by this instead of by zero."""
MAX_HEADER_BYTES = 1 << 20


class ConversionError(Exception):
    """The weights are not those of the model, or a package is missing. Says which."""


def convert(safetensors: Path) -> bytes:
    """The ONNX file made of `model.safetensors`. Takes about a second. Raises `ConversionError`."""
    try:
        import numpy  # noqa: F401  heavy, and of an extra: only who converts loads it
    except ImportError:
        raise ConversionError(
            "converting the embedding model needs an extra: `pip install 'cascaded[onnx]'`"
        ) from None
    try:
        return _build(_read(safetensors))
    except (KeyError, ValueError, struct.error) as fault:
        raise ConversionError(f"{safetensors} is not all-MiniLM-L6-v2: {fault!r}") from fault


def _read(path: Path) -> "Weights":
    import numpy as np

    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header claims {length} bytes")
    start = 8 + length
    found = {}
    for name, entry in json.loads(raw[8:start]).items():
        if entry.get("dtype") == "F32":
            begin, end = entry["data_offsets"]
            data = np.frombuffer(raw[start + begin : start + end], dtype="<f4")
            found[name] = data.reshape(entry["shape"])
    return found


def _build(weights: "Weights") -> bytes:
    made = _Builder(weights)
    state = made.embeddings()
    for layer in range(LAYERS):
        out = "last_hidden_state" if layer == LAYERS - 1 else f"layer.{layer}"
        state = made.layer(f"encoder.layer.{layer}", state, out)
    return made.graph.file(
        "all-MiniLM-L6-v2",
        inputs=dict.fromkeys(("input_ids", "attention_mask"), ("batch", "sequence")),
        outputs={"last_hidden_state": ("batch", "sequence", made.width)},
        opset=OPSET,
    )


class _Builder:
    def __init__(self, weights: "Weights") -> None:
        import numpy as np

        self._np = np
        self._weights = weights
        self.width = weights["embeddings.word_embeddings.weight"].shape[1]
        self.graph = graph = Graph()
        self._axis = graph.constant("axis", np.array([-1]))
        self._level = graph.constant("level", np.array(1 / ROW_LEVELS, np.float32))
        self._smallest = graph.constant("smallest", np.array(SMALLEST_ROW, np.float32))
        # Half a step more, because a cast to integers truncates.
        self._middle = graph.constant("middle", np.array(128.5, np.float32))
        self._zero = graph.constant("zero_level", np.array(128, np.uint8))

    def embeddings(self) -> str:
        np, graph, weights = self._np, self.graph, self._weights
        table, scales = self._quantised(
            weights["embeddings.word_embeddings.weight"], axis=1, levels=TABLE_LEVELS
        )
        # There is one sequence, so its type's vector can be a part of every position's.
        types = weights["embeddings.token_type_embeddings.weight"]
        positions = weights["embeddings.position_embeddings.weight"] + types[0]
        graph.node("Gather", [graph.constant("words", table), "input_ids"], "word.integer")
        graph.node("Cast", ["word.integer"], "word.float", to=FLOAT)
        graph.node("Gather", [graph.constant("word.scales", scales), "input_ids"], "word.scale")
        graph.node("Mul", ["word.float", "word.scale"], "word")
        first = graph.constant("first", np.array([0]))
        graph.node("Shape", ["input_ids"], "length", start=1, end=2)
        graph.node("Slice", [graph.constant("positions", positions), first, "length"], "position")
        graph.node("Unsqueeze", ["position", first], "position.row")
        graph.node("Shape", ["word"], "shape")
        graph.node("Expand", ["position.row", "shape"], "position.all")
        graph.node("Cast", ["attention_mask"], "mask", to=INT32)
        return self._normed("embeddings.LayerNorm", "word", "position.all", "embeddings")

    def layer(self, name: str, state: str, out: str) -> str:
        np, graph, weights = self._np, self.graph, self._weights
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        self._linear(
            f"{name}.attention.self",
            state,
            np.concatenate([weights[f"{part}.weight"] for part in parts]),
            np.concatenate([weights[f"{part}.bias"] for part in parts]),
        )
        graph.node("Split", [f"{name}.attention.self"], parts, axis=-1, num_outputs=3)
        mixed = graph.node(
            "MultiHeadAttention",
            [*parts, "", "mask"],
            f"{name}.attention",
            domain=MICROSOFT,
            num_heads=HEADS,
        )
        mixed = self._dense(f"{name}.attention.output.dense", mixed)
        seen = self._normed(
            f"{name}.attention.output.LayerNorm", mixed, state, f"{name}.attention.output"
        )
        wide = self._dense(f"{name}.intermediate.dense", seen)
        graph.node("Gelu", [wide], f"{name}.intermediate", domain=MICROSOFT)
        thought = self._dense(f"{name}.output.dense", f"{name}.intermediate")
        return self._normed(f"{name}.output.LayerNorm", thought, seen, out)

    def _normed(self, name: str, value: str, skip: str, out: str) -> str:
        constants = [
            self.graph.constant(f"{name}.{part}", self._weights[f"{name}.{part}"])
            for part in ("weight", "bias")
        ]
        inputs = [value, skip, *constants]
        return self.graph.node(
            "SkipLayerNormalization", inputs, out, domain=MICROSOFT, epsilon=EPSILON
        )

    def _dense(self, name: str, value: str) -> str:
        return self._linear(
            name, value, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        )

    def _linear(self, name: str, value: str, weight: "Floats", bias: "Floats") -> str:
        graph = self.graph
        integers, scales = self._quantised(weight, axis=1, levels=WEIGHT_LEVELS)

        def step(op: str, inputs: list[str], out: str, **attributes: Attribute) -> str:
            return graph.node(op, inputs, f"{name}.{out}", domain="", **attributes)

        largest = step("ReduceMax", [step("Abs", [value], "abs"), self._axis], "max", keepdims=1)
        largest = step("Max", [largest, self._smallest], "largest")
        scale = step("Mul", [largest, self._level], "row.scale")
        levels = step("Add", [step("Div", [value, scale], "ratio"), self._middle], "levels")
        integer = step("Cast", [levels], "integer", to=UINT8)
        matrix = graph.constant(f"{name}.weight", integers.T)
        summed = step("MatMulInteger", [integer, matrix, self._zero], "sums")
        summed = step("Cast", [summed], "sums.float", to=FLOAT)
        summed = step("Mul", [summed, scale], "rows")
        by_column = graph.constant(f"{name}.scales", scales.reshape(-1))
        summed = step("Mul", [summed, by_column], "columns")
        return graph.node("Add", [summed, graph.constant(f"{name}.bias", bias)], name)

    def _quantised(
        self, value: "Floats", *, axis: int, levels: int
    ) -> "tuple[NDArray[np.int8], Floats]":
        np = self._np
        scales = np.abs(value).max(axis=axis, keepdims=True) / np.float32(levels)
        return np.rint(value / scales).astype(np.int8), scales
