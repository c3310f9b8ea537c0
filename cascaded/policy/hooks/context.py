"""How a call, or a threshold, is told to hooks."""

from collections.abc import Sequence
from decimal import Decimal

from cascaded.types.hooks import EnforcementContext
from cascaded.types.limits import Caller, Crossing, LimitView
from cascaded.types.money import to_usd

_HUNDREDTH = Decimal("0.01")
BASIS_POINTS = 100
"""In a percent."""


def context_of(caller: Caller, views: Sequence[LimitView], nano_usd: int) -> EnforcementContext:
    """A call that can cost so much, under limits that look so."""
    known = EnforcementContext(
        user_id=caller.user_id,
        user_tier=caller.tier,
        current_cost=to_usd(nano_usd),
        total_requests=_requests(views),
    )
    budgets = [view for view in views if view.window is not None and view.limit is not None]
    own = [view for view in budgets if view.scope == "user"]
    tightest = min(own or budgets, key=lambda view: view.remaining or 0, default=None)
    if tightest is None:
        return known
    assert tightest.limit is not None
    return EnforcementContext(
        user_id=known.user_id,
        user_tier=known.user_tier,
        current_cost=known.current_cost,
        total_requests=known.total_requests,
        budget_limit=to_usd(tightest.limit),
        budget_remaining=to_usd(tightest.remaining or 0),
        budget_used=to_usd(tightest.used),
        budget_pct_used=_percent(tightest.used, tightest.limit),
        budget_scope=tightest.scope,
        budget_id=tightest.id,
        budget_window=tightest.window,
    )


def crossing_context(crossing: Crossing, user_id: str, nano_usd: int) -> EnforcementContext:
    """A threshold that this user's call reached, which cost so much."""
    return EnforcementContext(
        user_id=user_id,
        budget_limit=to_usd(crossing.limit),
        budget_remaining=to_usd(max(0, crossing.limit - crossing.spent)),
        budget_used=to_usd(crossing.spent),
        budget_pct_used=_percent(crossing.spent, crossing.limit),
        current_cost=to_usd(nano_usd),
        budget_scope=crossing.scope,
        budget_id=crossing.id,
        budget_window=crossing.window,
        threshold_pct=Decimal(crossing.threshold_bp) / BASIS_POINTS,
    )


def _requests(views: Sequence[LimitView]) -> int | None:
    counted = [view for view in views if view.unit == "requests" and view.scope == "user"]
    widest = max(counted, key=lambda view: view.window_ns or 0, default=None)
    return None if widest is None else widest.used


def _percent(used: int, limit: int) -> Decimal:
    """To the hundredth. Of a limit of nothing everything is used."""
    return (Decimal(used * 100) / limit).quantize(_HUNDREDTH) if limit else Decimal(100)
