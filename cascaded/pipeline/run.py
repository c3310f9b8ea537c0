"""The bracket around a request: whatever happens inside, money is settled and the end recorded."""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from cascaded.pipeline.cascade import Climber, climb
from cascaded.ports import (
    Answer,
    Audit,
    Cache,
    Guardrail,
    Ledger,
    Reply,
    Screened,
    Sink,
    Stage,
)
from cascaded.types.decision import Decision, Refusal
from cascaded.types.errors import BlockedError, CallerLeftError
from cascaded.types.event import Event
from cascaded.types.recalled import Whole
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Outcome, Result
from cascaded.wire.openai_chat import Collector, WireError
from cascaded.wire.whole.forms import Gathered, replayed

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
    cache: Cache
    guardrail: Guardrail


class Overheard:
    """A reply that gathers what passes through it."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.cache = reply.cache
        self._gathered: Gathered | None = Gathered()

    @property
    def committed(self) -> bool:
        """Whether anything was sent."""
        return self._reply.committed

    async def send(self, event: Event) -> None:
        """Pass it on."""
        await self._reply.send(event)
        if self._gathered is not None:
            try:
                self._gathered.add(event)
            except WireError:  # it cannot be kept; what the caller makes of it is his affair
                self._gathered = None

    def whole(self) -> Whole | None:
        """What was sent, as one answer, if it makes one."""
        return None if self._gathered is None else self._gathered.whole()


class Walk:
    """A call on its way through stages: what it is by now, and what was decided."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.decision = Decision()
        self.overheard: Overheard | None = None

    async def through(self, stages: Sequence[Stage]) -> Refusal | Answer | None:
        """Take it through all of them. What ends it early, if something does."""
        for stage in stages:
            step = await stage(self.request, self.decision)
            if isinstance(step, Refusal):
                return step
            if isinstance(step, Answer):
                self.decision = step.decision
                return step
            self.decision = step
            if step.asked is not None:
                self.request = step.asked
        return None


async def run(pipeline: Pipeline, request: Request, reply: Reply) -> Outcome:
    """Take one request through the stages and up its ladder.

    Settling is synchronous and stands in `finally`: neither a cancellation nor a bug splits it.
    """
    clock = pipeline.climber.clock
    walk = Walk(request)
    book: list[Attempt] = []
    end: Result | Refusal = ABANDONED
    try:
        step = await walk.through(pipeline.stages)
        end = (
            step if isinstance(step, Refusal) else await _answer(pipeline, walk, step, reply, book)
        )
    except BlockedError as blocked:
        end = blocked.refusal
    except CallerLeftError:
        pass  # there is nobody to tell; the bracket settles and the record says it
    except Exception:
        end = FAULTED
        raise
    finally:
        request, decision = walk.request, walk.decision
        try:
            _close_books(pipeline, request, decision, end, book)
            _tell_findings(pipeline, request, decision, end)
        finally:
            if decision.memo is not None:
                whole = walk.overheard.whole() if walk.overheard else None
                pipeline.cache.conclude(request, decision, end, whole)
        elapsed_ns = clock.monotonic_ns() - request.received_ns
        spoke_ns = end.spoke_ns if isinstance(end, Result) else None
        outcome = Outcome(
            decision=decision,
            end=end,
            attempts=tuple(book),
            elapsed_ns=elapsed_ns,
            first_token_ns=None if spoke_ns is None else spoke_ns - request.received_ns,
        )
        pipeline.sink.record(request, outcome)
    return outcome


async def _answer(
    pipeline: Pipeline, walk: Walk, known: Answer | None, reply: Reply, book: list[Attempt]
) -> Result | Refusal:
    """What is known already, or what the ladder says; looked through where there are guardrails."""
    request, decision, climber = walk.request, walk.decision, pipeline.climber
    reply.cache = decision.cache
    screening = pipeline.guardrail.screening(request, decision)
    screened: Screened | None = None
    if screening is not None:
        reply = screened = screening.over(reply)
        climber = replace(climber, screening=screening)
    if known is not None:
        end: Result | Refusal = await _replay(known, request, reply, climber.clock.monotonic_ns())
    else:
        if decision.memo is not None:  # what is kept is what the model said
            reply = walk.overheard = Overheard(reply)
        end = await climb(climber, request, decision, reply, book)
    if screened is not None and isinstance(end, Result):
        await screened.end()
        end = replace(end, answer=screened.answer, findings=screened.findings)
    return end


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


def _tell_findings(
    pipeline: Pipeline, request: Request, decision: Decision, end: Result | Refusal
) -> None:
    """Put on record what guardrails found."""
    findings = (*decision.findings, *end.findings)
    if findings:
        pipeline.audit.guarded(
            findings,
            actor=request.principal.id,
            user_id=decision.caller.user_id if decision.caller else None,
            request_id=request.id,
            level=decision.audit_level,
        )


async def _replay(answer: Answer, request: Request, reply: Reply, now_ns: int) -> Result:
    """Give an answer that is already known, in the form that is asked for."""
    recalled, collected = answer.recalled, Collector()
    whole = Whole(recalled.form, recalled.raw)
    for event in replayed(whole, request.kind, stream=request.stream):
        collected.add(event)
        await reply.send(event)
    return Result(
        answer=collected.completion(),
        cache=answer.source,
        recalled=recalled,
        saved_nano_usd=recalled.full_nano_usd,
        full_nano_usd=recalled.full_nano_usd,
        reference_priced=recalled.reference_priced,
        spoke_ns=now_ns if request.stream else None,
    )
