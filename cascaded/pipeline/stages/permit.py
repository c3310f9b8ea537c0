"""Permit: what the caller's tier allows: models, features, the length of answers."""

from msgspec.structs import replace

from cascaded.policy.limits.access import clamp_output, feature_refusal, trim_ladder
from cascaded.ports import Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.request import Request


def permit() -> Stage:
    """A stage that trims the ladder to the tier and bounds the answer. No tier: no bounds."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        assert decision.ladder is not None
        tier = decision.tier
        if tier is None:
            return decision
        if request.stream and (refusal := feature_refusal(tier, "streaming")):
            return refusal
        trimmed = trim_ladder(decision.ladder, tier)
        if isinstance(trimmed, Refusal):
            return trimmed
        cap, clamped = clamp_output(tier, request.max_output_tokens)
        notices = (*decision.notices, *trimmed.notices, *((clamped,) if clamped else ()))
        return replace(decision, ladder=trimmed.ladder, output_cap=cap, notices=notices)

    return stage
