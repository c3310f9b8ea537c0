"""Places for calls, and the room where calls wait for one: the best tier first, then who came
first."""

import asyncio
from bisect import insort
from collections.abc import Callable
from typing import Literal, NamedTuple

from cascaded.types.times import NS_PER_S

Ending = Literal["entered", "full", "displaced", "late", "draining", "left"]
"""How a wait ended: with a place; with none, because the room was full at once, a better tier
took the seat, the wait was too long, or the daemon stops; or the caller hung up."""


class _Waiter(NamedTuple):
    """Sorts as the order in which places are given."""

    behind: int
    """Minus its priority."""
    number: int
    turn: "asyncio.Future[Ending]"


class Size(NamedTuple):
    """How much a daemon takes on."""

    places: int
    """Calls at work."""
    seats: int
    """Calls that wait."""
    wait_s: float
    """How long they may."""


class WaitingRoom:
    """So many calls at work, and a few more that wait. Who waits holds nothing but a seat."""

    def __init__(
        self,
        size: Size,
        monotonic_ns: Callable[[], int],
        told: Callable[[Ending, float], object] = lambda _ending, _seconds: None,
    ) -> None:
        """`told`: how each wait ended, and how long it was; not of calls that need none."""
        self.size = size
        self.taken = 0
        self._now_ns = monotonic_ns
        self._told = told
        self._waiters: list[_Waiter] = []
        self._number = 0
        self._closed = False

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return len(self._waiters)

    def take(self) -> bool:
        """A place, if one is free. Nobody waits while one is."""
        if self.taken >= self.size.places:
            return False
        self.taken += 1
        return True

    def leave(self) -> None:
        """Give a place back: to the first who waits, if anybody does."""
        self.taken -= 1
        self._fill()

    def resize(self, size: Size) -> None:
        """From now on so many. Nobody is sent away for it."""
        self.size = size
        self._fill()

    async def wait(self, priority: int) -> Ending:
        """Wait for a place; with `entered` the caller has it, and must `leave`."""
        began_ns = self._now_ns()
        ending: Ending = "left"
        try:
            ending = await self._wait(priority)
        finally:
            self._told(ending, (self._now_ns() - began_ns) / NS_PER_S)
        return ending

    def close(self) -> None:
        """Send everybody who waits away, and let nobody wait any more."""
        self._closed = True
        while self._waiters:
            _tell(self._waiters.pop(), "draining")

    async def _wait(self, priority: int) -> Ending:
        if self._closed:
            return "draining"
        if self.take():  # one came free while the priority was looked up
            return "entered"
        waiter = _Waiter(-priority, self._number, asyncio.get_running_loop().create_future())
        self._number += 1
        insort(self._waiters, waiter)
        if len(self._waiters) > self.size.seats:
            last = self._waiters.pop()
            _tell(last, "full" if last is waiter else "displaced")
        try:
            async with asyncio.timeout(self.size.wait_s):
                return await waiter.turn
        except TimeoutError:
            return self._away(waiter, "late")
        except asyncio.CancelledError:
            self._away(waiter, "left")
            raise

    def _fill(self) -> None:
        """Whoever waits takes the places that are free."""
        while self._waiters and self.taken < self.size.places:
            self.taken += _tell(self._waiters.pop(0), "entered")

    def _away(self, waiter: _Waiter, ending: Ending) -> Ending:
        """Somebody does not wait any more, maybe in the very moment when their turn came."""
        if not waiter.turn.cancelled():
            if waiter.turn.result() == "entered":
                self.leave()
        elif waiter in self._waiters:
            self._waiters.remove(waiter)
        return ending


def _tell(waiter: _Waiter, ending: Ending) -> bool:
    """Whether they were still there to hear it."""
    if waiter.turn.done():
        return False
    waiter.turn.set_result(ending)
    return True
