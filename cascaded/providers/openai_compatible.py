"""Any upstream that speaks as OpenAI does."""

from collections.abc import Mapping
from functools import partial
from urllib.parse import quote

from cascaded.ports import Call, Clock, ProviderTraits
from cascaded.providers.http import Ear, Endpoint, HttpUpstream
from cascaded.types.event import Event
from cascaded.types.model import Kind
from cascaded.wire.openai_chat import parse_event
from cascaded.wire.openai_texts import parse_embeddings
from cascaded.wire.responses import ResponsesEar, parse_response
from cascaded.wire.sse import DONE

__all__ = ["Endpoint", "OpenAICompatible"]

PATHS: Mapping[Kind, str] = {
    "chat": "/chat/completions",
    "completion": "/completions",
    "embedding": "/embeddings",
}


RESPONSES = "/responses"
AZURE_RESPONSES = "/openai/v1/responses"
"""Not a deployment's: the body names it, and there is no version.
Source: https://learn.microsoft.com/en-us/azure/ai-foundry/openai/how-to/responses"""


class OpenAISpeech:
    """See `Speech`. Of a call in chat completions it keeps nothing, so it is its own `Ear`."""

    def __init__(self, *, api_version: str | None = None, reasoning_apart: bool = False) -> None:
        """`api_version` is for Azure OpenAI, whose models are deployments."""
        self._api_version = api_version
        self._parse = partial(parse_event, reasoning_apart=reasoning_apart)

    def path(self, call: Call) -> str:
        """See `Speech.path`."""
        if call.form == "responses":
            return RESPONSES if self._api_version is None else AZURE_RESPONSES
        path = PATHS[call.kind]
        if self._api_version is None:
            return path
        deployment, version = quote(call.model.upstream_name, safe=""), quote(self._api_version)
        return f"/openai/deployments/{deployment}{path}?api-version={version}"

    def headers(self, call: Call, key: str | None) -> dict[str, str]:  # noqa: ARG002
        """See `Speech.headers`."""
        if not key:
            return {}
        return {"api-key": key} if self._api_version else {"Authorization": f"Bearer {key}"}

    def whole(self, call: Call, body: bytes) -> Event:
        """See `Speech.whole`."""
        if call.form == "responses":
            return parse_response(body)
        return parse_embeddings(body) if call.kind == "embedding" else self._parse(body, whole=True)

    def ear(self, call: Call) -> Ear:
        """See `Speech.ear`."""
        return ResponsesEar() if call.form == "responses" else self

    def hear(self, data: bytes) -> Event | None:
        """See `Ear.hear`."""
        return None if data == DONE else self._parse(data, whole=False)


class OpenAICompatible(HttpUpstream):
    """One of them."""

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        traits: ProviderTraits,
        clock: Clock,
        speech: OpenAISpeech | None = None,
    ) -> None:
        super().__init__(name, endpoint, traits, clock, speech or OpenAISpeech())
