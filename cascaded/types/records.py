"""What is written down of calls and decisions, for people to read later. Never their content.

These are stored as arrays: add fields at the end only, each with a default.
"""

from typing import Literal

import msgspec

from cascaded.types.model import Kind
from cascaded.types.result import Billing


class AttemptRecord(msgspec.Struct, frozen=True, array_like=True):
    """One call to a provider. Tokens are as in `Usage`: parts never add to their totals."""

    model: str
    provider: str
    rung: int
    billing: Billing
    error: str | None
    cost_nano_usd: int
    latency_ns: int
    first_token_ns: int | None
    score: float | None
    failed: tuple[str, ...]
    """Quality checks that found something, the worst first."""
    accepted: bool
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    reasoning_tokens: int
    cache_write_1h_tokens: int | None
    output_image_tokens: int | None
    estimated: bool


class UsageRecord(msgspec.Struct, frozen=True, array_like=True):
    """One finished request: who asked, what it took, what was decided and why."""

    request_id: str
    at_ns: int
    """When it ended, since the Unix epoch."""
    principal: str
    user_id: str | None
    tier: str | None
    organization_id: str | None
    workspace_id: str | None
    team_id: str | None
    run_id: str | None
    tags: dict[str, str]
    model: str
    """As asked."""
    stream: bool
    status: str
    """`ok`, or the code of the refusal."""
    scope: str | None
    """Which limit refused it."""
    ladder: str | None
    domain: str | None
    complexity: str | None
    reasons: tuple[str, ...]
    """Budgets that had something to say."""
    notices: tuple[str, ...]
    hold: int | None
    """The ledger's number of it; the ledger has the last word about money."""
    attempts: tuple[AttemptRecord, ...]
    model_used: str | None
    cache: str | None
    flagged: bool
    score: float | None
    input_tokens: int
    """Of all attempts."""
    output_tokens: int
    cost_nano_usd: int
    """Of all attempts, what is unknown included at its worst."""
    unknown_nano_usd: int
    saved_nano_usd: int
    elapsed_ns: int
    overhead_ns: int
    kind: Kind = "chat"


class UsagePage(msgspec.Struct, frozen=True):
    """A part of the usage log."""

    records: tuple[UsageRecord, ...]
    cursor: str | None
    """Give it back to read on; `None` at the end."""


class Share(msgspec.Struct, frozen=True):
    """What one model or tag took of the month."""

    name: str
    cost_nano_usd: int
    requests: int


class UsageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody (or everybody, for `None`) used up to now, by the calendar of a time zone."""

    user_id: str | None
    today_nano_usd: int
    week_nano_usd: int
    """Since Monday."""
    month_nano_usd: int
    month_saved_nano_usd: int
    requests_today: int
    requests_month: int
    top_models: tuple[Share, ...]
    """Of the month, the dearest first."""
    top_tags: tuple[Share, ...]
    """Each as `name=value`."""


AuditAction = Literal["reserve", "settle", "adjust", "change", "access", "log"]
AuditOutcome = Literal[
    "admitted",
    "warned",
    "shadowed",
    "degraded",
    "denied",
    "settled",
    "released",
    "unknown",
    "overrun",
    "crossed",
    "adjusted",
    "changed",
    "allowed",
    "refused",
    "lost",
]


class AuditRecord(msgspec.Struct, frozen=True, array_like=True):
    """One decision. Sequence numbers have no gaps."""

    at_ns: int
    """Since the Unix epoch."""
    actor: str
    """The principal that asked for it; `cascaded` for the daemon itself."""
    subject: str
    """What it was about, such as `user:alice` or `route:/admin/users`."""
    action: AuditAction
    outcome: AuditOutcome
    reason: str = ""
    """A code or a short sentence."""
    user_id: str | None = None
    request_id: str | None = None
    details: dict[str, object] = {}
    sequence: int = 0
    """From 1, given when it is written."""
    previous: bytes = b""
    """Of the record before: empty until records are chained."""


class AuditPage(msgspec.Struct, frozen=True):
    """A part of the audit log."""

    records: tuple[AuditRecord, ...]
    cursor: str | None
    """Give it back to read on; `None` at the end."""
