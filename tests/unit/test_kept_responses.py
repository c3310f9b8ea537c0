"""Responses that are kept: whose, how many, for how long, and what a disk may do to them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.state.responses import MAX_TURNS, KeptResponses, ResponseRoom
from cascaded.types.errors import StoreError, StoreFullError
from cascaded.types.kept import KeptResponse
from tests.support.fakes import FakeClock
from tests.support.memory_store import MemoryStore

T = TypeVar("T")
ROOM = ResponseRoom(ttl_s=60, entry_bytes=4096, per_owner=5, bytes=1 << 20)


async def inline(work: Callable[[], T]) -> T:
    return work()


class Shelf:
    """What is kept, over a store in memory."""

    def __init__(self, room: ResponseRoom = ROOM) -> None:
        self.store = MemoryStore()
        self.clock = FakeClock()
        self.opened = 0
        self.kept = KeptResponses(self._open, self.clock, inline, room, there=False)

    def _open(self) -> MemoryStore:
        self.opened += 1
        return self.store

    async def put(
        self, id: str, tenant: str = "a", previous: str | None = None, **more: Any
    ) -> bool:
        self.clock.now_ns += 1
        said = {"input": b"[]", "response": b'{"output":[]}', "at_ns": self.clock.wall_ns(), **more}
        row = KeptResponse(tenant=tenant, previous=previous, **said)
        return await self.kept.put(id, row)

    async def has(self, id: str, tenant: str = "a") -> bool:
        return await self.kept.get(tenant, id) is not None


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


async def test_nothing_is_opened_before_somebody_keeps(shelf: Shelf) -> None:
    assert not await shelf.has("resp_1")
    assert await shelf.kept.thread("a", "resp_1", 100) is None
    assert not await shelf.kept.delete("a", "resp_1")
    await shelf.kept.sweep()
    shelf.kept.close()
    assert not shelf.opened


async def test_it_is_there_for_its_owner_alone(shelf: Shelf) -> None:
    assert await shelf.put("resp_1")
    assert await shelf.has("resp_1")
    assert not await shelf.has("resp_1", "b")
    assert not await shelf.kept.delete("b", "resp_1")
    assert await shelf.kept.thread("b", "resp_1", 1000) is None
    assert await shelf.kept.delete("a", "resp_1")
    assert not await shelf.has("resp_1")
    assert not shelf.store.rows, "all of its rows are gone"
    assert not await shelf.has("x" * 1000), "a name that was never given"


async def test_a_thread_is_put_together(shelf: Shelf) -> None:
    for number in range(3):
        previous = f"resp_{number - 1}" if number else None
        await shelf.put(f"resp_{number}", previous=previous, input=b"[%d]" % number)
    thread = await shelf.kept.thread("a", "resp_2", 1000)
    assert thread is not None
    assert [turn.input for turn in thread] == [b"[0]", b"[1]", b"[2]"]
    assert await shelf.kept.thread("a", "resp_2", 20) is None, "longer than that"
    await shelf.kept.delete("a", "resp_1")
    assert await shelf.kept.thread("a", "resp_2", 1000) is None, "a turn is missing"
    await shelf.put("resp_9", previous="resp_9")
    assert await shelf.kept.thread("a", "resp_9", 100 * MAX_TURNS) is None, "it goes on from itself"


async def test_the_oldest_goes(shelf: Shelf) -> None:
    for number in range(7):
        assert await shelf.put(f"resp_{number}")
        assert await shelf.put(f"resp_{number}", "b")
    found = [await shelf.has(f"resp_{number}") for number in range(7)]
    assert found == [False, False, True, True, True, True, True]
    assert await shelf.has("resp_2", "b")


async def test_all_together_have_their_room() -> None:
    shelf = Shelf(ResponseRoom(ttl_s=60, entry_bytes=4096, per_owner=100, bytes=6000))
    for number in range(20):
        assert await shelf.put(f"resp_{number}", f"tenant {number}", response=b"x" * 1000)
    found = [await shelf.has(f"resp_{number}", f"tenant {number}") for number in range(20)]
    assert found == [False] * 17 + [True] * 3
    assert not await shelf.put("resp_x", response=b"x" * 5000), "too long to be kept"
    again = KeptResponses(lambda: shelf.store, shelf.clock, inline, shelf.kept.room, there=True)
    row = KeptResponse(
        tenant="t", previous=None, input=b"", response=b"x" * 1000, at_ns=shelf.clock.wall_ns() + 1
    )
    await again.put("resp_y", row)
    assert await again.get("tenant 17", "resp_17") is None, "a restart knows what is there"
    assert await again.get("tenant 18", "resp_18") is not None


async def test_what_is_old_is_not_given_and_forgotten(shelf: Shelf) -> None:
    await shelf.put("resp_1")
    shelf.clock.now_ns += 30 * 10**9
    await shelf.put("resp_2")
    shelf.clock.now_ns += 40 * 10**9
    assert [await shelf.has("resp_1"), await shelf.has("resp_2")] == [False, True]
    await shelf.kept.sweep()
    assert len(shelf.store.rows) == 3
    shelf.clock.now_ns += 30 * 10**9
    await shelf.kept.sweep()
    assert not shelf.store.rows


async def test_a_disk_that_says_no_is_told(shelf: Shelf) -> None:
    await shelf.put("resp_1")
    shelf.store.fails = StoreFullError("the disk is full")
    with pytest.raises(StoreError, match="full"):
        await shelf.put("resp_2")
    assert await shelf.has("resp_1")
    for row in shelf.store.rows:
        if row.startswith(b"r"):
            shelf.store.rows[row] = b"\x01nonsense"
    with pytest.raises(StoreError, match="cannot be read"):
        await shelf.has("resp_1")


async def test_on_a_disk(tmp_path: Path) -> None:
    folder = tmp_path / "responses"
    clock = FakeClock()
    for turn in range(2):
        kept = KeptResponses(lambda: LmdbStore(folder), clock, inline, ROOM, there=folder.exists())
        if not turn:
            row = KeptResponse(
                tenant="a", previous=None, input=b"[]", response=b"{}", at_ns=clock.wall_ns()
            )
            assert await kept.put("resp_1", row)
        found = await kept.get("a", "resp_1")
        assert found is not None
        assert found.response == b"{}"
        kept.close()
    assert folder.stat().st_mode & 0o777 == 0o700
