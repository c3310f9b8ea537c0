"""One connection of a caller, where aiohttp's own manners will not do."""

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Any

from aiohttp import web

Unreadable = Callable[[int, str], web.StreamResponse]
"""The answer to what is no HTTP, or to a fault of ours, for a status and a message."""


class CallerConnection(web.RequestHandler):
    """Limits the time of a connection's first head (later ones have that of an idle connection),
    gives errors our shape, and lets a caller on a Unix socket close its half once it has said
    everything."""

    __slots__ = ("_goes_on", "_head_timeout_s", "_late", "_unreadable")

    def __init__(
        self,
        server: web.Server,
        *,
        head_timeout_s: float,
        unreadable: Unreadable,
        goes_on: Callable[[web.BaseRequest], bool],
        **settings: Any,
    ) -> None:
        """`goes_on`: whether a request's handler goes on when its connection is lost; else it is
        cancelled. `settings` are those of `web.RequestHandler`."""
        super().__init__(server, **settings)
        self._goes_on = goes_on
        self._head_timeout_s = head_timeout_s
        self._unreadable = unreadable
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._late = self._loop.call_later(self._head_timeout_s, self._give_up)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `asyncio.Protocol`."""
        if self._late is not None:
            self._late.cancel()
        request = self._current_request
        if request is not None and self._goes_on(request):
            self._task_handler = None  # else it would be cancelled
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open, for an answer that is still to come."""
        idle = self._waiter is not None and not self._waiter.done()
        if idle or not self._listens():
            return False
        self.close()  # after what is under way
        return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See `web.RequestHandler`."""
        super().handle_error(request, status, exc, message)
        response = self._unreadable(status, message or "")
        response.force_close()
        return response

    def _give_up(self) -> None:
        if self._request_count == 0:
            self.force_close()

    def _listens(self) -> bool:
        """Whether the caller closed only what it writes to. TCP cannot tell, so there it left."""
        assert self.transport is not None
        peer = self.transport.get_extra_info("socket")
        if peer is None or peer.family != socket.AF_UNIX:
            return False
        look = select.poll()
        look.register(peer.fileno(), 0)
        return not any(event & select.POLLHUP for _, event in look.poll(0))
