"""The forms beside chat completions: how each is said in them, and they in it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from cascaded.types.event import Event
from cascaded.types.model import Form, Model
from cascaded.wire.anthropic import upstream_messages
from cascaded.wire.between.messages import answers as messages
from cascaded.wire.between.messages.from_chat import to_messages
from cascaded.wire.between.responses import answers as responses
from cascaded.wire.between.responses.from_chat import to_responses
from cascaded.wire.openai_chat import Fields
from cascaded.wire.responses import upstream_responses

Body = Mapping[str, msgspec.Raw]


class Chunks(Protocol):
    """The chunks of one streamed answer."""

    def chunk(self, event: Event) -> Event | None:
        """The event as a chunk of chat completions, if it says anything there."""
        ...


class Upstream(Protocol):
    """What is sent to a model's provider."""

    def __call__(self, fields: Body, model: Model, *, output_bound: int, stream: bool) -> Fields:
        """The caller's members but for those that are ours to say."""
        ...


class Other(NamedTuple):
    """One of them."""

    name: str
    from_chat: Callable[[Body], Fields]
    """A call in it. Raises `WireError` for what it cannot say."""
    upstream: Upstream
    chat_answer: Callable[[Event, int], bytes]
    """A whole answer of it as a chat completion, made at that time."""
    chunks: Callable[[int], Chunks]
    """The same for a streamed one."""


OTHERS: Mapping[Form, Other] = {
    "messages": Other(
        "Anthropic's Messages API",
        to_messages,
        upstream_messages,
        messages.chat_answer,
        messages.ChatChunks,
    ),
    "responses": Other(
        "OpenAI's Responses API",
        to_responses,
        upstream_responses,
        responses.chat_answer,
        responses.ChatChunks,
    ),
}
CHAT = "OpenAI's chat completions"


def name_of(form: Form) -> str:
    """What a form is called."""
    return CHAT if form == "chat" else OTHERS[form].name


def in_chat(event: Event, created_s: int) -> Event:
    """A whole answer of any form as a chat completion."""
    if event.form == "chat":
        return event
    raw = OTHERS[event.form].chat_answer(event, created_s)
    return replace(event, raw=raw, form="chat", kind="")


class InChat:
    """A streamed answer of any form, as chunks of chat completions."""

    def __init__(self, created_s: int) -> None:
        self._created_s = created_s
        self._chunks: Chunks | None = None

    def chunk(self, event: Event) -> Event | None:
        """The event as a chunk, if it says anything there."""
        if event.form == "chat":
            return event
        if self._chunks is None:
            self._chunks = OTHERS[event.form].chunks(self._created_s)
        return self._chunks.chunk(event)
