"""`POST /v1/completions` and `POST /v1/embeddings`, as the official OpenAI SDKs speak them.

Both go to the upstream's own route of that name, never as a chat: a chat template around a prompt
would change what is continued, and token ids, `echo`, `suffix` and `logprobs` mean nothing in it.
"""

from typing import Any

from cascaded.api.claims import from_headers
from cascaded.api.dialects.base import Asking
from cascaded.api.dialects.openai_chat import OpenAIChat, caller_key
from cascaded.types.model import Kind
from cascaded.types.request import Request
from cascaded.wire.caching import CACHE_HEADER, read_wish
from cascaded.wire.openai_chat import Fields, WireError
from cascaded.wire.openai_texts import (
    MAX_TEXTS,
    CompletionRequest,
    EmbeddingRequest,
    parse_completion,
    parse_embedding,
    texts_of,
)


class OpenAICompletions(OpenAIChat):
    """See `Dialect`. Answers differ from a chat's in nothing that is read here."""

    def read(self, incoming: Asking) -> Request:
        """See `Dialect.read`."""
        asked, fields = parse_completion(incoming.body)
        prompts = texts_of(asked.prompt, "prompt")
        choices = asked.choices * len(prompts)
        if choices > MAX_TEXTS:
            raise WireError(
                f"{choices} answers are asked for (prompts times n or best_of); at most"
                f" {MAX_TEXTS} are given",
                "prompt",
            )
        return _request(
            incoming,
            asked,
            fields,
            kind="completion",
            texts=(*prompts, *((asked.suffix,) if asked.suffix else ())),
            stream=bool(asked.stream),
            include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
            wants_logprobs="logprobs" in fields,
            max_output_tokens=asked.max_tokens,
            choices=choices,
            deterministic=asked.temperature == 0,
        )


class OpenAIEmbeddings(OpenAIChat):
    """See `Dialect`. There is no answer to be bounded: only what goes in costs."""

    def read(self, incoming: Asking) -> Request:
        """See `Dialect.read`."""
        asked, fields = parse_embedding(incoming.body)
        texts = texts_of(asked.input, "input")
        return _request(incoming, asked, fields, kind="embedding", texts=texts, max_output_tokens=0)


def _request(
    incoming: Asking,
    asked: CompletionRequest | EmbeddingRequest,
    fields: Fields,
    *,
    kind: Kind,
    **more: Any,
) -> Request:
    sent = incoming.http.headers
    return Request(
        id=incoming.request_id,
        principal=incoming.principal,
        model=asked.model,
        kind=kind,
        fields=fields,
        cache=read_wish(sent.get("Cache-Control"), sent.get(CACHE_HEADER)),
        claims=from_headers(sent, asked.safety_identifier or asked.user),
        caller_key=caller_key(incoming),
        received_ns=incoming.received_ns,
        **more,
    )
