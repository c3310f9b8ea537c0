"""Work that is done again and again."""

import asyncio
from collections.abc import Callable


class Every:
    """Work that is done again and again on the event loop."""

    def __init__(self, seconds: float, work: Callable[[], object]) -> None:
        self._seconds = seconds
        self._work = work
        self._next = asyncio.get_running_loop().call_later(seconds, self._tick)

    def _tick(self) -> None:
        self._next = asyncio.get_running_loop().call_later(self._seconds, self._tick)
        self._work()

    def cancel(self) -> None:
        """No more of it."""
        self._next.cancel()
