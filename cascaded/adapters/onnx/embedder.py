"""Sentence embeddings. See `ports.Embedder`."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from cascaded.adapters.onnx.folder import FolderModel, Text
from cascaded.adapters.onnx.worker import Terms, Worker, together
from cascaded.types.vectors import ModelFigures, Unavailable, Vector

if TYPE_CHECKING:
    from cascaded.adapters.onnx.folder import Floats

MAX_REMEMBERED = 2048
"""Vectors that are kept for texts that come again: 3 MB of 384 dimensions."""
DIGEST_BYTES = 16
SENTENCES = 2
"""Axes of an output that has one vector for each text, not for each token."""
LEAST_LENGTH = 1e-9

_Awaited = asyncio.Future[Vector | Unavailable]


class OnnxEmbedder:
    """A model that was trained for sentences: token vectors are averaged. See `ports.Embedder`.

    A text is worked out once, however many ask for it, at the same time or soon after.
    """

    def __init__(self, name: str, load: Callable[[], FolderModel], terms: Terms) -> None:
        self.name = name
        self._worker: Worker[Vector] = Worker(name, load, _vectors, terms)
        self._known: OrderedDict[bytes, Vector] = OrderedDict()
        self._coming: dict[bytes, _Awaited] = {}

    @property
    def figures(self) -> ModelFigures:
        """What it has done."""
        return self._worker.figures

    async def embed(self, texts: Sequence[str]) -> tuple[Vector, ...] | Unavailable:
        """See `ports.Embedder.embed`."""
        keys = [blake2b(_utf8(text), digest_size=DIGEST_BYTES).digest() for text in texts]
        awaited: dict[bytes, _Awaited] = {}
        found: dict[bytes, Vector] = {}
        asked = 0
        for key, text in zip(keys, texts, strict=True):
            if (vector := self._known.get(key)) is not None:
                self._known.move_to_end(key)
                found[key] = vector
            elif key not in awaited:
                future = self._coming.get(key)
                if future is None:
                    asked += 1
                    new = self._ask(key, text)
                    if isinstance(new, Unavailable):
                        return new
                    future = new
                awaited[key] = future
        self.figures.remembered += len(texts) - asked
        if awaited:
            vectors = await self._worker.wait(list(awaited.values()))
            if isinstance(vectors, Unavailable):
                return vectors
            found.update(zip(awaited, vectors, strict=True))
        return tuple(found[key] for key in keys)

    def boot(self) -> None:
        """Load the model now, on its thread."""
        self._worker.boot()

    async def close(self) -> None:
        """Let its thread end."""
        await self._worker.close()

    def _ask(self, key: bytes, text: str) -> _Awaited | Unavailable:
        future = self._worker.submit(text)
        if not isinstance(future, Unavailable):
            self._coming[key] = future
            future.add_done_callback(lambda done: self._came(key, done.result()))
        return future

    def _came(self, key: bytes, vector: Vector | Unavailable) -> None:
        del self._coming[key]
        if not isinstance(vector, Unavailable):
            self._known[key] = vector
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _vectors(model: FolderModel, texts: Sequence[Text]) -> list[Vector]:
    return together(model, texts, _pooled)


def _pooled(output: "Floats", mask: "Floats") -> list[Vector]:
    """One vector of length 1 for each text: the mean of its tokens', unless the model has done
    that itself."""
    import numpy as np

    if output.ndim > SENTENCES:
        output = (output * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    length = np.linalg.norm(output, axis=1, keepdims=True)
    units = (output / np.maximum(length, LEAST_LENGTH)).astype("<f4")
    return [unit.tobytes() for unit in units]
