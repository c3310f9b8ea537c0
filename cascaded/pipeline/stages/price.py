"""Price: the worst that this request can cost, and what must give for it to stay in bounds."""

from collections.abc import Callable, Set

from msgspec.structs import replace

from cascaded.policy.limits import prefer
from cascaded.policy.pricing import output_bound, plan
from cascaded.ports import Stage
from cascaded.types.decision import Decision, Plan, Refusal
from cascaded.types.limits import Choice
from cascaded.types.model import Ladder, Model, Rung
from cascaded.types.request import Request
from cascaded.wire.openai_chat import MAX_OUTPUT_TOKENS, unpriced_members


def price(default_max_output_tokens: int, cheap_models: Set[str]) -> Stage:
    """A stage that bounds the answer's length, trims the ladder to the caps, and puts what would
    do on the menu: the ladder, preferred models first, then its first rung alone.

    `cheap_models` are those that may still be asked when a budget is nearly used up.
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

        menu = _menu(ladder, decision, planned, cheap_models)
        if isinstance(menu, Refusal):
            return menu
        choices = tuple(_choice(one, request, decision, cheap_models) for one in menu)
        notices = (*decision.notices, *((_dearer(unpriced),) if unpriced else ()))
        return replace(decision, menu=tuple(menu), choices=choices, notices=notices)

    return stage


def _menu(
    ladder: Ladder,
    decision: Decision,
    planned: Callable[[Ladder], Plan | Refusal],
    cheap_models: Set[str],
) -> list[Plan] | Refusal:
    """The ladder, begun with preferred models where that fits; for budgets that are nearly used
    up also with less held for fallbacks, and its first rung alone, whoever is preferred."""
    best = planned(wanted := prefer(ladder, decision.preferred))
    if isinstance(best, Refusal) and wanted is not ladder:
        best = planned(wanted := ladder)
    if isinstance(best, Refusal):
        return best
    menu = [best]
    if not decision.limits.budgets:
        return menu
    first = best.ladder.rungs[:1] if wanted is ladder else ladder.rungs[:1]
    lesser: list[Ladder] = []
    if any(rung.fallbacks for rung in wanted.rungs):
        if best.ladder.doubt_covered:
            lesser.append(replace(wanted, doubt_covered=False))
        first = (_cheap(first[0], cheap_models),)
    if best.ladder.rungs != first:
        covered = ladder.doubt_covered and not first[0].fallbacks
        lesser.append(replace(ladder, rungs=first, top_retries=0, doubt_covered=covered))
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


def _choice(planned: Plan, request: Request, decision: Decision, cheap_models: Set[str]) -> Choice:
    """The plan as the ledger sees it: its worst cost, and the tokens of its longest path."""
    ladder = planned.ladder
    longest = list(ladder.rungs)
    longest += longest[-1:] * (ladder.top_retries if ladder.checked else 0)

    def tokens(model: Model) -> int:
        bound = output_bound(model, planned.max_output_tokens)
        return decision.input_tokens + request.choices * bound

    most = sum if ladder.doubt_covered else max
    cheap = planned.worst_nano_usd == 0 or all(
        model.name in cheap_models for rung in ladder.rungs for model in rung.models
    )
    return Choice(
        nano_usd=planned.worst_nano_usd,
        tokens=sum(most(map(tokens, rung.models)) for rung in longest),
        cheap=cheap,
    )
