"""Peek: refuse at once what is exhausted already, before any work is done for it."""

from collections.abc import Callable

from cascaded.policy.pricing import is_free
from cascaded.ports import Ledger, Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.limits import Caller, Choice, Demand, Denial
from cascaded.types.request import Request

LEAST = Choice(nano_usd=1, tokens=1, cheap=True)
"""What does not even have room for this has room for nothing that costs."""
FREE = Choice(nano_usd=0, tokens=1, cheap=True)
"""A free model is asked whatever was spent; only rates can refuse it."""


def peek(ledger: Ledger, explain: Callable[[Denial, Caller], Refusal]) -> Stage:
    """A stage that looks and takes nothing; `reserve` decides."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:  # noqa: ARG001
        limits = decision.limits
        if not limits.budgets and not limits.rates:
            return decision
        assert decision.caller is not None
        least = FREE if _begins_free(decision) else LEAST
        denial = ledger.denied(Demand(menu=(least,), limits=limits))
        return decision if denial is None else explain(denial, decision.caller)

    return stage


def _begins_free(decision: Decision) -> bool:
    assert decision.ladder is not None
    price = decision.ladder.rungs[0].model.price
    return price is not None and is_free(price)
