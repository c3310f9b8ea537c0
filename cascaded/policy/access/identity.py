"""Whom a call is charged to: what the transport proves, and claims of those who are trusted."""

from typing import Literal

import msgspec

from cascaded.types.decision import Refusal
from cascaded.types.ids import ID_WORDS, is_id
from cascaded.types.limits import Caller
from cascaded.types.profile import UserProfile
from cascaded.types.request import Claims, Principal

MAX_QUOTED_CHARS = 64
NOTHING_CLAIMED = Claims()


class AccessRules(msgspec.Struct, frozen=True, kw_only=True):
    """Whose word counts."""

    trusted: frozenset[str] = frozenset()
    """Principals (`uid:1000`, the name of a TCP key, `key:ID`) whose claims are believed."""
    default_tier: str | None = None
    tiers: frozenset[str] = frozenset()
    """The tiers there are."""
    known_users: frozenset[str] = frozenset()
    """Users with limits of their own in the configuration. Those with a profile are known, too."""
    unknown_user: Literal["default", "refuse"] = "default"
    """What becomes of others: the default limits, or a refusal."""
    declared_tags: frozenset[str] = frozenset()


def user_of(principal: Principal, claims: Claims, rules: AccessRules) -> str:
    """Whose call it is, as far as that is believed."""
    return (claims.user_id if principal.id in rules.trusted else None) or principal.user_id


def identify(
    principal: Principal, claims: Claims, rules: AccessRules, profile: UserProfile | None = None
) -> Caller | Refusal:
    """The caller as far as it is believed. `profile` is what is stored of `user_of` the call.

    Without trust a call is the principal's own, whatever it claims: nobody can spend on another's
    account, or escape their own limits, by a header. What the operator stored of the user stands
    above every claim of tier, organisation and workspace; a claim that is trusted above what the
    principal's key says of its owner; and that above the default tier.
    """
    if principal.id not in rules.trusted:
        claims = NOTHING_CLAIMED
    owner = principal.owner
    organization = profile.organization if profile else None
    workspace = profile.workspace if profile else None
    caller = Caller(
        user_id=claims.user_id or principal.user_id,
        tier=(profile and profile.tier) or claims.user_tier or owner.tier or rules.default_tier,
        organization_id=(
            organization.id if organization else _or(claims.organization_id, owner.organization_id)
        ),
        workspace_id=workspace.id if workspace else _or(claims.workspace_id, owner.workspace_id),
        team_id=claims.team_id,
        run_id=claims.run_id,
        tags=tuple(sorted(item for item in claims.tags.items() if item[0] in rules.declared_tags)),
    )
    # Whom an administrator gave a key is known.
    known = profile is not None or caller.user_id == owner.user_id
    return _fault(caller, rules, known=known)


def _fault(caller: Caller, rules: AccessRules, *, known: bool) -> Caller | Refusal:
    """The caller, or why it may not call."""
    ids = (
        caller.user_id,
        caller.organization_id,
        caller.workspace_id,
        caller.team_id,
        caller.run_id,
        *(f"{name}={value}" if value else "" for name, value in caller.tags),
    )
    if any(one is not None and not is_id(one) for one in ids):
        return Refusal(
            code="invalid_request",
            message="Ids of users, organisations, workspaces, teams and runs, and tags as"
            f" name=value, have {ID_WORDS}.",
        )
    if caller.tier is not None and caller.tier not in rules.tiers:
        return Refusal(
            code="forbidden",
            message=f"There is no tier {caller.tier[:MAX_QUOTED_CHARS]!r}; there are:"
            f" {', '.join(sorted(rules.tiers)) or 'none'}.",
            param="user_tier",
        )
    if rules.unknown_user == "refuse" and not known and caller.user_id not in rules.known_users:
        return Refusal(
            code="forbidden",
            message=f"User '{caller.user_id}' is not known here, and unknown users are refused"
            " (access.unknown_user). Ask the operator to add this user.",
        )
    return caller


def _or(claimed: str | None, owned: str | None) -> str | None:
    return owned if claimed is None else claimed
