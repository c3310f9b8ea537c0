"""A refused call, in words that its caller can act on."""

from datetime import UTC, datetime
from typing import Final

import msgspec

from cascaded.policy.limits.resolve import LimitBook, next_tier
from cascaded.types.decision import Refusal
from cascaded.types.limits import Caller, Denial, Scope, Unit, Window
from cascaded.types.money import NANO_PER_USD, format_usd
from cascaded.types.quotas import BUDGET_FIELDS, DAY_NS, HOUR_NS, MINUTE_NS
from cascaded.types.tiers import TierConfig
from cascaded.types.times import NS_PER_S

CENTS: Final = 2
_NOUNS: dict[Scope, str] = {
    "organization": "Organization",
    "workspace": "Workspace",
    "team": "Team",
    "user": "User",
    "tier": "Tier",
    "tag": "Tag",
    "run": "Run",
}
_PERIODS: dict[Window, str] = {
    "day": "daily",
    "week": "weekly",
    "month": "monthly",
    "total": "total",
    "rolling_day": "daily",
    "rolling_week": "weekly",
    "rolling_month": "monthly",
}
_PER: dict[str, str] = {
    "daily": "a day",
    "weekly": "a week",
    "monthly": "a month",
    "total": "in all",
}
_FIELDS = {_PERIODS[field.window]: field.name for field in BUDGET_FIELDS}
_UNITS = ((DAY_NS, "day"), (HOUR_NS, "hour"), (MINUTE_NS, "minute"), (NS_PER_S, "second"))


def explain(denial: Denial, caller: Caller, book: LimitBook, *, now_ns: int) -> Refusal:
    """The refusal for any denial. `now_ns` is since the Unix epoch."""
    if denial.reason == "rate":
        return rate_refusal(denial)
    higher = None
    if denial.scope == "user":
        higher = next_tier(caller, book, _FIELDS[_period(denial)], denial.limit)
    return budget_refusal(denial, caller, higher, now_ns=now_ns)


def budget_refusal(
    denial: Denial, caller: Caller, next_tier: TierConfig | None, *, now_ns: int
) -> Refusal:
    """`budget_exceeded`: which budget, how it stands, when it resets, and what would help.

    Amounts in the details are exact JSON numbers; `reset_time` is ISO 8601 in UTC, and `None` for
    a budget that never resets. `next_tier_budget` is `None` also for a tier without that limit.
    """
    period = _period(denial)
    higher = None if next_tier is None else getattr(next_tier.limits, _FIELDS[period])
    told = (
        _happened(denial, period),
        f"Current spend: {_dollars(denial.used)}.",
        _resets(denial, now_ns),
        _allows(next_tier, higher, period),
    )
    return Refusal(
        code="budget_exceeded",
        message=" ".join(filter(None, told)),
        details={
            "user_id": caller.user_id,
            "budget_type": period,
            "scope": denial.scope,
            "scope_id": denial.id,
            "budget_limit": _number(denial.limit),
            "current_spend": _number(denial.used),
            "call_cost_max": _number(denial.asked),
            "reset_time": None if denial.reset_at_ns is None else _iso(denial.reset_at_ns),
            "recommendation": _recommendation(denial, next_tier),
            "next_tier": None if next_tier is None else next_tier.name,
            "next_tier_budget": None if higher is None else _number(higher),
        },
    )


def rate_refusal(denial: Denial) -> Refusal:
    """`rate_limited`, with `retry_after_s` where waiting helps: not for a call that is larger than
    the limit itself."""
    unit, window_ns = denial.unit or "requests", denial.window_ns or NS_PER_S
    per = f"{_counted(denial.limit, unit)} {_window(window_ns)}"
    never = denial.asked > denial.limit
    wait_ns = None if never else denial.retry_after_ns
    if never:
        message = (
            f"This call counts for up to {_counted(denial.asked, unit)}, which"
            f" {_whose(denial)} of {per} can never admit. Ask for less (`max_tokens`, a shorter"
            " prompt), or ask the operator for a higher limit."
        )
    else:
        when = "later" if wait_ns is None else f"in {_duration(wait_ns)}"
        message = (
            f"{_subject(denial)} has reached {_possessive(denial)} rate limit of {per}."
            f" Try again {when}."
        )
    return Refusal(
        code="rate_limited",
        message=message,
        retry_after_s=None if wait_ns is None else wait_ns / NS_PER_S,
        details={
            "scope": denial.scope,
            "scope_id": denial.id,
            "unit": unit,
            "window_s": window_ns / NS_PER_S,
            "limit": denial.limit,
            "used": denial.used,
            "asked": denial.asked,
        },
    )


def _period(denial: Denial) -> str:
    assert denial.window is not None  # of a budget
    return _PERIODS[denial.window]


def _happened(denial: Denial, period: str) -> str:
    budget = f"{_possessive(denial)} {period} budget of {_dollars(denial.limit)}"
    if denial.reason == "degraded":
        return (
            f"{_subject(denial)} has nearly used up {budget}, so only cheaper models are asked,"
            " and none of them fits this call."
        )
    if denial.used >= denial.limit:
        return f"{_subject(denial)} has exceeded {budget}."
    return (
        f"{_subject(denial)} would exceed {budget} with this call, which may cost up to"
        f" {_dollars(denial.asked)}."
    )


def _resets(denial: Denial, now_ns: int) -> str:
    if denial.reset_at_ns is None:
        return "It does not reset."
    wait = _duration(max(0, denial.reset_at_ns - now_ns))
    rolling = denial.window is not None and denial.window.startswith("rolling")
    return f"There is room again in {wait}." if rolling else f"Resets in {wait}."


def _allows(tier: TierConfig | None, budget: int | None, period: str) -> str:
    if tier is None:
        return ""
    name = tier.name[:1].upper() + tier.name[1:]
    if budget is None:
        return f"{name} has no {period} budget."
    return f"{name} allows {_dollars(budget)} {_PER[period]}."


def _recommendation(denial: Denial, next_tier: TierConfig | None) -> str:
    if next_tier is not None:
        return "upgrade_tier"
    if denial.reason == "degraded":
        return "use_cheaper_model"
    return "raise_budget" if denial.reset_at_ns is None else "wait_for_reset"


def _subject(denial: Denial) -> str:
    if denial.scope == "global":
        return "This service"
    return f"{_NOUNS[denial.scope]} '{denial.id}'"


def _possessive(denial: Denial) -> str:
    return "their" if denial.scope == "user" else "its"


def _whose(denial: Denial) -> str:
    subject = _subject(denial)
    return f"the limit of {subject[:1].lower()}{subject[1:]}"


def _counted(count: int, unit: Unit) -> str:
    return f"{count:,} {unit if count != 1 else unit.removesuffix('s')}"


def _window(window_ns: int) -> str:
    for length, name in _UNITS:
        if window_ns == length:
            return f"an {name}" if name == "hour" else f"a {name}"
    return f"in {_duration(window_ns)}"


def _duration(ns: int) -> str:
    """In the largest unit that it is at least two of, rounded up: a caller who waits that long
    has waited enough."""
    length, name = next((one for one in _UNITS if ns >= 2 * one[0]), _UNITS[-1])
    count = max(1, -(-ns // length))
    return f"{count} {name}{'s' if count != 1 else ''}"


def _dollars(nano_usd: int) -> str:
    """Exact, with cents at least: `$1,000.00`, `$0.000125`."""
    whole, rest = divmod(nano_usd, NANO_PER_USD)
    places = f"{rest:09d}".rstrip("0").ljust(CENTS, "0")
    return f"${whole:,}.{places}"


def _number(nano_usd: int) -> msgspec.Raw:
    """Exact dollars as a JSON number."""
    return msgspec.Raw(format_usd(nano_usd).encode())


def _iso(at_ns: int) -> str:
    """Whole seconds, rounded up, so that the budget has reset at that time."""
    return datetime.fromtimestamp(-(-at_ns // NS_PER_S), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
