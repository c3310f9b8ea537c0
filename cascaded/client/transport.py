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

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def usable(self) -> bool:
        """Still ours (no fork since), and not closed by the daemon in the meantime."""
        if self.owner != os.getpid():
            return False
        return self.sock is None or not select.select([self.sock], [], [], 0)[0]


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
        """One request and its response. What is left unread closes the connection."""
        connection = self._connection()
        headers = {
            **({"Content-Type": "application/json"} if body is not None else {}),
            **(extra or {}),
        }
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            yield response
            if not response.isclosed():
                connection.close()
        except (FileNotFoundError, ConnectionRefusedError, PermissionError) as error:
            connection.close()
            raise DaemonUnreachableError(
                f"no daemon answers on {self.path} ({error.strerror}); start it with"
                " `cascaded serve`, or name its socket in CASCADED_SOCKET"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ProtocolError(f"the connection to {self.path} broke: {error!r}") from error
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close this thread's connection."""
        connection: _UnixConnection | None = getattr(self._mine, "connection", None)
        if connection is not None:
            connection.close()
            self._mine.connection = None

    def _connection(self) -> _UnixConnection:
        connection: _UnixConnection | None = getattr(self._mine, "connection", None)
        if connection is None or not connection.usable():
            self.close()
            connection = self._mine.connection = _UnixConnection(self.path, self._timeout_s)
        return connection
