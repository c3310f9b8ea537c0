"""A ladder as it suits one user: how good its answers must be, what it may cost, which models are
tried before others."""

from collections.abc import Sequence

from msgspec.structs import replace

from cascaded.types.model import Ladder, Rung
from cascaded.types.profile import MAX_RETRIES, QualityPreferences, UserProfile
from cascaded.types.tiers import TierConfig, matches


def bounded(ladder: Ladder, tier: TierConfig | None, profile: UserProfile | None) -> Ladder:
    """The ladder with the quality and the cost that tier and profile ask for.

    Both may only ask for more than the ladder: its own thresholds and its cap stand. What a
    profile asks for counts before the tier's default, up to the tier's maximum.
    """
    wanted = profile.quality_preferences if profile else None
    if ladder.checked and not ladder.strict and tier is not None and not tier.quality_validation:
        ladder = replace(ladder, checked=False)
    if ladder.checked:
        ladder = replace(
            ladder,
            rungs=_thresholds(ladder.rungs, tier, wanted),
            top_retries=min(ladder.top_retries, _retries(wanted)),
        )
    cap = profile.max_cost_nano_usd if profile else None
    if cap is not None and (ladder.max_cost_nano_usd is None or cap < ladder.max_cost_nano_usd):
        ladder = replace(ladder, max_cost_nano_usd=cap)
    return ladder


def prefer(ladder: Ladder, preferred: Sequence[str]) -> Ladder:
    """The ladder begun with preferred models: of those that are not preferred only what stands
    above all that are is left. A ladder climbs, so a weaker model is never asked after a stronger.
    """
    if not preferred or not ladder.checked:
        return ladder
    liked = [matches(rung.model.name, preferred) for rung in ladder.rungs]
    if not any(liked) or all(liked):
        return ladder
    last = len(liked) - 1 - liked[::-1].index(True)
    rungs = tuple(rung for place, rung in enumerate(ladder.rungs) if liked[place] or place > last)
    return ladder if len(rungs) == len(ladder.rungs) else replace(ladder, rungs=rungs)


def _thresholds(
    rungs: tuple[Rung, ...], tier: TierConfig | None, wanted: QualityPreferences | None
) -> tuple[Rung, ...]:
    """A draft must reach the profile's own threshold for drafts, the top its minimum."""
    if wanted is not None:
        draft, top = wanted.draft_threshold, wanted.minimum_quality
    elif tier is not None and tier.default_quality_threshold is not None:
        draft = top = tier.default_quality_threshold
    else:
        return rungs
    most = tier.max_quality_threshold if tier is not None else None
    if most is not None:
        draft, top = min(draft, most), min(top, most)
    return (*(_raised(rung, draft) for rung in rungs[:-1]), _raised(rungs[-1], top))


def _raised(rung: Rung, threshold: float) -> Rung:
    return rung if rung.threshold >= threshold else replace(rung, threshold=threshold)


def _retries(wanted: QualityPreferences | None) -> int:
    if wanted is None:
        return MAX_RETRIES
    return wanted.max_retries if wanted.retry_on_low_quality else 0
