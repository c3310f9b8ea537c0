"""One batch under way, from its input file to its last result.

Before a query is asked, that it is asked is on the disk; and its result is, before it counts. So a
crash costs at most the calls that were under way: those are made anew, under another request id,
and listed in the batch as `repeated`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import msgspec
from msgspec.structs import replace

from cascaded.jobs.bulk import MAX_TOGETHER, Bulks
from cascaded.jobs.commits import Commits
from cascaded.ports import Clock, Offload
from cascaded.state.batches import (
    StoredBatches,
    file_row,
    head,
    line_row,
    mark_row,
    result_row,
)
from cascaded.types.batch import Answered, Batch, Line, LineError, Mark, State, StoredFile, Totals
from cascaded.types.errors import StoreError
from cascaded.types.times import NS_PER_S
from cascaded.wire.batches import (
    CANCELLED,
    EXPIRED,
    MAX_TOLD_ERRORS,
    STOPPED,
    UNASKED,
    LineCutter,
    line_errors,
    read_line,
    result_line,
    unasked,
)
from cascaded.wire.openai_chat import WireError

LATER = frozenset(
    {
        "rate_limited",
        "overloaded",
        "ledger_full",
        "upstream_rate_limited",
        "upstream_overloaded",
        "upstream_unavailable",
    }
)
"""Why a query has to wait. It waits, and is asked as often as need be."""
AGAIN = frozenset(
    {
        "upstream_connect",
        "upstream_reset",
        "upstream_server_error",
        "upstream_timeout",
        "upstream_garbage",
        "upstream_authentication",
        "call_timeout",
        "quality_refused",
        "internal_error",
        "hook_unavailable",
        "profiles_unavailable",
        "ledger_unavailable",
    }
)
"""Why a query failed that may be answered the second time."""
LATER_S = 5.0
"""How long it waits where nobody says."""
DISK_RETRY_S = 1.0
GRACE_S = 3_600.0
"""What a provider's own batch may be late, and its answers be fetched in."""
CHECKED_AT_ONCE = 32
"""Lines that are checked before others have their turn."""
WRITTEN_AT_ONCE = 1_000
ENDINGS: dict[str | None, State] = {EXPIRED: "expired", CANCELLED: "cancelled"}
"""What a batch is when it was ended so; otherwise it is completed."""

Ask = Callable[[Batch, Line, str], Awaitable[Answered]]
"""Asks a query as whoever made the batch, under this request id. Does not raise."""
Check = Callable[[Batch, Line], object]
"""Raises `WireError` for a query that its endpoint would not take."""


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What every batch needs."""

    stored: StoredBatches
    commits: Commits
    clock: Clock
    disk: Offload
    ask: Ask
    check: Check
    bulks: Bulks
    offered: Callable[[], bool]
    """Whether any provider's own batches are used."""
    in_bulk: Callable[[Line], bool]
    """Whether a query's model is asked in its provider's own batches."""
    places: asyncio.Semaphore
    """One for each query under way, of all batches."""
    new_id: Callable[[str], str]
    """Makes an id that begins so."""
    report: Callable[[str], None]
    """Told of trouble with the disk."""


def request_id(batch: str, index: int, asked: int) -> str:
    """Of a query that is asked for this time, from 1."""
    return f"{batch}-{index}" if asked == 1 else f"{batch}-{index}.{asked}"


class Run:
    """A batch that has not ended."""

    def __init__(self, batch: Batch, world: World) -> None:
        self._id = batch.id
        self._world = world
        self._cursor = 0
        self._ahead: deque[Line] = deque()
        self._reading = asyncio.Lock()
        self._done: set[int] = set()
        self._marks: dict[int, Mark] = {}
        self._held_up: dict[int, Answered] = {}
        """Why queries wait, by index."""
        self._unwritten: dict[int, Answered] = {}
        self._beside = asyncio.Semaphore(batch.config.max_parallel)
        self._halt = asyncio.Event()
        """No further query is begun."""
        self._why: str | None = None
        self._changed = asyncio.Event()

    @property
    def batch(self) -> Batch:
        """How it stands."""
        return self._world.stored.batches[self._id]

    async def changed(self) -> None:
        """Return when it stands otherwise than now."""
        await self._changed.wait()

    def halt(self, why: str | None = None) -> None:
        """Begin no further query: it ends for this reason, or goes on after a restart."""
        self._why = self._why or why
        self._halt.set()

    def tell(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def fail(self, error: LineError) -> None:
        """End it, for a bug."""
        await self._settled(self._in("failed", replace(self.batch, errors=(error,))))

    async def cancel(self) -> None:
        """Begin no further query; those under way are seen to their end. Returns once that is on
        the disk. Raises `StoreError`: then a crash makes it be forgotten."""
        self.halt(CANCELLED)
        self._set(self._in("cancelling"))
        await self._world.commits.put([head(self.batch)])
        await self._world.bulks.cancel(self._id)

    async def work(self) -> None:
        """Take it up where it is, and bring it to its end, or as far as a halt lets it."""
        await self._take_up()
        if self.batch.state == "validating" and not await self._validate():
            return
        why = await self._ask_all()
        if why is None and self._halt.is_set():
            return  # it goes on after a restart
        await self._finish(why)

    # From the disk.

    async def _take_up(self) -> None:
        world, batch = self._world, self.batch
        if batch.state == "cancelling":
            self.halt(CANCELLED)
        totals, self._done, marks = await world.disk(partial(_remembered, world.stored, batch.id))
        repeated = []
        for index, mark in marks.items():
            if mark.under_way and index not in self._done:
                mark = self._cut(index, mark)
            if index not in self._done:
                self._marks[index] = mark
            repeated += [request_id(batch.id, index, asked) for asked in mark.cut]
        self._set(replace(batch, totals=replace(totals, repeated=tuple(repeated))))
        if batch.config.stop_on_error and totals.failed:
            self.halt(STOPPED)

    def _cut(self, index: int, mark: Mark) -> Mark:
        """What is known of a call that was under way when the daemon ended."""
        if self._world.bulks.waits(request_id(self._id, index, mark.asked)):
            return replace(mark, under_way=False, asked=mark.asked - 1)  # it still is
        return replace(mark, under_way=False, cut=(*mark.cut, mark.asked))

    def _count(self, answered: Answered) -> None:
        """A result that is on the disk."""
        self._done.add(answered.index)
        self._set(replace(self.batch, totals=counted(self.batch.totals, answered)))

    # The input file.

    async def _validate(self) -> bool:
        """Make queries of the file's lines. Nothing is asked unless all of them are right."""
        stored, batch = self._world.stored, self.batch
        await self._world.disk(partial(stored.forget_lines, batch.id))  # of a try that was cut off
        reader = _Reader(batch, stored.bounds.max_lines, self._world.check)
        try:
            async for lines in self._pieces():
                for first in range(0, len(lines), CHECKED_AT_ONCE):
                    some = lines[first : first + CHECKED_AT_ONCE]
                    await self._written([line_row(batch.id, one) for one in reader.read(some)])
                    await asyncio.sleep(0)
        except WireError as error:
            reader.wrong(str(error), error.param, None)
        if self._halt.is_set() and self._why is None:
            return False
        errors = () if self._why else reader.errors()
        if not errors:
            begun = replace(self.batch, lines=reader.count, input_bytes=reader.bytes)
            await self._settled(self._in("cancelling" if self._why else "in_progress", begun))
            return True
        await self._settled(self._in("failed", replace(self.batch, errors=errors)))
        await self._world.disk(partial(stored.forget_lines, batch.id))
        return False

    async def _pieces(self) -> AsyncGenerator[list[tuple[int, bytes]]]:
        """The lines of the input file, piece by piece."""
        stored, file = self._world.stored, self.batch.input_file
        assert file is not None  # whatever is to be validated came as a file
        cutter, number = LineCutter(), 0
        while not self._halt.is_set():
            piece = await self._world.disk(partial(stored.piece, file, number))
            yield cutter.end() if piece is None else cutter.feed(piece)
            if piece is None:
                return
            number += 1

    # The queries.

    async def _ask_all(self) -> str | None:
        """Ask what is to be asked; why that ended early, if it did."""
        batch = self.batch
        left_s = (batch.deadline_ns - self._world.clock.wall_ns()) / NS_PER_S
        count = min(batch.config.max_parallel, batch.lines)
        if batch.delayed and self._world.offered():
            left_s, count = left_s + GRACE_S, min(MAX_TOGETHER, batch.lines)
        try:
            async with asyncio.timeout(left_s), asyncio.TaskGroup() as workers:
                for _ in range(count):
                    workers.create_task(self._worker())
        except TimeoutError:
            return EXPIRED
        return self._why

    async def _worker(self) -> None:
        while (line := await self._next()) is not None:
            answered = await self._answer(line)
            if answered is None:
                return  # a halt
            self._held_up.pop(line.index, None)
            self._marks.pop(line.index, None)
            self._unwritten[line.index] = answered
            await self._record(answered)

    async def _next(self) -> Line | None:
        """A query that has no result; `None` at the end, or at a halt."""
        batch, stored = self.batch, self._world.stored
        async with self._reading:
            while not self._ahead and self._cursor < batch.lines and not self._halt.is_set():
                size = batch.config.batch_size
                lines = await self._world.disk(partial(stored.lines, batch.id, self._cursor, size))
                self._cursor += size
                self._ahead.extend(line for line in lines if line.index not in self._done)
        return self._ahead.popleft() if self._ahead and not self._halt.is_set() else None

    async def _answer(self, line: Line) -> Answered | None:
        """Ask until there is an answer, or an error that stays one; `None` at a halt."""
        while not self._halt.is_set():
            mark = self._marks.get(line.index, Mark())
            async with self._place(line):
                if self._halt.is_set():
                    break
                mark = replace(mark, asked=mark.asked + 1, under_way=True)
                await self._mark(line, mark)
                asked = request_id(self._id, line.index, mark.asked)
                answered = await self._world.ask(self.batch, line, asked)
            wait_s = self._wait_s(answered)
            if wait_s is not None:
                self._held_up[line.index] = answered
                again = mark.asked - (not answered.sent)  # an id that nobody saw is used again
                await self._mark(line, replace(mark, asked=again, under_way=False))
                await self._pause(wait_s)
            elif self._may_again(answered, mark):
                self._marks[line.index] = replace(mark, under_way=False, failed=mark.failed + 1)
            else:
                return answered
        return None

    @asynccontextmanager
    async def _place(self, line: Line) -> AsyncIterator[None]:
        """A place for a query; one that goes into its provider's batch needs none."""
        if self.batch.delayed and self._world.in_bulk(line):
            yield
            return
        async with self._beside, self._world.places:
            yield

    def _wait_s(self, answered: Answered) -> float | None:
        """How long a query has to wait before it is asked again; `None` if that is no use."""
        if answered.code not in LATER or answered.cost_nano_usd:
            return None
        wait_s = LATER_S if answered.retry_after_s is None else answered.retry_after_s
        late_ns = self._world.clock.wall_ns() + round(wait_s * NS_PER_S)
        return wait_s if late_ns < self.batch.deadline_ns else None

    def _may_again(self, answered: Answered, mark: Mark) -> bool:
        return self.batch.config.retry_failed and not mark.failed and answered.code in AGAIN

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._halt.wait()

    async def _mark(self, line: Line, mark: Mark) -> None:
        self._marks[line.index] = mark
        await self._written([mark_row(self._id, line.index, mark)])

    async def _record(self, answered: Answered) -> None:
        await self._written([result_row(self._id, answered)])
        self._unwritten.pop(answered.index)
        self._count(answered)
        if answered.failed and self.batch.config.stop_on_error:
            self.halt(STOPPED)

    # The end.

    async def _finish(self, why: str | None) -> None:
        """See that every query has a result, and make the files that show them."""
        world = self._world
        if self.batch.state == "in_progress":
            await self._settled(self._in("finalizing"))
        for answered in list(self._unwritten.values()):
            await self._record(answered)
        while len(self._done) < self.batch.lines:
            await self._fill(why or EXPIRED)
        batch = self._in(ENDINGS.get(why, "completed"))
        files = list(self._files(batch)) if batch.house == "openai" else []
        for file in files:
            name = "error_file" if file.errors else "output_file"
            batch = replace(batch, **{name: file.id})
        await self._written([head(batch), *map(file_row, files)])
        world.stored.files.update((file.id, file) for file in files)
        self._set(batch)
        await world.disk(partial(world.stored.forget_lines, batch.id))

    async def _fill(self, why: str) -> None:
        """Say of queries that have no result why they have none."""
        world, now_ns = self._world, self._world.clock.wall_ns()
        first = next(index for index in range(self.batch.lines) if index not in self._done)
        lines = await world.disk(partial(world.stored.lines, self._id, first, WRITTEN_AT_ONCE))
        if not lines:
            raise StoreError(f"queries of batch {self._id} are not there any more")
        left = [
            self._held_up.get(line.index)
            or unasked(line, request_id(self._id, line.index, 1), why, now_ns)
            for line in lines
            if line.index not in self._done
        ]
        await self._written([result_row(self._id, one) for one in left])
        for one in left:
            self._count(one)

    def _files(self, batch: Batch) -> Iterator[StoredFile]:
        """The files that show its answers and its errors, if there are any."""
        totals, ended_ns = batch.totals, batch.since_ns[batch.state]
        for errors, name, size in (
            (False, "output", totals.answer_bytes),
            (True, "error", totals.error_bytes),
        ):
            if size:
                yield StoredFile(
                    id=self._world.new_id("file-"),
                    owner=batch.owner,
                    maker=batch.principal.id,
                    name=f"{batch.id}_{name}.jsonl",
                    bytes=size,
                    created_ns=ended_ns,
                    expires_ns=ended_ns + self._world.stored.bounds.keep_ns,
                    batch=batch.id,
                    errors=errors,
                )

    # What is written.

    def _in(self, state: State, batch: Batch | None = None) -> Batch:
        batch = batch or self.batch
        since = {**batch.since_ns, state: self._world.clock.wall_ns()}
        return replace(batch, state=state, since_ns=since)

    def _set(self, batch: Batch) -> None:
        self._world.stored.batches[batch.id] = batch
        self.tell()

    async def _settled(self, batch: Batch) -> None:
        """From now on it stands so. Returns once that is on the disk."""
        self._set(batch)
        await self._written([head(batch)])

    async def _written(self, rows: list[tuple[bytes, bytes]]) -> None:
        """Return once these are on the disk, however long it says no: nothing is asked meanwhile,
        and what was answered is kept in memory."""
        told = False
        while True:
            try:
                await self._world.commits.put(rows)
                return
            except StoreError as error:
                if not told:
                    self._world.report(f"batch {self._id} waits for the disk: {error}")
                told = True
                await asyncio.sleep(DISK_RETRY_S)


class _Reader:
    """Reads the lines of an input file, and notes what is wrong with them."""

    def __init__(self, batch: Batch, most: int, check: Check) -> None:
        self.count = 0
        self.bytes = 0
        self._batch = batch
        self._most = most
        self._check = check
        self._ids: set[str] = set()
        self._errors: list[LineError] = []
        self._untold = 0

    def read(self, lines: Sequence[tuple[int, bytes]]) -> Iterator[Line]:
        """Those of them that are right. Raises `WireError` where there are too many."""
        for number, raw in lines:
            try:
                line = read_line(raw, self._batch.endpoint, self.count)
                if line.custom_id in self._ids:
                    raise WireError(f"custom_id {line.custom_id!r} is there already", "custom_id")
                self._check(self._batch, line)
            except WireError as error:
                self.wrong(str(error), error.param, number)
                continue
            if self.count >= self._most:
                raise WireError(f"the file has more than {self._most} queries (batch.max_lines)")
            self._ids.add(line.custom_id)
            self.count += 1
            self.bytes += len(line.body)
            yield line

    def wrong(self, message: str, param: str | None, number: int | None) -> None:
        """Something is wrong, with this line."""
        if len(self._errors) < MAX_TOLD_ERRORS:
            self._errors.append(LineError("invalid_request", message, param, number))
        else:
            self._untold += 1

    def errors(self) -> tuple[LineError, ...]:
        """What is wrong with the file."""
        if not self._errors and not self.count:
            self.wrong("the file has no queries", "input_file_id", None)
        return line_errors(self._errors, self._untold)


def counted(totals: Totals, answered: Answered) -> Totals:
    """The totals with one more result."""
    size = len(result_line(answered))
    if answered.failed:
        more = {"failed": totals.failed + 1, "error_bytes": totals.error_bytes + size}
        more["unasked"] = totals.unasked + (answered.code in UNASKED)
    else:
        more = {"completed": totals.completed + 1, "answer_bytes": totals.answer_bytes + size}
    cost, bulk = totals.cost_nano_usd + answered.cost_nano_usd, totals.bulk + answered.bulk
    return replace(totals, cost_nano_usd=cost, bulk=bulk, **more)


def _remembered(stored: StoredBatches, batch: str) -> tuple[Totals, set[int], dict[int, Mark]]:
    """What is on the disk of a batch's work: its results' totals, which queries they are of, and
    what was done about the others."""
    totals, done = Totals(), set()
    for errors in (False, True):
        for answered in stored.results(batch, errors=errors):
            totals = counted(totals, answered)
            done.add(answered.index)
    return totals, done, stored.marks(batch)
