"""What a call waits for before it is sent, behind both gates of the ledger.

    python -m benches.gate [--calls 20000] [--callers 40]

Callers hold, wait until they may send, pretend to wait 5 ms for a model, and settle, over a state
folder on this disk. One caller and many; alone the figures count of one run on one machine.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

from cascaded.state.ledger import DurableLedger
from cascaded.types.limits import Admitted, BudgetLimit, Choice, Demand, Gate, Limits

MODEL_S = 0.005
USERS = 8
LIMIT_NANO = 10**15


def demand(user: int, nano_usd: int) -> Demand:
    """A call on six counters: a user's and the organisation's day, month and total."""
    owners = (("user", f"u{user}"), ("organization", "o"))
    budgets = tuple(
        BudgetLimit(scope=scope, id=id, window=window, limit_nano_usd=LIMIT_NANO)  # type: ignore[arg-type]
        for scope, id in owners
        for window in ("day", "month", "total")
    )
    return Demand(menu=(Choice(nano_usd=nano_usd, tokens=1),), limits=Limits(budgets))


async def measure(gate: Gate, calls: int, callers: int) -> str:
    """One line of figures."""
    waits: list[int] = []
    chance = random.Random(1)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        ledger = DurableLedger.open(Path(folder), asyncio.get_running_loop(), gate=gate)

        async def caller() -> None:
            while len(waits) < calls:
                asked = demand(chance.randrange(USERS), chance.randint(50_000, 500_000))
                began = time.perf_counter_ns()
                held = ledger.admit(asked)
                assert isinstance(held, Admitted)
                if not held.clear:
                    await ledger.durable(held.seq)
                waits.append(time.perf_counter_ns() - began)
                await asyncio.sleep(MODEL_S)
                ledger.post(held.hold, held.nano_usd // 3, "billed")

        await asyncio.gather(*(caller() for _ in range(callers)))
        stats = ledger.stats()
        ledger.close()
    cuts = statistics.quantiles(waits, n=100)
    return (
        f"{gate:8} {callers:4} callers: p50 {cuts[49] / 1e6:.3f} ms, p99 {cuts[98] / 1e6:.3f} ms,"
        f" waited {stats['gated'] / stats['admitted']:.1%}; a flush took"
        f" {stats['flush_at_start_ns'] / 1e6:.3f} ms at the start"
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--callers", type=int, default=40)
    asked = parser.parse_args()
    gates: tuple[Gate, ...] = ("strict", "ceiling")
    for callers in (1, asked.callers):
        for gate in gates:
            calls = asked.calls if callers > 1 else asked.calls // 10
            print(asyncio.run(measure(gate, calls, callers)))


if __name__ == "__main__":
    main()
