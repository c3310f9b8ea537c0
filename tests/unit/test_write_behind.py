"""Records on their way to the disk: nothing blocks, nothing is lost in silence."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError

import pytest

from cascaded.state import write_behind
from cascaded.state.write_behind import WriteBehind
from cascaded.types.errors import StoreError


class Disk:
    """Writes numbers, unless it is told not to."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.fails: Exception | None = None
        self.tidied = 0
        self.more = 0
        self.said: list[str] = []
        self.open = threading.Event()
        self.open.set()

    def write(self, batch: Sequence[int]) -> None:
        self.open.wait()
        if self.fails:
            raise self.fails
        self.written += batch

    def tidy(self) -> bool:
        self.tidied += 1
        if self.fails:
            raise self.fails
        self.more -= 1
        return self.more > 0


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def behind(disk: Disk) -> Iterator[WriteBehind[int]]:
    behind = WriteBehind[int](
        "test log",
        write=disk.write,
        tidy=disk.tidy,
        report=disk.said.append,
        capacity=100,
        retry_s=0.01,
        tidy_every_s=0.02,
    )
    yield behind
    disk.open.set()
    behind.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_everything_arrives_in_order(disk: Disk, behind: WriteBehind[int]) -> None:
    for number in range(90):
        behind.put(number)
    behind.mark().result(5)
    assert disk.written == list(range(90))
    assert (behind.dropped, behind.waiting, disk.said) == (0, 0, [])


def test_closing_writes_what_waits(disk: Disk, behind: WriteBehind[int]) -> None:
    behind.put(1)
    behind.close()
    assert disk.written == [1]
    behind.put(2)
    assert behind.dropped == 1
    assert disk.said == [
        "test log: records are lost, because it is closed; the ledger is not affected"
    ]
    with pytest.raises(StoreError, match="is closed"):
        behind.mark().result(5)


def test_a_full_queue_drops_and_says_so_once(disk: Disk, behind: WriteBehind[int]) -> None:
    disk.open.clear()
    behind.put(0)
    until(lambda: behind.waiting == 0)
    for number in range(1, 151):
        behind.put(number)
    assert behind.dropped == 50
    assert len(disk.said) == 1
    assert "its queue is full" in disk.said[0]
    disk.open.set()
    behind.mark().result(5)
    assert disk.written == list(range(101))
    assert disk.said[1:] == ["test log: records are written again; 50 are lost"]


def test_a_disk_that_recovers_loses_nothing(disk: Disk, behind: WriteBehind[int]) -> None:
    disk.fails = StoreError("no space left")
    for number in range(5):
        behind.put(number)
    mark = behind.mark()
    until(lambda: disk.tidied > 3)  # it tries to make room between its tries
    assert not mark.done()
    disk.fails = None
    mark.result(5)
    assert disk.written == [0, 1, 2, 3, 4]
    assert behind.dropped == 0
    assert [text.split(";")[0] for text in disk.said] == [
        "test log: no space left",
        "test log: records are written again",
    ]


def test_closing_gives_up_on_a_disk_that_does_not(disk: Disk, behind: WriteBehind[int]) -> None:
    disk.fails = StoreError("no space left")
    for number in range(3):
        behind.put(number)
    mark = behind.mark()
    behind.close()
    assert behind.dropped == 3
    with pytest.raises(StoreError, match="no space left"):
        mark.result(5)


def test_a_bug_costs_one_batch(disk: Disk, behind: WriteBehind[int]) -> None:
    disk.fails = TypeError("a bug")
    behind.put(1)
    mark = behind.mark()
    with pytest.raises(StoreError, match="a bug"):
        mark.result(5)
    disk.fails = None
    behind.put(2)
    behind.mark().result(5)
    assert (disk.written, behind.dropped) == ([2], 1)


def test_it_tidies_when_idle_and_while_there_is_more(disk: Disk, behind: WriteBehind[int]) -> None:
    until(lambda: disk.tidied >= 3)
    disk.more = 1_000
    before = disk.tidied
    until(lambda: disk.tidied >= before + 1_000)


def test_a_mark_may_be_cancelled(disk: Disk, behind: WriteBehind[int]) -> None:
    disk.open.clear()
    behind.put(1)
    mark = behind.mark()
    assert mark.cancel()
    disk.open.set()
    behind.mark().result(5)
    with pytest.raises(CancelledError):
        mark.result(0)


def test_many_threads(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "GATHER_S", 0.001)
    behind = WriteBehind[int]("test log", write=disk.write, tidy=disk.tidy, report=disk.said.append)

    def put(first: int) -> None:
        for number in range(first, first + 1_000):
            behind.put(number)

    threads = [threading.Thread(target=put, args=(1_000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    behind.close()
    assert sorted(disk.written) == list(range(8_000))
    assert behind.dropped == 0
