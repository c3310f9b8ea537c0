"""Reserve: set the worst case aside before anything is spent, and wait until that is safe."""

from collections.abc import Callable

from msgspec.structs import replace

from cascaded.ports import Audit, Ledger, Stage
from cascaded.types.decision import Decision, Hold, Refusal
from cascaded.types.limits import Admitted, Caller, Demand, Denial
from cascaded.types.request import Request

DEGRADED = "A budget is nearly used up: only cheaper models were considered."
DOUBTED = "A budget is nearly used up: no fallback is asked after a call that may have been billed."


def reserve(
    ledger: Ledger,
    audit: Audit,
    explain: Callable[[Denial, Caller], Refusal],
    price_hash: int,
) -> Stage:
    """A stage that takes the hold. It never waits, so no cancellation can lose the hold."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        caller = decision.caller
        assert caller is not None
        answer = ledger.admit(
            Demand(
                menu=decision.choices,
                limits=decision.limits,
                price_hash=price_hash,
                label=(request.id, caller.user_id, ""),
            )
        )
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
        return explain(answer, caller) if isinstance(answer, Denial) else _taken(decision, answer)

    return stage


def _taken(decision: Decision, admitted: Admitted) -> Decision:
    plan = decision.menu[admitted.choice]
    degraded: tuple[str, ...] = ()
    if admitted.choice > 0:
        same = plan.ladder.rungs == decision.menu[0].ladder.rungs
        degraded = (DOUBTED,) if same else (DEGRADED,)
    return replace(
        decision,
        ladder=plan.ladder,
        max_output_tokens=plan.max_output_tokens,
        hold=Hold(
            id=admitted.hold,
            seq=admitted.seq,
            nano_usd=admitted.nano_usd,
            clear=admitted.clear,
        ),
        warnings=admitted.warnings,
        notices=(*decision.notices, *plan.notices, *degraded),
    )


def secure(ledger: Ledger) -> Stage:
    """A stage that returns once a crash cannot make the hold be forgotten, or what is forgotten
    is charged: the ledger said whether there is anything to wait for."""

    async def stage(request: Request, decision: Decision) -> Decision:  # noqa: ARG001
        assert decision.hold is not None
        if not decision.hold.clear:
            await ledger.durable(decision.hold.seq)
        return decision

    return stage
