"""A model in a folder: `model.onnx`, `tokenizer.json` and, for its labels, `config.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cascaded import _core

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
MAX_CONFIG_BYTES = 1 << 20
MAX_BATCH_TEXTS = 16
PADDING_ALLOWED = 1.25
"""The longest text of a batch is at most so many times the shortest, and `PADDING_SPARE` more:
padding costs as much as words."""
PADDING_SPARE = 8

Text = str | tuple[str, str]
"""A text, or two that belong together (a premise and a hypothesis)."""
Encoded = tuple[list[int], list[int]]
"""Tokens, and which of the two texts each is of."""


class OnnxError(Exception):
    """The model cannot be used. Says why, and what to do."""


class Labels(msgspec.Struct, frozen=True, rename="camel"):
    """What `config.json` says of a classifier; the rest of it is not ours."""

    id2label: Mapping[int, str] = {}


class FolderModel:
    """A model that was loaded. For one thread."""

    def __init__(self, folder: Path, *, max_tokens: int, threads: int) -> None:
        """Load it: imports onnxruntime and reads the folder. Raises `OnnxError`."""
        try:
            import numpy
            import onnxruntime
        except ImportError:
            raise OnnxError("small models need an extra: `pip install 'cascaded[onnx]'`") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # it keeps the room of the largest batch for ever
        options.log_severity_level = 4
        path = folder / MODEL
        try:
            self._encoder = _core.TextEncoder.from_tokenizer_json(
                (folder / TOKENIZER).read_bytes(), max_tokens
            )
            if not path.is_file():
                raise OnnxError(f"{path} is not there")
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except OSError as error:
            raise OnnxError(f"{error.filename} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise OnnxError(f"{folder / TOKENIZER}: {error}") from None
        except OnnxError:
            raise
        except Exception as error:  # onnxruntime's own, which have no common root
            raise OnnxError(f"{path} cannot be loaded: {str(error)[:300]}") from None
        self._np = numpy
        self._inputs = tuple(each.name for each in self._session.get_inputs())
        unknown = set(self._inputs) - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown:
            raise OnnxError(f"{path} wants inputs that no text has: {', '.join(sorted(unknown))}")

    def encode(self, text: Text) -> Encoded:
        """Its tokens. Raises `ValueError`."""
        if isinstance(text, str):
            return self._encoder.encode(sayable(text))
        return self._encoder.encode(*map(sayable, text))

    def run(self, batch: Sequence[Encoded]) -> "tuple[Floats, Floats]":
        """The first output, and the mask of real tokens: [texts, tokens]."""
        np = self._np
        shape = len(batch), max(len(ids) for ids, _ in batch)
        ids, types, mask = (np.zeros(shape, np.int64) for _ in range(3))
        for row, (tokens, kinds) in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            types[row, : len(kinds)] = kinds
            mask[row, : len(tokens)] = 1
        given: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": types,
        }
        outputs = self._session.run(None, {name: given[name] for name in self._inputs})
        return outputs[0], mask.astype(np.float32)


def sayable(text: str) -> str:
    """The text, with what no UTF-8 can say replaced."""
    return text.encode("utf-8", "replace").decode()


def labels_in(folder: Path) -> tuple[str, ...]:
    """The labels that `config.json` names, in the order of the model's output. Raises
    `OnnxError`."""
    path = folder / CONFIG
    try:
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(MAX_CONFIG_BYTES), type=Labels).id2label
    except OSError as error:
        raise OnnxError(f"{path} cannot be read ({error.strerror}): name the labels") from None
    except msgspec.MsgspecError as error:
        raise OnnxError(f"{path}: {error}") from None
    if sorted(found) != list(range(len(found))) or not found:
        raise OnnxError(f"{path} has no id2label that numbers its labels from 0")
    return tuple(found[number] for number in range(len(found)))


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Places of texts with so many tokens, in batches of about the same length."""
    made: list[list[int]] = []
    longest = 0.0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not made or lengths[place] > longest or len(made[-1]) == MAX_BATCH_TEXTS:
            made.append([])
            longest = lengths[place] * PADDING_ALLOWED + PADDING_SPARE
        made[-1].append(place)
    return made
