"""Money on the whole path of calls, in worlds that seeds decide: see `tests/support/simulation`.

Held at every step: no budget is overspent (I1), the provider's bill is covered, after power cuts as
well (I2), all counters are charged or none (I3), a hold resolves once (I4), nothing is sent before
its hold is durable, or under a ceiling that is (I5), recovery is idempotent (I6), windows do not
open again (I7), no trailing minute has more requests than its rate (I8), what an application was
told is kept (I9), a key means its hold (I10), an orderly end charges nothing (I11). At the end the
books are the bill, to the nano-dollar. Every other world is behind the ceiling gate.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from cascaded.types.limits import Admitted, Demand, Gate, Receipt
from tests.support.simulation import Broken, Disk, Ledger, simulate

SEEDS = range(8)
MORE = int(os.environ.get("CASCADED_SIMULATION_SEEDS", "0"))
"""`make torture` sets it: further seeds."""
FIRST_OF_MORE = int(os.environ.get("CASCADED_SIMULATION_FIRST", "1000"))
SEEDS_FOR_BUGS = range(60)


def gate_of(seed: int) -> Gate:
    return "ceiling" if seed % 2 else "strict"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_world(seed: int) -> None:
    simulate(seed, gate_of(seed))


@pytest.mark.skipif(not MORE, reason="make torture asks for more worlds")
def test_many_worlds() -> None:
    seen: dict[Gate, Counter[str]] = {"strict": Counter(), "ceiling": Counter()}
    for seed in range(FIRST_OF_MORE, FIRST_OF_MORE + MORE):
        try:
            seen[gate_of(seed)] += simulate(seed, gate_of(seed))
        except Exception as fault:
            raise AssertionError(f"seed {seed}") from fault
    for gate, figures in seen.items():
        sys.stdout.write(f"\n{MORE // 2} worlds, {gate}: {dict(figures)}\n")


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
    def flush(self, *, tell: bool = True) -> None:
        if next(self._number) % 3:
            super().flush(tell=tell)
        else:
            self.acknowledge(self.settle())


class RecoveryForgets(Disk):
    """What was open at a crash is given back."""

    def cut_power(self) -> Any:
        real = super().cut_power()
        for one in real.unresolved():
            if not one.lost:
                real.adjust(one.hold, 0)
        return real


# Behind the ceiling gate.


class SentAtOnce(Ledger):
    """Every call, as if there were no gate."""

    def clear(self, demand: Demand, answer: Admitted) -> bool:
        return True


class TrustsUnwrittenRoom(Ledger):
    """Room counts before its record would survive a power cut."""

    def clear(self, demand: Demand, answer: Admitted) -> bool:
        self.world.disk.settle()
        return answer.clear


class ReusesReturns(Ledger):
    """What a settlement gave back is room again."""

    _returned = 0

    def _once(self, receipt: Receipt) -> Receipt:
        self._returned += receipt.returned
        return super()._once(receipt)

    def clear(self, demand: Demand, answer: Admitted) -> bool:
        if not answer.clear and answer.nano_usd <= self._returned:
            self._returned -= answer.nano_usd
            return True
        return answer.clear


class RoomOutlivesWindow(Ledger):
    """The call that begins a day is sent with the room of the day before."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._day: dict[str, int | None] = {}

    def clear(self, demand: Demand, answer: Admitted) -> bool:
        assert demand.label is not None
        user = demand.label[1]
        today = self.world.day_of(user)
        before = self._day.setdefault(user, today)
        self._day[user] = today
        return answer.clear or before != today


class LowersLate(Ledger):
    """A limit that is lowered leaves the room that it had when it was highest."""

    def clear(self, demand: Demand, answer: Admitted) -> bool:
        highest = vars(self.world).setdefault("highest", Counter())
        limits = Counter(
            {one.id + one.window: one.limit_nano_usd or 0 for one in demand.limits.budgets}
        )
        highest |= limits
        return answer.clear or any(limit < highest[name] for name, limit in limits.items())


class ForgetsCrashes(Disk):
    """What a crash may have lost is not charged."""

    def cut_power(self) -> Any:
        real = super().cut_power()
        for one in real.unresolved():
            if one.lost:
                real.adjust(one.hold, 0)
        return real


class ForgetsOneCounter(Disk):
    """It is charged to all counters but one."""

    def cut_power(self) -> Any:
        real = super().cut_power()
        for one in real.unresolved():
            users = [charge for charge in one.charges if charge.scope == "user"]
            if users:
                real.adjust(one.hold, one.unknown, [("user", users[0].id, 0)])
        return real


@pytest.mark.parametrize(
    ("planted", "caught"),
    [
        (SentAtOnce, "I2"),
        (TrustsUnwrittenRoom, "I2"),
        (ReusesReturns, "I2"),
        (RoomOutlivesWindow, "I2"),
        (LowersLate, "I2"),
    ],
)
def test_planted_in_the_gate(planted: type[Ledger], caught: str) -> None:
    _is_caught(caught, lambda _: "ceiling", ledger=planted)


@pytest.mark.parametrize(
    ("planted", "caught"), [(ForgetsCrashes, "I2"), (ForgetsOneCounter, "I2|I3")]
)
def test_planted_in_what_a_crash_charges(planted: type[Disk], caught: str) -> None:
    _is_caught(caught, lambda _: "ceiling", disk=planted)


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
    _is_caught(caught, gate_of, ledger=planted)


@pytest.mark.parametrize(
    ("planted", "caught"),
    [(AcknowledgedBeforeTheFlush, "I2|I9|I10"), (RecoveryForgets, "I2|I9")],
)
def test_planted_in_the_disk(planted: type[Disk], caught: str) -> None:
    _is_caught(caught, gate_of, disk=planted)


def _is_caught(caught: str, gate: Callable[[int], Gate], **planted: Any) -> None:
    def search() -> None:
        for seed in SEEDS_FOR_BUGS:
            simulate(seed, gate(seed), **planted)

    with pytest.raises(Broken, match=rf"^({caught})"):
        search()
