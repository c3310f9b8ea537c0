"""Our own dialect: `POST /infer` and the metadata that every answer carries. Pure."""

from typing import Annotated

import msgspec

from cascaded.types.decision import Decision
from cascaded.types.model import Rung, StreamMode
from cascaded.types.money import MoneyError, format_usd, parse_usd
from cascaded.types.quality import QualityMode
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Outcome, Result
from cascaded.wire.caching import CACHE_HEADER, CacheWord
from cascaded.wire.openai_chat import ABSENT, Fields, WireError, check_text, explain_mistake

NS_PER_MS = 1_000_000
MAX_BUFFERED = 1_000
"""Pieces of a stream that may be asked for as one."""
NOT_OPTIONS = ("model", "messages", "stream")
"""Members of chat completions that `/infer` has names of its own for."""


Amount = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        extra_json_schema={
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?$"},
            ]
        }
    ),
]
"""US dollars as an exact decimal, not read yet."""


class Context(msgspec.Struct, forbid_unknown_fields=True):
    """Who the call is for. Believed only from callers whom the operator trusts."""

    user_id: str | None = None
    tier: str | None = None
    organization: str | None = None


class Who(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Whom a call is for, and its tags. Claims, as above."""

    user_id: str | None = None
    user_tier: str | None = None
    context: Context | None = None
    metadata: dict[str, str] = {}


class InferRequest(Who, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /infer`: `query` or `messages`, the rest is optional."""

    query: str | None = None
    messages: list[msgspec.Raw] | None = None
    model: str = "auto"
    max_tokens: int | None = None
    max_cost: Amount = ABSENT
    """US dollars, as an exact decimal (a number or a string)."""
    quality_mode: QualityMode | None = None
    domain: str | None = None
    stream: bool = False
    stream_mode: StreamMode | None = None
    buffer_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_BUFFERED)] = 1
    """How many pieces come as one."""
    include_metadata: bool = True
    """Whether the final chunk has the metadata."""
    track_cost: bool = True
    """Whether the final chunk has the cost."""
    validate_quality_on_complete: bool = True
    """Whether an answer that was streamed as it came is judged at its end."""
    cache: CacheWord | None = None
    """Earlier answers: `on`, also where answers may differ; `refresh`: ask anew; `off`."""
    options: Fields = {}
    """Further chat-completions members (temperature, tools …), sent as they are."""


_read_infer = msgspec.json.Decoder(InferRequest)


def parse_infer(body: bytes) -> tuple[InferRequest, bytes]:
    """A native request, and the chat-completions body that it stands for.

    Raises `WireError` naming what is wrong.
    """
    check_text(body)
    try:
        infer = _read_infer.decode(body)
    except msgspec.ValidationError as error:
        raise WireError(*explain_mistake(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(f"the body is not valid JSON: {error}") from None
    for name in NOT_OPTIONS:
        if name in infer.options:
            raise WireError(f"{name} stands beside options, not in them", f"options.{name}")
    if (infer.query is None) == (infer.messages is None):
        raise WireError("give either query (a text) or messages (a list), and not both", "query")
    messages: object = infer.messages
    if infer.query is not None:
        messages = [{"role": "user", "content": infer.query}]
    chat: dict[str, object] = {**infer.options, "model": infer.model, "messages": messages}
    if infer.max_tokens is not None:
        chat["max_tokens"] = infer.max_tokens
    if infer.stream:
        chat["stream"] = True
    return infer, msgspec.json.encode(chat)


def parse_amount(raw: msgspec.Raw, param: str) -> int:
    """Nano-dollars of a decimal number or string. Raises `WireError`."""
    try:
        return parse_usd(bytes(raw).decode().strip('"'))
    except (MoneyError, UnicodeDecodeError) as error:
        raise WireError(f"{param}: {error}", param) from None


def usd(nano_usd: int) -> msgspec.Raw:
    """Money on the wire: a JSON number with every digit of the exact decimal."""
    return msgspec.Raw(format_usd(nano_usd).encode())


def metadata(request: Request, outcome: Outcome, result: Result) -> dict[str, object]:
    """What happened, in the names that users rely on. Money is US dollars, times milliseconds."""
    decision = outcome.decision
    rungs = decision.ladder.rungs if decision.ladder else ()
    draft, verifier = _draft_and_verifier(outcome)
    total, saved, left = outcome.total_nano_usd, result.saved_nano_usd, outcome.user_nano_left
    verdict = result.answered_by.verdict if result.answered_by else None
    return {
        "request_id": request.id,
        "user_id": decision.caller and decision.caller.user_id,
        "user_tier": decision.caller and decision.caller.tier,
        "user_budget_remaining": None if left is None else usd(left),
        "total_cost": usd(total),
        "draft_cost": usd(outcome.draft_nano_usd),
        "verifier_cost": usd(total - outcome.draft_nano_usd),
        "cost_saved": usd(saved),
        "savings_percent": _percent(saved, result.full_nano_usd),
        "savings_reference": rungs[-1].model.reference_name if result.reference_priced else None,
        "confidence": verdict and verdict.confidence,
        "quality_score": verdict and verdict.score,
        "quality_failed": list(verdict.failed) if verdict else [],
        "quality_parts": dict(verdict.parts) if verdict else {},
        "quality_unseen": list(verdict.unseen) if verdict else [],
        "quality_mode": decision.quality.mode,
        "semantic_similarity": verdict and verdict.similarity,
        "toxicity_score": verdict and verdict.toxicity,
        "agreement": verdict and verdict.agreement,
        "flagged": result.flagged,
        "domain": decision.domain,
        **_topic(decision),
        "complexity": decision.complexity,
        "draft_model": rungs[0].model.name if len(rungs) > 1 else None,
        "verifier_model": rungs[-1].model.name if rungs else None,
        "model_used": result.model_used,
        "draft_accepted": draft is not None and draft.accepted,
        "ladder": decision.ladder and decision.ladder.name,
        "attempts": [_attempt(attempt) for attempt in outcome.attempts],
        "cache": result.cache,
        "latency_ms": _ms(outcome.elapsed_ns),
        "first_token_ms": _ms_or_none(outcome.first_token_ns),
        "draft_latency_ms": draft and _ms(draft.latency_ns),
        "verifier_latency_ms": verifier and _ms(verifier.latency_ns),
        "overhead_ms": _ms(outcome.overhead_ns),
        "input_tokens": result.usage and result.usage.input_tokens,
        "output_tokens": result.usage and result.usage.output_tokens,
        "guardrails": outcome.findings,
        "notices": list(outcome.notices),
    }


def routed(decision: Decision) -> dict[str, object]:
    """What was decided of a call before any model is asked, and what it was decided by."""
    ladder = decision.ladder
    return {
        "domain": decision.domain,
        **_topic(decision),
        "complexity": decision.complexity,
        "ladder": ladder and ladder.name,
        "checked": ladder is not None and ladder.checked,
        "strict": ladder is not None and ladder.strict,
        "rungs": [_rung(rung) for rung in ladder.rungs] if ladder else [],
        "preferred_models": list(decision.preferred),
        "input_tokens": decision.input_tokens,
    }


def _rung(rung: Rung) -> dict[str, object]:
    model = rung.model
    return {
        "model": model.name,
        "provider": model.provider,
        "threshold": rung.threshold,
        "fallbacks": [spare.name for spare in rung.fallbacks],
        "context_window": model.context_window,
        "capabilities": sorted(model.capabilities),
    }


def _topic(decision: Decision) -> dict[str, object]:
    topic = decision.topic
    return {
        "secondary_domains": list(topic.secondary) if topic else [],
        "domain_confidence": topic and round(topic.confidence, 4),
        "domain_layer": topic and topic.layer,
        "domain_detection_ms": _ms_or_none(decision.domain_detection_ns),
        "cyclomatic_complexity": decision.cyclomatic,
    }


def cost_details(outcome: Outcome, result: Result) -> dict[str, object]:
    """The money part of the metadata, for the last chunk of a stream."""
    total = outcome.total_nano_usd
    return {
        "draft_cost": usd(outcome.draft_nano_usd),
        "verifier_cost": usd(total - outcome.draft_nano_usd),
        "cost_saved": usd(result.saved_nano_usd),
        "model_used": result.model_used,
        "cache": result.cache,
    }


def headers(outcome: Outcome, result: Result) -> dict[str, str]:
    """The `x-cascaded-*` headers of a plain answer."""
    total = format_usd(outcome.total_nano_usd)
    told = {
        "x-cascaded-cost": total,
        "x-litellm-response-cost": total,
        "x-cascaded-cost-saved": format_usd(result.saved_nano_usd),
        CACHE_HEADER: outcome.decision.cache,
        "x-cascaded-overhead-ms": f"{outcome.overhead_ns / NS_PER_MS:.3f}",
    }
    decision = outcome.decision
    if model := result.model_used:
        told["x-cascaded-model"] = model
    if decision.domain:
        told["x-cascaded-domain"] = decision.domain
    if decision.ladder and len(decision.ladder.rungs) > 1:
        draft, _ = _draft_and_verifier(outcome)
        told["x-cascaded-draft-accepted"] = str(draft is not None and draft.accepted).lower()
    if outcome.findings:
        told["x-cascaded-guardrails"] = "; ".join(dict.fromkeys(map(str, outcome.findings)))
    if outcome.notices:
        told["x-cascaded-notice"] = "; ".join(outcome.notices)
    return told


def _draft_and_verifier(outcome: Outcome) -> tuple[Attempt | None, Attempt | None]:
    """The last attempts on the first of several rungs and on any later one."""
    ladder = outcome.decision.ladder
    single = ladder is None or len(ladder.rungs) == 1
    draft = verifier = None
    for attempt in (one for one in outcome.attempts if one.role == "answer"):
        if attempt.rung == 0 and not single:
            draft = attempt
        else:
            verifier = attempt
    return draft, verifier


def _attempt(attempt: Attempt) -> dict[str, object]:
    return {
        "model": attempt.model.name,
        "provider": attempt.model.provider,
        "error": attempt.error,
        "role": attempt.role,
        "billing": attempt.billing,
        "cost": usd(attempt.cost_nano_usd),
        "quality_score": attempt.verdict and attempt.verdict.score,
        "accepted": attempt.accepted,
        "latency_ms": _ms(attempt.latency_ns),
        "first_token_ms": _ms_or_none(attempt.first_token_ns),
    }


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / NS_PER_MS, 3)


def _ms_or_none(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else _ms(nanoseconds)
