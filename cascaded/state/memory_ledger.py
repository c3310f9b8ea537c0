"""A ledger in memory: holds and spend of this process's life, without limits.

It serves until the durable ledger takes its place behind the same port.
"""

from collections.abc import Sequence
from itertools import count

from cascaded.types.decision import Hold, Refusal
from cascaded.types.request import Request
from cascaded.types.result import Attempt


class MemoryLedger:
    """See `ports.Ledger`. Amounts are nano-dollars."""

    def __init__(self) -> None:
        self.posted_nano_usd = 0
        """Spend that providers confirmed."""
        self.unknown_nano_usd = 0
        """Charged at the worst case, because nobody knows whether it was billed."""
        self._ids = count(1)
        self._open: dict[int, int] = {}

    def spend(self) -> dict[str, int]:
        """Nano-dollars by state: posted, held for calls under way, unknown."""
        return {
            "posted": self.posted_nano_usd,
            "held": sum(self._open.values()),
            "unknown": self.unknown_nano_usd,
        }

    def reserve(self, request: Request, nano_usd: int) -> Hold | Refusal:  # noqa: ARG002
        """A hold; never a refusal, for there are no limits here."""
        hold = Hold(id=next(self._ids), nano_usd=nano_usd)
        self._open[hold.id] = nano_usd
        return hold

    async def durable(self, hold: Hold) -> None:
        """Nothing to wait for: memory is as durable as this ledger gets."""

    def settle(self, hold: Hold, attempts: Sequence[Attempt]) -> None:
        """Post the attempts. Raises `KeyError` for a hold that is not open."""
        del self._open[hold.id]
        for attempt in attempts:
            if attempt.billing == "unknown":
                self.unknown_nano_usd += attempt.cost_nano_usd
            else:
                self.posted_nano_usd += attempt.cost_nano_usd
