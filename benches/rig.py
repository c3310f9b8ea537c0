"""What every bench of the daemon needs: a lean client, child processes, figures of both."""

import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_WITHIN_S = 20.0
KIB = 1024


class Connection:
    """A keep-alive connection that does as little as a client can."""

    def __init__(self, path: str, target: str, body: object, expected: bytes) -> None:
        """Every answer must be a 200 with `expected` in it."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        text = json.dumps(body)
        self._request = (
            f"POST {target} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}"
        ).encode()
        self._expected = expected

    def call(self) -> float:
        """Seconds from the first byte sent to the last one received."""
        started = time.perf_counter()
        self._socket.sendall(self._request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._read()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += self._read()
        elapsed = time.perf_counter() - started
        if not head.startswith(b"HTTP/1.1 200") or self._expected not in body:
            raise RuntimeError(f"not the expected answer: {head!r} {body!r}")
        return elapsed

    def _read(self) -> bytes:
        data = self._socket.recv(65_536)
        if not data:
            raise RuntimeError("the connection was closed")
        return data

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@contextmanager
def process(*command: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A child process, ended at the end."""
    with subprocess.Popen([sys.executable, "-m", *command]) as child:
        try:
            yield child
        finally:
            child.terminate()


def wait_for(path: Path) -> float:
    """Seconds until somebody accepts on the socket."""
    started = time.perf_counter()
    while time.perf_counter() - started < START_WITHIN_S:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
                return time.perf_counter() - started
        except OSError:
            time.sleep(0.002)
    raise RuntimeError(f"nobody listens on {path}")


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / KIB
    raise RuntimeError("no VmRSS")


def median_us(connection: Connection, calls: int) -> float:
    """Median latency of one round, in microseconds."""
    return statistics.median(connection.call() for _ in range(calls)) * 1e6
