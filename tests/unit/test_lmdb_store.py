"""The store on disk: bounds, growth, owners, crashes and full disks."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from cascaded.adapters.lmdb_store import MIB, LmdbStore
from cascaded.types.errors import StoreError, StoreFullError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    store = LmdbStore(tmp_path / "deep" / "store", max_bytes=4 * MIB, first_map_bytes=MIB)
    yield store
    store.close()


def key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def test_it_is_private(store: LmdbStore, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "store"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in folder.iterdir()} == {0}


def test_a_batch_is_all_or_nothing(store: LmdbStore) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        store.put_many([(b"good", b"1"), (b"k" * 4096, b"too long a key")])
    assert store.get_many([b"good"]) == [None]
    assert store.count() == 0


def test_it_stays_after_closing(tmp_path: Path) -> None:
    first = LmdbStore(tmp_path)
    first.put_many([(b"a", b"1")])
    first.close()
    first.close()
    for use in (
        lambda: first.get_many([b"a"]),
        lambda: first.put_many([(b"a", b"2")]),
        first.count,
        first.size_bytes,
    ):
        with pytest.raises(StoreError, match="is closed"):
            use()
    second = LmdbStore(tmp_path)
    assert second.get_many([b"a"]) == [b"1"]
    second.close()


def test_one_owner(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    with pytest.raises(StoreError, match="another daemon has it open"):
        LmdbStore(tmp_path)
    script = (
        "import sys; from pathlib import Path; from cascaded.adapters.lmdb_store import LmdbStore\n"
        "try: LmdbStore(Path(sys.argv[1]))\n"
        "except Exception as error: sys.exit(str(error))\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert other.returncode == 1
    assert "another daemon has it open" in other.stderr
    store.put_many([(b"a", b"still ours")])
    store.close()


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(StoreError, match="cannot open"):
        LmdbStore(file)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "data.mdb").write_bytes(b"garbage" * 4096)
    with pytest.raises(StoreError, match="cannot open"):
        LmdbStore(broken)
    (broken / "data.mdb").unlink()
    LmdbStore(broken).close()  # the lock was given back


def test_it_grows_then_says_that_it_is_full_and_recovers(store: LmdbStore) -> None:
    written = -1

    def fill() -> None:
        nonlocal written
        for written in range(10_000):
            store.put_many([(key(written), bytes(20_000))])

    with pytest.raises(StoreFullError, match="full at its bound of 4 MiB; raise the bound"):
        fill()
    assert written > 100, "it did not grow"
    assert store.count() == written
    assert store.get_many([key(0), key(written)]) == [bytes(20_000), None]
    for _ in range(3):  # again and again: a full store can always forget, and stays bounded
        assert store.delete_range(b"", key(50), 50) == 50
        store.put_many((key(number), bytes(10_000)) for number in range(50))
        assert store.size_bytes() <= 5 * MIB


def test_it_grows_beside_readers(store: LmdbStore) -> None:
    store.put_many([(key(0), b"first")])
    stop = threading.Event()
    faults: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.wait(0.0005):
                assert store.scan(key(0), key(1), 10) == [(key(0), b"first")]
        except BaseException as fault:
            faults.append(fault)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 60):
        store.put_many([(key(number), bytes(40_000))])
    stop.set()
    for reader in readers:
        reader.join()
    assert not faults
    assert store.count() == 60


def test_writers_take_turns(store: LmdbStore) -> None:
    def write(first: int) -> None:
        for number in range(first, first + 20):
            store.put_many([(key(number), b"x"), (key(10_000 + number), b"y")])

    threads = [threading.Thread(target=write, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.count() == 160


def test_a_full_disk_loses_nothing_that_was_there(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.types.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = LmdbStore(Path(sys.argv[1]))
store.put_many([(b"before", b"1")])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
try:
    store.put_many([(b"big%d" % n, bytes(3000)) for n in range(200)])
except StoreError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert store.get_many([b"before", b"big0"]) == [b"1", None]
store.put_many([(b"after", b"2")])
store.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout
    store = LmdbStore(tmp_path)
    assert store.get_many([b"before", b"after"]) == [b"1", b"2"]
    store.close()


def test_a_killed_writer_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from cascaded.adapters.lmdb_store import LmdbStore
store = LmdbStore(Path(sys.argv[1]))
number = 0
while True:
    store.put_many([(number.to_bytes(8, "big"), b"x" * 500), (b"last", str(number).encode())])
    print(number, flush=True)
    number += 1
"""
    for round_ in range(3):
        folder = tmp_path / str(round_)
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(folder)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert child.stdout
        for _ in range(30 * (round_ + 1)):
            child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
        acknowledged = 30 * (round_ + 1) - 1
        child.wait()
        child.stdout.close()
        store = LmdbStore(folder)
        (last,) = store.get_many([b"last"])
        assert last is not None
        assert int(last) >= acknowledged
        numbers = [key(number) for number in range(int(last) + 1)]
        assert [row[0] for row in store.scan(b"\0", key(2**40), 10_000)] == numbers
        store.close()


def test_a_disk_that_cannot_resize_is_an_error_of_ours(
    store: LmdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stuck:
        def info(self) -> dict[str, int]:
            return {"map_size": MIB}

        def begin(self, **_: object) -> object:
            raise lmdb.MapFullError("full")

        def set_mapsize(self, _: int) -> None:
            raise lmdb.Error("no room in the address space")

    real = store._environment
    monkeypatch.setattr(store, "_environment", Stuck())
    with pytest.raises(StoreError, match="cannot resize"):
        store.put_many([(b"a", b"1")])
    monkeypatch.setattr(store, "_environment", real)
    store.put_many([(b"a", b"1")])


def test_closing_leaves_a_store_that_is_stuck_alone(
    store: LmdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cascaded.adapters.lmdb_store.CLOSE_TIMEOUT_S", 0.01)
    with store._reading() as transaction:
        store.close()
        assert transaction.get(b"a") is None  # still valid memory
    with pytest.raises(StoreError, match="is closed"):
        store.delete_range(b"", b"z", 1)
    store._environment.close()
    os.close(store._owner)
