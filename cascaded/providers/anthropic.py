"""Anthropic itself, and whatever else speaks its Messages API."""

from cascaded.ports import Call, Clock, ProviderTraits
from cascaded.providers.http import Endpoint, HttpUpstream
from cascaded.types.event import Event
from cascaded.wire.anthropic import VERSION_HEADER, MessagesEar, parse_count, parse_message

__all__ = ["Anthropic", "Endpoint"]

PATH = "/messages"
COUNT_PATH = "/messages/count_tokens"


class MessagesSpeech:
    """See `Speech`."""

    def __init__(self, version: str) -> None:
        self._version = version

    def path(self, call: Call) -> str:  # noqa: ARG002
        """See `Speech.path`."""
        return PATH

    def headers(self, call: Call, key: str | None) -> dict[str, str]:
        """See `Speech.headers`. What the caller says of the version goes before our own."""
        told = {VERSION_HEADER: self._version, **call.headers}
        return {**told, "x-api-key": key} if key else told

    def whole(self, call: Call, body: bytes) -> Event:  # noqa: ARG002
        """See `Speech.whole`."""
        return parse_message(body)

    def ear(self, call: Call) -> MessagesEar:  # noqa: ARG002
        """See `Speech.ear`."""
        return MessagesEar()


class Anthropic(HttpUpstream):
    """One of them."""

    def __init__(
        self, name: str, endpoint: Endpoint, traits: ProviderTraits, clock: Clock, version: str
    ) -> None:
        super().__init__(name, endpoint, traits, clock, MessagesSpeech(version))

    async def count(self, call: Call) -> int:
        """See `ports.Counter.count`."""
        return await self._plainly(call, COUNT_PATH, parse_count)
