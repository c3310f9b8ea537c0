"""Response headers that say how much is left."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import get_args

from cascaded.types.limits import LimitView, Unit
from cascaded.types.money import format_usd
from cascaded.types.times import NS_PER_S

BUDGET_REMAINING = "x-cascaded-budget-remaining"
_MINUTE_S = 60
_HOUR_S = 3_600
RateHeaders = Callable[[Sequence[LimitView], int], dict[str, str]]


def rate_headers(views: Sequence[LimitView], now_ns: int) -> dict[str, str]:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}` of the tightest rate of each unit,
    and what is left of the tightest budget in dollars. Only limits that are enforced count.

    `now_ns` is since the Unix epoch, as the views' `reset_at_ns`.
    """
    told: dict[str, str] = {}
    for unit in get_args(Unit):
        view = _tightest([one for one in views if one.unit == unit])
        if view is not None:
            told[f"x-ratelimit-limit-{unit}"] = str(view.limit)
            told[f"x-ratelimit-remaining-{unit}"] = str(view.remaining)
            told[f"x-ratelimit-reset-{unit}"] = _duration((view.reset_at_ns or now_ns) - now_ns)
    budget = _tightest([one for one in views if one.window is not None])
    if budget is not None and budget.remaining is not None:
        told[BUDGET_REMAINING] = format_usd(budget.remaining)
    return told


def anthropic_rate_headers(views: Sequence[LimitView], now_ns: int) -> dict[str, str]:
    """As `rate_headers`, in Anthropic's names: `anthropic-ratelimit-{requests,tokens}-{limit,
    remaining,reset}`, with the moment of the reset (RFC 3339)."""
    told = rate_headers([one for one in views if one.window is not None], now_ns)
    for unit in get_args(Unit):
        view = _tightest([one for one in views if one.unit == unit])
        if view is not None:
            name = f"anthropic-ratelimit-{unit}"
            told[f"{name}-limit"] = str(view.limit)
            told[f"{name}-remaining"] = str(view.remaining)
            told[f"{name}-reset"] = _moment(max(now_ns, view.reset_at_ns or now_ns))
    return told


def _moment(ns: int) -> str:
    """To the second, rounded up."""
    return datetime.fromtimestamp(-(-ns // NS_PER_S), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _tightest(views: Sequence[LimitView]) -> LimitView | None:
    """The one that leaves least; of several, the one that stays so longest."""
    enforced = [one for one in views if one.enforced and one.remaining is not None]
    return min(enforced, key=_room, default=None)


def _room(view: LimitView) -> tuple[int, int]:
    return view.remaining or 0, -(view.reset_at_ns or 0)


def _duration(ns: int) -> str:
    """`0s`, `6s`, `1m30s`, `2h0m5s`; rounded up."""
    seconds = max(0, -(-ns // NS_PER_S))
    hours, rest = divmod(seconds, _HOUR_S)
    minutes, seconds = divmod(rest, _MINUTE_S)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
