"""What can be asked about what was spent, and what is answered. Money is nano-dollars."""

from datetime import date
from typing import Literal

import msgspec

from cascaded.types.records import Owner, UsageFilter

ExportFormat = Literal["jsonl", "json", "csv", "focus"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = ("jsonl", "json", "csv", "focus")
Period = Literal["day", "week", "month"]
Sensitivity = Literal["low", "medium", "high"]
Grain = Literal["day", "hour"]
Outcome = Literal["on_track", "optimize_usage", "upgrade_tier"]
GroupBy = Literal["day", "user", "organization", "workspace", "model", "feature", "domain", "tier"]
AdviceKind = Literal["upgrade_tier", "cheaper_model", "skip_draft", "cache", "max_tokens"]


class ExportQuestion(msgspec.Struct, frozen=True, kw_only=True, tag="export"):
    """Records, one after another."""

    format: ExportFormat = "jsonl"
    filter: UsageFilter = UsageFilter()
    now_ns: int


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Whose spend, and which of it."""

    owner: Owner = "user"
    id: str | None = None
    """`None`: everybody."""
    model: str | None = None
    feature: str | None = None
    """A tag, as `name=value`."""


class ForecastQuestion(msgspec.Struct, frozen=True, kw_only=True, tag="forecast"):
    """What will have been spent at the end of the present period."""

    subject: Subject
    period: Period = "month"
    zone: str = "UTC"
    limit_nano_usd: int | None = None
    now_ns: int


class AnomalyQuestion(msgspec.Struct, frozen=True, kw_only=True, tag="anomalies"):
    """On which of the last days, or in which of their hours, spend was out of the ordinary."""

    subject: Subject
    sensitivity: Sensitivity = "medium"
    grain: Grain = "day"
    days: int = 30
    zone: str = "UTC"
    now_ns: int


class AdviceQuestion(msgspec.Struct, frozen=True, kw_only=True, tag="advice"):
    """What would have cost less in the last days."""

    subject: Subject
    days: int = 30
    zone: str = "UTC"
    limit_nano_usd: int | None = None
    now_ns: int


class BreakdownQuestion(msgspec.Struct, frozen=True, kw_only=True, tag="breakdown"):
    """What was spent, by what."""

    by: GroupBy
    filter: UsageFilter
    zone: str = "UTC"
    top: int = 100


Question = ExportQuestion | ForecastQuestion | AnomalyQuestion | AdviceQuestion | BreakdownQuestion


class Errand(msgspec.Struct, frozen=True):
    """A question, and the folder of the usage log that answers it."""

    folder: str
    question: Question


class DayForecast(msgspec.Struct, frozen=True):
    """One day to come, between two bounds in 95 of 100 cases."""

    day: date
    expected: int
    lower: int
    upper: int


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What will have been spent at the end of a period."""

    subject: Subject
    period: Period
    starts: date
    ends: date
    """The first day after it."""
    spent: int
    """So far."""
    predicted_cost: int
    """At the end: as likely to be more as less."""
    mean: int
    std: int
    lower: int
    upper: int
    """It is between these in 95 of 100 cases."""
    risk_score: float
    """The probability that it is more than the limit."""
    budget_limit: int | None
    overrun_amount: int
    """By how much the prediction is above the limit."""
    recommendation: Outcome
    firm: bool
    """From a week of history on."""
    history_days: int
    history: tuple[tuple[date, int], ...]
    """Whole days that were."""
    days: tuple[DayForecast, ...]
    """Those to come, today's rest left out."""


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """Something out of the ordinary."""

    at_ns: int
    """When the day, or the hour, began."""
    user_id: str | None
    feature: str | None
    expected: int
    actual: int
    severity: Sensitivity
    reason: Literal["spike", "feature_spike"]


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """Something that would have cost less, and by how much."""

    kind: AdviceKind
    at_stake: int
    """A month."""
    model: str | None = None
    instead: str | None = None
    feature: str | None = None
    requests: int = 0
    """That it is worked out from."""
    max_tokens: int | None = None
    share: float | None = None
    """Of requests: how many drafts are accepted, how many answers were found in the cache …"""


class Group(msgspec.Struct, kw_only=True):
    """What one model, user, day … took."""

    name: str
    requests: int = 0
    cost: int = 0
    saved: int = 0
    unknown: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
