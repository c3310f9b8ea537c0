"""What was spent, will be and should not be, as the daemon tells it: apart from `results`, because
few programs ask and every shape takes its time to import.

Money is US dollars.
"""

from decimal import Decimal

import msgspec


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One finished request, as exports tell it. Money is US dollars."""

    request_id: str
    at: str
    """When it ended: ISO 8601, UTC, to the nanosecond."""
    status: str
    """`ok`, the code of a refusal, or `adjusted`: what a bill has told later of a call."""
    model: str
    """As asked."""
    cost: Decimal
    unknown_cost: Decimal
    """Part of the cost that nobody knows the bill of."""
    cost_saved: Decimal
    input_tokens: int
    output_tokens: int
    model_used: str | None = None
    user_id: str | None = None
    organization_id: str | None = None
    workspace_id: str | None = None
    team_id: str | None = None
    run_id: str | None = None
    tier: str | None = None
    tags: dict[str, str] = {}
    ladder: str | None = None
    domain: str | None = None
    complexity: str | None = None
    quality_score: float | None = None
    flagged: bool = False
    cache: str | None = None
    cache_state: str = "off"
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    overhead_ms: float = 0.0
    kind: str = "chat"
    stream: bool = False
    scope: str | None = None
    principal: str = ""
    hold: int | None = None
    imported: bool = False
    guardrails: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    attempts: tuple["UsageAttempt", ...] = ()


class UsageAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One call to a provider, as exports tell it."""

    model: str
    provider: str
    billing: str
    cost: Decimal
    input_tokens: int = 0
    output_tokens: int = 0
    accepted: bool = False
    error: str | None = None
    rung: int = 0


class ImportedInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What became of records that were brought in."""

    added: int
    known: int
    """Were there already, by their ids."""
    too_old: int
    """Older than records are kept for."""


class DaySpend(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent on a day."""

    day: str
    cost: Decimal


class DayForecast(msgspec.Struct, frozen=True, kw_only=True):
    """A day to come: between these bounds in 95 of 100 cases."""

    day: str
    expected: Decimal
    lower: Decimal
    upper: Decimal


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What will have been spent at the end of a period, in US dollars."""

    period: str
    starts: str
    ends: str
    """The first day after it."""
    spent: Decimal
    """So far."""
    predicted_cost: Decimal
    """At the end: as likely to be more as less."""
    mean: Decimal
    std: Decimal
    lower: Decimal
    upper: Decimal
    """It is between these in 95 of 100 cases."""
    risk_score: float
    """The probability that it is more than the budget."""
    recommendation: str
    """`on_track`, `optimize_usage` or `upgrade_tier`."""
    firm: bool
    """From a week of history on; before it is a guess."""
    history_days: int
    budget_limit: Decimal | None = None
    overrun_amount: Decimal = Decimal(0)
    owner: str = "user"
    id: str | None = None
    user_id: str | None = None
    model: str | None = None
    feature: str | None = None
    history: tuple[DaySpend, ...] = ()
    days: tuple[DayForecast, ...] = ()


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """A day, or an hour, on which far more was spent than before."""

    timestamp: str
    """When it began."""
    expected: Decimal
    actual: Decimal
    severity: str
    """`low`, `medium` or `high`."""
    reason: str
    """`spike` or `feature_spike`."""
    description: str
    user_id: str | None = None
    feature: str | None = None


class Anomalies(msgspec.Struct, frozen=True, kw_only=True):
    """The newest first."""

    anomalies: tuple[Anomaly, ...]


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """Something that would cost less."""

    kind: str
    """`upgrade_tier`, `cheaper_model`, `skip_draft`, `cache` or `max_tokens`."""
    at_stake: Decimal
    """US dollars of a month."""
    description: str
    model: str | None = None
    instead: str | None = None
    feature: str | None = None
    requests: int = 0
    max_tokens: int | None = None
    share: float | None = None


class Recommendations(msgspec.Struct, frozen=True, kw_only=True):
    """The most money first."""

    recommendations: tuple[Recommendation, ...]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """What one model, user, day … took."""

    name: str
    requests: int
    cost: Decimal
    cost_saved: Decimal = Decimal(0)
    unknown_cost: Decimal = Decimal(0)
    input_tokens: int = 0
    output_tokens: int = 0


class Breakdown(msgspec.Struct, frozen=True, kw_only=True):
    """The dearest first; days in their order."""

    by: str
    groups: tuple[Group, ...]
