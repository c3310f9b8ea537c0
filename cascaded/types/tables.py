"""Limits and tiers in the words that operators use, in the configuration file and over the API.

Amounts are exact decimals in US dollars here; `quotas` gives them in our units.
"""

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from cascaded.types.limits import Enforcement, Method
from cascaded.types.money import parse_usd, to_usd
from cascaded.types.quotas import Quotas, merged
from cascaded.types.tiers import TIER_PRESETS, SupportPriority, TierConfig
from cascaded.types.times import NS_PER_S

MAX_PATTERNS = 1024
MAX_CUSTOM = 64
MAX_RATE = 2**32 - 1
WHOLE_BP = 10_000


def nothing() -> Mapping[str, Any]:
    """The default of a table of names: read-only."""
    return MappingProxyType({})


def says(expected: str) -> dict[str, Any]:
    """What a setting looks like, in words, for its `Meta`."""
    return {"expected": expected}


Name = Annotated[
    str,
    Meta(
        pattern=r"\A[a-z0-9][a-z0-9_-]*\Z",
        max_length=64,
        extra=says("1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit"),
    ),
]
Text = Annotated[
    str,
    Meta(
        pattern=r"\A[^\x00-\x1f\x7f]+\Z",
        max_length=256,
        extra=says("1 to 256 characters, none of them a control character"),
    ),
]
ZoneName = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z][A-Za-z0-9_+/-]*\Z",
        max_length=64,
        extra=says('a time zone such as "Europe/Berlin" or "UTC"'),
    ),
]
Pattern = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9._:/@+*?\[\]!-]+\Z",
        max_length=128,
        extra=says('the name of a model, or a pattern such as "gpt-4o*"'),
    ),
]
Count = Annotated[int, Meta(ge=1, le=MAX_RATE)]
Score = Annotated[float, Meta(ge=0, le=1)]
Tokens = Annotated[int, Meta(ge=1, le=100_000_000)]
Usd = Annotated[Decimal, Meta(extra={"money": "usd"})]


class LimitTable(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one scope. What is not set is left to the table below: a user's own table stands
    over the tier, the tier over the default of all users."""

    daily_usd: Usd | None = None
    """Budget of a day."""
    weekly_usd: Usd | None = None
    """Budget of a week, which begins on Monday."""
    monthly_usd: Usd | None = None
    """Budget of a month."""
    total_usd: Usd | None = None
    """Budget that never resets."""
    rolling: bool | None = None
    """Whether day, week and month are the last 24 hours, 7 and 30 days, not the calendar's. By
    default false."""
    zone: ZoneName | None = None
    """The time zone at whose midnights calendar budgets reset. By default `limits.zone`."""
    enforcement: Enforcement | None = None
    """What happens at the limit: see `limits.enforcement`, which is the default."""
    warn_threshold: Score | None = None
    """Share of a budget from which there are warnings. By default 0.7."""
    degrade_at: Score | None = None
    """Share of a budget from which `degrade` lets only cheaper models pass. By default 0.9."""
    block_at: Score | None = None
    """Share of a budget that may be used up. By default 1.0."""
    requests_per_second: Count | None = None
    """Most requests in any second."""
    requests_per_minute: Count | None = None
    """Most requests in any minute."""
    requests_per_hour: Count | None = None
    """Most requests in any hour."""
    requests_per_day: Count | None = None
    """Most requests in any 24 hours."""
    tokens_per_minute: Count | None = None
    """Most tokens, in and out, in any minute."""
    tokens_per_hour: Count | None = None
    """Most tokens, in and out, in any hour."""
    tokens_per_day: Count | None = None
    """Most tokens, in and out, in any 24 hours."""
    rate_method: Method | None = None
    """`sliding_window` never lets more than the limit through in any window; the other two are
    coarser. By default `sliding_window`."""
    burst_multiplier: Annotated[float, Meta(ge=1, le=1000)] | None = None
    """How many times the even pace of `requests_per_minute` may be used within
    `burst_window_seconds`; never above the limit itself. By default 1.5."""
    burst_window_seconds: Annotated[int, Meta(ge=0, le=59)] | None = None
    """Over how long that is measured; 0 lets bursts pass. By default 10."""
    block_on_limit: bool | None = None
    """Whether what is above a rate is refused, or passes with a warning. By default true."""

    @classmethod
    def of(cls, quotas: Quotas) -> Self:
        """The table that says this."""
        window_ns = quotas.burst_window_ns
        return cls(
            daily_usd=_usd(quotas.daily_nano_usd),
            weekly_usd=_usd(quotas.weekly_nano_usd),
            monthly_usd=_usd(quotas.monthly_nano_usd),
            total_usd=_usd(quotas.total_nano_usd),
            warn_threshold=_share(quotas.warn_bp),
            degrade_at=_share(quotas.degrade_bp),
            block_at=_share(quotas.block_bp),
            burst_multiplier=_share(quotas.burst_bp),
            burst_window_seconds=None if window_ns is None else window_ns // NS_PER_S,
            **{name: getattr(quotas, name) for name in _SAME_IN_QUOTAS},
        )

    @property
    def quotas(self) -> Quotas:
        """The table in our units. Raises `MoneyError` for an amount that is none."""
        seconds = self.burst_window_seconds
        return Quotas(
            daily_nano_usd=_nano(self.daily_usd),
            weekly_nano_usd=_nano(self.weekly_usd),
            monthly_nano_usd=_nano(self.monthly_usd),
            total_nano_usd=_nano(self.total_usd),
            warn_bp=_basis_points(self.warn_threshold),
            degrade_bp=_basis_points(self.degrade_at),
            block_bp=_basis_points(self.block_at),
            burst_bp=_basis_points(self.burst_multiplier),
            burst_window_ns=None if seconds is None else seconds * NS_PER_S,
            **{name: getattr(self, name) for name in _SAME_IN_QUOTAS},
        )


_SAME_IN_QUOTAS = tuple(
    name for name in LimitTable.__struct_fields__ if name in Quotas.__struct_fields__
)


def _nano(usd: Decimal | None) -> int | None:
    return None if usd is None else parse_usd(usd)


def _usd(nano_usd: int | None) -> Decimal | None:
    return None if nano_usd is None else to_usd(nano_usd)


def _share(basis_points: int | None) -> float | None:
    return None if basis_points is None else basis_points / WHOLE_BP


def _basis_points(share: float | None) -> int | None:
    return None if share is None else round(share * WHOLE_BP)


class Tier(LimitTable, frozen=True, kw_only=True):
    """A customer plan: what each of its users may use and spend. What is not set comes of the
    preset. List the least first: a refusal names the next tier that allows more."""

    preset: Literal["free", "starter", "pro", "business", "enterprise"] | None = None
    """What it begins with. By default the preset of its own name, if there is one."""
    default_quality_threshold: Score | None = None
    """How good an answer must be for a call that asks for nothing."""
    max_quality_threshold: Score | None = None
    """The most that a call may ask for."""
    max_tokens: Tokens | None = None
    """Longest answer. A call that asks for more is given this, and told."""
    streaming: bool | None = None
    """Whether answers may be streamed. By default true."""
    domain_routing: bool | None = None
    """Whether topics choose the models. By default true."""
    batch: bool | None = None
    """Whether batches are taken. By default true."""
    embeddings: bool | None = None
    """Whether embeddings are made. By default true."""
    quality_validation: bool | None = None
    """Whether answers are judged. By default true."""
    guardrails: bool | None = None
    """Whether calls pass the guardrails. By default true."""
    caching: bool | None = None
    """Whether answers may be kept and given again. By default true."""
    allowed_models: Annotated[tuple[Pattern, ...], Meta(max_length=MAX_PATTERNS)] | None = None
    """Models that it may use: names, patterns such as `gpt-4o*`, or `cheap` for
    `access.cheap_models`. By default all."""
    preferred_models: Annotated[tuple[Pattern, ...], Meta(max_length=MAX_PATTERNS)] | None = None
    """Models that are tried before others."""
    support_priority: SupportPriority | None = None
    """How its customers are supported; only told. By default `standard`."""
    queue_priority: Annotated[int, Meta(ge=0, le=100)] | None = None
    """Who goes first when there is no room for all: the highest. By default 0."""
    escalates: bool | None = None
    """Whether a better model may be tried when an answer is not good enough. By default true."""
    custom: Annotated[Mapping[Name, Text], Meta(max_length=MAX_CUSTOM)] = msgspec.field(
        default_factory=nothing
    )
    """Fields of your own, only told."""

    def tier(self, name: str) -> TierConfig:
        """The whole tier: its preset, and what is set here over it."""
        preset = TIER_PRESETS.get(self.preset or "", TierConfig(name=name))
        fields = {field: getattr(self, field) for field in _SAME_IN_TIERS}
        changes = {field: value for field, value in fields.items() if value is not None}
        limits = merged(self.quotas, preset.limits)
        return msgspec.structs.replace(preset, name=name, limits=limits, **changes)


_SAME_IN_TIERS = tuple(
    name for name in Tier.__struct_fields__ if name in TierConfig.__struct_fields__
)
