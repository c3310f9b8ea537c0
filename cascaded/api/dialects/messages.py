"""`POST /v1/messages`, as the official Anthropic SDKs speak it."""

import msgspec
from aiohttp import web
from msgspec.structs import replace

from cascaded.api.auth import Headed
from cascaded.api.dialects.base import Asking
from cascaded.api.dialects.openai_chat import to_request
from cascaded.api.errors import anthropic_object, anthropic_response
from cascaded.api.replies import StreamReply
from cascaded.policy.limits import anthropic_rate_headers
from cascaded.types.decision import Refusal
from cascaded.types.event import Event
from cascaded.types.request import Original, Request
from cascaded.types.result import Outcome, Result
from cascaded.types.usage import Usage
from cascaded.wire.anthropic import (
    PASSED_HEADERS,
    STOP,
    parse_messages,
    told_usage,
    unpriced,
    with_cost,
)
from cascaded.wire.between.forms import InChat, in_chat
from cascaded.wire.between.messages.answers import MessagesEvents, messages_answer
from cascaded.wire.between.messages.to_chat import to_chat
from cascaded.wire.native import cost_details, headers, usd
from cascaded.wire.openai_chat import WireError, parse_request
from cascaded.wire.sse import named


class Messages:
    """See `Dialect`. What comes from a provider that speaks it is passed on byte for byte."""

    refuse = staticmethod(anthropic_response)
    rates = staticmethod(anthropic_rate_headers)

    def read(self, incoming: Asking) -> Request:
        """See `Dialect.read`. Inside it is a chat completion, with what came beside it."""
        asked, fields = parse_messages(incoming.body)
        said = to_chat(fields)
        original = Original(
            form="messages",
            fields=fields,
            headers=_passed(incoming.http),
            unsayable=said.unsayable,
            unpriced=(*unpriced(asked, fields), *said.elsewhere),
            unseen_tokens=said.unseen_tokens,
        )
        request = to_request(incoming, *parse_request(msgspec.json.encode(said.fields)))
        return replace(request, original=original)

    def stream(self, http: web.Request, request: Request) -> StreamReply:
        """See `Dialect.stream`."""
        return MessagesStream(http, request)

    def answer(
        self, request: Request, event: Event, outcome: Outcome, result: Result
    ) -> web.Response:
        """See `Dialect.answer`."""
        own = event.form == "messages"
        return web.Response(
            body=event.raw if own else messages_answer(in_chat(event, request.created_s)),
            headers={**ids(request), **headers(outcome, result)},
            content_type="application/json",
        )


class MessagesStream(StreamReply):
    """Events of Messages, each with its name."""

    end_mark = None
    pulse = named("ping", b'{"type": "ping"}')
    _last: bytes | None = None
    """The `message_delta`: it waits for the end, where the cost is known."""
    _events: MessagesEvents | None = None
    """For an answer that comes in another form."""

    def __init__(self, http: web.BaseRequest, request: Request) -> None:
        super().__init__(http, request)
        self._in_chat = InChat(request.created_s)
        self.response.headers.update(ids(request))

    def say(self, event: Event) -> bytes | None:
        """See `StreamReply.say`: framed."""
        if event.form != "messages":
            self._events = self._events or MessagesEvents()
            chunk = self._in_chat.chunk(event)
            return (self._events.frames(chunk) or None) if chunk else None
        if event.kind == "message_delta":
            self._last = event.raw  # counts are cumulative, so that the last one says it all
            return None
        return named(event.kind, event.raw)

    async def sum_up(self, outcome: Outcome, result: Result) -> bytes | None:
        """The end of the message, with what it used and what the call cost."""
        usage = result.usage or Usage()
        cost = usd(outcome.total_nano_usd)
        details = msgspec.Raw(msgspec.json.encode(cost_details(outcome, result)))
        if self._events is not None:
            return self._events.end(usage, cost, details)
        last = self._last or msgspec.json.encode(
            {"type": "message_delta", "delta": {}, "usage": told_usage(usage)}
        )
        return named("message_delta", with_cost(last, usage, cost, details)) + STOP

    def complain(self, refusal: Refusal) -> bytes:
        """See `StreamReply.complain`."""
        error = anthropic_object(refusal, self.request.id)
        return named("error", msgspec.json.encode(error))

    def frame(self, data: bytes) -> bytes:
        """See `StreamReply.frame`: the events carry their names already."""
        return data


def ids(request: Request) -> dict[str, str]:
    """The request's id, under both names that clients look for."""
    return {"x-request-id": request.id, "request-id": request.id}


def _passed(http: Headed) -> dict[str, str]:
    """The caller's headers that go upstream. Raises `WireError`."""
    passed = {name: http.headers[name] for name in PASSED_HEADERS if name in http.headers}
    for name, value in passed.items():
        if not value.isprintable():
            raise WireError(f"the header {name} is not printable text")
    return passed
