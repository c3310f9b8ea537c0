"""What the operator's own hooks are told, and what they may say."""

from decimal import Decimal
from typing import Literal

import msgspec

from cascaded.types.limits import Scope, Window

Point = Literal["budget_check", "model_filter", "budget_warning"]
"""Where a hook may have its say: `on_budget_check`, `on_model_filter`, `on_budget_warning`."""
Action = Literal["allow", "warn", "degrade", "block"]
"""The mildest first."""
OnFailure = Literal["allow", "block"]
HookKind = Literal["plugin", "http"]


class EnforcementContext(msgspec.Struct, frozen=True, kw_only=True):
    """A call, or a threshold that was reached, as hooks see it. Money is US dollars.

    The budget is the user's own one with the least left; where he has none, that of all the call's
    budgets. Without any limit its fields are `None`.
    """

    user_id: str
    user_tier: str | None = None
    budget_limit: Decimal | None = None
    budget_remaining: Decimal | None = None
    budget_used: Decimal | None = None
    """Held for calls under way included; of a threshold, what is spent."""
    budget_pct_used: Decimal | None = None
    """0 to 100, and above where the limit only warns."""
    current_cost: Decimal = Decimal(0)
    """The most that this call can cost; of a threshold, what the call that reached it did cost."""
    total_requests: int | None = None
    """The user's requests in the widest window in which they are limited; `None`: in none."""
    budget_scope: Scope | None = None
    budget_id: str | None = None
    budget_window: Window | None = None
    threshold_pct: Decimal | None = None
    """Which threshold was reached; `None` where it is asked about a call."""


class Advice(msgspec.Struct, frozen=True):
    """What a hook says of a call."""

    action: Action
    message: str = ""


class HookTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How long a hook is waited for, and what holds without it."""

    deadline_s: float
    on_failure: OnFailure = "allow"
    cache_s: float = 0.0
    """How long its answer holds for the same user."""
