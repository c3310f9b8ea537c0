"""What queries are about, as the configuration wants it looked for."""

from collections.abc import Callable

from cascaded.adapters import package_data
from cascaded.adapters.code_reader import TreeSitterReader
from cascaded.config import Config, schema
from cascaded.daemon.errors import StartError
from cascaded.daemon.small_models import SmallModels
from cascaded.pipeline.stages.direct import direct
from cascaded.pipeline.topics import ENTAILMENT, Topics
from cascaded.policy.heads import Head
from cascaded.policy.routing.book import ModelBook
from cascaded.policy.routing.difficulty import Difficulty
from cascaded.policy.routing.domains import Bounds, DomainError, Domains
from cascaded.ports import Classifier, Clock, Embedder, Offload, Stage
from cascaded.types.model import Rung
from cascaded.types.topics import DomainRoute, Signals, Thresholds


def directing(
    config: Config, book: ModelBook, small_models: SmallModels, clock: Clock, offload: Offload
) -> Stage | None:
    """The stage that looks at queries; `None` where nobody wants it. Raises `StartError`."""
    if config.domains.detect == "off":
        return None
    routes = {name: _route(domain) for name, domain in config.domains.routes.items()}
    return direct(_topics(config.domains, small_models, clock, offload), routes, _rungs(book))


def _topics(
    settings: schema.Domains, small_models: SmallModels, clock: Clock, offload: Offload
) -> Topics:
    bounds = Bounds(rules=settings.min_confidence_rules, all_layers=settings.min_confidence)
    own = {name: _signals(domain) for name, domain in settings.routes.items()}
    try:
        domains = Domains(_head("domains-rules"), _head("domains"), own, bounds)
    except DomainError as error:
        raise StartError(f"domains.routes.{error}") from None
    difficulty = Difficulty(_head("difficulty-rules"), _head("difficulty"))
    embedder: Embedder | None = None
    if settings.detect == "embeddings" and small_models.embedder.name == domains.model:
        embedder = small_models.embedder
    return Topics(
        domains,
        difficulty,
        clock,
        embedder=embedder,
        zero_shot=_zero_shot(settings.zero_shot, small_models),
        code=TreeSitterReader(offload),
    )


def _zero_shot(name: str | None, small_models: SmallModels) -> Classifier | None:
    if name is None:
        return None
    classifier = small_models.classifiers[name]
    if ENTAILMENT not in (label.lower() for label in classifier.labels):
        labels = ", ".join(classifier.labels)
        raise StartError(f"domains.zero_shot: '{name}' has no label '{ENTAILMENT}', but {labels}")
    return classifier


def _head(name: str) -> Head:
    return Head.read(package_data.read(f"{name}.head"))


def _rungs(book: ModelBook) -> Callable[[str], Rung]:
    return lambda name: book.rung(book.models[name])


def _signals(domain: schema.Domain) -> Signals:
    return Signals(
        keywords=domain.keywords,
        patterns=domain.patterns,
        semantic_examples=domain.semantic_examples,
    )


def _route(domain: schema.Domain) -> DomainRoute:
    own = domain.thresholds
    return DomainRoute(
        preferred_models=domain.preferred_models,
        cost_model=domain.cost_model,
        quality_model=domain.quality_model,
        require_strict_quality=domain.require_strict_quality,
        fallback=domain.fallback,
        thresholds=None
        if own is None
        else Thresholds(simple=own.simple, moderate=own.moderate, hard=own.hard),
    )
