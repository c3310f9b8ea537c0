"""Single flight: of equal calls that come together one is made, and the others wait for it."""

import asyncio
from collections import deque
from typing import Literal

from cascaded.types.recalled import Recalled

Landing = Recalled | Literal["lead", "alone"]
"""What becomes of who waits: the answer; `lead`: the call that was under way failed, make it now;
`alone`: it gave an answer that cannot be shared, or took too long, so make your own."""


class Flights:
    """Calls under way by their keys, on one event loop. Whoever leads must land."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, deque[asyncio.Future[Landing]]] = {}

    def lead(self, key: bytes) -> bool:
        """Whether nobody leads yet; then it is you."""
        if key in self._under_way:
            return False
        self._under_way[key] = deque()
        return True

    async def wait(self, key: bytes, seconds: float) -> Landing:
        """Wait for who leads, for so long. Who leaves disturbs nobody."""
        future: asyncio.Future[Landing] = asyncio.get_running_loop().create_future()
        self._under_way[key].append(future)
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return _landing(future) or "alone"
        except asyncio.CancelledError:
            if _landing(future) == "lead":
                self.land(key, "lead")
            raise

    def land(self, key: bytes, landing: Landing) -> None:
        """How the call that led ended. `lead` passes the lead on to who waits longest."""
        waiting = self._under_way[key]
        while waiting:
            future = waiting.popleft()
            if not future.done():
                future.set_result(landing)
                if landing == "lead":
                    return
        del self._under_way[key]


def _landing(future: "asyncio.Future[Landing]") -> Landing | None:
    """What came in the same moment as the end of the wait."""
    return future.result() if future.done() and not future.cancelled() else None
