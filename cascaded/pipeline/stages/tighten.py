"""Tighten: what the operator's own hooks say of a call whose plan is known."""

from collections.abc import Awaitable, Callable, Set

from msgspec.structs import replace

from cascaded.pipeline.hooks import Hooks
from cascaded.policy.hooks import context_of, heeded, nothing_left
from cascaded.policy.pricing import choice_of, thinned
from cascaded.ports import Ledger, Stage, Vet
from cascaded.types.decision import Decision, Plan, Refusal
from cascaded.types.hooks import EnforcementContext
from cascaded.types.limits import Choice, Demand
from cascaded.types.request import Request

Heed = Callable[[Decision], Awaitable[Decision | Refusal]]
"""Asks `on_budget_check` of a decision with choices, also of one for an amount."""
GIVEN = Choice(nano_usd=0, tokens=0, cheap=True)
"""What an answer costs that is known already."""


def heeding(hooks: Hooks, ledger: Ledger) -> Heed:
    """Who asks the hooks about budgets."""

    async def heed(decision: Decision) -> Decision | Refusal:
        return await _heed(hooks, decision, _context(ledger, decision))

    return heed


def vetting(hooks: Hooks, ledger: Ledger) -> Vet:
    """Who asks the hooks about answers that are known already."""

    async def vet(decision: Decision, model: str) -> Decision | Refusal | None:
        free = replace(decision, choices=(GIVEN,))
        context = _context(ledger, free)
        step = await _heed(hooks, free, context)
        if isinstance(step, Refusal):
            return step
        kept = await hooks.filter(context, (model,))
        if isinstance(kept, Refusal):
            return kept
        return replace(step, choices=()) if kept else None

    return vet


def tighten(hooks: Hooks, ledger: Ledger, cheap_models: Set[str]) -> Stage:
    """A stage that lets hooks warn of a call, degrade or block it, and take models away."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        context = _context(ledger, decision)
        step = await _heed(hooks, decision, context)
        if isinstance(step, Refusal):
            return step
        if not decision.limits.budgets and len(step.menu) == len(decision.menu):
            # The cheap plan is there only for a hook to choose: without its word, and without
            # budgets, a rate that refuses the first one must not be met by another.
            step = replace(step, menu=step.menu[:1], choices=step.choices[:1])
        rungs = (rung for one in step.menu for rung in one.ladder.rungs)
        models = tuple(dict.fromkeys(one.name for rung in rungs for one in rung.models))
        kept = await hooks.filter(context, models)
        if isinstance(kept, Refusal):
            return kept
        if kept != models:
            step = _without(request, step, kept, cheap_models)
        if not step.menu:
            return nothing_left(models)
        return replace(step, narrowed=step.menu[0] is not decision.menu[0])

    return stage


async def _heed(
    hooks: Hooks, decision: Decision, context: EnforcementContext
) -> Decision | Refusal:
    said = await hooks.advise(context)
    if isinstance(said, Refusal):
        return said
    for advice in said:
        step = heeded(decision, advice)
        if isinstance(step, Refusal):
            return step
        decision = step
    return decision


def _context(ledger: Ledger, decision: Decision) -> EnforcementContext:
    assert decision.caller is not None
    choices = decision.choices
    views = ledger.peek(Demand(menu=choices, limits=decision.limits)).limits
    return context_of(decision.caller, views, choices[0].nano_usd)


def _without(
    request: Request, decision: Decision, kept: tuple[str, ...], cheap_models: Set[str]
) -> Decision:
    """The menu with these models only, each plan costed anew."""
    gone = [
        rung.model.name for rung in decision.menu[0].ladder.rungs if rung.model.name not in kept
    ]
    menu: list[Plan] = []
    choices: list[Choice] = []
    for one in decision.menu:
        plan = thinned(
            one,
            frozenset(kept),
            input_tokens=decision.input_tokens,
            asked=request.max_output_tokens is not None,
            choices=request.choices,
        )
        if plan is None:
            continue
        menu.append(plan)
        choices.append(
            choice_of(
                plan,
                input_tokens=decision.input_tokens,
                choices=request.choices,
                cheap_models=cheap_models,
            )
        )
    told = (f"The operator's model filter leaves out {', '.join(gone)}.",) if gone else ()
    return replace(
        decision,
        menu=tuple(menu),
        choices=tuple(choices),
        notices=(*decision.notices, *told),
    )
