"""The daemon beside a bare aiohttp pass-through, in one run on one machine.

    python -m benches.overhead [--rounds 7] [--calls 400]

Both stand between the same client and the same instant upstream, over Unix sockets. Rounds
alternate, so that a change of the machine's speed falls on both; what counts is the ratio.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

CONFIG = """
[server]
socket = "{folder}/daemon.sock"

[ledger]
dir = "{folder}/state"

[log]
file = "{folder}/daemon.log"

[providers.bench]
kind = "openai_compatible"
base_url = "http://upstream/v1"
uds = "{folder}/upstream.sock"

[models.bench]
provider = "bench"
input_usd_per_mtok = "0.15"
output_usd_per_mtok = "0.60"
vocabulary = "o200k_base"

[models.bench-cl100k]
provider = "bench"
upstream_name = "bench"
input_usd_per_mtok = "0.15"
output_usd_per_mtok = "0.60"
vocabulary = "cl100k_base"

[ladders.default]
rungs = ["bench", "bench-cl100k"]
aliases = ["auto"]
"""
PROMPT = "What is the capital of France? Answer in one sentence, please."
START_WITHIN_S = 20.0
KIB = 1024


class Connection:
    """A keep-alive connection that does as little as a client can."""

    def __init__(self, path: str, model: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": PROMPT}]})
        self._request = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

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
        if not head.startswith(b"HTTP/1.1 200") or b"Paris" not in body:
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


def measure(rounds: int, calls: int) -> dict[str, float]:
    """The figures."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "cascaded.toml").write_text(CONFIG.replace("{folder}", name))
        upstream = str(folder / "upstream.sock")
        stack.enter_context(process("benches.peers", "upstream", upstream))
        wait_for(folder / "upstream.sock")
        bare = str(folder / "bare.sock")
        stack.enter_context(process("benches.peers", "pass-through", bare, upstream))
        wait_for(folder / "bare.sock")
        config = str(folder / "cascaded.toml")
        daemon = stack.enter_context(process("cascaded", "serve", "--config", config))
        ready_s = wait_for(folder / "daemon.sock")
        idle_mib = resident_mib(daemon.pid)
        figures = _compare(folder, rounds, calls)
        for model in ("bench", "bench-cl100k"):
            connection = Connection(str(folder / "daemon.sock"), model)
            median_us(connection, 500)
            connection.close()
        return {
            "ready_s": ready_s,
            "idle_mib": idle_mib,
            **figures,
            "mib_after_calls_in_both_vocabularies": resident_mib(daemon.pid),
        }


def _compare(folder: Path, rounds: int, calls: int) -> dict[str, float]:
    doors = {"direct": "upstream", "bare": "bare", "daemon": "daemon"}
    lines = {
        name: Connection(str(folder / f"{door}.sock"), "bench") for name, door in doors.items()
    }
    cascade = Connection(str(folder / "daemon.sock"), "auto")
    for line in (*lines.values(), cascade):
        median_us(line, calls)  # warm up
    seen: dict[str, list[float]] = {name: [] for name in (*lines, "cascade")}
    for _ in range(rounds):
        for name, line in (*lines.items(), ("cascade", cascade)):
            seen[name].append(median_us(line, calls))
    medians = {f"{name}_us": statistics.median(times) for name, times in seen.items()}
    added = [
        (ours - direct) / (bare - direct)
        for direct, bare, ours in zip(seen["direct"], seen["bare"], seen["daemon"], strict=True)
    ]
    return {**medians, "added_ratio": statistics.median(added)}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=400)
    options = parser.parse_args()
    figures = measure(options.rounds, options.calls)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
