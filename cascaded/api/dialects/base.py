"""What a dialect must be able to do, and what reached us of a call."""

from typing import Protocol

import msgspec
from aiohttp import web

from cascaded.api.auth import Gate
from cascaded.api.replies import StreamReply
from cascaded.types.event import Event
from cascaded.types.request import Principal, Request
from cascaded.types.result import Outcome, Result


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """One admitted HTTP call."""

    http: web.Request
    gate: Gate
    """Who let it in."""
    body: bytes
    request_id: str
    principal: Principal
    received_ns: int


class Dialect(Protocol):
    """One language of callers."""

    def read(self, incoming: Incoming) -> Request:
        """What is asked. Raises `WireError`."""
        ...

    def stream(self, http: web.Request, request: Request) -> StreamReply:
        """Where a streamed answer goes."""
        ...

    def answer(
        self, request: Request, event: Event, outcome: Outcome, result: Result
    ) -> web.Response:
        """A plain answer."""
        ...
