"""`Decision`: what is intended, and why. Each stage returns a new one."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from cascaded.types.guarding import Finding, Guarding
from cascaded.types.limits import BudgetWarning, Caller, Choice, Limits
from cascaded.types.model import Form, Ladder
from cascaded.types.profile import AuditLevel, UserProfile
from cascaded.types.quality import QualityConfig
from cascaded.types.request import Request
from cascaded.types.tiers import TierConfig
from cascaded.types.topics import Complexity, Topic

RULES = QualityConfig.fast()
CacheState = Literal["hit", "miss", "off"]
"""`off`: the call and the cache have nothing to do with each other."""


class Memo(msgspec.Struct, frozen=True):
    """Where an answer is to be kept."""

    key: bytes
    tenant: str
    """Whose the answer is."""
    leads: bool
    """Equal calls wait for it."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A ladder whose worst path fits."""

    ladder: Ladder
    max_output_tokens: int
    """For each choice. A model that allows less is sent less."""
    worst_nano_usd: int
    notices: tuple[str, ...] = ()


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Money set aside for one request: its worst case, until it is settled or released."""

    id: int
    seq: int
    """The journal's number of it, to wait for."""
    nano_usd: int
    clear: bool = False
    """Whether there is nothing to wait for."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The plan for one request so far."""

    caller: Caller | None = None
    profile: UserProfile | None = None
    """What is stored of the caller, and of whom it belongs to."""
    tier: TierConfig | None = None
    """The caller's plan, as it was when the call began. `None` allows everything."""
    limits: Limits = Limits()
    """Every budget and rate that it is charged to."""
    ladder: Ladder | None = None
    quality: QualityConfig = RULES
    """How closely answers are looked at."""
    bodies: Mapping[Form, Mapping[str, msgspec.Raw]] = {}
    """The body in those forms, other than its own and chat completions, that it may be put in."""
    preferred: tuple[str, ...] = ()
    """Models that are tried before others, as names or patterns."""
    question: str = ""
    """The caller's last words, for quality and routing."""
    asked: Request | None = None
    """The call as models may see it, where that is not as it came: from here on it is the call."""
    guarding: Guarding | None = None
    """What guards its answer."""
    findings: tuple[Finding, ...] = ()
    """What guardrails found in the prompt."""
    domain: str | None = None
    topic: Topic | None = None
    """What is known of the question's domain, where it was looked for."""
    complexity: Complexity | None = None
    cyclomatic: int | None = None
    """Of the code in the question, if there is any."""
    domain_detection_ns: int | None = None
    input_tokens: int = 0
    """An upper bound on the prompt in any of the ladder's vocabularies; exact for public ones."""
    output_cap: int | None = None
    """The most output that the caller's tier allows."""
    max_output_tokens: int = 0
    """The bound that is sent upstream, for each choice."""
    cache: CacheState = "off"
    """What the cache had for it."""
    memo: Memo | None = None
    """What its answer may be kept under."""
    narrowed: bool = False
    """A hook has taken from what was planned."""
    menu: tuple[Plan, ...] = ()
    """What would do, the best first. The ledger takes the first that every limit allows."""
    choices: tuple[Choice, ...] = ()
    """The menu as the ledger sees it."""
    hold: Hold | None = None
    warnings: tuple[BudgetWarning, ...] = ()
    """Budgets that have reached their warning level."""
    notices: tuple[str, ...] = ()
    """What the caller must be told (a clamped bound, a trimmed ladder)."""

    @property
    def audit_level(self) -> AuditLevel | None:
        """How much of it is put on record; `None` is the daemon's own level."""
        return None if self.profile is None else self.profile.audit_level


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An expected no. A value, not an exception: it ends the list of stages early."""

    code: str
    """A key of the API's error table, which gives it its status."""
    message: str
    """What happened and what the caller can do about it."""
    param: str | None = None
    retry_after_s: float | None = None
    details: dict[str, object] = {}
    findings: tuple[Finding, ...] = ()
    """What guardrails found, where it is theirs."""
