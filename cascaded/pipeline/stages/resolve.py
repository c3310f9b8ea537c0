"""Resolve: whom the call is for, what is stored of them, and every limit that it is charged to."""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from cascaded.pipeline.rules import Rulebook
from cascaded.policy.access.identity import identify, user_of
from cascaded.ports import Directory, Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.errors import StoreError, TooManyLimitsError
from cascaded.types.limits import Caller
from cascaded.types.profile import UserProfile
from cascaded.types.quotas import NOTHING_OWN
from cascaded.types.request import Claims, Principal, Request

Standing = Callable[[Principal, Claims], Awaitable[Decision | Refusal]]
"""The beginning of a decision: the caller, its profile, its tier and its limits."""


def standing(rulebook: Rulebook, directory: Directory) -> Standing:
    """Who says how a caller stands, by the rules of one moment."""

    async def stand(principal: Principal, claims: Claims) -> Decision | Refusal:
        rules = rulebook.now
        access = rules.access
        try:
            profile = await directory.find(user_of(principal, claims, access))
            caller = identify(principal, claims, access, profile)
            if isinstance(caller, Refusal):
                return caller
            if caller.organization_id is not None or caller.workspace_id is not None:
                profile = await _with_owners(caller, profile, directory)
            limits = rules.limits_for(caller, profile.quotas if profile else NOTHING_OWN)
        except StoreError as error:
            return Refusal(
                code="profiles_unavailable",
                message=f"What is stored of this user cannot be read: {error}",
            )
        except TooManyLimitsError as error:
            return Refusal(code="limits_unusable", message=str(error))
        return Decision(caller=caller, profile=profile, tier=rules.tier_of(caller), limits=limits)

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
    """A stage that sets the caller, its profile, its tier and its limits: how it begins."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:  # noqa: ARG001
        return await stand(request.principal, request.claims)

    return stage
