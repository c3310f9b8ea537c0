"""Money on the whole path of calls, in worlds that seeds decide: see `tests/support/simulation`.

Held at every step: no budget is overspent (I1), the provider's bill is covered, after power cuts as
well (I2), all counters are charged or none (I3), a hold resolves once (I4), nothing is sent before
its hold is durable (I5), recovery is idempotent (I6), windows do not open again (I7), no trailing
minute has more requests than its rate (I8), what an application was told is kept (I9), a key means
its hold (I10). At the end the books are the bill, to the nano-dollar.
"""

import os
import sys
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from cascaded.types.limits import Demand, Receipt
from tests.support.simulation import Broken, Disk, Ledger, simulate

SEEDS = range(8)
MORE = int(os.environ.get("CASCADED_SIMULATION_SEEDS", "0"))
"""`make torture` sets it: further seeds."""
FIRST_OF_MORE = int(os.environ.get("CASCADED_SIMULATION_FIRST", "1000"))
SEEDS_FOR_BUGS = range(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_world(seed: int) -> None:
    simulate(seed)


@pytest.mark.skipif(not MORE, reason="make torture asks for more worlds")
def test_many_worlds() -> None:
    seen: Counter[str] = Counter()
    for seed in range(FIRST_OF_MORE, FIRST_OF_MORE + MORE):
        try:
            seen += simulate(seed)
        except Exception as fault:
            raise AssertionError(f"seed {seed}") from fault
    sys.stdout.write(f"\n{MORE} worlds: {dict(seen)}\n")


class SentBeforeDurable(Ledger):
    async def durable(self, seq: int) -> None: ...


class FreeWhenTheCallerLeaves(Ledger):
    def settle(self, hold: int, attempts: Any) -> Receipt:
        return super().settle(hold, [one for one in attempts if one.billing != "unknown"])


class UnknownsChargedAsStreamed(Ledger):
    def settle(self, hold: int, attempts: Any) -> Receipt:
        if any(one.billing == "unknown" for one in attempts):
            streamed = sum(one.usage.output_tokens for one in attempts)
            return self.post(hold, streamed, "billed")
        return super().settle(hold, attempts)


class OneCounterOnly(Ledger):
    """Every so often a call is charged to its user and to nobody else."""

    def admit(self, demand: Demand) -> Any:
        if self.world.chance.random() < 0.2:
            alone = replace(demand.limits, budgets=demand.limits.budgets[2:])
            demand = replace(demand, limits=alone)
        return super().admit(demand)


class ShrunkToFit(Ledger):
    """Less is held than the worst that a call can cost."""

    def admit(self, demand: Demand) -> Any:
        small = tuple(replace(one, nano_usd=one.nano_usd // 10) for one in demand.menu)
        return super().admit(replace(demand, menu=small))


class WithoutRates(Ledger):
    def admit(self, demand: Demand) -> Any:
        return super().admit(replace(demand, limits=replace(demand.limits, rates=())))


class WithoutKeys(Ledger):
    def admit(self, demand: Demand) -> Any:
        return super().admit(replace(demand, idempotency=None))


class AcknowledgedBeforeTheFlush(Disk):
    def flush(self) -> None:
        if next(self._number) % 3:
            super().flush()
        else:
            self.acknowledge(self.last())


class RecoveryForgets(Disk):
    """What was open at a crash is given back."""

    def cut_power(self) -> Any:
        real = super().cut_power()
        for one in real.unresolved():
            real.adjust(one.hold, 0)
        return real


@pytest.mark.parametrize(
    ("planted", "caught"),
    [
        (SentBeforeDurable, "I5|I9"),
        (FreeWhenTheCallerLeaves, "I2"),
        (UnknownsChargedAsStreamed, "I2"),
        (OneCounterOnly, "I3"),
        (ShrunkToFit, "I2|no overrun"),
        (WithoutRates, "I8"),
        (WithoutKeys, "I10"),
    ],
)
def test_planted_in_the_ledger(planted: type[Ledger], caught: str) -> None:
    _is_caught(caught, ledger=planted)


@pytest.mark.parametrize(
    ("planted", "caught"),
    [(AcknowledgedBeforeTheFlush, "I2|I9|I10"), (RecoveryForgets, "I2|I9")],
)
def test_planted_in_the_disk(planted: type[Disk], caught: str) -> None:
    _is_caught(caught, disk=planted)


def _is_caught(caught: str, **planted: Any) -> None:
    def search() -> None:
        for seed in SEEDS_FOR_BUGS:
            simulate(seed, **planted)

    with pytest.raises(Broken, match=rf"^({caught})"):
        search()
