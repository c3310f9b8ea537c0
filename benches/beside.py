"""`/check` while exports and forecasts are worked out beside it.

    python -m benches.beside [--records 20000] [--calls 3000]

One caller on the Unix socket of a daemon with so many usage records; meanwhile another one asks for
nothing, for exports, for forecasts, again and again. Quantiles in microseconds.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing import Process, Queue
from pathlib import Path

from benches.check import ONE, TRUSTED, WHO
from benches.overhead import CONFIG, PROMPT
from benches.rig import Connection, process, wait_for
from cascaded.client import Client
from cascaded.wire.exports import NAMES, timestamp

DAY_NS = 86_400 * 10**9
DAYS = 60
BATCH = 500


def rows(count: int) -> list[dict[str, object]]:
    """Two months of calls."""
    now_ns = time.time_ns()
    assert "cost" in NAMES
    return [
        {
            "request_id": f"r{number}",
            "at": timestamp(now_ns - DAYS * DAY_NS * (count - number) // count),
            "user_id": f"user-{number % 50}",
            "tags": {"feature": f"f{number % 5}"},
            "model": "strong",
            "cost": "0.001234567",
            "input_tokens": 900,
            "output_tokens": 300,
            "attempts": [
                {
                    "model": "strong",
                    "provider": "upstream",
                    "rung": 0,
                    "billing": "billed",
                    "failed": [],
                    "accepted": True,
                    "cost": "0.001234567",
                    "input_tokens": 900,
                    "output_tokens": 300,
                    "cache_read_tokens": 0,
                    "cache_write_tokens": 0,
                    "input_audio_tokens": 0,
                    "output_audio_tokens": 0,
                    "reasoning_tokens": 0,
                    "estimated": False,
                }
            ],
        }
        for number in range(count)
    ]


def nothing(client: Client) -> None:
    client.health()
    time.sleep(0.1)


def export(client: Client) -> None:
    with client.export("csv") as found:
        for _ in found:
            pass


def forecast(client: Client) -> None:
    client.forecast()


def recommendations(client: Client) -> None:
    client.recommendations()


def again_and_again(work: Callable[[Client], None], socket: str, done: "Queue[float]") -> None:
    """In a process of its own: the caller that is measured must not wait for this one."""
    with Client(socket) as client:
        while True:
            started = time.perf_counter()
            work(client)
            done.put(time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--calls", type=int, default=3_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trusted = TRUSTED.replace("{uid}", str(os.getuid()))
        (folder / "cascaded.toml").write_text(CONFIG.replace("{folder}", name) + trusted + ONE)
        config = str(folder / "cascaded.toml")
        with process("cascaded", "serve", "--config", config):
            wait_for(folder / "daemon.sock")
            client = Client(str(folder / "daemon.sock"))
            made = rows(asked.records)
            started = time.perf_counter()
            for first in range(0, len(made), BATCH):
                client.import_records(made[first : first + BATCH])
            print(f"{len(made)} records brought in, {time.perf_counter() - started:.1f} s")
            measure(folder, asked.calls)


def measure(folder: Path, calls: int) -> None:
    socket = str(folder / "daemon.sock")
    body = {"messages": [{"role": "user", "content": PROMPT}], "model": "auto", **WHO}
    line = Connection(socket, "/check", body, b'"allowed":true')
    for work in (nothing, export, forecast, recommendations):
        done: Queue[float] = Queue()
        beside = Process(target=again_and_again, args=(work, socket, done), daemon=True)
        beside.start()
        time.sleep(0.5)
        seen = sorted(line.call() * 1e6 for _ in range(calls))
        beside.terminate()
        beside.join()
        took = [done.get() for _ in range(done.qsize())]
        half, tenth, most = (seen[calls * share // 100] for share in (50, 90, 99))
        times = f"{len(took)} of {statistics.median(took):.2f} s" if took else "none ended"
        quantiles = f"p50 {half:6.0f}  p90 {tenth:6.0f}  p99 {most:6.0f}"
        print(f"beside {work.__name__:<16} {quantiles}   {times}")


if __name__ == "__main__":
    main()
