"""What is written down of calls and decisions, for people to read later. Never their content.

These are stored as arrays: add fields at the end only, each with a default.
"""

from typing import Literal

import msgspec

from cascaded.types.decision import CacheState
from cascaded.types.model import Kind
from cascaded.types.result import Billing

ADJUSTED = "adjusted"
"""The status of a record that corrects what an earlier one said of an unknown."""


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
    """`ok`, or the code of the refusal; `adjusted` for what a bill has told later of a call."""
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
    kind: Kind | Literal["own"] = "chat"
    """`own`: of an application that held money and called a model itself."""
    imported: bool = False
    """Brought in from an export: history of another ledger, which this one knows nothing of."""
    first_token_ns: int | None = None
    """From the arrival of a streamed call to the first of its answer that went to the caller."""
    guardrails: tuple[str, ...] = ()
    """What guardrails found, as `pii.email redact`."""
    cache_state: CacheState = "off"
    """Whether earlier answers were looked for, and found."""


def without_attempts(request_id: str, at_ns: int) -> UsageRecord:
    """A record of nobody, of no call to a provider and of no money: put in what is known."""
    return UsageRecord(
        request_id=request_id,
        at_ns=at_ns,
        principal="",
        user_id=None,
        tier=None,
        organization_id=None,
        workspace_id=None,
        team_id=None,
        run_id=None,
        tags={},
        model="",
        stream=False,
        status="ok",
        scope=None,
        ladder=None,
        domain=None,
        complexity=None,
        reasons=(),
        notices=(),
        hold=None,
        attempts=(),
        model_used=None,
        cache=None,
        flagged=False,
        score=None,
        input_tokens=0,
        output_tokens=0,
        cost_nano_usd=0,
        unknown_nano_usd=0,
        saved_nano_usd=0,
        elapsed_ns=0,
        overhead_ns=0,
    )


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """What a bill has told of a call that was charged although nobody knew it."""

    hold: int
    at_ns: int
    """When it was reserved."""
    request_id: str
    user_id: str | None
    charged_nano_usd: int
    posted_nano_usd: int


class UsageFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which records are meant; `None`: all."""

    since_ns: int = 0
    until_ns: int = 2**63 - 1
    """Not included."""
    user_id: str | None = None
    organization_id: str | None = None
    workspace_id: str | None = None
    team_id: str | None = None
    tier: str | None = None
    model: str | None = None
    """Asked for, or tried."""
    provider: str | None = None
    feature: str | None = None
    """A tag, as `name=value`."""
    domain: str | None = None
    status: str | None = None
    imported: bool | None = None

    def takes(self, record: UsageRecord) -> bool:
        """Whether a record is meant, whatever its time."""
        own = (
            (self.user_id, record.user_id),
            (self.organization_id, record.organization_id),
            (self.workspace_id, record.workspace_id),
            (self.team_id, record.team_id),
            (self.tier, record.tier),
            (self.domain, record.domain),
            (self.status, record.status),
            (self.imported, record.imported),
        )
        if any(wanted is not None and wanted != found for wanted, found in own):
            return False
        return self._takes_calls(record) and (
            self.feature is None or self.feature in features(record)
        )

    def _takes_calls(self, record: UsageRecord) -> bool:
        tried = record.attempts
        asked_model = self.model is None or self.model == record.model
        return (asked_model or any(one.model == self.model for one in tried)) and (
            self.provider is None or any(one.provider == self.provider for one in tried)
        )


def features(record: UsageRecord) -> list[str]:
    """The tags of a call, as summaries name them: `name=value`."""
    return [f"{name}={value}" for name, value in record.tags.items()]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of records that were brought in."""

    added: int
    known: int
    """Were there already, by their ids."""
    too_old: int
    """Older than the retention."""


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


Owner = Literal["user", "organization", "workspace"]
"""Whose use is summed up as it comes."""


class UsageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody (or everybody, for `None`) used up to now, by the calendar of a time zone."""

    owner: Owner = "user"
    id: str | None
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
    total_nano_usd: int = 0
    """Since the log was begun."""
    entries: int = 0
    """Calls since then."""


AuditAction = Literal["reserve", "settle", "adjust", "change", "access", "log", "guard"]
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
