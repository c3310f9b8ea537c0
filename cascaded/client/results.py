"""Answers, typed. Money is an exact `Decimal` in US dollars, times are milliseconds.

Members that a newer daemon sends and this version does not know are ignored.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

import msgspec


class AttemptInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One call that the daemon made to a provider."""

    model: str
    provider: str
    cost: Decimal
    latency_ms: float
    first_token_ms: float | None = None
    error: str | None = None
    billing: str = "billed"
    quality_score: float | None = None
    accepted: bool = False


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer came about."""

    request_id: str
    total_cost: Decimal
    draft_cost: Decimal
    verifier_cost: Decimal
    cost_saved: Decimal
    savings_percent: float
    savings_reference: str | None = None
    """The paid model whose price the saving is shown at, where the models themselves are free."""
    confidence: float | None = None
    quality_score: float | None = None
    quality_failed: tuple[str, ...] = ()
    quality_parts: Mapping[str, float] = {}
    """What speaks for the answer and against it: what each adds to the logarithm of the odds."""
    quality_unseen: tuple[str, ...] = ()
    """What was to be looked at and could not be, and why."""
    quality_mode: str | None = None
    semantic_similarity: float | None = None
    """How probably it is an answer to this question rather than to another."""
    toxicity_score: float | None = None
    agreement: float | None = None
    """The share of further samples that say the same."""
    flagged: bool = False
    """The answer failed its check at the top of the ladder."""
    domain: str | None = None
    complexity: str | None = None
    draft_model: str | None = None
    verifier_model: str | None = None
    model_used: str | None = None
    draft_accepted: bool = False
    ladder: str | None = None
    attempts: tuple[AttemptInfo, ...] = ()
    cache: str | None = None
    user_id: str | None = None
    user_tier: str | None = None
    user_budget_remaining: Decimal | None = None
    """US dollars left in the user's own tightest budget, where there is one."""
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    """Of a stream: until the first of the answer went to the caller."""
    draft_latency_ms: float | None = None
    verifier_latency_ms: float | None = None
    overhead_ms: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None
    notices: tuple[str, ...] = ()


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model wants made."""

    name: str
    arguments: str
    """JSON text, as the model wrote it."""


class CascadeResult(msgspec.Struct, frozen=True, kw_only=True):
    """An answer and how it came about."""

    content: str
    metadata: Metadata
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer is to be streamed."""

    mode: Literal["auto", "stream", "buffer"] = "auto"
    """`buffer` holds everything back until it is judged; `stream` lets the last rung speak as it
    does; `auto` does so unless its ladder is strict."""
    buffer_size: int = 1
    """How many pieces come as one chunk."""
    include_metadata: bool = True
    """Whether the final chunk has the metadata."""
    track_cost: bool = True
    """Whether the final chunk has the cost."""
    validate_quality_on_complete: bool = True
    """Whether an answer that was streamed as it came is judged at its end."""


class CascadeStreamChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a streamed answer. The final one has no text but all the rest."""

    content: str = ""
    is_final: bool = False
    model_name: str | None = None
    cost: Decimal | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    metadata: Metadata | None = None


class BatchError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a query of a batch has no answer."""

    index: int
    """Which query, from 0."""
    code: str | None
    message: str
    status: int = 0
    request_id: str | None = None


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch."""

    results: tuple[CascadeResult | None, ...]
    """One for each query, `None` where it failed; without `preserve_order` the answers alone, as
    they came."""
    errors: tuple[BatchError, ...]
    success_count: int
    failure_count: int
    total_cost: Decimal | None = None
    """US dollars; `None` without `track_cost`. What is charged as unknown is not in it."""
    total_time: float = 0.0
    """Seconds."""
    strategy_used: str = "parallel"
    metadata: dict[str, str] = {}

    @property
    def success_rate(self) -> float:
        """The share of the queries that were answered."""
        total = self.success_count + self.failure_count
        return self.success_count / total if total else 0.0

    @property
    def average_cost(self) -> Decimal | None:
        """US dollars for each answer."""
        if self.total_cost is None:
            return None
        return self.total_cost / self.success_count if self.success_count else Decimal(0)

    @property
    def average_time(self) -> float:
        """Seconds for each query, of the time that all took together."""
        total = self.success_count + self.failure_count
        return self.total_time / total if total else 0.0


class BatchInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch stands. Times are ISO 8601, UTC."""

    id: str
    state: str
    """`in_progress`, `finalizing`, `cancelling`; at its end `completed`, `expired` (its time was
    up), `cancelled` or `failed` (it was not begun)."""
    endpoint: str
    """`/infer`; of OpenAI's batches their own."""
    total: int
    completed: int
    failed: int
    cost: Decimal | None = None
    """US dollars so far; `None` without `track_cost`."""
    created_at: str | None = None
    expires_at: str | None = None
    """When its time is up."""
    ended_at: str | None = None
    repeated: tuple[str, ...] = ()
    """Requests that a crash cut off and that were made anew: the provider may have billed both."""
    metadata: dict[str, str] = {}
    result: BatchResult | None = None
    """Once it has ended, where it is asked for by its id."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.ended_at is not None


class BatchPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some batches, the newest first."""

    batches: tuple[BatchInfo, ...]
    after: str | None = None
    """Give it back to read on; `None` at the end."""


class Health(msgspec.Struct, frozen=True):
    """What `/health` says."""

    status: str
    version: str


class DeploymentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One place where a model is served that is served in several."""

    model: str
    provider: str
    upstream_name: str
    weight: int = 1
    state: str = "ready"
    """`ready`; `resting`: it said that it takes no calls for a while; `left_alone`: its provider
    fails."""
    in_flight: int = 0


class Readiness(msgspec.Struct, frozen=True):
    """What `/ready` says."""

    ready: bool
    draining: bool = False
    in_flight: int = 0
    """Calls under way."""
    uptime_s: float = 0.0
    """Since when it runs."""
    providers: dict[str, str] = {}
    """Whether each is asked (`closed`), left alone after failures (`open`) or being tried again
    (`half_open`)."""
    deployments: tuple[DeploymentInfo, ...] = ()
    """Of models that are served in several places."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A name that may be asked for."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = ""


class LimitInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How one limit looks from a call. Budgets are in US dollars, rates in their unit."""

    kind: str
    """`budget` or `rate`."""
    scope: str
    id: str
    fits: bool
    enforced: bool
    limit: Decimal | None = None
    used: Decimal = Decimal(0)
    remaining: Decimal | None = None
    window: str | None = None
    unit: str | None = None
    window_s: float | None = None
    degraded: bool = False
    resets_at: str | None = None


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen to a call."""

    allowed: bool
    reason: dict[str, object] | None = None
    """The error that the call would get."""
    models: tuple[str, ...] = ()
    max_tokens: int | None = None
    worst_cost: Decimal | None = None
    notices: tuple[str, ...] = ()
    limits: tuple[LimitInfo, ...] = ()


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How one budget stands. Money is US dollars."""

    scope: str
    id: str
    window: str
    zone: str
    limit: Decimal | None
    enforcement: str
    origin: str
    posted: Decimal
    held: Decimal
    unknown: Decimal
    overrun: Decimal
    remaining: Decimal | None
    degraded: bool
    starts_at: str | None = None
    resets_at: str | None = None


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Money that was set aside."""

    hold: int
    cost: Decimal
    state: str = "open"
    """What was resolved already, or charged after a crash, covers no further call."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """How a hold was resolved."""

    hold: int
    state: str
    posted: Decimal
    unknown: Decimal
    returned: Decimal
    overrun: Decimal


class LostCharge(msgspec.Struct, frozen=True, kw_only=True):
    """What one budget is charged for the calls that a crash may have lost."""

    scope: str
    id: str
    window: str
    zone: str
    unknown: Decimal


class UnresolvedHold(msgspec.Struct, frozen=True, kw_only=True):
    """A hold that is open, or charged although nobody knows the bill."""

    hold: int
    state: str
    held: Decimal
    unknown: Decimal
    at: str | None = None
    request_id: str | None = None
    """The request it was made for; the provider knows the call by it (`X-Request-ID`)."""
    user_id: str | None = None
    lost: bool = False
    """Not one hold: what all the calls may have cost that a crash made the ledger forget."""
    counters: tuple[LostCharge, ...] = ()
    """What each budget is charged for those: the largest first, and not all of many."""


class SetLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What is set at run time of one scope, in the words of the configuration file."""

    scope: str
    id: str
    limits: dict[str, object] = {}
    """`daily_usd`, `requests_per_minute`, `enforcement` …; numbers are exact."""


class TierInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A customer plan. What only administrators see is `None` for others."""

    name: str
    origin: str
    """`file`, `api`, or `preset` for one that is not in use."""
    limits: dict[str, object] = {}
    """Of each user, in the words of the configuration file; numbers are exact."""
    max_tokens: int | None = None
    allowed_models: tuple[str, ...] | None = None
    streaming: bool | None = None
    escalates: bool | None = None
    support_priority: str | None = None
    queue_priority: int | None = None
    custom: dict[str, str] | None = None


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An issued key, without its secret. Times are ISO 8601, UTC."""

    id: str
    hint: str
    name: str
    state: str
    """`active`, `expired` or `revoked`."""
    user_id: str | None = None
    tier: str | None = None
    organization_id: str | None = None
    workspace_id: str | None = None
    admin: bool = False
    created_at: str | None = None
    expires_at: str | None = None
    revoked_at: str | None = None
    last_used_at: str | None = None
    """To the hour."""


class NewKey(KeyInfo, frozen=True, kw_only=True):
    """A key that was just issued, with its secret: nobody can show it again."""

    key: str


class KeyPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the issued keys, in the order of their ids."""

    keys: tuple[KeyInfo, ...]
    after: str | None = None
    """Give it back to read on; `None` at the end."""


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one model, or one tag as `name=value`, took of a month."""

    name: str
    cost: Decimal
    requests: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a user spent up to now, in US dollars, by the calendar of UTC."""

    user_id: str | None
    """`None`: everybody."""
    daily_cost: Decimal
    weekly_cost: Decimal
    """Since Monday."""
    monthly_cost: Decimal
    monthly_saved: Decimal
    """Against the strongest models' prices; negative when it is a loss."""
    requests_today: int
    requests_this_month: int
    top_models: tuple[Share, ...] = ()
    """Of the month, the dearest first."""
    top_features: tuple[Share, ...] = ()
    total_cost: Decimal = Decimal(0)
    """Since the log was begun, with what was imported."""
    entries: int = 0
    """Calls since then."""
    daily_budget: Decimal | None = None
    daily_remaining: Decimal | None = None
    weekly_budget: Decimal | None = None
    weekly_remaining: Decimal | None = None
    monthly_budget: Decimal | None = None
    monthly_remaining: Decimal | None = None
    budget: tuple[Budget, ...] = ()
    """How all of its budgets stand; the members above are the tightest of each window."""
    owner: str = "user"
    id: str | None = None


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


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One decision about money or access."""

    sequence: int
    """Numbers have no gaps."""
    at: str
    """ISO 8601, UTC."""
    actor: str
    """Who asked for it; `cascaded` for the daemon itself."""
    subject: str
    """What it was about: `user:alice`, `model:gpt-4o`, `hold:7` …"""
    action: str
    outcome: str
    """`denied`, `warned`, `unknown`, `refused` …"""
    reason: str = ""
    user_id: str | None = None
    request_id: str | None = None
    details: dict[str, object] = {}
    """What was decided, its amounts in nano-dollars."""


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the audit log, the newest first."""

    records: tuple[AuditEntry, ...]
    after: str | None = None
    """Give it back to read on; `None` at the end."""


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """Another configuration is in force."""

    generation: int
    """How many there were since the daemon started, this one included."""
    changed: tuple[str, ...] = ()
    """The tables in which it differs from the one before."""


class CacheInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache holds, and what it did since the start."""

    enabled: bool
    on_disk: bool
    """Whether answers are kept over restarts."""
    ttl_s: int
    entries: int
    bytes: int
    memory_bytes: int
    """Of those that are in memory, too."""
    hits: int
    shared: int
    """Of the hits: calls that waited for an equal one."""
    misses: int
    stored: int
    evicted: int
    """For want of room."""
    expired: int
    damaged: int
    lost: int
    """Could not be written to the disk."""


class Cleared(msgspec.Struct, frozen=True):
    """How many answers were forgotten."""

    cleared: int


class CacheChecked(msgspec.Struct, frozen=True):
    """How many answers were read, and how many of them were damaged and forgotten."""

    checked: int
    damaged: int


class BackupPart(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of a backup."""

    name: str
    bytes: int


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was made."""

    dir: str
    contents: tuple[BackupPart, ...]
    """`ledger`, `profiles`, `usage` … Not in it: the configuration, its secrets, and models."""


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
