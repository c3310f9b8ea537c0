"""Customer plans."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal

import msgspec

from cascaded.types.money import parse_usd
from cascaded.types.quotas import Quotas

CHEAP = "cheap"
"""In `allowed_models`: the operator's cheap class. The configuration puts its models in place."""

SupportPriority = Literal["community", "standard", "priority", "dedicated"]
Feature = Literal[
    "streaming", "domain_routing", "batch", "embeddings", "quality_validation", "guardrails"
]


def matches(model: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns is this model's, case and all."""
    return any(fnmatchcase(model, pattern) for pattern in patterns)


class TierConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What customers of one plan may use and spend. By default everything."""

    name: str
    limits: Quotas = Quotas()
    """Of each *user* on this tier."""
    default_quality_threshold: float | None = None
    max_quality_threshold: float | None = None
    max_tokens: int | None = None
    """Longest answer; a caller's own bound above it is clamped."""
    streaming: bool = True
    domain_routing: bool = True
    batch: bool = True
    embeddings: bool = True
    quality_validation: bool = True
    guardrails: bool = True
    caching: bool = True
    allowed_models: tuple[str, ...] = ("*",)
    """Names of models, with `*`, `?` and `[…]` as in file names."""
    preferred_models: tuple[str, ...] = ()
    support_priority: SupportPriority = "standard"
    queue_priority: int = 0
    """Who is first when there is no room for all: the highest."""
    escalates: bool = True
    """Whether a better model may be tried when an answer is not good enough."""
    custom: Mapping[str, str] = {}
    """The operator's own fields."""


def _preset(
    name: str,
    daily: str | None,
    weekly: str | None,
    monthly: str | None,
    requests: tuple[int, int] | None,
) -> TierConfig:
    """A tier with its budgets in dollars and its requests an hour and a day."""
    hourly, a_day = requests or (None, None)
    return TierConfig(
        name=name,
        limits=Quotas(
            daily_nano_usd=None if daily is None else parse_usd(daily),
            weekly_nano_usd=None if weekly is None else parse_usd(weekly),
            monthly_nano_usd=None if monthly is None else parse_usd(monthly),
            requests_per_hour=hourly,
            requests_per_day=a_day,
        ),
    )


_FREE = msgspec.structs.replace(
    _preset("free", "0.10", None, "2", (10, 100)),
    default_quality_threshold=0.65,
    max_quality_threshold=0.80,
    max_tokens=500,
    streaming=False,
    domain_routing=False,
    batch=False,
    embeddings=False,
    allowed_models=(CHEAP,),
    support_priority="community",
    escalates=False,
)
_STARTER = msgspec.structs.replace(
    _preset("starter", "1", "5", None, (100, 1_000)),
    default_quality_threshold=0.70,
    max_quality_threshold=0.85,
    max_tokens=2_000,
    batch=False,
    embeddings=False,
)
_PRO = msgspec.structs.replace(
    _preset("pro", "10", "50", "200", (1_000, 10_000)),
    default_quality_threshold=0.75,
    max_quality_threshold=0.90,
    max_tokens=4_000,
    support_priority="priority",
)
_BUSINESS = msgspec.structs.replace(
    _preset("business", "50", "250", "1000", (5_000, 50_000)),
    default_quality_threshold=0.80,
    max_quality_threshold=0.95,
    max_tokens=16_000,
    support_priority="dedicated",
)
_ENTERPRISE = msgspec.structs.replace(
    _preset("enterprise", None, None, None, None),
    default_quality_threshold=0.85,
    max_quality_threshold=0.98,
    max_tokens=32_000,
    support_priority="dedicated",
    queue_priority=1,
)
TIER_PRESETS: Mapping[str, TierConfig] = MappingProxyType(
    {tier.name: tier for tier in (_FREE, _STARTER, _PRO, _BUSINESS, _ENTERPRISE)}
)
"""The least first."""
