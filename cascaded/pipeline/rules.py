"""Whose word counts and within which limits, as it stands now."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Protocol

from cascaded.policy.access.identity import AccessRules
from cascaded.policy.limits import LimitBook, limits_for
from cascaded.types.limits import Caller, Limits
from cascaded.types.overrides import Overrides
from cascaded.types.quotas import NOTHING_OWN, OwnQuotas
from cascaded.types.tiers import TierConfig

MEMOISED_CALLERS = 65_536


class Rules:
    """One whole that never changes: a call that has taken it stays with it."""

    def __init__(self, access: AccessRules, book: LimitBook) -> None:
        self.access = access
        self.book = book
        self.limits_for = lru_cache(MEMOISED_CALLERS)(partial(_limits_for, book))
        """Every budget and rate of a caller, worked out once for each and what is stored of it, so
        that a change acts on the next call. Raises `TooManyLimitsError`."""

    def tier_of(self, caller: Caller) -> TierConfig | None:
        """The caller's plan; `identify` has seen to it that it is there."""
        return None if caller.tier is None else self.book.tiers[caller.tier]


def _limits_for(book: LimitBook, caller: Caller, own: OwnQuotas = NOTHING_OWN) -> Limits:
    return limits_for(caller, book, own)


class Overriding(Protocol):
    """Who knows what administrators have set."""

    @property
    def now(self) -> Overrides:
        """The present value; another one after each change."""
        ...


Build = Callable[[Overrides], Rules]
"""One configuration's rules under these overrides."""


class Rulebook:
    """The rules of one configuration, with the overrides of the moment. They change between two
    looks, never under one."""

    def __init__(self, build: Build, overriding: Overriding) -> None:
        self.build = build
        self._overriding = overriding
        self._seen = overriding.now
        self._rules = build(self._seen)

    @property
    def now(self) -> Rules:
        """What holds for a call that begins now."""
        overrides = self._overriding.now
        if overrides is not self._seen:
            self._seen, self._rules = overrides, self.build(overrides)
        return self._rules
