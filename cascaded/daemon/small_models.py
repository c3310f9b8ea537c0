"""The models that judge texts on this machine, made from the configuration."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from cascaded.adapters.onnx.classifier import OnnxClassifier
from cascaded.adapters.onnx.embedder import OnnxEmbedder
from cascaded.adapters.onnx.folder import FolderModel, OnnxError, labels_in
from cascaded.adapters.onnx.worker import Terms
from cascaded.config import Config, schema
from cascaded.daemon.errors import StartError
from cascaded.models.catalogue import MINILM
from cascaded.models.folder import models_folder, weights_path
from cascaded.types.vectors import ModelFigures

MS_PER_S = 1_000
OWN = "embedder"
"""The name of a model of the operator's own, for which the package has no heads."""


class SmallModels(msgspec.Struct, frozen=True, kw_only=True):
    """Neither threads nor weights until they are used; of the same settings they are the same."""

    embedder: OnnxEmbedder
    classifiers: Mapping[str, OnnxClassifier]
    settings: Mapping[str, schema.SmallModel]
    """What each was made from, by its name."""

    @property
    def all(self) -> tuple[OnnxEmbedder | OnnxClassifier, ...]:
        """Every one."""
        return self.embedder, *self.classifiers.values()

    def boot(self) -> None:
        """Load those that are to be there from the start, each on its thread."""
        for model in self.all:
            if self.settings[model.name].start == "boot":
                model.boot()

    def figures(self) -> dict[str, ModelFigures]:
        """What each has done, by name."""
        return {model.name: model.figures for model in self.all}


def make_small_models(config: Config, former: SmallModels | None) -> SmallModels:
    """Reads the classifiers' labels. Raises `StartError`."""
    old = {model.name: model for model in former.all} if former else {}
    embedder_name = OWN if config.embedder.folder else MINILM.name
    settings: dict[str, schema.SmallModel] = {embedder_name: config.embedder, **config.classifiers}

    def same(name: str) -> bool:
        return former is not None and former.settings.get(name) == settings[name]

    embedder = old.get(embedder_name) if same(embedder_name) else None
    if not isinstance(embedder, OnnxEmbedder):
        embedder = _embedder(embedder_name, config.embedder)
    classifiers = {}
    for name, own in config.classifiers.items():
        known = old.get(name) if same(name) else None
        classifiers[name] = known if isinstance(known, OnnxClassifier) else _classifier(name, own)
    return SmallModels(embedder=embedder, classifiers=classifiers, settings=settings)


def _embedder(name: str, settings: schema.Embedder) -> OnnxEmbedder:
    if settings.folder:
        folder = Path(settings.folder)
    else:
        folder = weights_path(MINILM, models_folder(os.environ)).parent
    return OnnxEmbedder(name, _loading(folder, settings, settings.max_tokens), _terms(settings))


def _classifier(name: str, settings: schema.Classifier) -> OnnxClassifier:
    folder = Path(settings.folder)
    try:
        labels = settings.labels or labels_in(folder)
    except OnnxError as error:
        raise StartError(f"classifiers.{name}: {error}") from None
    load = _loading(folder, settings, settings.max_tokens)
    independent = settings.independent
    return OnnxClassifier(name, load, _terms(settings), labels=labels, independent=independent)


def _loading(
    folder: Path, settings: schema.SmallModel, max_tokens: int
) -> Callable[[], FolderModel]:
    return partial(FolderModel, folder, max_tokens=max_tokens, threads=settings.threads)


def _terms(settings: schema.SmallModel) -> Terms:
    return Terms(deadline_s=settings.deadline_ms / MS_PER_S, max_waiting=settings.max_waiting)
