"""Of any form: what passes is gathered, and what is kept is said again."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple, Protocol

from cascaded.types.event import Event
from cascaded.types.model import Form, Kind
from cascaded.types.recalled import Whole
from cascaded.wire.anthropic import MessagesEar, parse_message
from cascaded.wire.openai_chat import parse_event
from cascaded.wire.openai_texts import parse_embeddings
from cascaded.wire.responses import ResponsesEar, parse_response
from cascaded.wire.whole import chat, messages, responses


class Gathering(Protocol):
    """What gathers one answer."""

    def add(self, raw: bytes, *, whole: bool = False) -> None:
        """One more event. Raises `WireError`."""
        ...

    def whole(self) -> bytes | None:
        """The answer, if it makes one."""
        ...


class _Form(NamedTuple):
    gathering: Callable[[], Gathering]
    stream: Callable[[bytes], Iterable[bytes]]
    """A whole answer as the events of a stream."""
    ear: Callable[[], Callable[[bytes], Event | None]]
    """Hears such a stream."""
    read: Callable[[bytes], Event]
    """A whole answer."""


_FORMS: Mapping[Form, _Form] = {
    "chat": _Form(
        chat.Gathered,
        chat.chunks_of,
        lambda: partial(parse_event, whole=False),
        partial(parse_event, whole=True),
    ),
    "messages": _Form(
        messages.Gathered, messages.events_of, lambda: MessagesEar().hear, parse_message
    ),
    "responses": _Form(
        responses.Gathered, responses.events_of, lambda: ResponsesEar().hear, parse_response
    ),
}


class Gathered:
    """Events of one answer as they pass, and what they make."""

    def __init__(self) -> None:
        self._form: Form | None = None
        self._gathering: Gathering | None = None

    def add(self, event: Event) -> None:
        """One more. Raises `WireError`."""
        if self._gathering is None:
            self._form = event.form
            self._gathering = _FORMS[event.form].gathering()
        self._gathering.add(event.raw, whole=event.whole)

    def whole(self) -> Whole | None:
        """The answer, if it makes one."""
        raw = self._gathering.whole() if self._gathering else None
        return None if raw is None or self._form is None else Whole(self._form, raw)


def replayed(whole: Whole, kind: Kind, *, stream: bool) -> Iterator[Event]:
    """An earlier answer as its provider would give it again."""
    form = _FORMS[whole.form]
    if not stream:
        yield parse_embeddings(whole.raw) if kind == "embedding" else form.read(whole.raw)
        return
    hear = form.ear()
    for raw in form.stream(whole.raw):
        event = hear(raw)
        if event is not None:
            yield event
