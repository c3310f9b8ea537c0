"""What is with providers: what goes wrong on the way there and back. No network."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pytest

from cascaded.jobs import bulk
from cascaded.jobs.bulk import BulkProvider, Bulks
from cascaded.jobs.commits import Commits
from cascaded.ports import Call, ProviderTraits
from cascaded.state.batches import StoredBatches, handover_row
from cascaded.types.batch import BulkAnswer, Handover
from cascaded.types.errors import ProviderError, StoreError
from cascaded.types.event import Event
from cascaded.types.model import Model
from cascaded.wire.openai_chat import WireError
from tests.support.fakes import FakeClock
from tests.support.memory_store import MemoryStore
from tests.unit.test_batch_runs import BOUNDS

T = TypeVar("T")
NOT_TAKEN = ProviderError("upstream_connect", "nobody is there", billing="not_billed")
NO_ANSWER = ProviderError("upstream_timeout", "it says nothing", billing="unknown")
OK = BulkAnswer(200, b"{}")


class Api:
    """A provider's batches, scripted."""

    name = "p batches"
    traits = ProviderTraits()

    def __init__(self) -> None:
        self.submitted: list[tuple[str, list[str]]] = []
        self.faults: list[ProviderError] = []
        self.found: list[Any] = []
        self.said: list[Any] = [{}]
        self.nonsense = False

    def url(self, call: Call) -> str:
        return "/v1/chat/completions"

    async def submit(self, name: str, calls: Sequence[Call]) -> str:
        self.submitted.append((name, [call.request_id for call in calls]))
        if self.faults:
            raise self.faults.pop(0)
        return "theirs"

    async def find(self, name: str) -> str | None:
        id: str | None = self._next(self.found)
        return id

    async def answers(self, id: str) -> Mapping[str, BulkAnswer] | None:
        assert id == "theirs"
        said: Mapping[str, BulkAnswer] | None = self._next(self.said)
        return said

    async def cancel(self, id: str) -> None:
        raise NO_ANSWER

    def event(self, call: Call, body: bytes) -> Event:
        if self.nonsense:
            raise WireError("not an answer")
        return Event(raw=body, whole=True)

    def _next(self, script: list[Any]) -> Any:
        said = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(said, ProviderError):
            raise said
        return said


class Place:
    """Bulks over a store in memory."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.api = Api()
        self.told: list[str] = []
        self.bulks = Bulks(
            stored=StoredBatches(self.store, BOUNDS),
            commits=Commits(self.store.put_many, self._disk),
            clock=FakeClock(),
            new_id=lambda beginning: beginning + "1",
            report=self.told.append,
            poll_s=1.0,
        )
        self.provider = BulkProvider("p batches", self.api, self.bulks)

    async def _disk(self, work: Callable[[], T]) -> T:
        return work()

    async def ask(self, number: int = 0) -> Event:
        call = Call(
            model=Model(name="m", provider="p batches", upstream_name="m"),
            fields={},
            stream=False,
            request_id=f"b-{number}",
        )
        [event] = [one async for one in self.provider.call(call)]
        return event


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "LINGER_S", 0.0)


async def refused(place: Place) -> ProviderError:
    with pytest.raises(ProviderError) as fault:
        await place.ask()
    await place.bulks.close()
    return fault.value


async def test_calls_go_together_and_each_gets_its_own() -> None:
    place = Place()
    place.api.said = [None, NO_ANSWER, {"b-0": OK, "b-1": BulkAnswer(200, b"[]")}]
    first, second = await asyncio.gather(place.ask(0), place.ask(1))
    assert (first.raw, second.raw) == (b"{}", b"[]")
    assert place.api.submitted == [("cascaded-1", ["b-0", "b-1"])]
    assert place.told == ["a batch cannot be asked for: it says nothing"]
    await place.provider.close()


async def test_too_many_go_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MAX_TOGETHER", 2)
    place = Place()
    place.api.said = [{f"b-{number}": OK for number in range(3)}]
    await asyncio.gather(*map(place.ask, range(3)))
    assert [len(ids) for _, ids in place.api.submitted] == [2, 1]


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "upstream_refused"), (500, "upstream_server_error"), (0, "upstream_unavailable")],
)
async def test_an_error_is_not_billed(status: int, code: str) -> None:
    place = Place()
    place.api.said = [{"b-0": BulkAnswer(status, b"{}")}]
    fault = await refused(place)
    assert (fault.code, fault.billing) == (code, "not_billed")


async def test_nonsense_may_be() -> None:
    place = Place()
    place.api.said, place.api.nonsense = [{"b-0": OK}], True
    fault = await refused(place)
    assert (fault.code, fault.billing) == ("upstream_garbage", "unknown")


async def test_a_full_disk_hands_nothing_over() -> None:
    place = Place()
    place.store.fails = StoreError("full")
    fault = await refused(place)
    assert (fault.code, fault.billing) == ("upstream_unavailable", "not_billed")
    assert place.told == ["calls were not handed over: full"]
    assert not place.api.submitted


@pytest.mark.parametrize(
    ("fault", "found"), [(NOT_TAKEN, ["theirs"]), (NO_ANSWER, [NO_ANSWER, None])]
)
async def test_what_was_not_taken_is_told(fault: ProviderError, found: list[Any]) -> None:
    """At once, or when it was looked for in vain a few times."""
    place = Place()
    place.api.faults, place.api.found = [fault], found
    place.api.said = [{"b-0": OK}]
    assert (await refused(place)).billing == "not_billed"
    assert len(place.api.submitted) == 1


async def test_what_was_taken_without_a_word_is_found() -> None:
    place = Place()
    place.api.faults, place.api.found = [NO_ANSWER], [None, NO_ANSWER, "theirs"]
    place.api.said = [{"b-0": OK}]
    assert (await place.ask()).raw == b"{}"


async def test_another_daemon_waits_on() -> None:
    store = MemoryStore()
    store.put_many(
        [
            handover_row(Handover(name="one", batch="b", provider="p batches", ids=("b-0",))),
            handover_row(Handover(name="two", batch="b", provider="gone batches", ids=("b-1",))),
        ]
    )
    place = Place(store)
    place.api.found, place.api.said = ["theirs"], [None, {"b-0": OK}]
    place.bulks.resume({"p batches": place.api})
    assert (place.bulks.waits("b-0"), place.bulks.waits("b-1")) == (True, False)
    assert (await place.ask(0)).raw == b"{}"
    assert not place.api.submitted
    assert not place.bulks.waits("b-0")
    assert "'gone batches'" in place.told[0]


async def test_a_cancel_that_is_not_heard_is_no_fault() -> None:
    place = Place()
    place.api.said = [None]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await place.ask()
    await place.bulks.cancel("b")
    await place.bulks.cancel("another")
    await place.bulks.close()


async def test_who_leaves_before_is_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "LINGER_S", 0.05)
    place = Place()
    place.api.said = [{"b-1": OK}]

    async def leave() -> None:
        async with asyncio.timeout(0.01):
            await place.ask(0)

    left, stayed = await asyncio.gather(leave(), place.ask(1), return_exceptions=True)
    assert isinstance(left, TimeoutError)
    assert isinstance(stayed, Event)
    assert [ids for _, ids in place.api.submitted] == [["b-1"]]
