"""Waiting for calls to end."""

import asyncio
from typing import Protocol

POLL_S = 0.02


class Busy(Protocol):
    """Whoever counts calls under way."""

    in_flight: int


async def until_idle(busy: Busy, seconds: float | None = None) -> bool:
    """Wait until no call is under way; whether that came about in time."""
    try:
        async with asyncio.timeout(seconds):
            while busy.in_flight:  # noqa: ASYNC110 (an event would cost every call)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return False
    return True
