"""The daemon beside a bare aiohttp pass-through, in one run on one machine.

    python -m benches.overhead [--rounds 7] [--calls 400] [--gate ceiling]

Both stand between the same client and the same instant upstream, over Unix sockets. Rounds
alternate, so that a change of the machine's speed falls on both; what counts is the ratio.
"""

import argparse
import json
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benches.rig import Connection, median_us, process, resident_mib, wait_for

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


def chat(path: Path, model: str) -> Connection:
    """A connection that asks for the capital of France."""
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
    return Connection(str(path), "/v1/chat/completions", body, b"Paris")


def measure(rounds: int, calls: int, gate: str) -> dict[str, float]:
    """The figures."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        text = CONFIG.replace("{folder}", name)
        gated = text.replace("[ledger]", f'[ledger]\ngate = "{gate}"')
        (folder / "cascaded.toml").write_text(gated)
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
            connection = chat(folder / "daemon.sock", model)
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
    lines = {name: chat(folder / f"{door}.sock", "bench") for name, door in doors.items()}
    cascade = chat(folder / "daemon.sock", "auto")
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
    parser.add_argument("--gate", choices=("strict", "ceiling"), default="ceiling")
    options = parser.parse_args()
    figures = measure(options.rounds, options.calls, options.gate)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
