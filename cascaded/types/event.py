"""What a provider says while it answers, in one form for plain and streamed calls."""

import msgspec

from cascaded.types.model import Form
from cascaded.types.usage import Usage


class ToolDelta(msgspec.Struct, frozen=True):
    """A piece of one tool call; `index` tells the calls of one answer apart."""

    index: int
    name: str
    arguments: str


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a provider: a chunk of a stream, or a whole answer."""

    raw: bytes
    """Its JSON, as the provider sent it, without SSE framing."""
    form: Form = "chat"
    """What it is told in."""
    kind: str = ""
    """Its type, in a form that names its events (`message`, `response`: a whole one)."""
    whole: bool = False
    """A complete answer; a plain call yields exactly one event, and it is whole."""
    has_choices: bool = True
    """False for the extra chunk that carries nothing but usage."""
    text: str = ""
    """What the first choice adds."""
    refusal: str = ""
    reasoning: str = ""
    """Thoughts that some providers show beside the answer; billed, but not part of it."""
    tool_deltas: tuple[ToolDelta, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    logprob_sum: float = 0.0
    logprob_count: int = 0
    logprob_least: float = 0.0
    entropy_sum: float | None = None
    """In nats, over the tokens; `None` where no alternatives were told."""

    @property
    def speaks(self) -> bool:
        """Whether it carries any of the answer (and so ends the wait for the first token)."""
        return self.whole or bool(self.text or self.tool_deltas or self.refusal or self.reasoning)
