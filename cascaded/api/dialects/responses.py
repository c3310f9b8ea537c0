"""`POST /v1/responses`, as the official OpenAI SDKs speak it."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web
from msgspec.structs import replace

from cascaded.api.dialects.base import Asking
from cascaded.api.dialects.openai_chat import to_request
from cascaded.api.errors import error_object, error_response
from cascaded.api.replies import StreamReply
from cascaded.policy.limits import rate_headers
from cascaded.types.decision import Refusal
from cascaded.types.event import Event
from cascaded.types.request import Original, Request
from cascaded.types.result import Outcome, Result
from cascaded.types.usage import Usage
from cascaded.wire.between.forms import InChat, in_chat
from cascaded.wire.between.responses.answers import (
    ResponsesEvents,
    response_head,
)
from cascaded.wire.between.responses.to_chat import to_chat
from cascaded.wire.native import cost_details, headers, usd
from cascaded.wire.openai_chat import Fields, parse_request
from cascaded.wire.responses import (
    ENDS,
    WITH_RESPONSE,
    ResponsesRequest,
    input_items,
    response_of,
    told_usage,
    unpriced,
    with_cost,
    with_members,
    with_response,
)
from cascaded.wire.sse import named

Keep = Callable[[bytes], Awaitable[bool]]
"""Keeps a response; whether it could be."""
UNKEPT = {"store": False}
"""What a response says that could not be kept."""


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    """What a response belongs to."""

    id: str
    """The response's own."""
    previous: str | None = None
    earlier: Sequence[msgspec.Raw] = ()
    """The items of all that came before, in their order."""
    keep: Keep | None = None
    """`None`: it is not kept."""

    @property
    def members(self) -> dict[str, object] | None:
        """What a response of the provider's own is told with instead of its own; `None`: it is
        passed on byte for byte."""
        if self.keep is None and self.previous is None:
            return None
        kept = self.keep is not None
        return {"id": self.id, "previous_response_id": self.previous, "store": kept}


class Responses:
    """See `Dialect`. One call. What comes from a provider that speaks it is passed on byte for
    byte, unless it is kept here."""

    refuse = staticmethod(error_response)
    rates = staticmethod(rate_headers)

    def __init__(self, asked: ResponsesRequest, fields: Fields, thread: Thread) -> None:
        self.given: bytes | None = None
        """A plain answer that was given."""
        self._asked = asked
        self._fields = fields
        self.thread = thread

    def read(self, incoming: Asking) -> Request:
        """See `Dialect.read`. Inside it is a chat completion, with what came beside it."""
        asked, fields = self._asked, self._fields
        if self.thread.earlier:
            items = [*self.thread.earlier, *input_items(asked)]
            fields = {**fields, "input": msgspec.Raw(msgspec.json.encode(items))}
        said = to_chat(fields)
        original = Original(
            form="responses",
            fields=fields,
            unsayable=said.unsayable,
            unpriced=(*unpriced(asked, fields), *said.elsewhere),
            unseen_tokens=said.unseen_tokens,
        )
        request = to_request(incoming, *parse_request(msgspec.json.encode(said.fields)))
        return replace(request, original=original)

    def stream(self, http: web.Request, request: Request) -> StreamReply:
        """See `Dialect.stream`."""
        return ResponsesStream(http, request, self.thread)

    def answer(
        self, request: Request, event: Event, outcome: Outcome, result: Result
    ) -> web.Response:
        """See `Dialect.answer`."""
        members = self.thread.members
        if event.form != "responses":
            self.given = events_of(request, self.thread).whole(
                in_chat(event, request.created_s), result.usage
            )
        else:
            self.given = event.raw if members is None else with_members(event.raw, members)
        return web.Response(
            body=self.given,
            headers={"x-request-id": request.id, **headers(outcome, result)},
            content_type="application/json",
        )


class ResponsesStream(StreamReply):
    """Events of Responses, each with its name and number."""

    end_mark = None
    _begun: bytes | None = None
    """The first event of a provider that speaks it."""
    _last: Event | None = None
    """The end: it waits until the cost is known."""

    def __init__(self, http: web.BaseRequest, request: Request, thread: Thread) -> None:
        super().__init__(http, request)
        self._thread = thread
        self._in_chat = InChat(request.created_s)
        self._events = events_of(request, thread)
        """For an answer that comes in another form; and for the end of one that breaks off."""

    def say(self, event: Event) -> bytes | None:
        """See `StreamReply.say`: framed."""
        if event.form != "responses":
            chunk = self._in_chat.chunk(event)
            return (self._events.frames(chunk) or None) if chunk else None
        if event.kind in ENDS:
            self._last = event
            return None
        raw = self._own(event)
        self._begun = self._begun or raw
        self._events.number += 1
        return named(event.kind, raw)

    async def sum_up(self, outcome: Outcome, result: Result) -> bytes | None:
        """The response, with what it used and what the call cost. What is to be kept is, before
        the caller hears of the end."""
        usage = result.usage or Usage()
        cost = usd(outcome.total_nano_usd)
        details = msgspec.Raw(msgspec.json.encode(cost_details(outcome, result)))
        if self._last is not None:
            raw = with_cost(self._own(self._last), usage, cost, details)
            if not await kept(self._thread, response_of(raw)):
                raw = with_response(raw, UNKEPT)
            return named(self._last.kind, raw)
        ends = self._events.ends()
        told = {**told_usage(usage), "cost": cost, "cost_details": details}
        response = self._events.response(told)
        if not await kept(self._thread, msgspec.json.encode(response)):
            response |= UNKEPT
        return ends + self._events.last(response)

    def complain(self, refusal: Refusal) -> bytes:
        """See `StreamReply.complain`."""
        return self._events.broken(error_object(refusal), self._begun)

    def frame(self, data: bytes) -> bytes:
        """See `StreamReply.frame`: the events carry their names already."""
        return data

    def _own(self, event: Event) -> bytes:
        members = self._thread.members
        if members is None or event.kind not in WITH_RESPONSE:
            return event.raw
        return with_response(event.raw, members)


async def kept(thread: Thread, response: bytes) -> bool:
    """Whether it is as its caller wants it: kept where it is to be."""
    return thread.keep is None or await thread.keep(response)


def events_of(request: Request, thread: Thread) -> ResponsesEvents:
    """Who tells an answer of another form."""
    assert request.original is not None
    head = response_head(
        request.original.fields,
        id=thread.id,
        previous=thread.previous,
        created_s=request.created_s,
        kept=thread.keep is not None,
    )
    return ResponsesEvents(head, logprobs=request.wants_logprobs)
