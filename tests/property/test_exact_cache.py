"""The exact cache's store against a model: age, room, restarts, memory, a disk that says no."""

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cascaded.state.caches.exact import ExactCache, Room
from cascaded.types.errors import StoreError
from cascaded.types.recalled import Recalled
from cascaded.types.usage import Usage
from tests.support.fakes import FakeClock
from tests.support.memory_store import MemoryStore

TTL_S = 100
SMALL, LARGE = 100, 6_000
ROOM = Room(entries=5, entry_bytes=20_000, memory_bytes=2_000, bytes=30_000)
NS_PER_S = 1_000_000_000
KEYS = [bytes([number]) * 32 for number in range(9)]


async def inline(work: Any) -> Any:
    return await asyncio.to_thread(work)


def answer(clock: FakeClock, size: int, tenant: str = "user:a", model: str = "m") -> Recalled:
    return Recalled(
        tenant=tenant,
        raw=b"x" * size,
        model=model,
        usage=Usage(),
        cost_nano_usd=1,
        full_nano_usd=2,
        at_ns=clock.wall_ns(),
    )


def opened(store: MemoryStore | None, clock: FakeClock, room: Room = ROOM) -> ExactCache:
    return ExactCache(store, clock, inline, room=room, ttl_s=TTL_S, report=lambda _: None)


class CacheModel(RuleBasedStateMachine):
    """What is found is what was last put under its key, young enough, and among those that were
    used last."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.cache = opened(self.store, self.clock)
        self.model: dict[bytes, Recalled] = {}
        """In the order of use."""

    def teardown(self) -> None:
        self.cache.close()

    def size(self, one: Recalled) -> int:
        return 612 if len(one.raw) == SMALL else 8_192

    def fresh(self, one: Recalled, most_s: int = TTL_S) -> bool:
        return self.clock.wall_ns() - one.at_ns < min(most_s, TTL_S) * NS_PER_S

    @rule(
        key=st.sampled_from(KEYS),
        size=st.sampled_from([SMALL, LARGE]),
        tenant=st.sampled_from("ab"),
    )
    def put(self, key: bytes, size: int, tenant: str) -> None:
        made = answer(self.clock, size, tenant)
        self.cache.put(key, made)
        self.model.pop(key, None)
        self.model[key] = made
        while (
            len(self.model) > ROOM.entries or sum(map(self.size, self.model.values())) > ROOM.bytes
        ):
            del self.model[next(iter(self.model))]

    @rule(key=st.sampled_from(KEYS), most_s=st.sampled_from([None, 0, 10, 1000]))
    def get(self, key: bytes, most_s: int | None) -> None:
        found = asyncio.run(self.cache.get(key, most_s))
        kept = self.model.get(key)
        expected = kept if kept and self.fresh(kept, TTL_S if most_s is None else most_s) else None
        assert found == expected
        if expected is not None:
            self.model[key] = self.model.pop(key)

    @rule(seconds=st.sampled_from([1, 20, 60]))
    def wait(self, seconds: int) -> None:
        self.clock.now_ns += seconds * NS_PER_S

    @rule()
    def sweep(self) -> None:
        self.cache.sweep()
        self.model = {key: one for key, one in self.model.items() if self.fresh(one)}

    @rule(tenant=st.sampled_from(["a", "b", None]))
    def clear(self, tenant: str | None) -> None:
        doomed = [key for key, one in self.model.items() if tenant in (None, one.tenant)]
        assert asyncio.run(self.cache.clear(tenant)) == len(doomed)
        for key in doomed:
            del self.model[key]
        assert len(self.store.rows) == 2 * len(self.model)

    @rule()
    def restart(self) -> None:
        self.cache.close()
        self.cache = opened(self.store, self.clock)
        by_age = sorted(self.model.items(), key=lambda row: (row[1].at_ns, row[0]))
        self.model = {key: one for key, one in by_age if self.fresh(one)}

    @precondition(lambda self: self.model)
    @rule()
    def verify(self) -> None:
        checked = asyncio.run(self.cache.verify())
        assert checked == (len(self.model), 0)

    @invariant()
    def figures(self) -> None:
        figures = self.cache.figures
        assert figures.entries == len(self.cache) == len(self.model)
        assert figures.bytes == sum(map(self.size, self.model.values()))
        assert 0 <= figures.memory_bytes <= ROOM.memory_bytes


CacheModel.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=25,
)
TestCacheModel = CacheModel.TestCase


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_without_a_store_memory_is_the_bound(clock: FakeClock) -> None:
    cache = opened(None, clock)
    for key in KEYS[:4]:
        cache.put(key, answer(clock, SMALL))
    assert [await cache.get(key) is not None for key in KEYS[:4]] == [False, True, True, True]
    assert (await cache.verify()).checked == 3
    assert await cache.clear() == 3
    assert cache.figures.evicted == 1
    cache.close()


async def test_what_is_too_long_is_not_kept(clock: FakeClock) -> None:
    cache = opened(None, clock)
    cache.put(KEYS[0], answer(clock, ROOM.entry_bytes))
    assert len(cache) == 0


async def test_an_answer_from_the_future_is_not_given(clock: FakeClock) -> None:
    cache = opened(None, clock)
    clock.now_ns = 50 * NS_PER_S
    cache.put(KEYS[0], answer(clock, SMALL))
    clock.now_ns = 0
    assert await cache.get(KEYS[0]) is None


@pytest.mark.parametrize("damage", ["flipped", "swapped", "gone", "newer"])
async def test_what_is_damaged_is_forgotten(clock: FakeClock, damage: str) -> None:
    store = MemoryStore()
    first = opened(store, clock)
    for key in KEYS[:2]:
        first.put(key, answer(clock, SMALL))
    first.close()
    one, other = (b"v" + key for key in KEYS[:2])
    value = store.rows[one]
    match damage:
        case "flipped":
            store.rows[one] = value[:-1] + bytes([value[-1] ^ 1])
        case "swapped":
            store.rows[one] = store.rows[other]
        case "gone":
            del store.rows[one]
        case _:
            store.rows[one] = b"\x02" + value[1:]
    cache = opened(store, clock)
    assert await cache.get(KEYS[0]) is None
    assert await cache.get(KEYS[1]) is not None
    assert len(cache) == 1
    assert (await cache.verify()).damaged == 0
    cache.close()
    assert set(store.rows) == {b"h" + KEYS[1], other}


def test_an_index_that_cannot_be_read(clock: FakeClock) -> None:
    for value in (b"\x02", b"\x01\xff"):
        store = MemoryStore()
        store.rows[b"h" + KEYS[0]] = value
        with pytest.raises(StoreError):
            opened(store, clock)


async def test_a_disk_that_says_no_is_told_once_and_its_recovery(clock: FakeClock) -> None:
    store, told = MemoryStore(), list[str]()
    cache = ExactCache(store, clock, inline, room=ROOM, ttl_s=TTL_S, report=told.append)
    store.fails = StoreError("full")
    for key in KEYS[:2]:
        cache.put(key, answer(clock, SMALL))
        await cache.verify()
    assert told == ["cache: full; answers are kept in memory alone meanwhile"]
    assert await cache.get(KEYS[1]) is None  # the check found that it is not there
    store.fails = None
    cache.put(KEYS[2], answer(clock, SMALL))
    cache.close()
    assert told[1:] == ["cache: answers are written again; 2 were not"]
