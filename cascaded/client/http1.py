"""One HTTP/1.1 exchange after another, as bytes: what to send, and what was received. No I/O.

The grammar is h11's.
"""

from typing import TypeVar

import h11

from cascaded.client.answers import MAX_QUOTED_BYTES, Head, understood
from cascaded.client.calls import Call
from cascaded.client.errors import ProtocolError
from cascaded.wire import protocol

MAX_HEAD_BYTES = 64 * 1024
_BEGINNING = b"HTTP/1."

T = TypeVar("T")


class Http:
    """What was said on one connection."""

    def __init__(self) -> None:
        self.heard = 0
        """Bytes of the answer under way."""
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)

    def say(self, call: Call[T]) -> bytes:
        """The call as it is sent. Raises `ValueError` for headers that cannot be."""
        body = call.body or b""
        headers = {"Host": "localhost", protocol.HEADER: str(protocol.CURRENT), **call.headers}
        if call.body is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        try:
            request = h11.Request(
                method=call.method, target=call.path, headers=list(headers.items())
            )
        except h11.LocalProtocolError as error:
            raise ValueError(str(error)) from None
        self.heard = 0
        events = (request, h11.Data(data=body), h11.EndOfMessage())
        return b"".join(self._h11.send(event) or b"" for event in events)

    def hear(self, data: bytes) -> None:
        """What was received; nothing, when the other side has hung up. Raises `ProtocolError`."""
        if not self.heard and not data.startswith(_BEGINNING[: len(data)]):
            raise ProtocolError(f"what answers there speaks no HTTP: {data[:MAX_QUOTED_BYTES]!r}")
        self.heard += len(data)
        self._h11.receive_data(data)

    def head(self) -> Head | None:
        """How the answer begins; `None` until more is heard.

        Raises `ProtocolError`, and `ConnectionResetError` when no more will be.
        """
        event = self._next()
        while isinstance(event, h11.InformationalResponse):
            event = self._next()
        if not isinstance(event, h11.Response):
            return None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        return understood(Head(event.status_code, headers))

    def piece(self) -> bytes | None:
        """More of the answer's body; nothing at its end, `None` until more is heard.

        Raises as `head` does.
        """
        event = self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        return b"" if isinstance(event, h11.EndOfMessage) else None

    def another(self) -> bool:
        """Ready for another call, if the answer to this one is complete and allows one."""
        said, over = self._h11.trailing_data  # more than was asked for: not to be trusted
        if said or over or not self._h11.our_state is self._h11.their_state is h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    def _next(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            _, over = self._h11.trailing_data
            if over:
                raise ConnectionResetError("it hung up") from None
            raise ProtocolError(f"what answers there speaks no HTTP: {error}") from None
