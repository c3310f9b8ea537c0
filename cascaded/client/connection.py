"""One HTTP/1.1 connection to the daemon, and those that are kept for later calls.

The grammar is h11's. A `Connection` tells what to send and takes what was received; who waits for
the socket, and how, is the clients' part: `sync` blocks a thread, `aio` an asyncio task.
"""

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import h11

from cascaded.client.answers import MAX_QUOTED_BYTES, Head
from cascaded.client.calls import Call
from cascaded.client.errors import DaemonUnreachableError, ProtocolError, StreamBrokenError
from cascaded.types.environment import Variable
from cascaded.types.places import socket_path

DEFAULT_TIMEOUT_S = 600.0
MAX_HEAD_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""Of a whole answer, which is kept in memory."""
MAX_IDLE = 64
"""Connections that a client keeps for later."""
READ_BYTES = 64 * 1024
DIAL_AGAIN_S = 0.005
"""How long to wait when the daemon has more callers at its door than it can queue."""

_BEGINNING = b"HTTP/1."

T = TypeVar("T")


class Connection:
    """A dialled socket and what is being said on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sent = 0
        """Bytes of the call under way."""
        self.heard = 0
        """Bytes of its answer."""
        self._owner = os.getpid()
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)

    def __del__(self) -> None:
        self.close()  # nobody closed the client

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def say(self, call: Call[T]) -> bytes:
        """The call as it is sent. Raises `ValueError` for headers that cannot be."""
        body = call.body or b""
        headers = {"Host": "localhost", **call.headers}
        if call.body is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        try:
            request = h11.Request(
                method=call.method, target=call.path, headers=list(headers.items())
            )
        except h11.LocalProtocolError as error:
            raise ValueError(str(error)) from None
        self.sent = self.heard = 0
        events = (request, h11.Data(data=body), h11.EndOfMessage())
        return b"".join(self._http.send(event) or b"" for event in events)

    def hear(self, data: bytes) -> None:
        """What was received; nothing, when the other side has hung up. Raises `ProtocolError`."""
        if not self.heard and not data.startswith(_BEGINNING[: len(data)]):
            raise ProtocolError(f"what answers there speaks no HTTP: {data[:MAX_QUOTED_BYTES]!r}")
        self.heard += len(data)
        self._http.receive_data(data)

    def head(self) -> Head | None:
        """How the answer begins; `None` until more is received."""
        event = self._next()
        while isinstance(event, h11.InformationalResponse):
            event = self._next()
        if not isinstance(event, h11.Response):
            return None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        return Head(event.status_code, headers)

    def piece(self) -> bytes | None:
        """More of the answer's body; nothing at its end, `None` until more is received."""
        event = self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        return b"" if isinstance(event, h11.EndOfMessage) else None

    def another(self) -> bool:
        """Ready it for another call, once the answer to this one is complete."""
        if self._http.our_state is self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return True
        return False

    def usable(self) -> bool:
        """Still ours (no fork since), and not closed by the daemon in the meantime."""
        if self._owner != os.getpid():
            return False
        poll = select.poll()  # not `select.select`, which fails beyond 1,024 descriptors
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def may_repeat(self, call: Call[T]) -> bool:
        """Whether a call that failed here may be made again: the daemon did not see it, or seeing
        it twice does no harm and no answer has begun."""
        return not self.sent or (call.repeatable and not self.heard)

    def _next(self) -> object:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            if self._http.trailing_data[1]:
                raise ConnectionResetError("it hung up") from None
            raise ProtocolError(f"what answers there speaks no HTTP: {error}") from None


class Idle:
    """Connections between two calls. Threads and event loops share them, processes never."""

    def __init__(self) -> None:
        self._kept: list[Connection] = []

    def __len__(self) -> int:
        return len(self._kept)

    def take(self) -> Connection | None:
        """The one used last that is still good, if there is one."""
        while True:
            try:
                connection = self._kept.pop()
            except IndexError:
                return None
            if connection.usable():
                return connection
            connection.close()

    def give(self, connection: Connection) -> None:
        """Keep it, if it can take another call."""
        if len(self._kept) < MAX_IDLE and connection.another():
            self._kept.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Hang up all of them."""
        kept, self._kept = self._kept, []
        for connection in kept:
            connection.close()


def where(given: str | None) -> str:
    """The daemon's socket: as given, else `$CASCADED_SOCKET`, else where a daemon without
    configuration listens."""
    return given or os.environ.get(Variable.SOCKET) or socket_path(os.environ, os.getuid())


def dial(path: str) -> Connection | None:
    """A new connection that does not block; `None` when the daemon's queue is full just now.

    Raises `DaemonUnreachableError`.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        sock.connect(path)
    except BlockingIOError:
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise DaemonUnreachableError(
            f"no daemon answers on {path} ({error.strerror or error}); start it with"
            " `cascaded serve`, or name its socket in CASCADED_SOCKET"
        ) from None
    return Connection(sock)


@contextmanager
def asking(path: str, timeout_s: float) -> Iterator[None]:
    """Failures before the answer has begun, in words."""
    try:
        yield
    except TimeoutError:
        raise DaemonUnreachableError(
            f"the daemon on {path} gave no answer within {timeout_s:g} s"
        ) from None
    except OSError as error:
        raise DaemonUnreachableError(
            f"the daemon on {path} went away before it answered ({error.strerror or error});"
            " it may have made the call"
        ) from error


@contextmanager
def answering() -> Iterator[None]:
    """Failures in the middle of a whole answer, in words."""
    try:
        yield
    except OSError as error:
        raise DaemonUnreachableError(f"the daemon went away as it answered: {error!r}") from error


@contextmanager
def streaming() -> Iterator[None]:
    """Failures in the middle of a stream, in words."""
    try:
        yield
    except OSError as error:
        raise StreamBrokenError(f"the connection broke: {error!r}") from error
