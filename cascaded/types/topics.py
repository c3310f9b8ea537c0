"""What a query is about and how hard it is, and what the operator wants done with that."""

from collections.abc import Mapping
from typing import Literal

import msgspec

Complexity = Literal["simple", "moderate", "hard"]
Layer = Literal["asked", "keywords", "rules", "embeddings", "zero_shot"]
"""What decided a domain; `asked`: the caller named it; `keywords`: the operator's own words."""
GENERAL = "general"


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """What a query is about."""

    domain: str = GENERAL
    confidence: float = 0.0
    """The probability that it is right, 0 to 1."""
    secondary: tuple[str, ...] = ()
    """Other domains that it is likely about, too, the likeliest first."""
    layer: Layer = "rules"
    missing: str = ""
    """Why a layer that was asked had nothing to say."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """How good an answer must be to be kept, by how hard the query is."""

    simple: float
    moderate: float
    hard: float

    def of(self, complexity: Complexity) -> float:
        """The one for a query of this kind."""
        found: float = getattr(self, complexity)
        return found


class DomainRoute(msgspec.Struct, frozen=True, kw_only=True):
    """What is done with the queries of one domain."""

    preferred_models: tuple[str, ...] = ()
    """Tried before the others of the ladder, as names or patterns."""
    cost_model: str | None = None
    """Takes the place of the ladder's first model."""
    quality_model: str | None = None
    """Takes the place of the ladder's last model."""
    require_strict_quality: bool = False
    fallback: str | None = None
    """Answers where the last model's provider fails."""
    thresholds: Thresholds | None = None
    """`None`: the default ones of the domain."""


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """What marks the queries of one of the operator's domains."""

    keywords: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    semantic_examples: tuple[str, ...] = ()


DEFAULT_THRESHOLDS: Mapping[str, Thresholds] = {
    "code": Thresholds(simple=0.55, moderate=0.50, hard=0.45),
    "medical": Thresholds(simple=0.80, moderate=0.75, hard=0.70),
    GENERAL: Thresholds(simple=0.60, moderate=0.55, hard=0.50),
}
"""What holds where the configuration says nothing; other domains are as `general`."""
