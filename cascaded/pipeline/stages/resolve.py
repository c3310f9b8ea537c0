"""Resolve: whom the call is for, and every limit that it is charged to."""

from collections.abc import Callable
from functools import lru_cache

from msgspec.structs import replace

from cascaded.policy.access.identity import AccessRules, identify
from cascaded.ports import Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.limits import Caller, Limits
from cascaded.types.request import Request

MEMOISED_CALLERS = 65_536


def resolve(rules: AccessRules, limits_for: Callable[[Caller], Limits]) -> Stage:
    """A stage that sets the caller and its limits, worked out once for each caller."""
    limits_of = lru_cache(MEMOISED_CALLERS)(limits_for)

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        caller = identify(request.principal, request.claims, rules)
        if isinstance(caller, Refusal):
            return caller
        return replace(decision, caller=caller, limits=limits_of(caller))

    return stage
