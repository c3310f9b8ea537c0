"""Permit: what the caller's tier and profile allow: models, features, the length of answers, how
good they must be and what they may cost."""

from msgspec.structs import replace

from cascaded.policy.limits.access import Trimmed, clamp_output, feature_refusal, trim_ladder
from cascaded.policy.limits.suit import bounded
from cascaded.ports import Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.model import Ladder
from cascaded.types.profile import UserProfile
from cascaded.types.request import Request
from cascaded.types.tiers import TierConfig

MEMOISED_FITS = 10_000
_Who = tuple[int, str | None, str | None]
"""Which ladder, and tier and user by their names."""
_Fit = tuple[Ladder, TierConfig | None, UserProfile | None, Trimmed | Refusal]
"""What was fitted to whom, and the outcome: it holds as long as they are the same objects."""


def permit() -> Stage:
    """A stage that fits the ladder to the caller and bounds the answer. Neither tier nor profile:
    no bounds."""
    known: dict[_Who, _Fit] = {}

    def fitted(
        ladder: Ladder, tier: TierConfig | None, profile: UserProfile | None
    ) -> Trimmed | Refusal:
        """As `_fitted`, worked out once for each ladder of the configuration, tier and profile."""
        if not ladder.checked:  # asked for by name: there may be any number of those
            return _fitted(ladder, tier, profile)
        user = None if profile is None else profile.user_id
        who = id(ladder), None if tier is None else tier.name, user
        found = known.get(who)
        same = found and found[0] is ladder and found[1] is tier and found[2] is profile
        if found is None or not same:
            if len(known) >= MEMOISED_FITS:
                known.clear()
            found = known[who] = ladder, tier, profile, _fitted(ladder, tier, profile)
        return found[3]

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        tier, profile = decision.tier, decision.profile
        assert decision.ladder is not None
        if tier is None and profile is None:
            return decision
        if request.stream and (refusal := feature_refusal(tier, "streaming")):
            return refusal
        if request.kind == "embedding" and (refusal := feature_refusal(tier, "embeddings")):
            return refusal
        trimmed = fitted(decision.ladder, tier, profile)
        if isinstance(trimmed, Refusal):
            return trimmed
        cap, clamped = clamp_output(tier, request.max_output_tokens)
        return replace(
            decision,
            ladder=trimmed.ladder,
            preferred=_preferred(tier, profile, decision.preferred),
            output_cap=cap,
            notices=(*decision.notices, *trimmed.notices, *((clamped,) if clamped else ())),
        )

    return stage


def _fitted(
    ladder: Ladder, tier: TierConfig | None, profile: UserProfile | None
) -> Trimmed | Refusal:
    trimmed = trim_ladder(ladder, tier, profile)
    if isinstance(trimmed, Refusal):
        return trimmed
    return replace(trimmed, ladder=bounded(trimmed.ladder, tier, profile))


def _preferred(
    tier: TierConfig | None, profile: UserProfile | None, of_domain: tuple[str, ...]
) -> tuple[str, ...]:
    """The user's own, else the domain's, else the tier's."""
    own = profile.preferred_models if profile else ()
    return own or of_domain or (tier.preferred_models if tier else ())
