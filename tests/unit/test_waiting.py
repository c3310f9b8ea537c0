"""The waiting room beside a model of it: who is next, who leaves, and that no place is lost."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded.api.waiting import Size, WaitingRoom
from tests.support.fakes import FakeClock

LONG_S = 60.0


def room(places: int = 1, seats: int = 3, wait_s: float = LONG_S, **more: Any) -> WaitingRoom:
    clock = FakeClock()
    return WaitingRoom(Size(places, seats, wait_s), clock.monotonic_ns, **more)


class Crowd:
    """Calls that come to a room, by name."""

    def __init__(self, room: WaitingRoom) -> None:
        self.room = room
        self.tasks: dict[str, asyncio.Task[str]] = {}
        self.ended: list[tuple[str, str]] = []

    async def come(self, name: str, priority: int = 0) -> None:
        self.tasks[name] = asyncio.get_running_loop().create_task(self._wait(name, priority))
        await settle()

    async def _wait(self, name: str, priority: int) -> str:
        ending: str = "left"
        try:
            ending = await self.room.wait(priority)
        finally:
            self.ended.append((name, ending))
        return ending


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_best_tier_first_then_who_came_first() -> None:
    crowd = Crowd(room())
    assert crowd.room.take()
    assert not crowd.room.take()
    for name, priority in (("a", 0), ("b", 1), ("c", 1)):
        await crowd.come(name, priority)
    assert crowd.room.waiting == 3
    for _ in range(3):
        crowd.room.leave()
        await settle()
    assert [name for name, _ in crowd.ended] == ["b", "c", "a"]
    assert (crowd.room.taken, crowd.room.waiting) == (1, 0)
    crowd.room.leave()
    assert crowd.room.taken == 0


async def test_a_full_room_keeps_the_best() -> None:
    crowd = Crowd(room(seats=2))
    assert crowd.room.take()
    for name, priority in (("a", 0), ("b", 0), ("equal", 0), ("better", 1)):
        await crowd.come(name, priority)
    assert crowd.ended == [("equal", "full"), ("b", "displaced")]
    crowd.room.close()
    await settle()
    assert sorted(crowd.ended[2:]) == [("a", "draining"), ("better", "draining")]


async def test_without_seats_nobody_waits() -> None:
    none = room(seats=0)
    assert none.take()
    assert await none.wait(9) == "full"


async def test_whoever_waits_too_long_goes() -> None:
    told: list[str] = []
    short = room(wait_s=0.02, told=lambda ending, seconds: told.append(ending))
    assert short.take()
    assert await short.wait(0) == "late"
    assert (short.taken, short.waiting, told) == (1, 0, ["late"])


async def test_after_the_end_nobody_waits() -> None:
    closed = room()
    assert closed.take()
    closed.close()
    assert await closed.wait(0) == "draining"


async def test_a_place_that_came_free_meanwhile_is_taken() -> None:
    free = room()
    assert await free.wait(0) == "entered"
    assert free.taken == 1


@pytest.mark.parametrize("first", ["leave", "hang up"])
async def test_hanging_up_in_the_moment_of_ones_turn(first: str) -> None:
    """The place goes to the next, and none is lost."""
    crowd = Crowd(room())
    assert crowd.room.take()
    await crowd.come("a")
    await crowd.come("b")
    if first == "leave":
        crowd.room.leave()
    crowd.tasks["a"].cancel()
    if first == "hang up":
        crowd.room.leave()
    await settle()
    assert crowd.ended == [("a", "left"), ("b", "entered")]
    assert (crowd.room.taken, crowd.room.waiting) == (1, 0)


MOVES = st.one_of(
    st.tuples(st.just("come"), st.integers(0, 3)),
    st.tuples(st.just("done"), st.just(0)),
    st.tuples(st.just("hang up"), st.integers(0, 9)),
    st.tuples(st.just("hang up and done"), st.integers(0, 9)),
    st.tuples(st.just("resize"), st.integers(0, 4)),
)


@given(places=st.integers(1, 3), seats=st.integers(0, 4), moves=st.lists(MOVES, max_size=60))
def test_as_the_model(places: int, seats: int, moves: list[tuple[str, int]]) -> None:
    asyncio.run(_as_the_model(places, seats, moves))


class Model:
    """A list in the order of arrival, and a count of places."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.taken = 0
        self.waiting: list[tuple[int, str]] = []
        self.ended: list[tuple[str, str]] = []

    def come(self, name: str, priority: int, seats: int) -> None:
        self.waiting.append((priority, name))
        if len(self.waiting) > seats:
            worst = min(reversed(self.waiting), key=lambda one: one[0])  # the last of the worst
            self.waiting.remove(worst)
            self.ended.append((worst[1], "full" if worst[1] == name else "displaced"))

    def done(self) -> None:
        self.taken -= 1
        self.fill()

    def fill(self) -> None:
        while self.waiting and self.taken < self.places:
            best = max(self.waiting, key=lambda one: one[0])  # the first of the best
            self.waiting.remove(best)
            self.ended.append((best[1], "entered"))
            self.taken += 1

    def hang_up(self, index: int) -> str:
        _, name = self.waiting.pop(index % len(self.waiting))
        self.ended.append((name, "left"))
        return name


async def _as_the_model(places: int, seats: int, moves: list[tuple[str, int]]) -> None:
    crowd, model = Crowd(room(places, seats)), Model(places)
    for number, (move, detail) in enumerate(moves):
        if move == "come":
            if crowd.room.take():
                model.taken += 1
            else:
                await crowd.come(str(number), detail)
                model.come(str(number), detail, seats)
        if move.startswith("hang up") and model.waiting:
            crowd.tasks[model.hang_up(detail)].cancel()
        if move.endswith("done") and model.taken:
            crowd.room.leave()
            model.done()
        if move == "resize":
            model.places = detail
            model.fill()
            crowd.room.resize(Size(detail, seats, LONG_S))
        await settle()
        assert sorted(crowd.ended) == sorted(model.ended)
        assert (crowd.room.taken, crowd.room.waiting) == (model.taken, len(model.waiting))
        assert not model.waiting or model.taken >= model.places
    crowd.room.close()
    await settle()
    assert crowd.room.waiting == 0
