"""Resolve: whom the call is for, and every limit that it is charged to."""

from collections.abc import Callable

from msgspec.structs import replace

from cascaded.policy.access.identity import AccessRules, identify
from cascaded.ports import Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.limits import Caller, Limits
from cascaded.types.request import Request


def resolve(rules: AccessRules, limits_for: Callable[[Caller], Limits]) -> Stage:
    """A stage that sets the caller and its limits."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        caller = identify(request.principal, request.claims, rules)
        if isinstance(caller, Refusal):
            return caller
        return replace(decision, caller=caller, limits=limits_for(caller))

    return stage
