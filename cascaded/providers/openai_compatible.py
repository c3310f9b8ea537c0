"""Any upstream that speaks as OpenAI does."""

from collections.abc import Mapping

from cascaded.ports import Call, Clock, ProviderTraits
from cascaded.providers.http import Endpoint, HttpUpstream
from cascaded.types.event import Event
from cascaded.types.model import Kind
from cascaded.wire.openai_chat import parse_event
from cascaded.wire.openai_texts import parse_embeddings
from cascaded.wire.sse import DONE

__all__ = ["Endpoint", "OpenAICompatible"]

PATHS: Mapping[Kind, str] = {
    "chat": "/chat/completions",
    "completion": "/completions",
    "embedding": "/embeddings",
}


class OpenAISpeech:
    """See `Speech`; it keeps nothing, so it is its own `Ear`."""

    def path(self, call: Call) -> str:
        """See `Speech.path`."""
        return PATHS[call.kind]

    def headers(self, call: Call, key: str | None) -> dict[str, str]:  # noqa: ARG002
        """See `Speech.headers`."""
        return {"Authorization": f"Bearer {key}"} if key else {}

    def whole(self, call: Call, body: bytes) -> Event:
        """See `Speech.whole`."""
        return parse_embeddings(body) if call.kind == "embedding" else parse_event(body, whole=True)

    def ear(self) -> "OpenAISpeech":
        """See `Speech.ear`."""
        return self

    def hear(self, data: bytes) -> Event | None:
        """See `Ear.hear`."""
        return None if data == DONE else parse_event(data, whole=False)


class OpenAICompatible(HttpUpstream):
    """One of them."""

    def __init__(self, name: str, endpoint: Endpoint, traits: ProviderTraits, clock: Clock) -> None:
        super().__init__(name, endpoint, traits, clock, OpenAISpeech())
