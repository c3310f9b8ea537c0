"""Profiles: what the operator keeps of a user, an organisation, a workspace. Frozen values.

Money is US dollars as exact `Decimal`s, as it travels; `quotas` has it in our integers. What is
kept and handed out but does not act yet stands in docs/profiles.md.
"""

from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cascaded.types.guarding import GuardrailsConfig
from cascaded.types.ids import ID_WORDS, is_id
from cascaded.types.limits import Enforcement, Method
from cascaded.types.money import parse_usd, to_usd
from cascaded.types.quotas import UNSET, OwnQuotas, Quotas, merged
from cascaded.types.tiers import TIER_PRESETS, Feature, TierConfig, matches
from cascaded.types.times import NS_PER_S

MAX_WORDS = 100
"""Entries of a list: roles, models, tags."""
MAX_RATE = 2**32 - 1
MAX_RETENTION_DAYS = 36_500
MAX_RETRIES = 2
WHOLE_BP = 10_000

Text = Annotated[str, Meta(min_length=1, max_length=256)]
Words = Annotated[tuple[Text, ...], Meta(max_length=MAX_WORDS)]
Score = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=MAX_RATE)]
Days = Annotated[int, Meta(ge=1, le=MAX_RETENTION_DAYS)]
Scalar = str | int | float | bool | None
Environment = Literal["development", "staging", "production"]
CostSensitivity = Literal["aggressive", "balanced", "quality_first"]
LatencySensitivity = Literal["real_time", "balanced", "batch"]
Tiers = Mapping[str, TierConfig]
AuditLevel = Literal["minimal", "standard", "comprehensive"]
AUDIT_LEVELS: tuple[AuditLevel, ...] = ("minimal", "standard", "comprehensive")


class BudgetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Budgets of one owner in US dollars. What is left out is left to the layer below: of a user
    the tier, then the default of all users."""

    daily: Decimal | None = None
    weekly: Decimal | None = None
    monthly: Decimal | None = None
    total: Decimal | None = None
    """Never resets."""
    enforcement_mode: Enforcement | None = None
    warn_threshold: Score | None = None
    """Shares of a budget."""
    degrade_at: Score | None = None
    block_at: Score | None = None
    rolling: bool | None = None
    """Whether day, week and month are the last 24 hours, 7 and 30 days, not the calendar's."""
    zone: Text | None = None
    """IANA name; calendar windows begin at its midnights."""

    def __post_init__(self) -> None:
        for name in _MONEY:
            _keep_money(self, name)
        if self.warn_threshold is not None and self.warn_threshold > _or_one(self.block_at):
            raise ValueError("warn_threshold is above block_at")
        if self.degrade_at is not None and self.degrade_at > _or_one(self.block_at):
            raise ValueError("degrade_at is above block_at")

    @property
    def quotas(self) -> Quotas:
        """The same in our units."""
        return Quotas(
            daily_nano_usd=_nano(self.daily),
            weekly_nano_usd=_nano(self.weekly),
            monthly_nano_usd=_nano(self.monthly),
            total_nano_usd=_nano(self.total),
            enforcement=self.enforcement_mode,
            warn_bp=_basis_points(self.warn_threshold),
            degrade_bp=_basis_points(self.degrade_at),
            block_bp=_basis_points(self.block_at),
            rolling=self.rolling,
            zone=self.zone,
        )

    @classmethod
    def of(cls, quotas: Quotas) -> "BudgetConfig":
        """The budgets of `Quotas`."""
        return cls(
            daily=_usd(quotas.daily_nano_usd),
            weekly=_usd(quotas.weekly_nano_usd),
            monthly=_usd(quotas.monthly_nano_usd),
            total=_usd(quotas.total_nano_usd),
            enforcement_mode=quotas.enforcement,
            warn_threshold=_share(quotas.warn_bp),
            degrade_at=_share(quotas.degrade_bp),
            block_at=_share(quotas.block_bp),
            rolling=quotas.rolling,
            zone=quotas.zone,
        )


class RateLimitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rates of one owner. What is left out is left to the layer below."""

    requests_per_second: Count | None = None
    requests_per_minute: Count | None = None
    requests_per_hour: Count | None = None
    requests_per_day: Count | None = None
    tokens_per_minute: Count | None = None
    tokens_per_hour: Count | None = None
    tokens_per_day: Count | None = None
    burst_multiplier: Annotated[float, Meta(ge=1, le=1000)] | None = None
    """How many times the even pace may be used for a while; 1.5 where nobody says."""
    burst_window_seconds: Annotated[int, Meta(ge=0, le=59)] | None = None
    """For how long; 10 where nobody says, 0 lets bursts pass."""
    enforcement_mode: Method | None = None
    """`sliding_window` where nobody says."""
    block_on_limit: bool | None = None

    @property
    def quotas(self) -> Quotas:
        """The same in our units."""
        seconds = self.burst_window_seconds
        return Quotas(
            rate_method=self.enforcement_mode,
            burst_bp=_basis_points(self.burst_multiplier),
            burst_window_ns=None if seconds is None else seconds * NS_PER_S,
            **{name: getattr(self, name) for name in _RATES},
        )

    @classmethod
    def of(cls, quotas: Quotas) -> "RateLimitConfig":
        """The rates of `Quotas`."""
        window_ns = quotas.burst_window_ns
        return cls(
            enforcement_mode=quotas.rate_method,
            burst_multiplier=_share(quotas.burst_bp),
            burst_window_seconds=None if window_ns is None else window_ns // NS_PER_S,
            **{name: getattr(quotas, name) for name in _RATES},
        )


_MONEY = ("daily", "weekly", "monthly", "total")
_RATES = tuple(
    name for name in RateLimitConfig.__struct_fields__ if name in Quotas.__struct_fields__
)


class OrganizationConfig(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True
):
    """An organisation. Its budget and rates are shared by all of its users."""

    organization_id: Text
    organization_name: str = ""
    shared_budget: BudgetConfig | None = None
    shared_rate_limits: RateLimitConfig | None = None
    data_region: Text | None = None
    """Where its data may go, unless `data_residency_requirements` names regions."""
    data_residency_requirements: Words = ()
    """Only providers in one of these regions are asked for its users; `eu` includes `eu-west-1`.
    Providers without a region are none of them; models of this host always are."""
    compliance_mode: Text | None = None
    audit_logging: bool = True
    data_retention_days: Days = 90
    custom_models: Words = ()
    """Models, or patterns, that its users may use beside those of their tier."""

    def __post_init__(self) -> None:
        _check_id("organization_id", self.organization_id)

    @property
    def id(self) -> str:
        """Its id."""
        return self.organization_id

    @property
    def bare(self) -> "OrganizationConfig":
        """Its name alone."""
        return OrganizationConfig(organization_id=self.organization_id)

    @cached_property
    def quotas(self) -> Quotas:
        """What all of its users share."""
        return merged(_quotas(self.shared_budget), _quotas(self.shared_rate_limits))

    @property
    def regions(self) -> tuple[str, ...]:
        """Where its users' prompts may be sent; empty for anywhere."""
        return self.data_residency_requirements or (
            () if self.data_region is None else (self.data_region,)
        )


class WorkspaceConfig(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True
):
    """A workspace of an organisation."""

    workspace_id: Text
    workspace_name: str = ""
    organization_id: Text | None = None
    workspace_budget: BudgetConfig | None = None
    environment: Environment = "production"
    workspace_guardrails: GuardrailsConfig | None = None
    """What is looked for in calls of its users, beside what is looked for anyway."""

    def __post_init__(self) -> None:
        _check_id("workspace_id", self.workspace_id)
        if self.organization_id is not None:
            _check_id("organization_id", self.organization_id)

    @property
    def id(self) -> str:
        """Its id."""
        return self.workspace_id

    @property
    def bare(self) -> "WorkspaceConfig":
        """Its name alone."""
        return WorkspaceConfig(workspace_id=self.workspace_id)

    @cached_property
    def quotas(self) -> Quotas:
        """What all of its users share."""
        return _quotas(self.workspace_budget)


class QualityPreferences(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How good answers must be, and what they may cost."""

    minimum_quality: Score = 0.70
    """At the top of the ladder an answer below this is asked again, flagged, or refused."""
    target_quality: Score = 0.85
    maximum_quality: Score = 0.95
    cost_sensitivity: CostSensitivity = "balanced"
    """A draft is kept from the minimum (`aggressive`), the target (`balanced`) or the maximum
    (`quality_first`)."""
    max_cost_per_query: Decimal | None = None
    """US dollars, over all attempts."""
    latency_sensitivity: LatencySensitivity = "balanced"
    max_latency_ms: Annotated[int, Meta(ge=1, le=3_600_000)] | None = None
    enable_semantic_validation: bool = False
    semantic_weight: Score = 0.5
    max_retries: Annotated[int, Meta(ge=0, le=MAX_RETRIES)] = 2
    """How often the last rung is asked again, where its ladder allows that."""
    retry_on_low_quality: bool = True
    retry_on_guardrail_fail: bool = True

    def __post_init__(self) -> None:
        _keep_money(self, "max_cost_per_query")
        if not self.minimum_quality <= self.target_quality <= self.maximum_quality:
            raise ValueError("minimum_quality, target_quality and maximum_quality must ascend")

    @property
    def draft_threshold(self) -> float:
        """From which score a draft is kept."""
        match self.cost_sensitivity:
            case "aggressive":
                return self.minimum_quality
            case "balanced":
                return self.target_quality
            case "quality_first":
                return self.maximum_quality


class ModelPreferences(msgspec.Struct, frozen=True, kw_only=True):
    """Which models a user may have, as names or patterns."""

    allowed: tuple[str, ...]
    preferred: tuple[str, ...]
    """Tried before others."""
    blocked: tuple[str, ...]
    """Never used, whatever is allowed or preferred."""
    domains: tuple[str, ...]


class UserProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """What the operator keeps of one user. `None` and empty leave it to tier and defaults."""

    user_id: Text
    organization: OrganizationConfig | None = None
    workspace: WorkspaceConfig | None = None
    roles: Words = ()
    permissions: Words = ()
    tier: Text | None = None
    budget_overrides: BudgetConfig | None = None
    """Field by field over the tier."""
    rate_limit_overrides: RateLimitConfig | None = None
    """Field by field over the tier."""
    quality_preferences: QualityPreferences | None = None
    preferred_domains: Words = ()
    preferred_models: Words = ()
    blocked_models: Words = ()
    guardrails: GuardrailsConfig | None = None
    """The same of this user."""
    enable_audit_logging: bool = True
    """Without it only refusals and changes are put on record."""
    enable_caching: bool = True
    """Without it no answer is kept, and none that was kept is given."""
    audit_log_level: AuditLevel | None = None
    """`minimal`, `standard` or `comprehensive`; `None` is the daemon's own."""
    data_retention_days: Days = 90
    metadata: Mapping[str, Scalar] = {}
    tags: Words = ()

    def __post_init__(self) -> None:
        _check_id("user_id", self.user_id)

    @property
    def id(self) -> str:
        """Its id."""
        return self.user_id

    @property
    def bare(self) -> "UserProfile":
        """Its name alone."""
        return UserProfile(user_id=self.user_id)

    @classmethod
    def from_tier(cls, tier: str, user_id: str, *, tiers: Tiers = TIER_PRESETS) -> "UserProfile":
        """A user on this tier, with everything else at its default. Raises `ValueError` for a tier
        that is not there."""
        _known(tier, tiers)
        return cls(user_id=user_id, tier=tier)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "UserProfile":
        """A profile out of plain values, checked; money is a `Decimal`, a whole number or a text.
        Raises `ValueError` naming what is wrong and where."""
        try:
            _refuse_floats(data)
            return msgspec.convert(data, cls)
        except (msgspec.ValidationError, RecursionError) as error:
            raise ValueError(str(error)) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON takes; money is a text with every digit."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def get_effective_budget(self, tiers: Tiers = TIER_PRESETS) -> BudgetConfig:
        """This user's own budgets: the overrides, field by field over the tier. Defaults of the
        configuration below the tier are the daemon's to add. Raises `ValueError` for a tier that
        is not in `tiers`."""
        return BudgetConfig.of(self._effective(tiers))

    def get_effective_rate_limits(self, tiers: Tiers = TIER_PRESETS) -> RateLimitConfig:
        """The same of rates."""
        return RateLimitConfig.of(self._effective(tiers))

    def can_use_feature(self, feature: Feature, tiers: Tiers = TIER_PRESETS) -> bool:
        """Whether the tier has it; without a tier everything may be used."""
        tier = self._tier(tiers)
        return tier is None or bool(getattr(tier, feature))

    def can_use_model(self, model: str, tiers: Tiers = TIER_PRESETS) -> bool:
        """Whether it may be asked: not blocked, and of the tier's or the organisation's models."""
        names = self.get_model_preferences(tiers)
        return not matches(model, names.blocked) and matches(model, names.allowed)

    def get_model_preferences(self, tiers: Tiers = TIER_PRESETS) -> ModelPreferences:
        """Models that are allowed, preferred and blocked, tier and organisation included. (In the
        presets the models of `free` are `cheap`, which only a configuration fills in.)"""
        tier = self._tier(tiers)
        custom = self.organization.custom_models if self.organization else ()
        return ModelPreferences(
            allowed=("*",) if tier is None else (*tier.allowed_models, *custom),
            preferred=self.preferred_models or (tier.preferred_models if tier else ()),
            blocked=self.blocked_models,
            domains=self.preferred_domains,
        )

    @cached_property
    def quotas(self) -> OwnQuotas:
        """The limits that are stored for this user and whom it belongs to."""
        return OwnQuotas(
            user=merged(_quotas(self.budget_overrides), _quotas(self.rate_limit_overrides)),
            organization=self.organization.quotas if self.organization else UNSET,
            workspace=self.workspace.quotas if self.workspace else UNSET,
        )

    @cached_property
    def max_cost_nano_usd(self) -> int | None:
        """Most that one request may cost."""
        wanted = self.quality_preferences
        return None if wanted is None else _nano(wanted.max_cost_per_query)

    @property
    def audit_level(self) -> AuditLevel | None:
        """How much is put on record of this user's calls; `None` is the daemon's own."""
        return self.audit_log_level if self.enable_audit_logging else "minimal"

    def _tier(self, tiers: Tiers) -> TierConfig | None:
        return None if self.tier is None else _known(self.tier, tiers)

    def _effective(self, tiers: Tiers) -> Quotas:
        tier = self._tier(tiers)
        return merged(self.quotas.user, UNSET if tier is None else tier.limits)


Stored = UserProfile | OrganizationConfig | WorkspaceConfig
"""What has a place of its own in the store."""


def _known(tier: str, tiers: Tiers) -> TierConfig:
    if tier not in tiers:
        raise ValueError(f"there is no tier {tier[:64]!r}; there are: {', '.join(tiers) or 'none'}")
    return tiers[tier]


def _quotas(config: BudgetConfig | RateLimitConfig | None) -> Quotas:
    return UNSET if config is None else config.quotas


def _check_id(name: str, id: str) -> None:
    if not is_id(id):
        raise ValueError(f"{name} must have {ID_WORDS}")


def _keep_money(owner: msgspec.Struct, name: str) -> None:
    """Check an amount and keep it in its shortest form. Raises `MoneyError`."""
    amount = getattr(owner, name)
    if amount is not None:
        msgspec.structs.force_setattr(owner, name, to_usd(parse_usd(amount)))


def _refuse_floats(data: Mapping[str, Any]) -> None:
    """A float has lost the exact amount before it came here. Raises `ValueError`."""
    tables = (
        data.get("budget_overrides"),
        _member(data.get("organization"), "shared_budget"),
        _member(data.get("workspace"), "workspace_budget"),
        data.get("quality_preferences"),
    )
    for table in tables:
        for name in (*_MONEY, "max_cost_per_query"):
            if isinstance(_member(table, name), float):
                raise ValueError(f"{name}: give money as a text or a Decimal, not as a float")


def _member(table: object, name: str) -> object:
    return table.get(name) if isinstance(table, Mapping) else None


def _nano(usd: Decimal | None) -> int | None:
    return None if usd is None else parse_usd(usd)


def _usd(nano_usd: int | None) -> Decimal | None:
    return None if nano_usd is None else to_usd(nano_usd)


def _basis_points(share: float | None) -> int | None:
    return None if share is None else round(share * WHOLE_BP)


def _share(basis_points: int | None) -> float | None:
    return None if basis_points is None else basis_points / WHOLE_BP


def _or_one(share: float | None) -> float:
    return 1.0 if share is None else share
