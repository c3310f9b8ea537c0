"""Embeddings by the small model of this machine, in OpenAI's form."""

import struct
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Literal

import msgspec

from cascaded.ports import Call, Clock, Embedder, ProviderTraits
from cascaded.types.errors import ProviderError
from cascaded.types.event import Event
from cascaded.types.times import NS_PER_S
from cascaded.types.vectors import Reason, Unavailable, Vector
from cascaded.wire.openai_texts import parse_embeddings

PIECE = 8
"""Texts that are handed to the model at once, so that others' come in between."""
TOTAL_S = 60.0
"""Longest time for one call. What is late is asked for again until then: the model goes on."""
TRAITS = ProviderTraits(max_retries=1, backoff_s=0.25)
_BYTES_PER_FLOAT = 4
_CODES: Mapping[Reason, str] = {
    "absent": "upstream_unavailable",
    "overloaded": "upstream_overloaded",
    "late": "upstream_timeout",
    "fault": "upstream_server_error",
}


class _Asked(msgspec.Struct):
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class LocalEmbeddings:
    """See `ports.Provider`. Of each text it reads the beginning, as `[embedder]` says."""

    traits = TRAITS

    def __init__(
        self, name: str, embedder: Embedder, count: Callable[[str, str], int], clock: Clock
    ) -> None:
        """`count` tells how many tokens a text has in a vocabulary."""
        self.name = name
        self._embedder = embedder
        self._count = count
        self._clock = clock

    async def call(self, call: Call) -> AsyncGenerator[Event]:
        """See `ports.Provider.call`."""
        asked = self._read(call)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        words = [text for text in texts if isinstance(text, str)]
        if len(words) < len(texts):
            raise self._refused("reads words; token ids are of another model's vocabulary")
        deadline_ns = self._clock.monotonic_ns() + int(TOTAL_S * NS_PER_S)
        vectors: list[Vector] = []
        for at in range(0, len(words), PIECE):
            vectors += await self._vectors(words[at : at + PIECE], deadline_ns)
        length = len(vectors[0]) // _BYTES_PER_FLOAT
        if asked.dimensions not in (None, length):
            raise self._refused(f"gives {length} dimensions; leave `dimensions` out")
        tokens = sum(self._count(call.model.vocabulary, text) for text in words)
        yield parse_embeddings(_answer(call.model.name, vectors, asked.encoding_format, tokens))

    async def close(self) -> None:
        """The model is not its own."""

    def _read(self, call: Call) -> _Asked:
        try:
            return msgspec.json.decode(msgspec.json.encode(call.fields), type=_Asked)
        except msgspec.ValidationError as error:
            raise self._refused(f"cannot do so: {error}") from None

    async def _vectors(self, texts: Sequence[str], deadline_ns: int) -> Sequence[Vector]:
        while True:
            said = await self._embedder.embed(texts)
            if not isinstance(said, Unavailable):
                return said
            if said.reason != "late" or self._clock.monotonic_ns() > deadline_ns:
                raise ProviderError(
                    _CODES[said.reason],
                    f"provider '{self.name}': {said.message}",
                    billing="not_billed",
                )

    def _refused(self, what: str) -> ProviderError:
        return ProviderError(
            "upstream_refused", f"provider '{self.name}' {what}", billing="not_billed", status=400
        )


def _answer(model: str, vectors: Sequence[Vector], form: str, tokens: int) -> bytes:
    data = [
        {"object": "embedding", "index": index, "embedding": _told(vector, form)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


def _told(vector: Vector, form: str) -> object:
    if form == "base64":
        return b64encode(vector).decode()
    return struct.unpack(f"<{len(vector) // _BYTES_PER_FLOAT}f", vector)
