"""Price: the worst that this request can cost, and what must give for it to stay in bounds."""

from collections.abc import Callable, Set

from msgspec.structs import replace

from cascaded.policy.limits import prefer
from cascaded.policy.pricing import choice_of, plan, unquestioned
from cascaded.ports import Stage
from cascaded.types.decision import Decision, Plan, Refusal
from cascaded.types.model import Ladder, Rung
from cascaded.types.request import Request
from cascaded.wire.openai_chat import MAX_OUTPUT_TOKENS, unpriced_members


def price(
    default_max_output_tokens: int, cheap_models: Set[str], *, may_degrade: bool = False
) -> Stage:
    """A stage that bounds the answer's length, trims the ladder to the caps, and puts what would
    do on the menu: the ladder, preferred models first, then its first rung alone.

    `cheap_models` are those that may still be asked when a budget is nearly used up.
    `may_degrade`: somebody may ask for them although there is no budget.
    """

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        ladder = decision.ladder
        assert ladder is not None
        beside = request.original.unpriced if request.original else ()
        unpriced = ", ".join((*unpriced_members(request.fields), *beside))
        if unpriced and decision.limits.hard:
            return _unbounded(unpriced)
        cap = decision.output_cap or MAX_OUTPUT_TOKENS
        asked = None if request.max_output_tokens is None else min(request.max_output_tokens, cap)

        def planned(wanted: Ladder) -> Plan | Refusal:
            return plan(
                wanted,
                input_tokens=decision.input_tokens,
                asked_max_output=asked,
                choices=request.choices,
                max_cost_nano_usd=request.max_cost_nano_usd,
                default_max_output=min(default_max_output_tokens, cap),
            )

        menu = _menu(ladder, decision, planned, cheap_models, may_degrade=may_degrade)
        if isinstance(menu, Refusal):
            return menu
        choices = tuple(
            choice_of(
                one,
                input_tokens=decision.input_tokens,
                choices=request.choices,
                cheap_models=cheap_models,
            )
            for one in menu
        )
        notices = (*decision.notices, *((_dearer(unpriced),) if unpriced else ()))
        return replace(decision, menu=tuple(menu), choices=choices, notices=notices)

    return stage


def _menu(
    ladder: Ladder,
    decision: Decision,
    planned: Callable[[Ladder], Plan | Refusal],
    cheap_models: Set[str],
    *,
    may_degrade: bool,
) -> list[Plan] | Refusal:
    """The ladder, begun with preferred models where that fits; for budgets that are nearly used
    up also with less held for fallbacks, and its first rung alone, whoever is preferred."""
    best = planned(wanted := prefer(ladder, decision.preferred))
    if isinstance(best, Refusal) and wanted is not ladder:
        best = planned(wanted := ladder)
    if isinstance(best, Refusal):
        return best
    menu = [best]
    if not decision.limits.budgets and not may_degrade:
        return menu
    first = best.ladder.rungs[:1] if wanted is ladder else ladder.rungs[:1]
    lesser: list[Ladder] = []
    if any(rung.fallbacks for rung in wanted.rungs):
        if best.ladder.doubt_covered:
            lesser.append(replace(wanted, doubt_covered=False))
        first = (_cheap(first[0], cheap_models),)
    if best.ladder.rungs != first:
        covered = ladder.doubt_covered and not first[0].fallbacks
        plain = unquestioned(ladder)
        lesser.append(replace(plain, rungs=first, top_retries=0, doubt_covered=covered))
    return [best, *(plan for plan in map(planned, lesser) if isinstance(plan, Plan))]


def _cheap(rung: Rung, cheap_models: Set[str]) -> Rung:
    """The rung with those of its fallbacks that may still be asked when little is left."""
    spare = tuple(model for model in rung.fallbacks if model.name in cheap_models)
    return replace(rung, fallbacks=spare)


def _unbounded(members: str) -> Refusal:
    return Refusal(
        code="price_unknown",
        message=f"{members} makes the call dearer by an amount that is not known here, so no hard"
        " budget could be kept. Leave it out, or ask under limits that only warn.",
        param=members,
    )


def _dearer(members: str) -> str:
    return f"{members} is billed above the list price that the costs here are worked out at."
