"""Weigh: how closely the answers of this call are looked at, and which calls that may take."""

from collections.abc import Mapping

from msgspec.structs import replace

from cascaded.policy.limits.access import trim_ladder
from cascaded.ports import Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.model import Ladder, Model, Rung
from cascaded.types.quality import QualityConfig, QualityMode
from cascaded.types.request import Request


def weigh(
    usual: QualityConfig, named: Mapping[QualityMode, QualityConfig], judge: Model | None
) -> Stage:
    """A stage that sets how answers are judged: as the call says (one of `named`), else as usual;
    and puts samples and a judge on the ladder, so that they are in its price."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        ladder = decision.ladder
        assert ladder is not None
        asked = request.quality_mode
        quality = _wanted(usual if asked is None else named[asked], decision)
        if quality.rules_only or not ladder.checked:
            return decision
        if quality.validation_mode == "async":
            return replace(decision, quality=quality)
        samples = quality.selfcheck_samples if _is_sampled(quality, decision) else 0
        judged = judge if judge is not None and _may_see(judge, decision) else None
        if samples or judged is not None:
            ladder = replace(ladder, samples=samples, judge=judged)
        return replace(decision, quality=quality, ladder=ladder)

    return stage


def _wanted(quality: QualityConfig, decision: Decision) -> QualityConfig:
    """With what the caller's profile asks for."""
    wanted = decision.profile.quality_preferences if decision.profile else None
    if (
        wanted is None
        or not wanted.enable_semantic_validation
        or quality.similarity_min is not None
    ):
        return quality
    return replace(quality, similarity_min=QualityConfig.balanced().similarity_min)


def _is_sampled(quality: QualityConfig, decision: Decision) -> bool:
    return not quality.selfcheck_domains or decision.domain in quality.selfcheck_domains


def _may_see(judge: Model, decision: Decision) -> bool:
    """Whether a judge may be shown this caller's words: tier, profile and regions hold for it."""
    alone = Ladder(name="judge", rungs=(Rung(model=judge),))
    return not isinstance(trim_ladder(alone, decision.tier, decision.profile), Refusal)
