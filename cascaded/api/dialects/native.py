"""`POST /infer`: our own dialect, which tells everything."""

import msgspec
from aiohttp import web
from msgspec.structs import replace

from cascaded.api.claims import with_body
from cascaded.api.dialects.base import Asking
from cascaded.api.dialects.openai_chat import to_request
from cascaded.api.errors import error_response
from cascaded.api.replies import StreamReply
from cascaded.policy.limits import rate_headers
from cascaded.types.decision import Refusal
from cascaded.types.event import Event
from cascaded.types.request import Request
from cascaded.types.result import Outcome, Result
from cascaded.wire import protocol
from cascaded.wire.caching import WORDS, joined
from cascaded.wire.native import (
    InferRequest,
    headers,
    metadata,
    parse_amount,
    parse_infer,
    usd,
)
from cascaded.wire.openai_chat import is_absent, parse_request


class Native:
    """See `Dialect`."""

    refuse = staticmethod(error_response)
    rates = staticmethod(rate_headers)

    def read(self, incoming: Asking) -> Request:
        """See `Dialect.read`."""
        infer, chat_body = parse_infer(incoming.body)
        return _with_native(to_request(incoming, *parse_request(chat_body)), infer)

    def stream(self, http: web.Request, request: Request) -> StreamReply:
        """See `Dialect.stream`."""
        reply = NativeStream(http, request)
        reply.response.headers[protocol.HEADER] = str(protocol.CURRENT)
        return reply

    def answer(
        self,
        request: Request,
        event: Event,  # noqa: ARG002
        outcome: Outcome,
        result: Result,
    ) -> web.Response:
        """See `Dialect.answer`: `content` and `metadata`."""
        body = {
            "content": result.answer.text,
            "tool_calls": _tool_calls(result),
            "finish_reason": result.answer.finish_reason,
            "metadata": metadata(request, outcome, result),
        }
        return web.Response(
            body=msgspec.json.encode(body),
            headers={"x-request-id": request.id, **headers(outcome, result)},
            content_type="application/json",
        )


class NativeStream(StreamReply):
    """`CascadeStreamChunk`s: model_name, content, is_final, cost, metadata; the final one has the
    tool calls too, whole."""

    def __init__(self, http: web.BaseRequest, request: Request) -> None:
        super().__init__(http, request)
        self._gathered: list[str] = []

    def say(self, event: Event) -> bytes | None:
        """The text that the event adds, if it adds any; with a `buffer_size`, that of so many."""
        if not event.text:
            return None
        self.committed = True  # another model's words must not follow these
        self._gathered.append(event.text)
        return self._taken() if len(self._gathered) >= self.request.buffer_size else None

    async def sum_up(self, outcome: Outcome, result: Result) -> bytes | None:
        """The final chunk: no text, but the cost and the whole metadata, where wanted."""
        request = self.request
        return _chunk(
            is_final=True,
            model_name=result.model_used,
            cost=usd(outcome.total_nano_usd) if request.track_cost else None,
            tool_calls=_tool_calls(result),
            finish_reason=result.answer.finish_reason,
            metadata=metadata(request, outcome, result) if request.include_metadata else None,
        )

    async def finish(self, outcome: Outcome, result: Result) -> None:
        """See `StreamReply.finish`. What is still gathered goes first."""
        await self._pour()
        await super().finish(outcome, result)

    async def fail(self, refusal: Refusal) -> None:
        """See `StreamReply.fail`."""
        await self._pour()
        await super().fail(refusal)

    def _taken(self) -> bytes:
        text = "".join(self._gathered)
        self._gathered.clear()
        return _chunk(content=text)

    async def _pour(self) -> None:
        if self._gathered:
            await self._write(self._taken())


def _chunk(*, content: str = "", is_final: bool = False, **more: object) -> bytes:
    known = {"model_name": None, "content": content, "is_final": is_final, "cost": None}
    return msgspec.json.encode({**known, "metadata": None, **more})


def _tool_calls(result: Result) -> list[dict[str, str]]:
    return [{"name": name, "arguments": arguments} for name, arguments in result.answer.tool_calls]


def _with_native(request: Request, infer: InferRequest) -> Request:
    """What only `/infer` can say."""
    return replace(
        request,
        max_cost_nano_usd=(
            None if is_absent(infer.max_cost) else parse_amount(infer.max_cost, "max_cost")
        ),
        stream_mode=infer.stream_mode,
        buffer_size=infer.buffer_size,
        include_metadata=infer.include_metadata,
        track_cost=infer.track_cost,
        validate_quality_on_complete=infer.validate_quality_on_complete,
        cache=joined(request.cache, WORDS[infer.cache]) if infer.cache else request.cache,
        domain=infer.domain,
        quality_mode=infer.quality_mode or request.quality_mode,
        claims=with_body(request.claims, infer),
    )
