"""What a tier allows: models, features, the length of answers, escalation."""

from collections.abc import Mapping
from itertools import zip_longest

import msgspec

from cascaded.types.decision import Refusal
from cascaded.types.model import LOCAL_REGION, Ladder, Model, Rung
from cascaded.types.profile import OrganizationConfig, UserProfile
from cascaded.types.tiers import Feature, TierConfig, matches

MAX_LISTED = 10


class Trimmed(msgspec.Struct, frozen=True, kw_only=True):
    """A ladder as a tier may climb it."""

    ladder: Ladder
    notices: tuple[str, ...] = ()
    """What was left out, for the caller."""


def may_use(tier: TierConfig | None, model: Model) -> Refusal | None:
    """`model_forbidden` where the tier's list does not have the model. No tier allows all."""
    if tier is None or _allows(tier, model):
        return None
    return _forbidden(tier, model.name)


def clamp_output(tier: TierConfig | None, asked: int | None) -> tuple[int | None, str | None]:
    """(the bound on the answer, a notice where it was lowered).

    A call that brings none (`None`) gets the tier's, without a notice; `None` is no bound.
    """
    most = None if tier is None else tier.max_tokens
    if tier is None or most is None or asked is None:
        return (most if asked is None else asked), None
    if asked <= most:
        return asked, None
    return most, f"max_tokens lowered from {asked} to {most}, the most of tier '{tier.name}'."


def trim_ladder(
    ladder: Ladder, tier: TierConfig | None, profile: UserProfile | None = None
) -> Trimmed | Refusal:
    """The rungs that tier, profile and the organisation's regions leave; where the tier never
    escalates, the first of them alone.

    Refuses with `model_forbidden` where none is left.
    """
    if tier is None and profile is None:
        return Trimmed(ladder=ladder)
    allowed: list[Rung] = []
    left_out: dict[str, str] = {}
    for rung in ladder.rungs:
        model = _where(rung.model, tier, profile)
        if isinstance(model, str):
            left_out[rung.model.name] = model
            continue
        found = (_where(one, tier, profile) for one in rung.fallbacks)
        spare = tuple(one for one in found if isinstance(one, Model))
        if any(one is not other for one, other in zip_longest((model, *spare), rung.models)):
            rung = msgspec.structs.replace(rung, model=model, fallbacks=spare)
        allowed.append(rung)
    if not allowed:
        return _none_left(ladder, tier, profile, left_out)
    notices = [f"Model '{name}' left out: {why}." for name, why in left_out.items()]
    if tier is not None and not tier.escalates and len(allowed) > 1:
        allowed = allowed[:1]
        notices.append(f"Tier '{tier.name}' does not escalate: only the first model is asked.")
    if any(one is not other for one, other in zip_longest(allowed, ladder.rungs)):
        ladder = msgspec.structs.replace(ladder, rungs=tuple(allowed))
    return Trimmed(ladder=ladder, notices=tuple(notices))


def feature_refusal(tier: TierConfig | None, feature: Feature) -> Refusal | None:
    """`feature_forbidden` where the tier does not have the feature. No tier has all."""
    if tier is None or getattr(tier, feature):
        return None
    return Refusal(
        code="feature_forbidden",
        message=f"Tier '{tier.name}' does not include {feature.replace('_', ' ')}."
        " Ask the operator of this service for a tier that does.",
        details={"tier": tier.name, "feature": feature},
    )


def _allows(tier: TierConfig, model: Model) -> bool:
    return matches(model.name, tier.allowed_models)


def _where(model: Model, tier: TierConfig | None, profile: UserProfile | None) -> Model | str:
    """The model in those of its places where this user may use it, or why there is none."""
    kept = [place for place in model.places if _why_not(place, tier, profile) is None]
    if not kept:
        return _why_not(model, tier, profile) or ""
    if len(kept) == len(model.places):
        return model
    return msgspec.structs.replace(kept[0], others=tuple(kept[1:]))


def _why_not(model: Model, tier: TierConfig | None, profile: UserProfile | None) -> str | None:
    """Why this user may not use it, in the words of a notice."""
    organization = profile.organization if profile else None
    own = organization is not None and matches(model.name, organization.custom_models)
    if tier is not None and not own and not _allows(tier, model):
        return f"tier '{tier.name}' may not use it"
    if profile is not None and matches(model.name, profile.blocked_models):
        return f"it is blocked for user '{profile.user_id}'"
    if organization is not None and organization.regions and not _is_in(model, organization):
        return (
            f"organisation '{organization.id}' lets its data go to"
            f" {', '.join(organization.regions[:MAX_LISTED])} only"
        )
    return None


def _is_in(model: Model, organization: OrganizationConfig) -> bool:
    """Whether its provider is where the organisation's data may go. `eu` includes `eu-west-1`."""
    if model.region is None or model.region == LOCAL_REGION:
        return model.region == LOCAL_REGION
    return any(
        f"{model.region}-".startswith(f"{region}-".lower()) for region in organization.regions
    )


def _none_left(
    ladder: Ladder,
    tier: TierConfig | None,
    profile: UserProfile | None,
    left_out: Mapping[str, str],
) -> Refusal:
    if tier is not None and not any(_allows(tier, rung.model) for rung in ladder.rungs):
        return _forbidden(tier, *left_out)
    whys = "; ".join(f"'{name}': {why}" for name, why in [*left_out.items()][:MAX_LISTED])
    return Refusal(
        code="model_forbidden",
        message=f"No model is left for this call. {whys}. Ask for another model, or the operator of"
        " this service for another profile.",
        param="model",
        details={"user_id": profile and profile.user_id, "models": list(left_out)},
    )


def _forbidden(tier: TierConfig, *models: str) -> Refusal:
    names = " or ".join(f"'{name}'" for name in models[:MAX_LISTED])
    allowed = ", ".join(tier.allowed_models[:MAX_LISTED]) or "no model"
    more = ", …" if len(tier.allowed_models) > MAX_LISTED else ""
    return Refusal(
        code="model_forbidden",
        message=f"Tier '{tier.name}' may not use {names}. It may use {allowed}{more}."
        " Ask the operator of this service for another tier.",
        param="model",
        details={"tier": tier.name, "models": list(models), "allowed": list(tier.allowed_models)},
    )
