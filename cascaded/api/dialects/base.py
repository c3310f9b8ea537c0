"""What a dialect must be able to do, and what reached us of a call."""

from typing import Protocol

import msgspec
from aiohttp import web

from cascaded.api.auth import Gate, Headed
from cascaded.api.errors import Refuse
from cascaded.api.replies import StreamReply
from cascaded.policy.limits import RateHeaders
from cascaded.types.event import Event
from cascaded.types.request import Principal, Request
from cascaded.types.result import Outcome, Result


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """A call as dialects read it."""

    http: Headed
    gate: Gate
    """Who let it in."""
    body: bytes
    request_id: str
    principal: Principal
    received_ns: int
    created_s: int = 0
    """Seconds since 1970."""


class Incoming(Asking, frozen=True, kw_only=True):
    """One admitted HTTP call."""

    http: web.Request


class Dialect(Protocol):
    """One language of callers."""

    @property
    def refuse(self) -> Refuse:
        """How it says no."""
        ...

    @property
    def rates(self) -> RateHeaders:
        """How it says what is left of the limits."""
        ...

    def read(self, incoming: Asking) -> Request:
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
