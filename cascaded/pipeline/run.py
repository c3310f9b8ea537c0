"""The bracket around a request: whatever happens inside, money is settled and the end recorded."""

from collections.abc import Sequence

import msgspec

from cascaded.pipeline.cascade import Climber, climb
from cascaded.ports import Answer, Audit, Ledger, Reply, Sink, Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.errors import CallerLeftError
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Outcome, Result
from cascaded.wire.openai_chat import Collector

ABANDONED = Refusal(code="abandoned", message="The caller left, or the time for the call was up.")
ACCESS_REFUSALS = frozenset({"forbidden", "model_forbidden", "feature_forbidden"})
FAULTED = Refusal(code="internal_error", message="The daemon failed on this call; see its log.")


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a request passes through."""

    stages: Sequence[Stage]
    climber: Climber
    ledger: Ledger
    audit: Audit
    sink: Sink


async def run(pipeline: Pipeline, request: Request, reply: Reply) -> Outcome:
    """Take one request through the stages and up its ladder.

    Settling is synchronous and stands in `finally`: neither a cancellation nor a bug splits it.
    """
    clock = pipeline.climber.clock
    decision = Decision()
    book: list[Attempt] = []
    end: Result | Refusal = ABANDONED
    try:
        for stage in pipeline.stages:
            step = await stage(request, decision)
            if not isinstance(step, Decision):
                end = step if isinstance(step, Refusal) else await _replay(step, reply)
                break
            decision = step
        else:
            end = await climb(pipeline.climber, request, decision, reply, book)
    except CallerLeftError:
        pass  # there is nobody to tell; the bracket settles and the record says it
    except Exception:
        end = FAULTED
        raise
    finally:
        _close_books(pipeline, request, decision, end, book)
        elapsed_ns = clock.monotonic_ns() - request.received_ns
        outcome = Outcome(decision=decision, end=end, attempts=tuple(book), elapsed_ns=elapsed_ns)
        pipeline.sink.record(request, outcome)
    return outcome


def _close_books(
    pipeline: Pipeline,
    request: Request,
    decision: Decision,
    end: Result | Refusal,
    book: Sequence[Attempt],
) -> None:
    """Settle the hold, if there is one, and tell the audit log how it ended."""
    actor, caller = request.principal.id, decision.caller
    if decision.hold is not None:
        receipt = pipeline.ledger.settle(decision.hold.id, book)
        assert caller is not None
        pipeline.audit.settled(
            receipt,
            actor=actor,
            user_id=caller.user_id,
            request_id=request.id,
            level=decision.audit_level,
        )
    elif isinstance(end, Refusal) and end.code in ACCESS_REFUSALS:
        pipeline.audit.access(
            f"model:{request.model}",
            actor=actor,
            allowed=False,
            reason=end.message,
            user_id=caller.user_id if caller else None,
            request_id=request.id,
        )


async def _replay(answer: Answer, reply: Reply) -> Result:
    """Give an answer that is already known."""
    collected = Collector()
    for event in answer.events:
        collected.add(event)
        await reply.send(event)
    return Result(answer=collected.completion(), cache=answer.source)
