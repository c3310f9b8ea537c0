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
    secondary_domains: tuple[str, ...] = ()
    domain_confidence: float | None = None
    domain_layer: str | None = None
    """What decided the domain: `asked`, `keywords`, `rules`, `embeddings` or `zero_shot`."""
    domain_detection_ms: float | None = None
    complexity: str | None = None
    cyclomatic_complexity: int | None = None
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


class RungInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model that would be asked."""

    model: str
    provider: str
    threshold: float
    """How good its answer must be to be kept, 0 to 1."""
    fallbacks: tuple[str, ...] = ()
    context_window: int | None = None
    capabilities: tuple[str, ...] = ()


class Routing(Check, frozen=True, kw_only=True):
    """How a call would be routed, and why."""

    domain: str | None = None
    """What its question is about; `None` where nobody looks."""
    secondary_domains: tuple[str, ...] = ()
    domain_confidence: float | None = None
    domain_layer: str | None = None
    """What decided it: `asked`, `keywords`, `rules`, `embeddings` or `zero_shot`."""
    domain_detection_ms: float | None = None
    complexity: str | None = None
    cyclomatic_complexity: int | None = None
    ladder: str | None = None
    checked: bool = False
    """Whether answers are judged."""
    strict: bool = False
    rungs: tuple[RungInfo, ...] = ()
    preferred_models: tuple[str, ...] = ()
    input_tokens: int | None = None


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
