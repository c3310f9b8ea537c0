"""Batches under way: crashes between any two writes, full disks, waiting, time, age. No network."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cascaded.jobs.batches import Batches
from cascaded.jobs.bulk import Bulks
from cascaded.jobs.commits import Commits
from cascaded.jobs.run import World, request_id
from cascaded.state.batches import StoredBatches
from cascaded.types.batch import (
    Answered,
    Batch,
    BatchConfig,
    Bounds,
    House,
    Line,
    StoredFile,
)
from cascaded.types.errors import StoreError, StoreFullError
from cascaded.types.request import Principal
from cascaded.types.times import NS_PER_S
from cascaded.wire.batches import LineCutter
from cascaded.wire.openai_chat import WireError
from tests.support.fakes import FakeClock
from tests.support.memory_store import MemoryStore

T = TypeVar("T")
PETER = Principal(kind="peer", id="uid:1")
BOUNDS = Bounds(
    max_parallel=4,
    max_lines=100,
    max_open=3,
    max_user_bytes=10_000,
    max_bytes=20_000,
    keep_ns=100 * NS_PER_S,
)
QUERIES = 7
OK = b'{"content":"Paris."}'
NO = b'{"error":{"message":"no","code":"x"}}'


class Desk:
    """Batches over a store in memory, whose answers are scripted."""

    def __init__(self, store: MemoryStore, clock: FakeClock | None = None) -> None:
        self.store = store
        self.clock = clock or FakeClock()
        self.asked: list[str] = []
        self.script: dict[int, list[Callable[[], Answered]]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.told: list[str] = []
        self.faults: list[str] = []
        self.crash_after: int | None = None
        """So many more commits, and no further one."""
        self.batches = Batches(
            StoredBatches(store, BOUNDS), fault=lambda id, _: self.faults.append(id)
        )
        self.stored = self.batches.stored
        self.commits = Commits(self._write, self._disk)
        self.bulks = Bulks(
            stored=self.stored,
            commits=self.commits,
            clock=self.clock,
            new_id=self._new_id,
            report=self.told.append,
            poll_s=1.0,
        )
        self._ids = 0

    def begin(self) -> None:
        self.batches.begin(
            World(
                stored=self.stored,
                commits=self.commits,
                clock=self.clock,
                disk=self._disk,
                ask=self._ask,
                check=lambda batch, line: None,
                bulks=self.bulks,
                offered=lambda: False,
                in_bulk=lambda line: False,
                places=asyncio.Semaphore(4),
                new_id=self._new_id,
                report=self.told.append,
            )
        )

    def _write(self, rows: Any) -> None:
        if self.crash_after is not None:
            if not self.crash_after:
                raise StoreError("the process ends here")
            self.crash_after -= 1
        self.store.put_many(rows)

    async def _disk(self, work: Callable[[], T]) -> T:
        await asyncio.sleep(0)
        return work()

    def _new_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}{self._ids}"

    async def _ask(self, batch: Batch, line: Line, id: str) -> Answered:
        self.asked.append(id)
        await asyncio.sleep(0)
        await self.gate.wait()
        script = self.script.get(line.index)
        if script:
            return replace((script.pop(0) if len(script) > 1 else script[0])(), request_id=id)
        return Answered(line.index, line.custom_id, id, 200, OK, cost_nano_usd=5)

    async def ended(self, id: str) -> Batch:
        async with asyncio.timeout(5):
            batch = await self.batches.ended(id)
        assert batch is not None
        return batch


def failed(index: int, code: str, **more: Any) -> Callable[[], Answered]:
    return partial(Answered, index, f"q{index}", "", 503, NO, code=code, **more)


def batch(id: str = "b", house: House = "openai", **config: Any) -> Batch:
    now_ns = FakeClock().wall_ns()
    config = {"max_parallel": 2, "batch_size": 2, "total_timeout": 60, **config}
    return Batch(
        id=id,
        house=house,
        endpoint="/v1/chat/completions",
        owner="alice",
        principal=PETER,
        config=BatchConfig(**config),
        state="in_progress",
        since_ns={"in_progress": now_ns},
        created_ns=now_ns,
        deadline_ns=now_ns + round(config["total_timeout"] * NS_PER_S),
        lines=QUERIES,
    )


def lines(count: int = QUERIES) -> list[Line]:
    return [Line(index, f"q{index}", b'{"model":"m"}') for index in range(count)]


def results(desk: Desk, id: str = "b") -> list[Answered]:
    found = [one for errors in (False, True) for one in desk.stored.results(id, errors=errors)]
    return sorted(found, key=lambda one: one.index)


# --- crashes -------------------------------------------------------------------------------------


async def life(store: MemoryStore, commits: int | None, script: dict[int, Any]) -> Desk:
    """A daemon that works on what the store has, up to so many commits."""
    desk = Desk(store)
    desk.script = {index: list(some) for index, some in script.items()}
    desk.crash_after = commits
    desk.begin()
    if "b" not in desk.stored.batches:
        await desk.batches.create(batch(), lines())
    if commits is None:
        await desk.ended("b")
        await desk.batches.close()
        return desk
    for _ in range(200):
        await asyncio.sleep(0)
    for task in desk.batches._tasks:
        task.cancel()
    await asyncio.gather(*desk.batches._tasks, return_exceptions=True)
    return desk


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 14), max_size=3), st.sets(st.integers(0, QUERIES - 1), max_size=2))
def test_after_any_crash_each_query_is_answered_once(deaths: list[int], flaky: set[int]) -> None:
    """What has a result is not asked again; what was asked twice is listed."""
    store = MemoryStore()
    script = {index: [failed(index, "upstream_server_error")] for index in flaky}
    asked: Counter[str] = Counter()
    before: set[int] = set()
    for commits in (*deaths, None):
        desk = asyncio.run(life(store, commits, script))
        for id in desk.asked:
            assert int(id.split("-")[1].split(".")[0]) not in before, "it had its result"
        asked.update(desk.asked)
        before = {one.index for one in results(desk)}
    head = desk.stored.batches["b"]
    assert head.state == "completed"
    assert [one.index for one in results(desk)] == list(range(QUERIES))
    assert head.totals.completed == QUERIES - len(flaky)
    assert head.totals.failed == len(flaky)
    assert max(asked.values()) == 1, "every call has an id of its own"
    counted = {one.request_id for one in results(desk)}
    retried = {request_id("b", index, asked) for index in flaky for asked in range(1, 9)}
    assert set(asked) - counted - retried <= set(head.totals.repeated)
    assert len(head.totals.repeated) <= 2 * len(deaths)


# --- the disk ------------------------------------------------------------------------------------


async def test_a_full_disk_asks_nothing_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascaded.jobs.run.DISK_RETRY_S", 0.01)
    desk = Desk(MemoryStore())
    desk.begin()
    desk.gate.clear()
    await desk.batches.create(batch(), lines())
    while len(desk.asked) < 2:
        await asyncio.sleep(0)
    desk.store.fails = StoreFullError("the disk is full")
    desk.gate.set()
    await asyncio.sleep(0.05)
    assert len(desk.asked) == 2, "nothing more is asked"
    assert desk.told == ["batch b waits for the disk: the disk is full"] * 2
    desk.store.fails = None
    head = await desk.ended("b")
    assert (head.totals.completed, head.totals.repeated) == (QUERIES, ())
    assert len(desk.asked) == QUERIES


async def test_what_is_answered_in_the_last_moment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the disk is full when the time is up."""
    monkeypatch.setattr("cascaded.jobs.run.DISK_RETRY_S", 0.01)
    desk = Desk(MemoryStore())
    desk.begin()
    desk.gate.clear()
    await desk.batches.create(batch(total_timeout=0.1), lines())
    while len(desk.asked) < 2:
        await asyncio.sleep(0)
    desk.store.fails = StoreError("it hangs")
    desk.gate.set()
    await asyncio.sleep(0.2)
    desk.store.fails = None
    head = await desk.ended("b")
    assert (head.state, head.totals.completed, head.totals.unasked) == ("expired", 2, 5)


async def test_writes_go_together_and_fail_together() -> None:
    written: list[Any] = []
    fails = False

    def write(rows: Any) -> None:
        if fails:
            raise StoreError("no")
        written.append([key for key, _ in rows])

    async def disk(work: Callable[[], T]) -> T:
        await asyncio.sleep(0)
        return work()

    commits = Commits(write, disk)
    await asyncio.gather(*(commits.put([(bytes([number]), b"")]) for number in range(5)))
    assert [len(some) for some in written] == [5]
    fails = True
    ended = await asyncio.gather(*(commits.put([]) for _ in range(3)), return_exceptions=True)
    assert [str(one) for one in ended] == ["no"] * 3
    fails = False
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            await commits.put([(b"x", b"")])
    await commits.close()
    assert written[-1] == [b"x"], "what was begun is written"


# --- waiting and time ----------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "last"), [(False, "b-0"), (True, "b-0.2")])
async def test_who_has_to_wait_is_asked_again(sent: bool, last: str) -> None:
    """An id that a provider has seen is not used again."""
    desk = Desk(MemoryStore())
    desk.script[0] = [
        failed(0, "rate_limited", retry_after_s=0.01, sent=sent),
        partial(Answered, 0, "q0", "", 200, OK),
    ]
    desk.begin()
    await desk.batches.create(batch(retry_failed=False), lines())
    await desk.ended("b")
    assert results(desk)[0].request_id == last
    assert len(desk.asked) == QUERIES + 1


@pytest.mark.parametrize(
    "answer",
    [
        failed(0, "rate_limited", retry_after_s=3600),
        failed(0, "upstream_overloaded", cost_nano_usd=7, retry_after_s=0.0),
        failed(0, "budget_exceeded"),
        failed(0, "invalid_request"),
    ],
)
async def test_who_would_wait_in_vain_is_told(answer: Callable[[], Answered]) -> None:
    """It comes too late, it may have been billed, or waiting is no use."""
    desk = Desk(MemoryStore())
    desk.script[0] = [answer]
    desk.begin()
    await desk.batches.create(batch(), lines())
    head = await desk.ended("b")
    assert (head.totals.completed, head.totals.failed) == (QUERIES - 1, 1)
    assert desk.asked.count("b-0") == 1
    assert len(desk.asked) == QUERIES


async def test_who_waited_to_the_end_is_told_for_what() -> None:
    desk = Desk(MemoryStore())
    desk.script = {index: [failed(index, "overloaded", retry_after_s=0.05)] for index in (0, 1)}
    desk.begin()
    await desk.batches.create(batch(total_timeout=0.2), lines())
    head = await desk.ended("b")
    assert head.state == "expired"
    codes = [one.code for one in results(desk)]
    assert codes[:2] == ["overloaded"] * 2
    assert set(codes[2:]) <= {"batch_expired", None}


async def test_what_ran_out_while_the_daemon_was_away() -> None:
    store = MemoryStore()
    first = Desk(store)
    first.begin()
    first.gate.clear()
    await first.batches.create(batch(), lines())
    await first.batches.close()
    later = Desk(store, FakeClock())
    later.clock.now_ns = 61 * NS_PER_S
    later.begin()
    head = await later.ended("b")
    assert (head.state, head.totals.unasked) == ("expired", QUERIES)
    assert not later.asked


async def test_a_cancel_outlives_a_restart() -> None:
    store = MemoryStore()
    first = Desk(store)
    first.begin()
    first.gate.clear()
    await first.batches.create(batch(), lines())
    await asyncio.sleep(0)
    await first.batches.cancel(first.stored.batches["b"])
    await first.batches.cancel(first.stored.batches["b"])
    await first.batches.close()
    second = Desk(store)
    second.begin()
    head = await second.ended("b")
    assert head.state == "cancelled"
    assert not second.asked


async def test_a_bug_ends_one_batch() -> None:
    desk = Desk(MemoryStore())

    def broken() -> Answered:
        raise RuntimeError

    desk.script[3] = [broken]
    desk.begin()
    await desk.batches.create(batch(), lines())
    await desk.batches.create(replace(batch("c"), lines=0), [])
    head = await desk.ended("b")
    assert (head.state, desk.faults) == ("failed", ["b"])
    assert head.errors[0].code == "internal_error"
    assert (await desk.ended("c")).ended


async def test_queries_that_are_gone_are_a_fault() -> None:
    desk = Desk(MemoryStore())
    desk.begin()
    await desk.batches.create(batch(), lines(3))
    head = await desk.ended("b")
    assert (head.state, desk.faults) == ("failed", ["b"])


# --- what is kept --------------------------------------------------------------------------------


async def test_the_disk_is_given_back() -> None:
    """Queries when a batch has ended, all of it when it is deleted or too old."""
    desk = Desk(MemoryStore())
    desk.begin()
    empty = set(desk.store.rows)
    await desk.batches.create(batch(), lines())
    await desk.ended("b")
    for _ in range(20):
        await asyncio.sleep(0)
    assert {key[:1] for key in desk.store.rows} == {b"b", b"f", b"a"}
    [output] = desk.stored.files.values()
    await desk.batches.delete_file(output)
    assert {key[:1] for key in desk.store.rows} == {b"b"}
    assert desk.stored.batches["b"].stored_bytes == 0
    await desk.batches.delete_batch(desk.stored.batches["b"])
    assert set(desk.store.rows) == empty

    await desk.batches.create(batch(), lines())
    file = StoredFile(
        id="file-x",
        owner="alice",
        maker=PETER.id,
        name="x",
        bytes=600_000,
        created_ns=0,
        expires_ns=desk.clock.wall_ns() + 50 * NS_PER_S,
    )
    await desk.batches.create_file(file, b"x" * 600_000)
    assert b"".join(desk.stored.pieces(file.id)) == b"x" * 600_000
    await desk.ended("b")
    for now_s, left in ((40, 3), (60, 2), (101, 0)):
        desk.clock.now_ns = now_s * NS_PER_S
        desk.batches.sweep()
        desk.batches.sweep()
        while desk.batches._forgetting and not desk.batches._forgetting.done():
            await asyncio.sleep(0)
        assert len(desk.stored.files) + len(desk.stored.batches) == left
    assert set(desk.store.rows) == empty
    await desk.batches.close()


async def test_a_sweep_that_fails_is_told() -> None:
    desk = Desk(MemoryStore())
    desk.begin()
    await desk.batches.create(batch(), lines())
    await desk.ended("b")
    await asyncio.sleep(0.01)
    desk.clock.now_ns = 101 * NS_PER_S
    desk.store.fails = StoreError("no disk")
    desk.batches.sweep()
    await asyncio.sleep(0.01)
    assert desk.told == ["old batches cannot be forgotten: no disk"]
    assert "b" in desk.stored.batches
    desk.store.fails = None


def test_a_restart_finds_everything() -> None:
    store = MemoryStore()
    stored = StoredBatches(store, BOUNDS)
    stored.put(batch(), lines())
    again = StoredBatches(store, BOUNDS)
    assert again.batches == {"b": batch()}
    assert again.lines("b", 2, 3) == lines()[2:5]
    store.rows[b"b" + b"b"] = b"\x01\xff"
    with pytest.raises(StoreError, match="cannot be read"):
        StoredBatches(store, BOUNDS)


def test_there_is_so_much_room() -> None:
    stored = StoredBatches(MemoryStore(), BOUNDS)
    big = replace(batch(), input_bytes=9_000)
    stored.batches = {id: replace(big, id=id, owner=id) for id in ("a", "b")}
    stored.check_room("a", 1_000)
    with pytest.raises(StoreFullError, match="max_user_bytes"):
        stored.check_room("a", 1_001)
    with pytest.raises(StoreFullError, match=r"batch\.max_bytes"):
        stored.check_room("c", 2_001)
    stored.check_open("a")
    stored.batches = {str(number): batch() for number in range(3)}
    stored.check_open("bob")
    with pytest.raises(StoreFullError, match="max_open"):
        stored.check_open("alice")


def test_heads_are_as_they_were_written() -> None:
    head = replace(batch(), headers={"X-User-ID": "a"}, errors=())
    data = msgspec.msgpack.encode(head)
    assert msgspec.msgpack.decode(data, type=Batch) == head


# --- lines ---------------------------------------------------------------------------------------


@given(st.lists(st.text("ab \n", max_size=9)), st.integers(1, 7))
def test_lines_are_the_same_however_they_are_cut(texts: list[str], size: int) -> None:
    whole = "\n".join(texts).encode()
    cutter, found = LineCutter(), []
    for start in range(0, len(whole), size):
        found += cutter.feed(whole[start : start + size])
    found += cutter.end()
    wanted = enumerate(whole.split(b"\n"), 1)
    assert found == [(number, line) for number, line in wanted if line.strip()]


def test_a_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascaded.wire.batches.MAX_LINE_BYTES", 10)
    cutter = LineCutter()
    assert cutter.feed(b"a\n" + b"x" * 10) == [(1, b"a")]
    with pytest.raises(WireError, match="line 2 is longer"):
        cutter.feed(b"x")


def test_the_total_time_follows_from_the_parts() -> None:
    assert BatchConfig().seconds == 300
    assert BatchConfig(timeout_per_query=2, batch_size=5).seconds == 10
    assert BatchConfig(total_timeout=7).seconds == 7
    assert json.loads(msgspec.json.encode(BatchConfig()))["max_parallel"] == 3
