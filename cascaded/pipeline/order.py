"""The stages of a request, in order. The order is meaning: each line says why it stands there."""

from collections.abc import Callable, Iterator, Mapping, Set

import msgspec

from cascaded.pipeline.hooks import Hooks
from cascaded.pipeline.stages.guard import guard
from cascaded.pipeline.stages.measure import measure
from cascaded.pipeline.stages.peek import peek
from cascaded.pipeline.stages.permit import permit
from cascaded.pipeline.stages.price import price
from cascaded.pipeline.stages.recall import recall
from cascaded.pipeline.stages.reserve import reserve, secure
from cascaded.pipeline.stages.resolve import Standing, resolve
from cascaded.pipeline.stages.route import route
from cascaded.pipeline.stages.tighten import tighten, vetting
from cascaded.pipeline.stages.translate import translate
from cascaded.pipeline.stages.weigh import weigh
from cascaded.policy.tokens import Vocabularies
from cascaded.ports import Audit, Cache, Guardrail, Ledger, Offload, Stage, Vet
from cascaded.types.decision import Refusal
from cascaded.types.limits import Caller, Denial
from cascaded.types.model import Ladder, Model
from cascaded.types.quality import QualityConfig, QualityMode


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the stages are made with."""

    stand: Standing
    explain: Callable[[Denial, Caller], Refusal]
    """A limit's no, in words."""
    choose: Callable[[str], Ladder | Refusal]
    cheap_models: Set[str]
    guardrail: Guardrail
    cache: Cache
    vocabularies: Vocabularies
    offload: Offload
    ledger: Ledger
    audit: Audit
    price_hash: int
    """Of the price table that holds are costed by."""
    default_max_output_tokens: int
    max_prompt_bytes: int
    quality: QualityConfig
    """How closely answers are looked at where a call does not say."""
    quality_modes: Mapping[QualityMode, QualityConfig]
    """How closely where it does."""
    judge: Model | None
    direct: Stage | None = None
    """Looks at what the question is about. `None`: no stage."""
    hooks: Hooks | None = None
    """The operator's own; `None`: no stage."""


def deciding(parts: Parts) -> tuple[Stage, ...]:
    """What leads to a plan and takes nothing: `/check` ends here. The caches are not asked: what
    they have may be gone when the call is made."""
    return (*_standing(parts), *_planning(parts))


def laddering(parts: Parts) -> tuple[Stage, ...]:
    """What leads to the ladder of a caller, and no further. A prompt that is counted elsewhere
    passes the guard, too."""
    return resolve(parts.stand), route(parts.choose), permit(), guard(parts.guardrail)


def measuring(parts: Parts) -> Stage:
    """What counts a prompt."""
    return measure(parts.vocabularies, parts.offload, parts.max_prompt_bytes)


def stages(parts: Parts) -> tuple[Stage, ...]:
    """Every step before a model is asked."""
    return (
        *_standing(parts),
        # After the guard: a forbidden prompt is not answered from a cache. Before the peek: where
        # a budget is used up, what is known already is given all the same. Before the prompt is
        # measured: a known answer needs no count.
        recall(parts.cache, parts.ledger, parts.audit, parts.explain, _vet(parts)),
        *_planning(parts),
        # takes the money; from here on the bracket settles
        reserve(parts.ledger, parts.audit, parts.explain, parts.price_hash),
        secure(parts.ledger),  # nothing is sent before a hard limit's hold is durable
    )


def _standing(parts: Parts) -> tuple[Stage, ...]:
    """Who asks, and whether it may."""
    return (
        resolve(parts.stand),  # first: everything else depends on whose it is
        route(parts.choose),  # an unknown model must cost nothing
        # needs the tier and the question; before permit: whatever the domain wants, a tier trims it
        *([] if parts.direct is None else [parts.direct]),
        permit(),  # before anything is counted: the tier may trim the ladder
        guard(parts.guardrail),  # before the caches, and before anything is said in other words
        translate(),  # what a model of the ladder cannot be asked must cost nothing
    )


def _planning(parts: Parts) -> tuple[Stage, ...]:
    """What a model would be asked, and what that can cost."""
    return (
        peek(parts.ledger, parts.explain),  # what is exhausted costs no more work than that
        measuring(parts),  # after any change
        weigh(
            parts.quality, parts.quality_modes, parts.judge
        ),  # what checks answers is in the price
        price(  # needs the count
            parts.default_max_output_tokens,
            parts.cheap_models,
            may_degrade=parts.hooks is not None,
        ),
        *_tightening(parts),  # last: hooks judge a plan with its cost, and can only take from it
    )


def _vet(parts: Parts) -> Vet | None:
    return None if parts.hooks is None else vetting(parts.hooks, parts.ledger)


def _tightening(parts: Parts) -> Iterator[Stage]:
    if parts.hooks is not None:
        yield tighten(parts.hooks, parts.ledger, parts.cheap_models)
