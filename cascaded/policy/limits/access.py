"""What a tier allows: models, features, the length of answers, escalation."""

import msgspec

from cascaded.types.decision import Refusal
from cascaded.types.model import Ladder, Model
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


def trim_ladder(ladder: Ladder, tier: TierConfig | None) -> Trimmed | Refusal:
    """The rungs that the tier may use; where it never escalates, the first of them alone.

    Refuses with `model_forbidden` where none is left.
    """
    if tier is None:
        return Trimmed(ladder=ladder)
    allowed = tuple(rung for rung in ladder.rungs if _allows(tier, rung.model))
    if not allowed:
        return _forbidden(tier, *(rung.model.name for rung in ladder.rungs))
    notices = [
        f"Model '{rung.model.name}' left out: tier '{tier.name}' may not use it."
        for rung in ladder.rungs
        if rung not in allowed
    ]
    if not tier.escalates and len(allowed) > 1:
        allowed = allowed[:1]
        notices.append(f"Tier '{tier.name}' does not escalate: only the first model is asked.")
    if len(allowed) < len(ladder.rungs):
        ladder = msgspec.structs.replace(ladder, rungs=allowed)
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
