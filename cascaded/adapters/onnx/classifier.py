"""Classifiers of texts: toxicity, injection, entailment for zero-shot. See `ports.Classifier`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cascaded.adapters.onnx.folder import FolderModel, OnnxError, Text
from cascaded.adapters.onnx.worker import Terms, Worker, together
from cascaded.types.vectors import ModelFigures, Unavailable

if TYPE_CHECKING:
    from cascaded.adapters.onnx.folder import Floats

Probabilities = tuple[float, ...]


class OnnxClassifier:
    """A model with a number for each label. See `ports.Classifier`."""

    def __init__(
        self,
        name: str,
        load: Callable[[], FolderModel],
        terms: Terms,
        *,
        labels: tuple[str, ...],
        independent: bool,
    ) -> None:
        """`independent`: any label may be right, not just one."""
        self.name = name
        self.labels = labels
        read = partial(_judged, labels=len(labels), independent=independent)
        self._worker: Worker[Probabilities] = Worker(name, load, read, terms)

    @property
    def figures(self) -> ModelFigures:
        """What it has done."""
        return self._worker.figures

    async def classify(self, texts: Sequence[Text]) -> tuple[Probabilities, ...] | Unavailable:
        """See `ports.Classifier.classify`."""
        futures = []
        for text in texts:
            future = self._worker.submit(text)
            if isinstance(future, Unavailable):
                return future
            futures.append(future)
        return await self._worker.wait(futures) if futures else ()

    def boot(self) -> None:
        """Load the model now, on its thread."""
        self._worker.boot()

    async def close(self) -> None:
        """Let its thread end."""
        await self._worker.close()


def _judged(
    model: FolderModel, texts: Sequence[Text], *, labels: int, independent: bool
) -> list[Probabilities]:
    return together(model, texts, partial(_squashed, labels=labels, independent=independent))


def _squashed(
    output: "Floats", _: "Floats", *, labels: int, independent: bool
) -> list[Probabilities]:
    import numpy as np

    if output.shape[1:] != (labels,):
        raise OnnxError(f"it gives {output.shape[1:]} numbers for {labels} labels")
    if independent:
        chances = 1 / (1 + np.exp(-output))
    else:
        raised = np.exp(output - output.max(axis=1, keepdims=True))
        chances = raised / raised.sum(axis=1, keepdims=True)
    return [tuple(row) for row in chances.tolist()]
