"""Resolve: whom the call is for, what is stored of them, and every limit that it is charged to."""

from collections.abc import Awaitable, Callable
from functools import lru_cache

from msgspec.structs import replace

from cascaded.policy.access.identity import AccessRules, identify, user_of
from cascaded.ports import Directory, Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.errors import StoreError, TooManyLimitsError
from cascaded.types.limits import Caller, Limits
from cascaded.types.profile import UserProfile
from cascaded.types.quotas import NOTHING_OWN, OwnQuotas
from cascaded.types.request import Claims, Principal, Request

MEMOISED_CALLERS = 65_536

Standing = Callable[[Principal, Claims], Awaitable[Decision | Refusal]]
"""The beginning of a decision: the caller, its profile and its limits."""
LimitsFor = Callable[[Caller, OwnQuotas], Limits]
"""Raises `TooManyLimitsError`."""


def standing(rules: AccessRules, directory: Directory, limits_for: LimitsFor) -> Standing:
    """Who says how a caller stands. Limits are worked out once for each caller and what is stored
    of it, so that a change acts on the next call."""
    limits_of = lru_cache(MEMOISED_CALLERS)(limits_for)

    async def stand(principal: Principal, claims: Claims) -> Decision | Refusal:
        try:
            profile = await directory.find(user_of(principal, claims, rules))
            caller = identify(principal, claims, rules, profile)
            if isinstance(caller, Refusal):
                return caller
            profile = await _with_owners(caller, profile, directory)
            limits = limits_of(caller, profile.quotas if profile else NOTHING_OWN)
        except StoreError as error:
            return Refusal(
                code="profiles_unavailable",
                message=f"What is stored of this user cannot be read: {error}",
            )
        except TooManyLimitsError as error:
            return Refusal(code="limits_unusable", message=str(error))
        return Decision(caller=caller, profile=profile, limits=limits)

    return stand


async def _with_owners(
    caller: Caller, profile: UserProfile | None, directory: Directory
) -> UserProfile | None:
    """The profile, with the stored organisation and workspace of a caller who is only said to
    belong to them: their shared limits and rules hold all the same."""
    organization = workspace = None
    if caller.organization_id is not None and (profile is None or profile.organization is None):
        organization = await directory.organization(caller.organization_id)
    if caller.workspace_id is not None and (profile is None or profile.workspace is None):
        workspace = await directory.workspace(caller.workspace_id)
    if organization is None and workspace is None:
        return profile
    profile = profile or UserProfile(user_id=caller.user_id)
    return replace(
        profile,
        organization=profile.organization or organization,
        workspace=profile.workspace or workspace,
    )


def resolve(stand: Standing) -> Stage:
    """A stage that sets the caller, its profile and its limits."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        found = await stand(request.principal, request.claims)
        if isinstance(found, Refusal):
            return found
        return replace(decision, caller=found.caller, profile=found.profile, limits=found.limits)

    return stage
