"""Who judges answers, made from the configuration."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import get_args

import msgspec
from msgspec.structs import replace

from cascaded.adapters import package_data
from cascaded.config import Config
from cascaded.daemon.errors import StartError
from cascaded.daemon.small_models import SmallModels
from cascaded.pipeline.scrutiny import Scrutiny
from cascaded.policy.quality.judgement import Judgement, read_judgement, usually
from cascaded.policy.routing.book import ModelBook
from cascaded.ports import Offload
from cascaded.types.model import Model
from cascaded.types.quality import QualityConfig, QualityMode

SHIPPED = "quality.json"
MAX_BYTES = 4 * 1024 * 1024


def make_scrutiny(config: Config, small_models: SmallModels, offload: Offload) -> Scrutiny:
    """Raises `StartError` for a calibration that cannot be used."""
    quality = config.quality
    classifier = None
    places: tuple[int, ...] = ()
    if quality.toxicity_classifier is not None:
        classifier = small_models.classifiers[quality.toxicity_classifier]
        wanted = {label.lower() for label in quality.toxic_labels}
        places = tuple(n for n, label in enumerate(classifier.labels) if label.lower() in wanted)
        if not places:
            known = ", ".join(classifier.labels)
            raise StartError(f"quality.toxic_labels: the classifier has none of them, but {known}")
    return Scrutiny(
        offload=offload,
        judgement=_judgement(quality.calibration, quality.good_share),
        embedder=small_models.embedder,
        toxicity=classifier,
        toxic_labels=places,
    )


def judge_of(config: Config, book: ModelBook) -> Model | None:
    """The model that is asked of answers. Raises `StartError` where its price is not known."""
    if config.quality.judge is None:
        return None
    model = book.models[config.quality.judge]
    if model.price is None:
        raise StartError(f"quality.judge: the price of '{model.name}' is not known; declare one")
    return model


def modes(config: Config) -> Mapping[QualityMode, QualityConfig]:
    """What a call means by each mode."""
    return {mode: replace(config.quality, mode=mode).meant for mode in get_args(QualityMode)}


def _judgement(file: str | None, good_share: float) -> Callable[[], Judgement]:
    """The operator's own is read now, so that mistakes are told; ours when it is first needed."""
    if file is None:
        return cache(partial(_shipped, good_share))
    try:
        with Path(file).open("rb") as stream:
            own = read_judgement(stream.read(MAX_BYTES))
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise StartError(f"quality.calibration: {file} cannot be used: {error}") from None
    return lambda: own


def shipped_judgement() -> Judgement:
    """The one in the package, as it was fitted."""
    return read_judgement(package_data.read(SHIPPED))


def _shipped(good_share: float) -> Judgement:
    return usually(shipped_judgement(), good_share)
