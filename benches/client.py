"""What our client costs its application: `python -m benches.client`. To import, and a call.

Imports are processor time over a bare interpreter, the least of many starts. Calls go to a server
that answers every request with the same bytes, and are compared with the leanest client there is.
"""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from benches.rig import Connection
from cascaded import AsyncClient, Client

STARTS = 15
CALLS = 3_000
BODY = b'{"status": "ok", "version": "1.0"}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
IMPORTS = {
    "msgspec": "import msgspec",
    "cascaded.Client": "import cascaded; cascaded.Client",
    "cascaded.Client and what its first call needs": "import socket, cascaded.client.http1",
    "cascaded.AsyncClient": "import cascaded; cascaded.AsyncClient",
    "openai": "import openai",
}


def main() -> None:
    bare = _least_ms("pass")
    print(f"a bare interpreter: {bare:.0f} ms")
    for name, code in IMPORTS.items():
        print(f"import {name}: {_least_ms(code) - bare:.0f} ms")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "s.sock"))
        server = _serve(path)
        try:
            lean = Connection(path, "/health", {}, BODY)
            print(f"a call, leanest client: {_median_us(lean.call):.0f} µs")
            lean.close()
            with Client(path) as client:
                print(f"a call, Client: {_median_us(client.health):.0f} µs")
            print(f"a call, AsyncClient: {asyncio.run(_awaiting(path)):.0f} µs")
        finally:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)


async def _awaiting(path: str) -> float:
    async with AsyncClient(path) as client:
        return await _median_awaited_us(client.health)


def _least_ms(code: str) -> float:
    return min(_start_ms(code) for _ in range(STARTS))


def _start_ms(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _median_us(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(CALLS):
        start = perf_counter()
        call()
        taken.append(perf_counter() - start)
    return 1e6 * median(taken)


async def _median_awaited_us(call: Callable[[], Awaitable[object]]) -> float:
    taken = []
    for _ in range(CALLS):
        start = perf_counter()
        await call()
        taken.append(perf_counter() - start)
    return 1e6 * median(taken)


def _serve(path: str) -> int:
    """A child that answers one connection after another; its process id."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    child = os.fork()
    if child:
        listener.close()
        return child
    while True:
        line, _ = listener.accept()
        while line.recv(65_536):
            line.sendall(ANSWER)


if __name__ == "__main__":
    main()
