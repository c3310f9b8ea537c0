"""Slow, pure work on a thread. It must release the GIL, or it blocks the loop all the same."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class ThreadOffload:
    """See `ports.Offload`. One thread: long counts queue up rather than starve the loop."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="offload")

    async def __call__(self, work: Callable[[], T]) -> T:
        """See `ports.Offload`."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """Let the thread end."""
        self._executor.shutdown(wait=False, cancel_futures=True)
