"""Writes that wait for the disk together: one flush serves all who came meanwhile."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from cascaded.ports import Offload

Rows = Sequence[tuple[bytes, bytes]]
"""Keys and values."""


class Commits:
    """Of one event loop. `write` takes rows, all or none, and blocks on the disk."""

    def __init__(self, write: Callable[[Rows], None], disk: Offload) -> None:
        self._write = write
        self._disk = disk
        self._waiting: list[tuple[Rows, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def put(self, rows: Rows) -> None:
        """Return once these are on the disk. Raises `StoreError`: then none of them is. Who is
        cancelled does not wait for it, but it is written all the same."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())  # noqa: TID251  see `close`
        await done

    async def close(self) -> None:
        """Wait until nothing is being written."""
        if self._flushing is not None:
            await self._flushing

    async def _flush(self) -> None:
        while self._waiting:
            together, self._waiting = self._waiting, []
            lost: Exception | None = None
            try:
                await self._disk(
                    partial(self._write, [row for rows, _ in together for row in rows])
                )
            except Exception as error:  # whatever it is, those who wait must hear of it
                lost = error
            for _, done in together:
                if done.done():
                    continue  # nobody waits for it any more
                if lost is None:
                    done.set_result(None)
                else:
                    done.set_exception(lost)
