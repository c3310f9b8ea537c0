"""`/check` beside a bare aiohttp handler that decodes and encodes JSON, in one run on one machine.

    python -m benches.check [--rounds 9] [--calls 1000]

One caller, Unix sockets, rounds alternating: what counts is the ratio. Once with one budget for
each user, once with budgets and rates on three scopes: 13 limits, bursts included, all told.
"""

import argparse
import json
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benches.overhead import CONFIG, PROMPT
from benches.rig import Connection, process, wait_for

TRUSTED = """
[access]
trusted = ["uid:{uid}"]
"""
ONE = """
[limits.users.default]
daily_usd = 10
"""
MANY = """
[limits.global]
daily_usd = 1000
weekly_usd = 5000
monthly_usd = 10000

[limits.organizations.default]
daily_usd = 100
monthly_usd = 1000
requests_per_minute = 1000000

[limits.users.default]
daily_usd = 10
weekly_usd = 50
monthly_usd = 100
requests_per_minute = 1000000
tokens_per_minute = 100000000
"""
WHO = {"context": {"user_id": "alice", "organization": "acme"}}
PERCENT = 100


def measure(limits: str, rounds: int, calls: int) -> dict[str, float]:
    """The figures."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        trusted = TRUSTED.replace("{uid}", str(os.getuid()))
        (folder / "cascaded.toml").write_text(CONFIG.replace("{folder}", name) + trusted + limits)
        stack.enter_context(process("benches.peers", "json", str(folder / "bare.sock")))
        config = str(folder / "cascaded.toml")
        stack.enter_context(process("cascaded", "serve", "--config", config))
        for door in ("bare", "daemon"):
            wait_for(folder / f"{door}.sock")
        asked = {"messages": [{"role": "user", "content": PROMPT}], "model": "auto"}
        bodies: dict[str, tuple[str, object]] = {
            "bare": ("bare", asked),
            "amount": ("daemon", {"cost": "0.01", **WHO}),
            "prompt": ("daemon", {**asked, **WHO}),
        }
        lines = {
            name: Connection(str(folder / f"{door}.sock"), "/check", body, b'"allowed":true')
            for name, (door, body) in bodies.items()
        }
        return _compare(lines, rounds, calls)


def _compare(lines: dict[str, Connection], rounds: int, calls: int) -> dict[str, float]:
    seen: dict[str, list[list[float]]] = {name: [] for name in lines}
    for _ in range(rounds + 1):
        for name, line in lines.items():
            seen[name].append(sorted(line.call() * 1e6 for _ in range(calls)))
    figures: dict[str, float] = {}
    for name, warm in ((name, rows[1:]) for name, rows in seen.items()):
        figures[f"{name}_p50_us"] = statistics.median(statistics.median(one) for one in warm)
        figures[f"{name}_p99_us"] = statistics.median(one[calls * 99 // PERCENT] for one in warm)
    bare = [statistics.median(one) for one in seen["bare"][1:]]
    for name in ("amount", "prompt"):
        ours = [statistics.median(one) for one in seen[name][1:]]
        figures[f"{name}_ratio"] = statistics.median(
            mine / floor for mine, floor in zip(ours, bare, strict=True)
        )
    return figures


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    for title, limits in (("one limit", ONE), ("13 limits", MANY)):
        figures = measure(limits, options.rounds, options.calls)
        rounded = {name: round(value, 3) for name, value in figures.items()}
        print(json.dumps({title: rounded}, indent=2))


if __name__ == "__main__":
    main()
