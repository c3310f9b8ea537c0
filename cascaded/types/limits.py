"""Limits on money and rates, what a call asks of them, and what they answer. Frozen values.

Money is nano-dollars. The words are LEDGER's: posted, held, unknown, limit.
"""

from typing import Literal

import msgspec

Scope = Literal["global", "organization", "workspace", "team", "user", "tier", "tag", "run"]
Window = Literal["day", "week", "month", "total", "rolling_day", "rolling_week", "rolling_month"]
Enforcement = Literal["warn", "block", "degrade", "shadow"]
Origin = Literal["profile", "file", "api"]
Unit = Literal["requests", "tokens"]
Gate = Literal["strict", "ceiling"]
Method = Literal["sliding_window", "fixed_window", "token_bucket"]


class Caller(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """Who a call is for, as far as it is believed. Hashable: limits are memoised by it."""

    user_id: str
    tier: str | None = None
    organization_id: str | None = None
    workspace_id: str | None = None
    team_id: str | None = None
    run_id: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    """Declared tags only, sorted."""


class BudgetLimit(msgspec.Struct, frozen=True, kw_only=True):
    """One counter of money and its limit. Scope, id, window and zone are what it *is*; the rest
    may change while it lives."""

    scope: Scope
    id: str
    """Which one: a user's id, a tag as `name=value`; `*` for global."""
    window: Window
    limit_nano_usd: int | None
    """`None` only counts."""
    zone: str = "UTC"
    """IANA name; calendar windows begin at its midnights."""
    enforcement: Enforcement = "degrade"
    warn_bp: int = 7_000
    """Basis points of the limit."""
    degrade_bp: int = 9_000
    block_bp: int = 10_000
    origin: Origin = "profile"


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """One rate: so many requests or tokens in a window."""

    scope: Scope
    id: str
    unit: Unit
    window_ns: int
    limit: int
    method: Method = "sliding_window"
    block: bool = True
    """Whether what is above is refused, or passes with a warning."""


class Limits(msgspec.Struct, frozen=True, cache_hash=True):
    """Everything that one kind of call is charged to: at most 32 budgets and 16 rates."""

    budgets: tuple[BudgetLimit, ...] = ()
    rates: tuple[RateLimit, ...] = ()

    @property
    def hard(self) -> bool:
        """Whether any budget may refuse, so that no call may be sent before its hold is safe."""
        return any(
            budget.limit_nano_usd is not None and budget.enforcement in ("block", "degrade")
            for budget in self.budgets
        )


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One way to answer a call, costed at its worst path."""

    nano_usd: int
    tokens: int
    """The most tokens it can use, for rates that count them."""
    cheap: bool = False
    """Whether it may be taken when a budget is nearly used up."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What a call asks: the first choice that every limit allows."""

    menu: tuple[Choice, ...]
    """The best first; at most 16."""
    limits: Limits
    idempotency: tuple[bytes, bytes] | None = None
    """(16-byte hash of the key and its owner, 16-byte hash of the body)."""
    price_hash: int = 0
    label: tuple[str, str, str] | None = None
    """(the request's id, the user's, the principal who may settle the hold by its number), each of
    at most 256 bytes and perhaps empty. Kept until the hold is resolved."""


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """Which limit said no, and when to ask again."""

    reason: Literal["budget", "degraded", "rate"]
    scope: Scope
    id: str
    window: Window | None = None
    """Of a budget."""
    unit: Unit | None = None
    """Of a rate."""
    window_ns: int | None = None
    """Of a rate."""
    limit: int
    used: int
    """Held included."""
    asked: int
    reset_at_ns: int | None = None
    """Since the Unix epoch; `None` for never."""
    retry_after_ns: int | None = None


class BudgetWarning(msgspec.Struct, frozen=True, kw_only=True):
    """A budget that has reached its warning level, or is over its limit in mode `warn`."""

    scope: Scope
    id: str
    window: Window
    limit: int
    spent: int
    """Posted and unknown."""
    over: bool


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """A hold was taken."""

    hold: int
    seq: int
    """The journal's number of it, to wait for (`Ledger.durable`)."""
    choice: int
    """Which of the menu."""
    nano_usd: int
    clear: bool = False
    """Whether the call may be sent at once, without waiting for `seq`."""
    degraded: bool = False
    warnings: tuple[BudgetWarning, ...] = ()
    shadow: tuple[Denial, ...] = ()
    """What limits in shadow would have refused."""


HoldState = Literal["open", "dispatched", "settled", "released", "unknown", "adjusted"]


class Existing(msgspec.Struct, frozen=True, kw_only=True):
    """The same idempotency key and body were asked before: its hold, as it is now."""

    hold: int
    seq: int
    choice: int
    nano_usd: int
    state: HoldState


class LimitView(msgspec.Struct, frozen=True, kw_only=True):
    """How one limit looks from a call."""

    scope: Scope
    id: str
    window: Window | None = None
    unit: Unit | None = None
    window_ns: int | None = None
    limit: int | None
    used: int
    remaining: int | None
    degraded: bool
    fits: bool
    enforced: bool
    reset_at_ns: int | None


class Peek(msgspec.Struct, frozen=True):
    """What a demand would come to; nothing was taken."""

    choice: int | None
    denial: Denial | None
    limits: tuple[LimitView, ...]


class Preview(msgspec.Struct, frozen=True):
    """What a demand would come to, to be shown; nothing was taken."""

    choice: int | None
    denial: Denial | None
    limits: msgspec.Raw
    """A JSON list, an object for each limit."""


class Crossing(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold of a budget that posted and unknown spend has just reached."""

    scope: Scope
    id: str
    window: Window
    threshold_bp: int
    limit: int
    spent: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """How a hold was resolved."""

    hold: int
    seq: int
    state: HoldState
    posted: int
    unknown: int
    returned: int
    overrun: int
    """Above what was held; not zero is an alarm."""
    crossings: tuple[Crossing, ...] = ()


class CounterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one budget's counter stands."""

    scope: Scope
    id: str
    window: Window
    zone: str
    limit: int | None
    enforcement: Enforcement
    origin: str
    posted: int
    held: int
    unknown: int
    overrun: int
    degraded: bool
    starts_at_ns: int | None
    resets_at_ns: int | None


class LostCharge(msgspec.Struct, frozen=True, kw_only=True):
    """What one counter is charged for the calls that a crash may have lost."""

    scope: Scope
    id: str
    window: Window
    zone: str
    nano_usd: int


class HoldStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A hold that is not resolved, or whose bill is unknown."""

    hold: int
    state: HoldState
    held: int
    unknown: int
    at_ns: int
    """When it was reserved, since the Unix epoch."""
    request_id: str = ""
    user_id: str = ""
    owner: str = ""
    """The principal who may settle it; empty for a call of the daemon's own."""
    lost: bool = False
    """Not one hold, but all the calls that a crash may have lost."""
    charges: tuple[LostCharge, ...] = ()
    """What was charged for those, each counter's own: the largest first, and not all of many."""
