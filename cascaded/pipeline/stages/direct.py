"""Direct: what the query is about, and the ladder for queries of that kind."""

from collections.abc import Callable, Mapping
from functools import lru_cache

from msgspec.structs import replace

from cascaded.pipeline.topics import Topics
from cascaded.policy.routing.direct import directed
from cascaded.ports import Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.model import Ladder, Rung
from cascaded.types.request import Request
from cascaded.types.topics import GENERAL, Complexity, DomainRoute, Topic

MAX_LADDERS = 4096
"""Ladders by domain and complexity that are kept, so that what is worked out of one is known."""
MAX_NAME = 64


def direct(topics: Topics, routes: Mapping[str, DomainRoute], rung: Callable[[str], Rung]) -> Stage:
    """A stage that looks at the question of a ladder that is judged. Tiers without
    `domain_routing` go on as they are; models that were asked for by name, too."""
    known = frozenset(topics.domains.names)

    @lru_cache(MAX_LADDERS)
    def fitted(
        ladder: Ladder, domain: str, secondary: tuple[str, ...], complexity: Complexity
    ) -> Ladder:
        return directed(ladder, domain, secondary, complexity, routes, rung)

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        ladder = decision.ladder
        assert ladder is not None
        allowed = decision.tier is None or decision.tier.domain_routing
        if not ladder.checked or not allowed or not decision.question:
            return decision
        if request.domain is not None and request.domain not in known:
            return _unknown(request.domain, topics.domains.names)
        found = await topics.find(decision.question, request.domain)
        topic = _leaning(found.topic, decision)
        return replace(
            decision,
            ladder=fitted(ladder, topic.domain, topic.secondary, found.complexity),
            domain=topic.domain,
            topic=topic,
            complexity=found.complexity,
            cyclomatic=found.cyclomatic,
            domain_detection_ns=found.elapsed_ns,
            preferred=routes[topic.domain].preferred_models if topic.domain in routes else (),
            notices=(*decision.notices, *_missing(topic.missing)),
        )

    return stage


def _leaning(topic: Topic, decision: Decision) -> Topic:
    """The topic; where nothing is sure, what is likely and preferred by the caller's profile."""
    profile = decision.profile
    if topic.domain != GENERAL or topic.layer == "asked" or profile is None:
        return topic
    likely = [name for name in topic.secondary if name in profile.preferred_domains]
    if not likely:
        return topic
    rest = tuple(name for name in topic.secondary if name != likely[0])
    return replace(topic, domain=likely[0], secondary=rest)


def _missing(why: str) -> tuple[str, ...]:
    return (f"The domain is by rules alone: {why}",) if why else ()


def _unknown(name: str, names: tuple[str, ...]) -> Refusal:
    return Refusal(
        code="invalid_request",
        message=f"No domain is called {name[:MAX_NAME]!r}. There are {', '.join(names)}.",
        param="domain",
    )
