"""`POST /v1/chat/completions`, as the official OpenAI SDKs speak it."""

import msgspec
from aiohttp import web

from cascaded.api.claims import from_headers
from cascaded.api.dialects.base import Asking
from cascaded.api.errors import error_response
from cascaded.api.replies import StreamReply
from cascaded.policy.limits import rate_headers
from cascaded.types.event import Event
from cascaded.types.request import Request
from cascaded.types.result import Outcome, Result
from cascaded.types.usage import Usage
from cascaded.wire.between.forms import InChat, in_chat
from cascaded.wire.caching import CACHE_HEADER, read_wish
from cascaded.wire.native import cost_details, headers, usd
from cascaded.wire.openai_chat import (
    ChatRequest,
    Fields,
    WireError,
    parse_request,
    usage_chunk,
    without_logprobs,
    without_usage,
)
from cascaded.wire.quality import QUALITY_HEADER, read_quality


class OpenAIChat:
    """See `Dialect`. What nothing must be taken out of is passed on byte for byte."""

    refuse = staticmethod(error_response)
    rates = staticmethod(rate_headers)

    def read(self, incoming: Asking) -> Request:
        """See `Dialect.read`."""
        return to_request(incoming, *parse_request(incoming.body))

    def stream(self, http: web.Request, request: Request) -> StreamReply:
        """See `Dialect.stream`."""
        return ChatStream(http, request)

    def answer(
        self, request: Request, event: Event, outcome: Outcome, result: Result
    ) -> web.Response:
        """See `Dialect.answer`."""
        event = in_chat(event, request.created_s)
        unasked = event.logprob_count and not request.wants_logprobs
        return web.Response(
            body=without_logprobs(event.raw) if unasked else event.raw,
            headers={"x-request-id": request.id, **headers(outcome, result)},
            content_type="application/json",
        )


class ChatStream(StreamReply):
    """`chat.completion.chunk`s."""

    _last = b"{}"

    def __init__(self, http: web.BaseRequest, request: Request) -> None:
        super().__init__(http, request)
        self._in_chat = InChat(request.created_s)

    def say(self, event: Event) -> bytes | None:
        """The chunk without usage (it comes at the end, where the cost is known) and without
        log-probabilities that the caller did not ask for."""
        chunk = self._in_chat.chunk(event)
        if chunk is None:
            return None
        raw = self._last = chunk.raw
        if not chunk.has_choices:
            return None
        if chunk.usage is not None:
            raw = without_usage(raw)
        if event.logprob_count and not self.request.wants_logprobs:
            raw = without_logprobs(raw)
        return raw

    async def sum_up(self, outcome: Outcome, result: Result) -> bytes | None:
        """The usage chunk, if it was asked for, with what the call cost. Where the provider sent
        none it has our own count."""
        if not self.request.include_usage:
            return None
        usage = result.usage or Usage()
        details = msgspec.Raw(msgspec.json.encode(cost_details(outcome, result)))
        return usage_chunk(self._last, usage, usd(outcome.total_nano_usd), details)


def to_request(incoming: Asking, chat: ChatRequest, fields: Fields) -> Request:
    """A chat-completions body and its headers as what is asked."""
    options, headers_sent = chat.stream_options, incoming.http.headers
    return Request(
        id=incoming.request_id,
        principal=incoming.principal,
        model=chat.model,
        fields=fields,
        messages=tuple(chat.messages),
        stream=bool(chat.stream),
        include_usage=bool(options and options.include_usage),
        wants_logprobs=bool(chat.logprobs),
        max_output_tokens=chat.output_bound,
        choices=chat.n or 1,
        deterministic=chat.temperature == 0,
        asks=chat.asks,
        quality_mode=read_quality(headers_sent.get(QUALITY_HEADER)),
        cache=read_wish(headers_sent.get("Cache-Control"), headers_sent.get(CACHE_HEADER)),
        claims=from_headers(headers_sent, chat.safety_identifier or chat.user),
        caller_key=caller_key(incoming),
        received_ns=incoming.received_ns,
        created_s=incoming.created_s,
    )


def caller_key(incoming: Asking) -> str | None:
    """The key that came with the call, where it is not one of ours. Raises `WireError`."""
    key = incoming.gate.forwardable_key(incoming.http, incoming.principal)
    if key is not None and not key.isprintable():
        raise WireError("the key in Authorization or x-api-key is not printable text")
    return key
