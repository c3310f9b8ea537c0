"""Recall: whether the answer is already known."""

from collections.abc import Callable

from msgspec.structs import replace

from cascaded.ports import Answer, Audit, Cache, Ledger, Stage, Vet
from cascaded.types.decision import Decision, Hold, Refusal
from cascaded.types.limits import Admitted, Caller, Choice, Demand, Denial
from cascaded.types.recalled import Recalled
from cascaded.types.request import Request

NOTHING = Choice(nano_usd=0, tokens=0, cheap=True)
"""What an earlier answer takes: a request, and neither money nor tokens."""
EXACT = "exact"


def recall(
    cache: Cache,
    ledger: Ledger,
    audit: Audit,
    explain: Callable[[Denial, Caller], Refusal],
    vet: Vet | None = None,
) -> Stage:
    """A stage that ends the list with an earlier answer, if the cache has one. It counts as a
    request; no budget is in its way. `vet`: of the operator's hooks, if there are any."""

    async def stage(request: Request, decision: Decision) -> Decision | Answer | Refusal:
        found = await cache.recall(request, decision)
        if not isinstance(found, Recalled):
            return found
        if vet is not None:
            step = await vet(decision, found.model)
            if isinstance(step, Refusal):
                return step
            if step is None:
                return replace(decision, cache="miss")
            decision = step
        decision = replace(decision, cache="hit")
        caller = decision.caller
        if decision.limits.rates:
            assert caller is not None
            label = (request.id, caller.user_id, "")
            demand = Demand(menu=(NOTHING,), limits=decision.limits, label=label)
            answer = ledger.admit(demand)
            if isinstance(answer, Refusal):
                return answer
            assert isinstance(answer, Admitted | Denial)  # `Existing` needs an idempotency key
            audit.reserved(
                answer,
                actor=request.principal.id,
                user_id=caller.user_id,
                request_id=request.id,
                level=decision.audit_level,
            )
            if isinstance(answer, Denial):
                return explain(answer, caller)
            hold = Hold(id=answer.hold, seq=answer.seq, nano_usd=0)
            decision = replace(decision, hold=hold, warnings=answer.warnings)
        return Answer(recalled=found, source=EXACT, decision=decision)

    return stage
