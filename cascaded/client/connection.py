"""Connections to the daemon: dialling, keeping them for later calls, and what to say when they
break. Who waits for a socket, and how, is the clients' part: `sync` blocks a thread, `aio` a task.

What takes long to import (`socket`, h11) is imported by whoever dials.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from cascaded.client.calls import Call
from cascaded.client.errors import DaemonUnreachableError, StreamBrokenError
from cascaded.types.environment import Variable
from cascaded.types.places import socket_path

if TYPE_CHECKING:
    import socket

DEFAULT_TIMEOUT_S = 600.0
MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""Of a whole answer, which is kept in memory."""
MAX_IDLE = 64
"""Connections that a client keeps for later."""
READ_BYTES = 64 * 1024
KEY_BYTES = 16
"""Of an idempotency key that is made here."""
LOOK_AGAIN_S = 0.2
"""How long to wait before a batch is looked for again whose daemon went away."""
DIAL_AGAIN_S = 0.005
"""How long to wait when the daemon has more callers at its door than it can queue."""

T = TypeVar("T")


class Connection:
    """A dialled socket and what is being said on it."""

    def __init__(self, sock: "socket.socket") -> None:
        from cascaded.client.http1 import Http

        self._sock = sock
        self._owner = os.getpid()
        self.http = Http()
        self.sent = 0
        """Bytes of the call under way."""

    def __del__(self) -> None:
        self.close()  # nobody closed the client

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    @property
    def sock(self) -> "socket.socket":
        """Raises `ConnectionError` in a child of the process that dialled."""
        if self._owner != os.getpid():
            raise ConnectionAbortedError("it is the parent process's")
        return self._sock

    def usable(self) -> bool:
        """Still ours (no fork since), and not closed by the daemon in the meantime."""
        if self._owner != os.getpid():
            return False
        import select

        poll = select.poll()  # not `select.select`, which fails beyond 1,024 descriptors
        poll.register(self._sock, select.POLLIN)
        return not poll.poll(0)

    def may_repeat(self, call: Call[T]) -> bool:
        """Whether a call that failed here may be made again: the daemon cannot have seen it, or
        seeing it twice does no harm and no answer had begun."""
        return not self.sent or (call.repeatable and not self.http.heard)


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
        if len(self._kept) < MAX_IDLE and connection.http.another():
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
    import socket

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
