"""Permit: what the caller's tier allows: models, features, the length of answers."""

from collections.abc import Mapping

from msgspec.structs import replace

from cascaded.policy.limits.access import clamp_output, feature_refusal, trim_ladder
from cascaded.ports import Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.request import Request
from cascaded.types.tiers import TierConfig


def permit(tiers: Mapping[str, TierConfig]) -> Stage:
    """A stage that trims the ladder to the tier and bounds the answer. No tier: no bounds."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        assert decision.caller is not None
        assert decision.ladder is not None
        if decision.caller.tier is None:
            return decision
        tier = tiers[decision.caller.tier]  # `resolve` has seen to it that it is there
        if request.stream and (refusal := feature_refusal(tier, "streaming")):
            return refusal
        trimmed = trim_ladder(decision.ladder, tier)
        if isinstance(trimmed, Refusal):
            return trimmed
        cap, clamped = clamp_output(tier, request.max_output_tokens)
        notices = (*decision.notices, *trimmed.notices, *((clamped,) if clamped else ()))
        return replace(decision, ladder=trimmed.ladder, output_cap=cap, notices=notices)

    return stage
