"""Something that listens on a Unix socket and answers by a script, right or wrong."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

Answer = bytes | Sequence[bytes | float] | None
"""What follows a request: bytes at once, bytes with pauses of seconds between, or silence until
the caller hangs up."""

PATIENCE_S = 5.0


class Scripted:
    """What was heard."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.heard: list[bytes] = []
        """Each request, whole."""
        self.hung_up = threading.Event()
        """A caller went away in the middle of a silence."""
        self.over = threading.Event()
        self.lines: list[socket.socket] = []


@contextmanager
def scripted(folder: Path, *connections: Sequence[Answer]) -> Iterator[Scripted]:
    """One script for each connection: an answer to each of its requests, then it hangs up."""
    script = Scripted(folder / "s.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(script.path)
        listener.listen()
        listener.settimeout(PATIENCE_S)

        def serve() -> None:
            for answers in connections:
                line, _ = listener.accept()
                script.lines.append(line)
                if script.over.is_set():
                    line.close()
                    return
                with line, suppress(ConnectionError):
                    line.settimeout(PATIENCE_S)
                    for answer in answers:
                        script.heard.append(_request(line))
                        _say(line, answer, script)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield script
        finally:
            script.over.set()
            for line in script.lines:
                with suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)
            with socket.socket(socket.AF_UNIX) as last, suppress(OSError):
                last.connect(script.path)
            thread.join(2 * PATIENCE_S)
            assert not thread.is_alive()


def http(
    body: bytes, status: int = 200, length: int | None = None, headers: Sequence[str] = ()
) -> bytes:
    """A plain answer; `length`: what it claims to be."""
    more = "".join(f"{header}\r\n" for header in headers).encode()
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%s\r\n%s" % (status, size, more, body)


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """An answer in chunks."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


def _request(line: socket.socket) -> bytes:
    head, body = b"", b""
    while b"\r\n\r\n" not in head:
        head += _more(line)
    head, _, body = head.partition(b"\r\n\r\n")
    length = [row[15:] for row in head.split(b"\r\n") if row.lower().startswith(b"content-length")]
    while len(body) < int(length[0] if length else 0):
        body += _more(line)
    return head + b"\r\n\r\n" + body


def _more(line: socket.socket) -> bytes:
    data = line.recv(65_536)
    if not data:
        raise ConnectionError("the caller left")
    return data


def _say(line: socket.socket, answer: Answer, script: Scripted) -> None:
    if answer is None:
        if not line.recv(65_536):
            script.hung_up.set()
    elif isinstance(answer, bytes):
        line.sendall(answer)
    else:
        for part in answer:
            if isinstance(part, bytes):
                line.sendall(part)
            else:
                script.over.wait(part)
