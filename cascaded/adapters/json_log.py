"""The log: one JSON object a line."""

import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO, Literal

import msgspec

from cascaded.ports import Clock
from cascaded.types.decision import Refusal
from cascaded.types.money import format_usd
from cascaded.types.request import Request
from cascaded.types.result import Outcome
from cascaded.types.secret import Secret
from cascaded.types.times import NS_PER_S

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")
MAX_CAUSES = 8
NS_PER_MS = 1_000_000


def _redact(value: object) -> str:
    """Secrets and anything else without a JSON form show their type, never their content."""
    return "[secret]" if isinstance(value, Secret) else f"[{type(value).__name__}]"


def _causes(fault: BaseException) -> Iterator[BaseException]:
    """The exception, what it was raised from, and so on."""
    link: BaseException | None = fault
    for _ in range(MAX_CAUSES):
        if link is None:
            return
        yield link
        link = link.__cause__ or link.__context__


def _where(fault: BaseException) -> str:
    return f"{type(fault).__name__}:\n{''.join(traceback.format_tb(fault.__traceback__))}"


class JsonLog:
    """Writes lines to a stream; as a `ports.Sink`, one for every finished request."""

    def __init__(self, stream: BinaryIO, clock: Clock, *, level: Level, prompts: bool) -> None:
        self.turn_to(stream, level=level, prompts=prompts)
        self._clock = clock
        self._lost = 0
        self._encode = msgspec.json.Encoder(enc_hook=_redact).encode

    def turn_to(self, stream: BinaryIO, *, level: Level, prompts: bool) -> None:
        """From now on write there, and so much."""
        self._stream = stream
        self._threshold = LEVELS.index(level)
        self._prompts = prompts

    def write(self, level: Level, event: str, **fields: object) -> None:
        """One line, if the level is high enough.

        Never raises: the first line that can be written again tells how many could not.
        """
        if LEVELS.index(level) < self._threshold:
            return
        when = datetime.fromtimestamp(self._clock.wall_ns() / NS_PER_S, UTC)
        line = {"ts": when.isoformat(timespec="milliseconds"), "level": level, "event": event}
        lost = {"lost_lines": self._lost} if self._lost else {}
        try:
            self._stream.write(self._encode({**line, **fields, **lost}) + b"\n")
            self._stream.flush()
        # A full disk or a reader that left must not stop the calls; nor must a stream that another
        # thread closes at this moment, because it turned to another one.
        except (OSError, ValueError):
            self._lost += 1
        else:
            self._lost = 0

    def fault(self, request_id: str, fault: BaseException) -> None:
        """A bug, with its traceback, which shows code. Not the exception's own words, nor those
        of its causes: they may quote a prompt or a key."""
        chain = "".join(_where(one) for one in _causes(fault))
        self.write("error", "fault", request_id=request_id, traceback=chain)

    def record(self, request: Request, outcome: Outcome) -> None:
        """See `ports.Sink.record`."""
        end = outcome.end
        refused = end if isinstance(end, Refusal) else None
        answered = None if isinstance(end, Refusal) else end.answered_by
        caller = outcome.decision.caller
        line: dict[str, object] = {
            "request_id": request.id,
            "principal": request.principal.id,
            "user_id": caller.user_id if caller else None,
            "kind": request.kind,
            "model": request.model,
            "stream": request.stream,
            "status": refused.code if refused else "ok",
            "cache": outcome.decision.cache,
            "model_used": None if isinstance(end, Refusal) else end.model_used,
            "attempts": [attempt.model.name for attempt in outcome.attempts],
            "errors": [attempt.error for attempt in outcome.attempts if attempt.error],
            "quality_score": answered and answered.verdict and answered.verdict.score,
            "input_tokens": answered and answered.usage.input_tokens,
            "output_tokens": answered and answered.usage.output_tokens,
            "cost_usd": format_usd(outcome.total_nano_usd),
            "latency_ms": round(outcome.elapsed_ns / NS_PER_MS, 3),
            "first_token_ms": outcome.first_token_ns
            and round(outcome.first_token_ns / NS_PER_MS, 3),
            "overhead_ms": round(outcome.overhead_ns / NS_PER_MS, 3),
        }
        if outcome.findings:
            line["guardrails"] = outcome.findings
        if refused and refused.code != "abandoned":
            line["message"] = refused.message
        if request.trace is not None:
            line["trace_id"] = f"{request.trace.trace_id:032x}"
        if self._prompts:
            line["messages"] = request.messages or request.texts
            line["answer"] = (
                None if isinstance(end, Refusal) else outcome.unrestored(end.answer.text)
            )
        self.write("info", "request", **line)
