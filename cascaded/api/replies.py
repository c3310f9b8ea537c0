"""Where answers go: collected for a plain call, written as they come for a stream."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec
from aiohttp import web

from cascaded.api.errors import error_object
from cascaded.ports import Clock
from cascaded.types.decision import CacheState, Refusal
from cascaded.types.errors import CallerLeftError
from cascaded.types.event import Event
from cascaded.types.request import Request
from cascaded.types.result import Outcome, Result
from cascaded.wire.caching import CACHE_HEADER
from cascaded.wire.sse import DONE, sse


def json_response(
    body: object,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    encode: Callable[[object], bytes] = msgspec.json.encode,
) -> web.Response:
    """An answer of our own."""
    return web.Response(
        body=encode(body), status=status, headers=headers, content_type="application/json"
    )


class PlainReply:
    """Keeps the one whole event of a plain answer; it is sent once it is settled."""

    def __init__(self) -> None:
        self.committed = False
        self.cache: CacheState = "off"
        self.event: Event | None = None

    async def send(self, event: Event) -> None:
        """Keep it."""
        self.committed = True
        self.event = event


class StreamReply(ABC):
    """An SSE response that begins with its first event. Dialects differ in what they say."""

    end_mark: bytes | None = DONE
    """The data of the event that ends every whole answer, if there is one."""
    pulse = b":\n\n"
    """A sign of life, which clients pass over: a comment of server-sent events."""

    def __init__(self, http: web.BaseRequest, request: Request) -> None:
        self.committed = False
        self.cache: CacheState = "off"
        self.request = request
        self.response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
                "X-Request-ID": request.id,
            }
        )
        self._http = http
        self._quiet = True
        """Nothing was sent since the last beat."""
        self._turn: asyncio.Lock | None = None
        """Where there are heartbeats, one thing is sent at a time."""

    @property
    def begun(self) -> bool:
        """Whether its status is out, be it only for a heartbeat."""
        return self.response.prepared

    async def beat(self, every_s: float, clock: Clock) -> None:
        """Give signs of life for as long as this runs, after each silence of that length."""
        self._turn = asyncio.Lock()
        with suppress(CallerLeftError):
            while True:
                await clock.sleep(every_s)
                if self._quiet:
                    await self._put(self.pulse)
                self._quiet = True

    async def send(self, event: Event) -> None:
        """One event, as this dialect says it. Raises `CallerLeftError`."""
        data = self.say(event)
        if data is not None:
            await self._write(data)

    async def finish(self, outcome: Outcome, result: Result) -> None:
        """The end of an answer: what it cost, and the end mark."""
        last = await self.sum_up(outcome, result)
        if last is not None:
            await self._write(last)
        if self.end_mark is not None:
            await self._write(self.end_mark)
        await self.response.write_eof()

    async def fail(self, refusal: Refusal) -> None:
        """The end of a stream that broke after it had begun: an error, and no end mark."""
        await self._write(self.complain(refusal))
        await self.response.write_eof()

    def complain(self, refusal: Refusal) -> bytes:
        """The data of the event that tells why it broke."""
        return msgspec.json.encode({"error": error_object(refusal)})

    def frame(self, data: bytes) -> bytes:
        """The event, or events, as they go over the line."""
        return sse(data)

    @abstractmethod
    def say(self, event: Event) -> bytes | None:
        """The event's data for the caller; `None` when it is not for the caller."""

    @abstractmethod
    async def sum_up(self, outcome: Outcome, result: Result) -> bytes | None:
        """The data of the last event, if there is to be one."""

    async def _write(self, data: bytes) -> None:
        self.committed = True
        self._quiet = False
        await self._put(self.frame(data))

    async def _put(self, framed: bytes) -> None:
        """Send these bytes in their turn. Raises `CallerLeftError`."""
        if self._turn is None:
            return await self._send(framed)
        async with self._turn:
            return await self._send(framed)

    async def _send(self, framed: bytes) -> None:
        """After the head, if that is still to come."""
        try:
            if not self.begun:
                if self.committed:  # before that, what the cache has for it may not be known
                    self.response.headers[CACHE_HEADER] = self.cache
                await self.response.prepare(self._http)
            await self.response.write(framed)
        except ConnectionError as gone:
            raise CallerLeftError from gone
