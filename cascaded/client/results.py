"""Answers, typed. Money is an exact `Decimal` in US dollars, times are milliseconds.

Members that a newer daemon sends and this version does not know are ignored.
"""

from decimal import Decimal

import msgspec


class AttemptInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One call that the daemon made to a provider."""

    model: str
    provider: str
    cost: Decimal
    latency_ms: float
    error: str | None = None
    billing: str = "billed"
    quality_score: float | None = None
    accepted: bool = False


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer came about."""

    request_id: str
    total_cost: Decimal
    draft_cost: Decimal
    verifier_cost: Decimal
    cost_saved: Decimal
    savings_percent: float
    savings_reference: str | None = None
    """The paid model whose price the saving is shown at, where the models themselves are free."""
    confidence: float | None = None
    quality_score: float | None = None
    quality_failed: tuple[str, ...] = ()
    flagged: bool = False
    """The answer failed its check at the top of the ladder."""
    domain: str | None = None
    complexity: str | None = None
    draft_model: str | None = None
    verifier_model: str | None = None
    model_used: str | None = None
    draft_accepted: bool = False
    ladder: str | None = None
    attempts: tuple[AttemptInfo, ...] = ()
    cache: str | None = None
    user_id: str | None = None
    user_tier: str | None = None
    latency_ms: float = 0.0
    draft_latency_ms: float | None = None
    verifier_latency_ms: float | None = None
    overhead_ms: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None
    notices: tuple[str, ...] = ()


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model wants made."""

    name: str
    arguments: str
    """JSON text, as the model wrote it."""


class CascadeResult(msgspec.Struct, frozen=True, kw_only=True):
    """An answer and how it came about."""

    content: str
    metadata: Metadata
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None


class CascadeStreamChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a streamed answer. The final one has no text but all the rest."""

    content: str = ""
    is_final: bool = False
    model_name: str | None = None
    cost: Decimal | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    metadata: Metadata | None = None


class Health(msgspec.Struct, frozen=True):
    """What `/health` says."""

    status: str
    version: str


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A name that may be asked for."""

    id: str
    owned_by: str = ""
