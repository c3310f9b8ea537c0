"""OpenAI's legacy completions and its embeddings: calls about texts, which are not conversations.

A text may come as its token ids; how many there are is then its exact length.
Source: https://platform.openai.com/docs/api-reference/completions and /embeddings
"""

from typing import Any

import msgspec

from cascaded.types.event import Event
from cascaded.types.usage import Usage
from cascaded.wire.openai_chat import (
    ABSENT,
    MAX_CHOICES,
    MAX_OUTPUT_TOKENS,
    MAX_USAGE_TOKENS,
    Fields,
    StreamOptions,
    UpstreamSaidError,
    WireError,
    decoded,
    error_message,
    is_absent,
)

MAX_TEXTS = 2_048
"""In one call, as OpenAI has it; also how many answers one call may ask for in all."""
COMPLETION_TOKENS = 16
"""OpenAI's own bound on a completion that brings none."""

Texts = str | list[str | int | list[int]]
"""One text or many, each as words or as token ids."""
_MIXED = "must be a text, a list of texts, token ids, or a list of lists of token ids"


class CompletionRequest(msgspec.Struct, kw_only=True):
    """The members that the daemon itself reads. Everything else is forwarded unseen."""

    model: str
    prompt: Texts
    suffix: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    temperature: float | None = None
    user: str | None = None
    safety_identifier: str | None = None

    @property
    def choices(self) -> int:
        """How many answers are written for each prompt, `best_of`'s thrown away ones too: they
        are all billed."""
        return max(self.n or 1, self.best_of or 1)


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """As above. `encoding_format` and `dimensions` make no difference here."""

    model: str
    input: Texts
    user: str | None = None
    safety_identifier: str | None = None


_read_completion = msgspec.json.Decoder(CompletionRequest)
_read_embedding = msgspec.json.Decoder(EmbeddingRequest)


def parse_completion(body: bytes) -> tuple[CompletionRequest, Fields]:
    """A body as what we read of it and as its raw members, its bound on the answer made plain.

    Raises `WireError` naming the member that is wrong.
    """
    asked, fields = decoded(_read_completion, body)
    for name in ("n", "best_of"):
        count = getattr(asked, name)
        if count is not None and not 1 <= count <= MAX_CHOICES:
            raise WireError(f"{name} must be from 1 to {MAX_CHOICES}", name)
    if asked.max_tokens is None:
        asked.max_tokens = COMPLETION_TOKENS
        fields["max_tokens"] = msgspec.Raw(msgspec.json.encode(COMPLETION_TOKENS))
    if not 0 <= asked.max_tokens <= MAX_OUTPUT_TOKENS:
        raise WireError(f"max_tokens must be from 0 to {MAX_OUTPUT_TOKENS}", "max_tokens")
    return asked, fields


def parse_embedding(body: bytes) -> tuple[EmbeddingRequest, Fields]:
    """As `parse_completion`."""
    return decoded(_read_embedding, body)


def texts_of(given: Texts, param: str) -> tuple[str | int, ...]:
    """Each text; one that came as token ids as their number. Raises `WireError`."""
    if isinstance(given, str):
        return (given,)
    if not given:
        raise WireError(f"{param} must not be empty", param)
    kinds = {type(one) for one in given}
    if len(kinds) > 1:
        raise WireError(f"{param} {_MIXED}", param)
    if kinds == {int}:
        return (len(given),)
    if len(given) > MAX_TEXTS:
        raise WireError(f"{param} has {len(given)} texts; at most {MAX_TEXTS} are taken", param)
    if [] in given:
        raise WireError(f"{param} must not have an empty list of token ids", param)
    return tuple(len(one) if isinstance(one, list) else one for one in given)


_read_texts = msgspec.json.Decoder(Texts)


def texts_in(fields: Fields) -> tuple[str | int, ...]:
    """Each text of a body that was read before, and what is to come after them."""
    name = "prompt" if "prompt" in fields else "input"
    suffix = msgspec.json.decode(fields.get("suffix", b"null"))
    return (*texts_of(_read_texts.decode(fields[name]), name), *((suffix,) if suffix else ()))


# --- answers --------------------------------------------------------------------------------


class _EmbeddingUsage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Embeddings(msgspec.Struct):
    data: list[msgspec.Raw] | None = None
    usage: _EmbeddingUsage | None = None
    error: msgspec.Raw = ABSENT


_read_embeddings = msgspec.json.Decoder(_Embeddings)


def parse_embeddings(raw: bytes) -> Event:
    """A whole answer; its vectors are passed on unread.

    Raises `UpstreamSaidError` for an error object and `WireError` for anything else that is none.
    """
    try:
        answer = _read_embeddings.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not embeddings: {error}") from None
    if not is_absent(answer.error):
        raise UpstreamSaidError(error_message(answer.error))
    if not answer.data:
        raise WireError("not embeddings: it has no data")
    told: Any = answer.usage and answer.usage.prompt_tokens
    sane = told is not None and 0 <= told <= MAX_USAGE_TOKENS
    return Event(
        raw=raw,
        whole=True,
        finish_reason="stop",
        usage=Usage(input_tokens=told) if sane else None,
    )
