"""What a query is about: rules at once, then what small models add. Pure; whoever has the models
asks them in between (`pipeline/topics.py`)."""

from collections.abc import Mapping, Sequence
from math import exp

import msgspec

from cascaded import _core
from cascaded.policy.heads import Head, similarity
from cascaded.types.topics import GENERAL, Layer, Signals, Topic
from cascaded.types.vectors import Vector

SURE = 0.97
"""Rules that are so sure are not asked again of a model."""
SECONDARY_AT_LEAST = 0.15
MAX_SECONDARY = 3
MISSED_BY_KEYWORD = 0.3
"""How much doubt each keyword leaves; so one is worth .7."""
MISSED_BY_PATTERN = 0.1
EXAMPLE_MIDDLE, EXAMPLE_STEP = 0.55, 0.05
"""An example as near as this is as likely as not of the same domain, and how fast that grows."""

Chances = Mapping[str, float]


class DomainError(ValueError):
    """A domain of the operator's that cannot be used. Names it and says why."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How sure a layer must be; below, the query is general."""

    rules: float = 0.7
    all_layers: float = 0.6


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A query as the rules have read it."""

    features: Vector
    own: Chances
    """Of the operator's domains whose words it has."""
    chances: Chances


class Domains:
    """The built-in domains and the operator's own. Immutable."""

    def __init__(self, rules: Head, full: Head, own: Mapping[str, Signals], bounds: Bounds) -> None:
        """`rules` judges features alone, `full` a vector and the features behind it. Raises
        `DomainError`."""
        self._rules = rules
        self._full = full
        self._names = tuple(own)
        self.bounds = bounds
        self.examples = {
            name: signals.semantic_examples
            for name, signals in own.items()
            if signals.semantic_examples
        }
        self.names = tuple(dict.fromkeys((*full.labels, *own)))
        """Every domain there is."""
        signals = [(list(each.keywords), list(each.patterns)) for each in own.values()]
        try:
            self._routes = _core.DomainRoutes(signals)
        except ValueError as error:
            problem, place = error.args
            raise DomainError(f"{self._names[place]}: {problem}") from None

    @property
    def model(self) -> str:
        """Whose vectors are understood."""
        return self._full.model

    def read(self, text: str) -> Reading:
        """By rules alone. Takes a fraction of a millisecond."""
        clean = text.encode("utf-8", "replace").decode()
        features = _core.domain_features(clean)
        own = {
            self._names[place]: 1.0 - MISSED_BY_KEYWORD**keywords * MISSED_BY_PATTERN**patterns
            for place, keywords, patterns in self._routes.find(clean)
        }
        chances = _with_own(self._rules.probabilities(features), own)
        return Reading(features=features, own=own, chances=chances)

    def settled(self, reading: Reading) -> bool:
        """Whether a model would hardly change it."""
        return max(reading.chances.values()) >= SURE or self._by_words(reading) is not None

    def by_rules(self, reading: Reading, missing: str = "") -> Topic:
        """What the rules say."""
        by_words = self._by_words(reading)
        layer: Layer = "rules" if by_words is None else "keywords"
        return _topic(reading.chances, self.bounds.rules, layer, missing)

    def by_vector(
        self, reading: Reading, vector: Vector, examples: Mapping[str, Sequence[Vector]]
    ) -> Topic:
        """What the vector says as well; `examples` are those of the operator's domains."""
        near = {
            name: max(_nearness(similarity(vector, each)) for each in vectors)
            for name, vectors in examples.items()
        }
        own = {
            name: max(reading.own.get(name, 0.0), near.get(name, 0.0))
            for name in {*reading.own, *near}
        }
        chances = _with_own(self._full.probabilities(vector + reading.features), own)
        return _topic(chances, self.bounds.all_layers, "embeddings", "")

    def by_entailment(self, before: Topic, entailed: Chances) -> Topic:
        """What a zero-shot model says of a query that nobody was sure of."""
        total = sum(entailed.values()) or 1.0
        chances = {name: chance / total for name, chance in entailed.items()}
        found = _topic(chances, self.bounds.all_layers, "zero_shot", "")
        return found if found.domain != GENERAL else before

    def _by_words(self, reading: Reading) -> str | None:
        sure = {name for name, chance in reading.own.items() if chance >= self.bounds.rules}
        return max(sure, key=reading.own.__getitem__) if sure else None


def hypothesis(domain: str) -> str:
    """What a zero-shot model is asked to find entailed."""
    return f"This text is about {domain}."


def _with_own(built_in: Chances, own: Chances) -> Chances:
    """The operator's own take what they are sure of; the others share the rest. A built-in domain
    of the same name is the same domain."""
    if not own:
        return built_in
    best = max(own.values())
    rest = {name: chance * (1.0 - best) for name, chance in built_in.items()}
    for name, chance in own.items():
        share = chance * best / sum(own.values()) if len(own) > 1 and chance < best else chance
        rest[name] = min(1.0, rest.get(name, 0.0) + share)
    return rest


def _topic(chances: Chances, bound: float, layer: Layer, missing: str) -> Topic:
    ranked = sorted(chances.items(), key=lambda item: -item[1])
    name, confidence = ranked[0]
    if confidence < bound:
        # Not sure enough for one: what it may be is told as secondary.
        others = [each for each in ranked if each[0] != GENERAL]
        general = chances.get(GENERAL, 0.0)
        return Topic(confidence=general, secondary=_likely(others), layer=layer, missing=missing)
    return Topic(
        domain=name,
        confidence=confidence,
        secondary=_likely(ranked[1:]),
        layer=layer,
        missing=missing,
    )


def _likely(ranked: Sequence[tuple[str, float]]) -> tuple[str, ...]:
    likely = (name for name, chance in ranked if chance >= SECONDARY_AT_LEAST and name != GENERAL)
    return tuple(likely)[:MAX_SECONDARY]


def _nearness(cosine: float) -> float:
    return 1.0 / (1.0 + exp(-(cosine - EXAMPLE_MIDDLE) / EXAMPLE_STEP))
