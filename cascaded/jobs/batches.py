"""Batches: who begins them, takes them up after a restart, and forgets them in the end."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import partial

from msgspec.structs import replace

from cascaded.jobs.run import Run, World
from cascaded.state.batches import StoredBatches, head
from cascaded.types.batch import Batch, Line, LineError, StoredFile
from cascaded.types.errors import StoreError

LEAVE_WITHIN_S = 2.0
"""What batches get to write down what is answered, when the daemon ends."""


class Batches:
    """Every batch of the daemon. Nothing is asked before `begin` and after `stop`."""

    def __init__(
        self, stored: StoredBatches, *, fault: Callable[[str, BaseException], None]
    ) -> None:
        """`fault` is told of a bug that ended a batch, by its id."""
        self.stored = stored
        self.turn = asyncio.Lock()
        """Held by who makes a new one."""
        self._fault = fault
        self._world: World | None = None
        self._runs: dict[str, Run] = {}
        self._tasks = set[asyncio.Task[None]]()
        self._forgetting: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether the daemon ends: batches go on after a restart."""
        return self._stopped.is_set()

    def begin(self, world: World) -> None:
        """Take up every batch that has not ended."""
        self._world = world
        for batch in list(self.stored.batches.values()):
            if not batch.ended:
                self._start(batch)

    async def create(self, batch: Batch, lines: list[Line]) -> None:
        """A new batch. Returns once it is on the disk. Raises `StoreError`."""
        world = self._ready()
        await world.disk(partial(self.stored.put, batch, lines))
        self.stored.batches[batch.id] = batch
        if not self.stopping:
            self._start(batch)

    async def create_file(self, file: StoredFile, data: bytes) -> None:
        """A new file. Returns once it is on the disk. Raises `StoreError`."""
        await self._ready().disk(partial(self.stored.put_file, file, data))
        self.stored.files[file.id] = file

    async def cancel(self, batch: Batch) -> None:
        """Have it end early. Raises `StoreError`."""
        run = self._runs.get(batch.id)
        if run is not None and batch.state not in ("cancelling", "finalizing"):
            await run.cancel()

    async def changes(self, id: str, *, every_s: float | None = None) -> AsyncGenerator[Batch]:
        """How it stands, now and whenever that changes, up to its end or the daemon's; after
        `every_s` also where it does not change."""
        while not self.stopping and (batch := self.stored.batches.get(id)) is not None:
            run = self._runs.get(id)
            changed = None if run is None else run.changed
            yield batch
            if batch.ended or changed is None:
                return
            if self.stored.batches.get(id) is batch:
                with suppress(TimeoutError):
                    async with asyncio.timeout(every_s):
                        await changed()

    async def ended(self, id: str) -> Batch | None:
        """Wait for its end; `None` where the daemon's comes first."""
        async for batch in self.changes(id):
            if batch.ended:
                return batch
        return None

    async def delete_batch(self, batch: Batch) -> None:
        """Forget one that has ended. Raises `StoreError`."""
        await self._ready().disk(partial(self.stored.forget_batch, batch.id))
        self.stored.batches.pop(batch.id, None)

    async def delete_file(self, file: StoredFile) -> None:
        """Forget a file, and the results that it shows. Raises `StoreError`."""
        world = self._ready()
        await world.disk(partial(self.stored.forget_file, file))
        self.stored.files.pop(file.id, None)
        batch = self.stored.batches.get(file.batch or "")
        if batch is not None:
            freed = {"error_bytes": 0} if file.errors else {"answer_bytes": 0}
            batch = replace(batch, totals=replace(batch.totals, **freed))
            self.stored.batches[batch.id] = batch
            await world.commits.put([head(batch)])

    def sweep(self) -> None:
        """Forget what is too old, in the background."""
        if self._forgetting is None or self._forgetting.done():
            self._forgetting = asyncio.create_task(self._forget_old())  # noqa: TID251  see `close`

    def stop(self) -> None:
        """Begin no further query: the daemon ends. Batches go on after a restart."""
        self._stopped.set()
        for run in self._runs.values():
            run.halt()
            run.tell()

    async def close(self) -> None:
        """Wait a moment for what is being written, and leave."""
        self.stop()
        tasks = [*self._tasks, *([self._forgetting] if self._forgetting else [])]
        if tasks:
            await asyncio.wait(tasks, timeout=LEAVE_WITHIN_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._world is not None:
            await self._world.bulks.close()
            await self._world.commits.close()

    def _ready(self) -> World:
        assert self._world is not None, "the doors open after `begin`"
        return self._world

    def _start(self, batch: Batch) -> None:
        run = self._runs[batch.id] = Run(batch, self._ready())
        task = asyncio.create_task(self._work(run))  # noqa: TID251  owned: `close` awaits it
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, run: Run) -> None:
        batch = run.batch
        try:
            await run.work()
        except Exception as fault:  # one batch must not take the others with it
            self._fault(batch.id, fault)
            await run.fail(LineError("internal_error", "The daemon failed on it; see its log."))
        finally:
            self._runs.pop(batch.id, None)
            run.tell()

    async def _forget_old(self) -> None:
        world = self._ready()
        now_ns, keep_ns = world.clock.wall_ns(), self.stored.bounds.keep_ns
        old = [
            batch
            for batch in self.stored.batches.values()
            if batch.ended and batch.since_ns[batch.state] + keep_ns < now_ns
        ]
        try:
            for batch in old:
                await self.delete_batch(batch)
            for file in [one for one in self.stored.files.values() if one.expires_ns < now_ns]:
                await self.delete_file(file)
        except StoreError as error:
            world.report(f"old batches cannot be forgotten: {error}")
