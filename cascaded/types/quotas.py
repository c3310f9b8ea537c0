"""Limits as an operator sets them: one table for one scope, merged field by field."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from cascaded.types.limits import Enforcement, Method, Scope, Unit, Window
from cascaded.types.times import NS_PER_S

MAX_BUDGETS = 32
"""Money counters that one call may be charged to."""
MAX_RATES = 16
"""Rates that one call may count against."""
SECOND_NS = NS_PER_S
MINUTE_NS = 60 * SECOND_NS
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
BURST_BP = 15_000
BURST_WINDOW_NS = 10 * SECOND_NS


class BudgetField(NamedTuple):
    """A field of `Quotas` that is a budget."""

    name: str
    window: Window
    rolling: Window


class RateField(NamedTuple):
    """A field of `Quotas` that is a rate."""

    name: str
    unit: Unit
    window_ns: int


BUDGET_FIELDS = (
    BudgetField("daily_nano_usd", "day", "rolling_day"),
    BudgetField("weekly_nano_usd", "week", "rolling_week"),
    BudgetField("monthly_nano_usd", "month", "rolling_month"),
    BudgetField("total_nano_usd", "total", "total"),
)
RATE_FIELDS = (
    RateField("requests_per_second", "requests", SECOND_NS),
    RateField("requests_per_minute", "requests", MINUTE_NS),
    RateField("requests_per_hour", "requests", HOUR_NS),
    RateField("requests_per_day", "requests", DAY_NS),
    RateField("tokens_per_minute", "tokens", MINUTE_NS),
    RateField("tokens_per_hour", "tokens", HOUR_NS),
    RateField("tokens_per_day", "tokens", DAY_NS),
)


class Quotas(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one scope, as far as they are set. `None` leaves a field to the layer below;
    a budget or rate that no layer sets is no limit."""

    daily_nano_usd: int | None = None
    weekly_nano_usd: int | None = None
    monthly_nano_usd: int | None = None
    total_nano_usd: int | None = None
    rolling: bool | None = None
    """Whether day, week and month are the last 24 hours, 7 and 30 days instead of the
    calendar's."""
    zone: str | None = None
    """IANA name; calendar windows begin at its midnights."""
    enforcement: Enforcement | None = None
    warn_bp: int | None = None
    degrade_bp: int | None = None
    block_bp: int | None = None
    requests_per_second: int | None = None
    requests_per_minute: int | None = None
    requests_per_hour: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_hour: int | None = None
    tokens_per_day: int | None = None
    rate_method: Method | None = None
    burst_bp: int | None = None
    """How many times the even pace may be used for a while; basis points (15,000 is 1.5)."""
    burst_window_ns: int | None = None
    """For how long. 0: bursts are not slowed."""
    block_on_limit: bool | None = None
    """Whether what is above a rate is refused, or passes with a warning."""


UNSET = Quotas()


class OwnQuotas(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """What is stored for one user and whom it belongs to, over everything that the configuration
    says. Hashable: limits are memoised by it, so that a change acts on the next call."""

    user: Quotas = UNSET
    organization: Quotas = UNSET
    workspace: Quotas = UNSET


NOTHING_OWN = OwnQuotas()
FOUNDATION = Quotas(
    rolling=False,
    zone="UTC",
    enforcement="degrade",
    warn_bp=7_000,
    degrade_bp=9_000,
    block_bp=10_000,
    rate_method="sliding_window",
    burst_bp=BURST_BP,
    burst_window_ns=BURST_WINDOW_NS,
    block_on_limit=True,
)
"""How limits are kept where nobody says otherwise; it limits nothing."""


class ScopeQuotas(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one kind of scope: of each, and of some by their id."""

    default: Quotas = UNSET
    """Of every one."""
    ids: Mapping[str, Quotas] = {}
    """Of single ones, field by field over `default`."""


def merged(*layers: Quotas) -> Quotas:
    """Field by field the first layer that sets it."""
    fields = {
        name: next((value for one in layers if (value := getattr(one, name)) is not None), None)
        for name in Quotas.__struct_fields__
    }
    return Quotas(**fields)


def largest_call(
    scopes: Mapping[Scope, ScopeQuotas],
    tags: Mapping[str, ScopeQuotas],
    tiers: Iterable[Quotas],
    overrides: Mapping[tuple[Scope, str], Quotas],
) -> tuple[int, int]:
    """(budgets, rates) that one call can be charged to at most: one scope of each kind, a value of
    each tag, and a user of any tier (`tiers` are their limits of each user)."""
    kinds: dict[str, ScopeQuotas] = {f"tag {name}": known for name, known in tags.items()}
    kinds |= {str(scope): known for scope, known in scopes.items()}
    own = {kind: {NO_AMOUNTS, *map(amounts, known.ids.values())} for kind, known in kinds.items()}
    for (scope, id), quotas in overrides.items():
        kind, name = _place(scope, id)
        if kind in kinds:
            own[kind].add(amounts(quotas) | amounts(kinds[kind].ids.get(name, UNSET)))
    plans = {NO_AMOUNTS, *map(amounts, tiers)}
    budgets = rates = 0
    for kind, known in kinds.items():
        lent = [plan | amounts(known.default) for plan in (plans if kind == "user" else NO_PLANS)]
        sets = [one | below for one in own[kind] for below in lent]
        budgets += max(size(one)[0] for one in sets)
        rates += max(size(one)[1] for one in sets)
    return budgets, rates


def size(amounts: frozenset[str]) -> tuple[int, int]:
    """(budgets, rates) that these fields make, the burst window included."""
    return len(amounts & BUDGET_NAMES), len(amounts & RATE_NAMES) + (BURSTING in amounts)


BURSTING = "requests_per_minute"
"""The rate whose bursts are a rate of their own."""
BUDGET_NAMES = frozenset(field.name for field in BUDGET_FIELDS)
RATE_NAMES = frozenset(field.name for field in RATE_FIELDS)
NO_AMOUNTS = frozenset[str]()
NO_PLANS = frozenset({NO_AMOUNTS})


def amounts(quotas: Quotas) -> frozenset[str]:
    """The budgets and rates that are set, by their fields."""
    names = BUDGET_NAMES | RATE_NAMES
    return frozenset(name for name in names if getattr(quotas, name) is not None)


def _place(scope: Scope, id: str) -> tuple[str, str]:
    """The kind that a scope is of, and its name in that: each tag is a kind of its own."""
    tag, _, value = id.partition("=")
    return (f"tag {tag}", value) if scope == "tag" else (scope, id)
