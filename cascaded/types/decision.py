"""`Decision`: what is intended, and why. Each stage returns a new one."""

import msgspec

from cascaded.types.model import Ladder


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Money set aside for one request: its worst case, until it is settled or released."""

    id: int
    nano_usd: int


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The plan for one request so far."""

    ladder: Ladder | None = None
    input_tokens: int = 0
    """An upper bound on the prompt in any of the ladder's vocabularies; exact for public ones."""
    max_output_tokens: int = 0
    """The bound that is sent upstream, for each choice."""
    worst_nano_usd: int = 0
    """The most that the planned ladder can cost."""
    question: str = ""
    """The caller's last words, for quality and routing."""
    domain: str | None = None
    domain_confidence: float | None = None
    complexity: str | None = None
    hold: Hold | None = None
    reasons: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    """What the caller must be told (a clamped bound, a trimmed ladder)."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An expected no. A value, not an exception: it ends the list of stages early."""

    code: str
    """A key of the API's error table, which gives it its status."""
    message: str
    """What happened and what the caller can do about it."""
    param: str | None = None
    retry_after_s: float | None = None
    details: dict[str, object] = {}
