"""What happened to a call, as spans: one for it, and below it one for each call to a provider.

Names are those of the GenAI conventions where they have one
(https://opentelemetry.io/docs/specs/semconv/gen-ai/), else `cascaded.…`. Tokens stand at the calls
to providers alone, so that nobody counts them twice.
"""

from collections.abc import Iterator, Mapping

import msgspec
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from cascaded.adapters.otel.values import Value, pairs
from cascaded.types.decision import Refusal
from cascaded.types.model import Kind
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Completion, Outcome
from cascaded.types.times import NS_PER_S
from cascaded.types.tracing import Trace

OPERATIONS: Mapping[Kind, str] = {
    "chat": "chat",
    "completion": "text_completion",
    "embedding": "embeddings",
}
MAX_CONTENT = 16 * 1024
"""Characters of a prompt, and of an answer; what is longer is left out with a note."""
_TRACE_BYTES, _SPAN_BYTES = 16, 8
_REMOTE = 0x100 | 0x200
"""Flags: it is known whether the parent is in another process, and it is."""
_encode = msgspec.json.Encoder().encode


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """What spans are made of: little, so that many may wait. Times are by the wall clock."""

    trace: Trace
    operation: str
    attributes: dict[str, Value]
    error: str | None
    attempts: tuple[Attempt, ...]
    rungs: int
    """How many the ladder had."""
    finish_reason: str | None
    stream: bool
    start_ns: int
    elapsed_ns: int
    clock_ns: int
    """What the wall clock is before the monotonic one."""


def story_of(
    trace: Trace,
    request: Request,
    outcome: Outcome,
    clock_ns: int,
    *,
    users: bool,
    content: bool,
) -> Story:
    """All that is told of a call. `users`: who it was for; `content`: what was said."""
    end, decision = outcome.end, outcome.decision
    answered = None if isinstance(end, Refusal) else end
    by = answered and answered.answered_by
    ladder, caller = decision.ladder, decision.caller
    attributes: dict[str, Value] = {
        "gen_ai.request.model": request.model if ladder else None,
        "gen_ai.request.max_tokens": request.max_output_tokens,
        "gen_ai.request.stream": request.stream or None,
        "gen_ai.response.model": by.model.name if by else None,
        "cascaded.request_id": request.id,
        "cascaded.ladder": ladder.name if ladder else None,
        "cascaded.cache": decision.cache,
        "cascaded.domain": decision.domain,
        "cascaded.complexity": decision.complexity,
        "cascaded.escalated": by.rung > 0 if by else None,
        "cascaded.flagged": answered.flagged if answered else None,
        "cascaded.guardrails": [
            f"{one.guardrail}/{one.category}/{one.action}" for one in outcome.findings
        ]
        or None,
        "cascaded.cost_nano_usd": outcome.total_nano_usd,
        "cascaded.saved_nano_usd": answered.saved_nano_usd if answered else None,
        "cascaded.overhead_seconds": outcome.overhead_ns / NS_PER_S,
        "cascaded.tier": caller.tier if caller else None,
    }
    if users and caller:
        attributes["user.id"] = caller.user_id
        attributes["cascaded.organization_id"] = caller.organization_id
        attributes["cascaded.workspace_id"] = caller.workspace_id
    if content:
        attributes["gen_ai.input.messages"] = _asked(request)
        attributes["gen_ai.output.messages"] = _said(answered.answer, outcome) if answered else None
    return Story(
        trace=trace,
        operation=OPERATIONS[request.kind],
        attributes=attributes,
        error=end.code if isinstance(end, Refusal) else None,
        attempts=outcome.attempts,
        rungs=len(ladder.rungs) if ladder else 0,
        finish_reason=answered.answer.finish_reason if answered else None,
        stream=request.stream,
        start_ns=request.received_ns + clock_ns,
        elapsed_ns=outcome.elapsed_ns,
        clock_ns=clock_ns,
    )


def spans_of(story: Story) -> Iterator[Span]:
    """The call's, then those of its attempts."""
    trace, ladder = story.trace, story.attributes["cascaded.ladder"]
    yield Span(
        trace_id=trace.trace_id.to_bytes(_TRACE_BYTES),
        span_id=trace.span_id.to_bytes(_SPAN_BYTES),
        parent_span_id=_parent(trace),
        trace_state=trace.state,
        flags=_REMOTE | trace.sampled if trace.parent_id else 0,
        name=f"{story.operation} {ladder}" if ladder else story.operation,
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=story.start_ns,
        end_time_unix_nano=story.start_ns + story.elapsed_ns,
        attributes=pairs(
            {"gen_ai.operation.name": story.operation, "error.type": story.error} | story.attributes
        ),
        status=_status(story.error),
    )
    for index, attempt in enumerate(story.attempts):
        yield _attempt(story, index, attempt)


def _attempt(story: Story, index: int, attempt: Attempt) -> Span:
    trace, model, usage = story.trace, attempt.model, attempt.usage
    start_ns = attempt.started_ns + story.clock_ns
    streamed = story.stream and attempt.first_token_ns is not None
    return Span(
        trace_id=trace.trace_id.to_bytes(_TRACE_BYTES),
        span_id=trace.attempt_id(index).to_bytes(_SPAN_BYTES),
        parent_span_id=trace.span_id.to_bytes(_SPAN_BYTES),
        trace_state=trace.state,
        name=f"{story.operation} {model.upstream_name}",
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + attempt.latency_ns,
        attributes=pairs(
            {
                "gen_ai.operation.name": story.operation,
                "gen_ai.provider.name": model.provider,
                "gen_ai.request.model": model.upstream_name,
                "gen_ai.request.stream": story.stream or None,
                "gen_ai.response.finish_reasons": [story.finish_reason]
                if attempt.accepted and story.finish_reason
                else None,
                "gen_ai.response.time_to_first_chunk": attempt.first_token_ns / NS_PER_S
                if streamed and attempt.first_token_ns is not None
                else None,
                "gen_ai.usage.input_tokens": usage.input_tokens,
                "gen_ai.usage.output_tokens": usage.output_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens or None,
                "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens or None,
                "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens or None,
                "error.type": attempt.error,
                "cascaded.role": _role(story, attempt),
                "cascaded.rung": attempt.rung,
                "cascaded.accepted": attempt.accepted,
                "cascaded.score": attempt.verdict.score if attempt.verdict else None,
                "cascaded.failed_checks": list(attempt.verdict.failed) if attempt.verdict else None,
                "cascaded.billing": attempt.billing,
                "cascaded.cost_nano_usd": attempt.cost_nano_usd,
                "cascaded.tokens_estimated": usage.estimated or None,
            }
        ),
        status=_status(attempt.error),
    )


def _role(story: Story, attempt: Attempt) -> str:
    if story.rungs == 1:
        return "only"
    return "verifier" if attempt.rung else "draft"


def _parent(trace: Trace) -> bytes:
    return trace.parent_id.to_bytes(_SPAN_BYTES) if trace.parent_id else b""


def _status(error: str | None) -> Status:
    return Status() if error is None else Status(code=Status.STATUS_CODE_ERROR, message=error)


def _asked(request: Request) -> str:
    """The prompt as it was sent, in the conventions' envelope."""
    messages = [
        {
            "role": one.get("role", "user"),
            "parts": [{"type": "text", "content": one.get("content")}],
        }
        for one in (msgspec.json.decode(raw, type=dict) for raw in request.messages)
    ] or [
        {"role": "user", "parts": [{"type": "text", "content": text}]}
        for text in request.texts
        if isinstance(text, str)
    ]
    return _bounded(messages)


def _said(answer: Completion, outcome: Outcome) -> str:
    parts: list[dict[str, object]] = [{"type": "text", "content": outcome.unrestored(answer.text)}]
    parts += (
        {"type": "tool_call", "name": name, "arguments": outcome.unrestored(arguments)}
        for name, arguments in answer.tool_calls
    )
    return _bounded(
        [{"role": "assistant", "parts": parts, "finish_reason": answer.finish_reason or ""}]
    )


def _bounded(messages: list[dict[str, object]]) -> str:
    text = _encode(messages).decode()
    if len(text) <= MAX_CONTENT:
        return text
    note = f"left out: {len(text)} characters, more than {MAX_CONTENT}"
    return _encode([{"role": "user", "parts": [{"type": "text", "content": note}]}]).decode()
