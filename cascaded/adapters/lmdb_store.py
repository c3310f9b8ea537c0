"""Ordered bytes on disk, in LMDB: every commit is flushed, readers never wait for writers.

The map begins small and doubles up to a bound. It can only be moved while no transaction uses
it, so every transaction passes a gate. A lock file keeps a second owner out, whether it is
another process or this one by mistake: LMDB's own locks break when a process opens it twice.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import lmdb

from cascaded.types.errors import StoreError, StoreFullError

T = TypeVar("T")

MIB = 1024 * 1024
FIRST_MAP_BYTES = 64 * MIB
MAX_BYTES = 16 * 1024 * MIB
DELETE_RESERVE_BYTES = 16 * MIB
"""What only deletes may use: in LMDB forgetting needs fresh pages, too."""
CLOSE_TIMEOUT_S = 5.0
FOLDER_MODE = 0o700
FILE_MODE = 0o600
OWNER_FILE = "owner.lock"
DATA_FILE = "data.mdb"

Write = Callable[["lmdb.Transaction[bytes]"], T]


class LmdbStore:
    """See `ports.Store`. One folder, one owner; raises `StoreError` where it cannot be opened."""

    def __init__(
        self, folder: Path, *, max_bytes: int = MAX_BYTES, first_map_bytes: int = FIRST_MAP_BYTES
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._gate = threading.Condition()
        self._inside = 0
        self._shut = False
        """Nobody may enter: the map moves, or the store is closed."""
        self._closed = False
        self._writing = threading.Lock()
        self._owner = _own(folder)
        try:
            with self._translated("open"):
                self._environment = lmdb.Environment(
                    str(folder),
                    map_size=min(first_map_bytes, max_bytes),
                    mode=FILE_MODE,
                    readahead=False,
                )
        except StoreError:
            os.close(self._owner)
            raise

    def put_many(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """See `ports.Store.put_many`."""
        pairs = list(items)

        def put(transaction: "lmdb.Transaction[bytes]") -> None:
            for key, value in pairs:
                transaction.put(key, value)

        self._write(put, self._max_bytes)

    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """See `ports.Store.get_many`."""
        with self._reading() as transaction:
            return [transaction.get(key) for key in keys]

    def scan(
        self, start: bytes, end: bytes, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """See `ports.Store.scan`."""
        with self._reading() as transaction, transaction.cursor() as cursor:
            return _scanned(cursor, start, end, limit, reverse)

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """See `ports.Store.delete_many`."""
        doomed = list(keys)
        return self._delete(lambda transaction: sum(map(transaction.delete, doomed)))

    def delete_range(self, start: bytes, end: bytes, limit: int) -> int:
        """See `ports.Store.delete_range`."""

        def delete(transaction: "lmdb.Transaction[bytes]") -> int:
            deleted = 0
            with transaction.cursor() as cursor:
                here = cursor.set_range(start)
                while here and deleted < limit and cursor.key() < end:
                    cursor.delete()
                    deleted += 1
                    here = bool(cursor.key())
            return deleted

        return self._delete(delete)

    def count(self) -> int:
        """See `ports.Store.count`."""
        with self._entered(), self._translated("read"):
            return self._environment.stat()["entries"]

    def size_bytes(self) -> int:
        """See `ports.Store.size_bytes`."""
        with self._entered(), self._translated("read"):
            pages = self._environment.info()["last_pgno"] + 1
            return pages * self._environment.stat()["psize"]

    def copy_to(self, folder: Path) -> None:
        """Copy what there is at this moment into a folder that is not there yet, flushed.

        Others go on reading and writing, until the map must grow. Raises `StoreError`.
        """
        with self._entered(), self._translated("copy"):
            folder.mkdir(mode=FOLDER_MODE)
            self._environment.copy(str(folder), compact=True)
            for path in (folder / DATA_FILE, folder):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def close(self) -> None:
        """See `ports.Store.close`. Where the disk hangs, it is left to the process's end."""
        with self._gate:
            if self._closed:
                return
            self._closed = self._shut = True
            idle = self._gate.wait_for(lambda: not self._inside, CLOSE_TIMEOUT_S)
        if idle:
            self._environment.close()
            os.close(self._owner)

    def _write(self, work: Write[T], bound: int) -> T:
        """One flushed transaction; where the map is too small, it grows and all is done again."""
        with self._writing:
            while True:
                try:
                    with (
                        self._entered(),
                        self._translated("write"),
                        self._environment.begin(write=True) as transaction,
                    ):
                        return work(transaction)
                except lmdb.MapFullError:
                    self._grow(bound)

    def _delete(self, work: Write[int]) -> int:
        """Forget, and make the pages that this frees usable for the next write."""
        bound = self._max_bytes + DELETE_RESERVE_BYTES
        deleted = self._write(work, bound)
        if deleted and self._map_bytes() >= self._max_bytes:
            # LMDB hands pages out again one commit after the one that freed them, and a write
            # that finds no room commits nothing: without this a full store would stay full.
            self._write(_touch, bound)
            with self._alone(), self._translated("resize"):
                self._environment.set_mapsize(self._max_bytes)
        return deleted

    def _map_bytes(self) -> int:
        with self._entered():
            return self._environment.info()["map_size"]

    def _grow(self, bound: int) -> None:
        now = self._map_bytes()
        if now >= bound:
            raise StoreFullError(
                f"{self._folder} is full at its bound of {self._max_bytes // MIB} MiB;"
                " raise the bound, or keep records for fewer days"
            )
        with self._alone(), self._translated("resize"):
            self._environment.set_mapsize(min(2 * now, bound))

    @contextmanager
    def _reading(self) -> Iterator["lmdb.Transaction[bytes]"]:
        with (
            self._entered(),
            self._translated("read"),
            self._environment.begin() as transaction,
        ):
            yield transaction

    @contextmanager
    def _entered(self) -> Iterator[None]:
        """Inside, the map does not move."""
        with self._gate:
            self._gate.wait_for(lambda: not self._shut or self._closed)
            if self._closed:
                raise StoreError(f"{self._folder} is closed")
            self._inside += 1
        try:
            yield
        finally:
            with self._gate:
                self._inside -= 1
                self._gate.notify_all()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Inside, nobody else uses the map."""
        with self._gate:
            if self._closed:
                raise StoreError(f"{self._folder} is closed")
            self._shut = True
            try:
                self._gate.wait_for(lambda: not self._inside)
                yield
            finally:
                self._shut = self._closed
                self._gate.notify_all()

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except lmdb.MapFullError:
            raise
        except (lmdb.Error, OSError) as error:
            raise StoreError(f"cannot {verb} {self._folder}: {error}") from error


class LmdbReader:
    """See `ports.Rows`: a folder that another process goes on writing to.

    Every look is a transaction of its own: one that stayed open would keep the pages of all that
    the writer replaces. One in a process, and never in the one that writes: LMDB's own locks break
    when a process opens it twice. Raises `StoreError` where there is nothing to open.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with self._translated():
            self._environment = lmdb.Environment(
                str(folder),
                map_size=MAX_BYTES + DELETE_RESERVE_BYTES,  # of addresses: it never has to move
                readonly=True,
                create=False,
                readahead=False,
            )

    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """See `ports.Rows.get_many`."""
        with self._translated(), self._environment.begin() as transaction:
            return [transaction.get(key) for key in keys]

    def scan(
        self, start: bytes, end: bytes, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """See `ports.Rows.scan`."""
        with (
            self._translated(),
            self._environment.begin() as transaction,
            transaction.cursor() as cursor,
        ):
            return _scanned(cursor, start, end, limit, reverse)

    def close(self) -> None:
        """Give everything back."""
        self._environment.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.Error, OSError) as error:
            raise StoreError(f"cannot read {self._folder}: {error}") from error


def _scanned(
    cursor: "lmdb.Cursor[bytes]", start: bytes, end: bytes, limit: int, reverse: bool
) -> list[tuple[bytes, bytes]]:
    """The first `limit` pairs with `start <= key < end`; from the end, if `reverse`."""
    found: list[tuple[bytes, bytes]] = []
    if start >= end:
        return found
    if reverse:
        here = cursor.prev() if cursor.set_range(end) else cursor.last()
        move = cursor.prev
    else:
        here, move = cursor.set_range(start), cursor.next
    while here and len(found) < limit and start <= cursor.key() < end:
        found.append(cursor.item())
        here = move()
    return found


def read_through(folder: Path) -> int:
    """Read every page of a folder that nobody has open, writing nothing; how many keys there are.

    Raises `StoreError` for one that cannot be read to its end.
    """
    try:
        with (
            lmdb.Environment(str(folder), readonly=True, lock=False, create=False) as environment,
            environment.begin() as transaction,
            transaction.cursor() as cursor,
        ):
            return sum(1 for _ in cursor.iternext(keys=True, values=True))
    except (lmdb.Error, OSError) as error:
        raise StoreError(f"cannot read {folder}: {error}") from error


def _touch(transaction: "lmdb.Transaction[bytes]") -> None:
    """Commit something without changing anything."""
    with transaction.cursor() as cursor:
        if cursor.first():
            transaction.put(*cursor.item())


def _own(folder: Path) -> int:
    """The descriptor of the lock that makes us the folder's only owner."""
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        owner = os.open(folder / OWNER_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise StoreError(f"cannot open {folder}: {error.strerror}") from error
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(owner)
        busy = error.errno in (errno.EAGAIN, errno.EACCES)
        why = "another daemon has it open; stop that one first" if busy else error.strerror
        raise StoreError(f"cannot open {folder}: {why}") from error
    return owner
