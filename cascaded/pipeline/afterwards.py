"""Afterwards: answers that have gone out, looked at as closely as their mode says. It marks and
counts; nobody waits for it."""

import asyncio
from collections.abc import Callable

import msgspec

from cascaded.pipeline.scrutiny import Scrutiny, scrutinise
from cascaded.types.decision import Decision
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Completion, Outcome, Result, Verdict

MAX_WAITING = 1_000
"""Answers that wait to be looked at. One more is left alone, and counted."""

Tell = Callable[[Request, Attempt, Verdict], None]
"""Hears of each that is not good enough: whose answer it was, and what is to be said of it."""


class AfterwardsFigures(msgspec.Struct):
    """How many answers were looked at after they had gone out. Grows."""

    good: int = 0
    low: int = 0
    dropped: int = 0
    failed: int = 0


class Afterwards:
    """A `ports.Sink` that puts answers of mode `async` by, and the work on them."""

    def __init__(self, tell: Tell) -> None:
        self.figures = AfterwardsFigures()
        self._tell = tell
        self._waiting: asyncio.Queue[tuple[Request, Decision, Completion, Attempt]]
        self._waiting = asyncio.Queue(MAX_WAITING)

    def record(self, request: Request, outcome: Outcome) -> None:
        """See `ports.Sink.record`."""
        decision, end = outcome.decision, outcome.end
        quality = decision.quality
        if quality.validation_mode != "async" or quality.rules_only:
            return
        if not isinstance(end, Result) or end.answered_by is None:
            return
        if end.answered_by.verdict is None:
            return
        try:
            self._waiting.put_nowait((request, decision, end.answer, end.answered_by))
        except asyncio.QueueFull:
            self.figures.dropped += 1

    async def work(self, scrutiny: Callable[[], Scrutiny]) -> None:
        """Look at them, one by one, until cancelled. `scrutiny`: of the configuration in force."""
        while True:
            waiting = await self._waiting.get()
            await self._look(scrutiny(), *waiting)

    async def _look(
        self,
        scrutiny: Scrutiny,
        request: Request,
        decision: Decision,
        answer: Completion,
        line: Attempt,
    ) -> None:
        assert decision.ladder is not None
        threshold = decision.ladder.rungs[line.rung].threshold
        try:
            verdict = await scrutinise(
                scrutiny,
                request,
                decision,
                answer,
                model=line.model.name,
                threshold=threshold,
                samplers=(),
                judge=None,
            )
            good = verdict.score >= threshold
            self.figures.good += good
            self.figures.low += not good
            if not good:
                self._tell(request, line, verdict)
        except Exception:  # a fault here concerns no call: it is counted, and the next one comes
            self.figures.failed += 1
