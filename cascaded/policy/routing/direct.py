"""What a query's topic does to the ladder. Pure."""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from cascaded.types.model import Ladder, Model, Rung
from cascaded.types.topics import (
    DEFAULT_THRESHOLDS,
    GENERAL,
    Complexity,
    DomainRoute,
    Thresholds,
)


def directed(
    ladder: Ladder,
    domain: str,
    secondary: tuple[str, ...],
    complexity: Complexity,
    routes: Mapping[str, DomainRoute],
    rung: Callable[[str], Rung],
) -> Ladder:
    """The ladder for queries of this kind: the domain's models in place of its first and last, its
    thresholds, strict where the domain is. A strict domain that it is likely about, too, has its
    say on both. A ladder that is not checked stays as it is: its model was asked for by name.

    `rung` makes one of a model's name, with that model's fallbacks.
    """
    if not ladder.checked:
        return ladder
    route = routes.get(domain, DomainRoute())
    strict = [name for name in secondary if _is_strict(name, routes)]
    threshold = max(
        thresholds(name, routes.get(name, DomainRoute())).of(complexity)
        for name in (domain, *strict)
    )
    rungs = _with_models(ladder.rungs, route, rung)
    if route.fallback is not None:
        rungs = (*rungs[:-1], _with_spare(rungs[-1], rung(route.fallback).model))
    return replace(
        ladder,
        rungs=tuple(replace(each, threshold=threshold) for each in rungs),
        strict=ladder.strict or route.require_strict_quality or bool(strict),
    )


def thresholds(domain: str, route: DomainRoute) -> Thresholds:
    """The domain's own, else its default ones, else those of general queries."""
    return route.thresholds or DEFAULT_THRESHOLDS.get(domain, DEFAULT_THRESHOLDS[GENERAL])


def _is_strict(name: str, routes: Mapping[str, DomainRoute]) -> bool:
    return name in routes and routes[name].require_strict_quality


def _with_models(
    rungs: tuple[Rung, ...], route: DomainRoute, rung: Callable[[str], Rung]
) -> tuple[Rung, ...]:
    first = rungs[0] if route.cost_model is None else rung(route.cost_model)
    last = rungs[-1] if route.quality_model is None else rung(route.quality_model)
    if len(rungs) == 1 and route.cost_model is None:
        return (last,)
    made = (first, *rungs[1:-1], last)
    # One model twice would be asked the same again.
    return tuple({each.model.name: each for each in made}.values())


def _with_spare(last: Rung, spare: Model) -> Rung:
    if any(model.name == spare.name for model in last.models):
        return last
    return replace(last, fallbacks=(*last.fallbacks, spare))
