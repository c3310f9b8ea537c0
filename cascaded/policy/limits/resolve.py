"""Which budgets and rates one call is charged to."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, get_args

import msgspec

from cascaded.types.errors import TooManyLimitsError
from cascaded.types.limits import BudgetLimit, Caller, Limits, Origin, RateLimit, Scope, Unit
from cascaded.types.overrides import GLOBAL_ID
from cascaded.types.quotas import (
    BUDGET_FIELDS,
    FOUNDATION,
    MAX_BUDGETS,
    MAX_RATES,
    MINUTE_NS,
    NOTHING_OWN,
    RATE_FIELDS,
    UNSET,
    OwnQuotas,
    Quotas,
    ScopeQuotas,
    largest_call,
    merged,
)
from cascaded.types.tiers import TierConfig

WHOLE_BP = 10_000
NO_SCOPES = ScopeQuotas()


class LimitBook(msgspec.Struct, frozen=True, kw_only=True):
    """Every limit that the operator has set."""

    base: Quotas = FOUNDATION
    """Under everything: zone, enforcement, thresholds."""
    scopes: Mapping[Scope, ScopeQuotas] = {}
    """By kind of scope, all but tags. Of `global` and `run` only `default` is looked at."""
    tags: Mapping[str, ScopeQuotas] = {}
    """By the tag's name; `ids` are its values. Only these tags make counters."""
    tiers: Mapping[str, TierConfig] = {}
    """The least first: a refusal names the next one that allows more."""
    overrides: Mapping[tuple[Scope, str], Quotas] = {}
    """What administrators set at run time, by scope and id: over everything."""

    def of(self, scope: Scope) -> ScopeQuotas:
        """The limits of one kind of scope."""
        return self.scopes.get(scope, NO_SCOPES)

    @property
    def known_users(self) -> frozenset[str]:
        """Users who have limits of their own."""
        set_ = (id for scope, id in self.overrides if scope == "user")
        return frozenset((*self.of("user").ids, *set_))

    def named(self, scope: Scope, id: str) -> tuple[Quotas, Quotas]:
        """(the configuration's table of this scope, its default for all of the kind)."""
        if scope == "global":
            return self.of(scope).default, UNSET
        if scope == "tag":
            tag, _, id = id.partition("=")
        known = self.tags.get(tag, NO_SCOPES) if scope == "tag" else self.of(scope)
        return known.ids.get(id, UNSET), known.default


class _Charge(NamedTuple):
    """One scope that a call is charged to, and what is set for it, the strongest first."""

    scope: Scope
    id: str
    set: Quotas
    """By its id, at run time: over everything."""
    profile: Quotas
    """What is stored for it."""
    own: Quotas
    """By its id, in the configuration."""
    layers: tuple[Quotas, ...]
    """Below that: tier and default."""


def limits_for(caller: Caller, book: LimitBook, own: OwnQuotas = NOTHING_OWN) -> Limits:
    """Every budget and rate of a call, global first and then in the order of `Scope`.

    A scope's are merged field by field: what was set at run time over `own` (what is stored for
    that user, and for its organisation and workspace) over its table in the configuration over,
    for a user, the tier over the default of the kind. A tag that was not declared makes no
    counter. Same caller, book and `own`, same answer: memoise it by them.

    Raises `TooManyLimitsError`. What the configuration and administrators set is counted before,
    so that only what is stored can be too much.
    """
    limits = _limits(_charges(caller, book, own), book.base)
    budgets, rates = len(limits.budgets), len(limits.rates)
    if budgets > MAX_BUDGETS or rates > MAX_RATES:
        raise TooManyLimitsError(
            f"{budgets} budgets and {rates} rates apply to this call of user '{caller.user_id}', a"
            f" burst counting as a rate; one call is charged to at most {MAX_BUDGETS} and"
            f" {MAX_RATES}. The operator must take some away."
        )
    return limits


def named_limits(book: LimitBook) -> Limits:
    """The global limits and those of organisations, workspaces, teams, tiers and tags by name, and
    all that were set at run time: what the ledger is told at start and at each reload. Their origin
    is `file` or `api`. What comes of users, their tiers and of defaults has origin `profile` and
    reaches the ledger with a call."""
    places = dict.fromkeys([("global", GLOBAL_ID), *_filed(book), *book.overrides])
    return _limits((_named(book, scope, id) for scope, id in places), book.base)


def changed_limits(scope: Scope, id: str, before: LimitBook, after: LimitBook) -> Limits:
    """What the ledger is told when the overrides of one scope change: its limits as they now are;
    those that went only count on, until a call brings what stands below them."""
    was, is_ = (_limits(iter((_named(book, scope, id),)), book.base) for book in (before, after))
    known = {(budget.window, budget.zone) for budget in is_.budgets}
    gone = (
        msgspec.structs.replace(budget, limit_nano_usd=None, origin="profile")
        for budget in was.budgets
        if (budget.window, budget.zone) not in known
    )
    return Limits((*is_.budgets, *gone), is_.rates)


def excess(book: LimitBook) -> str | None:
    """What is wrong where one call could be charged to more limits than it can carry, in words."""
    kinds = {scope: book.of(scope) for scope in get_args(Scope)}
    tiers = [tier.limits for tier in book.tiers.values()]
    budgets, rates = largest_call(kinds, book.tags, tiers, book.overrides)
    if budgets <= MAX_BUDGETS and rates <= MAX_RATES:
        return None
    return (
        f"one call could be charged to {budgets} budgets and {rates} rates (a burst is one more);"
        f" at most {MAX_BUDGETS} and {MAX_RATES} over all scopes that a call belongs to"
    )


def next_tier(caller: Caller, book: LimitBook, field: str, limit: int) -> TierConfig | None:
    """The first tier above the caller's that allows more than `limit` in this field of `Quotas`,
    or has no such limit."""
    names = list(book.tiers)
    above = names.index(caller.tier) + 1 if caller.tier in names else 0
    for name in names[above:]:
        allowed = getattr(book.tiers[name].limits, field)
        if allowed is None or allowed > limit:
            return book.tiers[name]
    return None


def _limits(charges: Iterator[_Charge], base: Quotas) -> Limits:
    budgets: list[BudgetLimit] = []
    rates: list[RateLimit] = []
    for charge in charges:
        quotas = merged(charge.set, charge.profile, charge.own, *charge.layers, base, FOUNDATION)
        budgets += _budgets(charge, quotas)
        rates += _rates(charge, quotas)
    return Limits(tuple(budgets), tuple(rates))


def _charges(caller: Caller, book: LimitBook, own: OwnQuotas) -> Iterator[_Charge]:
    yield _charge(book, "global", GLOBAL_ID)
    owners: tuple[tuple[Scope, str | None, Quotas], ...] = (
        ("organization", caller.organization_id, own.organization),
        ("workspace", caller.workspace_id, own.workspace),
        ("team", caller.team_id, UNSET),
    )
    for scope, id, stored in owners:
        if id is not None:
            yield _charge(book, scope, id, (), stored)
    tier = book.tiers.get(caller.tier) if caller.tier is not None else None
    layer = () if tier is None else (tier.limits,)
    yield _charge(book, "user", caller.user_id, layer, own.user)
    if caller.tier is not None:
        yield _charge(book, "tier", caller.tier)
    for name, value in caller.tags:
        if name in book.tags:
            yield _charge(book, "tag", tag_id(name, value))
    if caller.run_id is not None:
        yield _charge(book, "run", caller.run_id)


def _charge(
    book: LimitBook,
    scope: Scope,
    id: str,
    tier: tuple[Quotas, ...] = (),
    profile: Quotas = UNSET,
) -> _Charge:
    own, default = book.named(scope, id)
    set_ = book.overrides.get((scope, id), UNSET)
    return _Charge(scope, id, set_, profile, own, (*tier, default))


def _filed(book: LimitBook) -> Iterator[tuple[Scope, str]]:
    """Whatever the configuration names, but for users: theirs are merged with a tier, which only a
    call tells."""
    for scope, known in book.scopes.items():
        for id in known.ids if scope != "user" else ():
            yield scope, id
    for name, known in book.tags.items():
        for value in known.ids:
            yield "tag", tag_id(name, value)


def _named(book: LimitBook, scope: Scope, id: str) -> _Charge:
    """One scope with the limits that are its own. Of the layers below it has what they lend, such
    as the zone: that is part of what a counter is."""
    charge = _charge(book, scope, id)
    own = _manner(charge.own) if scope == "user" else charge.own
    return charge._replace(own=own, layers=tuple(map(_manner, charge.layers)))


def _manner(quotas: Quotas) -> Quotas:
    """How limits are kept, without the limits."""
    amounts = dict.fromkeys(field.name for field in (*BUDGET_FIELDS, *RATE_FIELDS))
    return msgspec.structs.replace(quotas, **amounts)


def tag_id(name: str, value: str) -> str:
    """A tag as the id of its scope."""
    return f"{name}={value}"


def _budgets(charge: _Charge, quotas: Quotas) -> Iterator[BudgetLimit]:
    assert quotas.zone is not None
    assert quotas.enforcement is not None
    assert quotas.warn_bp is not None
    assert quotas.degrade_bp is not None
    assert quotas.block_bp is not None
    for name, window, rolling in BUDGET_FIELDS:
        limit = getattr(quotas, name)
        if limit is not None:
            yield BudgetLimit(
                scope=charge.scope,
                id=charge.id,
                window=rolling if quotas.rolling else window,
                limit_nano_usd=limit,
                zone=quotas.zone,
                enforcement=quotas.enforcement,
                warn_bp=quotas.warn_bp,
                degrade_bp=quotas.degrade_bp,
                block_bp=quotas.block_bp,
                origin=_origin(charge, name),
            )


def _origin(charge: _Charge, field: str) -> Origin:
    if getattr(charge.set, field) is not None:
        return "api"
    stored = charge.scope == "user" or getattr(charge.profile, field) is not None
    return "file" if not stored and getattr(charge.own, field) is not None else "profile"


def _rates(charge: _Charge, quotas: Quotas) -> Iterator[RateLimit]:
    assert quotas.rate_method is not None
    limits: dict[tuple[Unit, int], int] = {}
    for name, unit, window_ns in RATE_FIELDS:
        limit = getattr(quotas, name)
        if limit is not None:
            limits[unit, window_ns] = limit
    burst = _burst(quotas)
    if burst is not None:
        at: tuple[Unit, int] = ("requests", quotas.burst_window_ns or 0)
        limits[at] = min(burst, limits.get(at, burst))
    for (unit, window_ns), limit in sorted(limits.items()):
        yield RateLimit(
            scope=charge.scope,
            id=charge.id,
            unit=unit,
            window_ns=window_ns,
            limit=limit,
            method=quotas.rate_method,
            block=quotas.block_on_limit is not False,
        )


def _burst(quotas: Quotas) -> int | None:
    """Requests in the burst window: `limit · burst_bp / 10,000 · burst window / minute`, rounded
    down, one at least. `None` where it would be no tighter than the rate itself.

    Only requests a minute are slowed. A second is shorter than a burst; an hour's or a day's
    allowance is a quota and no pace (10,000 a day would be one every six seconds); a pace of less
    than one request in the burst window is not worth slowing; and of tokens one call may need
    more than a short window's share, so that it could never pass.
    """
    limit, window_ns = quotas.requests_per_minute, quotas.burst_window_ns
    if limit is None or not window_ns or window_ns >= MINUTE_NS or quotas.burst_bp is None:
        return None
    pace = limit * window_ns
    if pace < MINUTE_NS:
        return None
    burst = max(1, pace * quotas.burst_bp // (WHOLE_BP * MINUTE_NS))
    return burst if burst < limit else None
