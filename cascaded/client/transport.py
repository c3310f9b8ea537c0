"""HTTP over a Unix socket: a kept-alive connection for each thread, and a new one after a fork."""

import http.client
import os
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cascaded.client.errors import DaemonUnreachableError, ProtocolError


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self.owner = os.getpid()

    def __del__(self) -> None:
        self.close()  # its thread has ended without closing the client

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError as error:
            raise DaemonUnreachableError(
                f"no daemon answers on {self._path} ({error.strerror or error}); start it with"
                " `cascaded serve`, or name its socket in CASCADED_SOCKET"
            ) from None

    def usable(self) -> bool:
        """Still ours (no fork since), and not closed, by the daemon or by us, in the meantime."""
        if self.sock is None or self.owner != os.getpid():
            return False
        poll = select.poll()  # not `select.select`, which fails beyond 1,024 descriptors
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)


class Transport:
    """Sends requests to one socket path."""

    def __init__(self, path: str, timeout_s: float) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._mine = threading.local()

    @contextmanager
    def exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        extra: Mapping[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """One request and its response, on a connection that nobody else uses meanwhile.

        What is left unread closes the connection. Raises `DaemonUnreachableError` and
        `ProtocolError`; what breaks while the response is read is left to the reader.
        """
        connection = self._take()
        try:
            with self._send(connection, method, path, body, extra or {}) as response:
                yield response
                whole = response.isclosed()
        except BaseException:
            connection.close()
            raise
        if whole:
            self._give_back(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close this thread's connection."""
        connection = self._idle()
        if connection is not None:
            connection.close()

    def _send(
        self,
        connection: _UnixConnection,
        method: str,
        path: str,
        body: bytes | None,
        extra: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, body, {**headers, **extra})
            return connection.getresponse()
        except TimeoutError:
            raise DaemonUnreachableError(
                f"the daemon on {self.path} gave no answer within {self._timeout_s:g} s"
            ) from None
        except OSError as error:
            raise DaemonUnreachableError(
                f"the daemon on {self.path} went away before it answered"
                f" ({error.strerror or error}); it may have made the call"
            ) from error
        except http.client.HTTPException as error:
            raise ProtocolError(f"what answers on {self.path} speaks no HTTP: {error!r}") from None

    def _take(self) -> _UnixConnection:
        """This thread's idle connection, if it is still good; else a new one."""
        connection = self._idle()
        if connection is not None and connection.usable():
            return connection
        if connection is not None:
            connection.close()
        return _UnixConnection(self.path, self._timeout_s)

    def _give_back(self, connection: _UnixConnection) -> None:
        """Keep one, for the next call."""
        self.close()
        self._mine.idle = connection

    def _idle(self) -> _UnixConnection | None:
        connection: _UnixConnection | None = getattr(self._mine, "idle", None)
        self._mine.idle = None
        return connection
