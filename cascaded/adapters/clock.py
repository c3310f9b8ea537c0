"""The real clock."""

import asyncio
import time


class SystemClock:
    """See `ports.Clock`."""

    def monotonic_ns(self) -> int:
        """See `ports.Clock.monotonic_ns`."""
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        """See `ports.Clock.wall_ns`."""
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        """See `ports.Clock.sleep`."""
        await asyncio.sleep(seconds)
