"""The exact cache: earlier answers by their keys, in memory and behind it on the disk.

What there is stands in an index in memory, so that a call that misses asks no disk, and a hit that
is in memory neither. The disk is written behind; where it says no, the cache is of memory alone.
For want of room the entry that was used longest ago goes (after a start: the oldest).

Keys: `h` key → `_Head`; `v` key → checksum and `Recalled`. What cannot be read is forgotten: it
can be bought again.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from cascaded.ports import Clock, Offload, Store
from cascaded.state.log_rows import VERSION, body, unskipped
from cascaded.state.write_behind import Report, WriteBehind
from cascaded.types.errors import StoreError
from cascaded.types.recalled import CacheFigures, Recalled
from cascaded.types.times import NS_PER_S

HEAD, VALUE, END = b"h", b"v", b"w"
SUM_BYTES = 16
PAGE_BYTES = 4096
"""A long value takes whole pages."""
ROW_BYTES = 512
"""Beside the answer itself: keys, head, checksum, figures."""
ROWS_AT_ONCE = 1_000
VALUES_AT_ONCE = 64
SWEPT_AT_ONCE = 1_000
QUEUED = 4_096


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept."""

    entries: int
    entry_bytes: int
    """A longer answer is not kept."""
    memory_bytes: int
    bytes: int
    """On the disk; without one memory alone counts."""


class _Head(msgspec.Struct, array_like=True):
    """What the index knows of an entry."""

    tenant: str
    model: str
    at_ns: int
    size: int


class _Entry(msgspec.Struct):
    head: _Head
    answer: Recalled | None
    """`None`: only on the disk."""


class _Write(NamedTuple):
    key: bytes
    head: _Head | None
    answer: Recalled | None
    """Both `None`: forget it."""


class Checked(NamedTuple):
    """What a look at every entry found."""

    checked: int
    damaged: int


_encode = msgspec.msgpack.Encoder().encode
_read_answer = msgspec.msgpack.Decoder(Recalled).decode
_read_head = msgspec.msgpack.Decoder(_Head).decode


class ExactCache:
    """See `ports.Answers`. One event loop owns it; the store is used on other threads."""

    def __init__(
        self,
        store: Store | None,
        clock: Clock,
        offload: Offload,
        *,
        room: Room,
        ttl_s: int,
        report: Report,
    ) -> None:
        """Read the index, which waits for the disk. `offload` runs what reads it later.

        Raises `StoreError` where the store cannot be read.
        """
        self.ttl_s = ttl_s
        """How long an answer is given; may change."""
        self.figures = CacheFigures(on_disk=store is not None)
        self._store = store
        self._offload = offload
        self._room = room
        self._report = report
        self._wall_ns = unskipped(clock)
        self._index: OrderedDict[bytes, _Entry] = OrderedDict()
        self._hot: OrderedDict[bytes, None] = OrderedDict()
        """Those in memory; both in the order of use."""
        self._births: deque[tuple[int, bytes]] = deque()
        self._unwritten: dict[tuple[bytes, int], Recalled] = {}
        """By key and time: what waits for the disk, and cannot be read from it yet."""
        self._trouble = False
        self._writer: WriteBehind[_Write] | None = None
        if store is not None:
            self._load(store)
            self._writer = WriteBehind(
                "cache", write=self._write, tidy=_nothing, report=report, capacity=2 * QUEUED
            )

    def __len__(self) -> int:
        return len(self._index)

    async def get(self, key: bytes, max_age_s: int | None = None) -> Recalled | None:
        """See `ports.Answers.get`."""
        entry = self._index.get(key)
        if entry is None or not self._fresh(entry.head, max_age_s):
            return None
        self._index.move_to_end(key)
        if entry.answer is not None:
            self._hot.move_to_end(key)
            return entry.answer
        place = key, entry.head.at_ns
        answer = self._unwritten.get(place) or await self._offload(partial(self._read, *place))
        if self._index.get(key) is entry:  # nobody took it away meanwhile
            if answer is None:
                self._forget(key)
            elif entry.answer is None:
                self._warm(key, entry, answer)
        return answer

    def put(self, key: bytes, answer: Recalled) -> None:
        """See `ports.Answers.put`."""
        size = _size(answer)
        if size > min(self._room.entry_bytes, self._room.bytes):
            return
        if key in self._index:
            self._drop(key)
        head = _Head(answer.tenant, answer.model, answer.at_ns, size)
        entry = self._index[key] = _Entry(head, None)
        self._births.append((answer.at_ns, key))
        self.figures.entries += 1
        self.figures.bytes += size
        self.figures.stored += 1
        self._hand_on(_Write(key, head, answer))
        self._warm(key, entry, answer)
        while self._too_much():
            self.figures.evicted += 1
            self._forget(next(iter(self._index)))

    def sweep(self) -> None:
        """Forget some of what is too old."""
        for _ in range(min(SWEPT_AT_ONCE, len(self._births))):
            at_ns, key = self._births[0]
            entry = self._index.get(key)
            if entry is not None and entry.head.at_ns == at_ns:
                if self._fresh(entry.head, None):
                    return
                self.figures.expired += 1
                self._forget(key)
            self._births.popleft()

    async def clear(self, tenant: str | None = None, model: str | None = None) -> int:
        """Forget the answers of a tenant, or of a model, or all; how many there were. They are
        gone from the disk, too, when it returns. Raises `StoreError` where that cannot be."""
        doomed = [
            key
            for key, entry in self._index.items()
            if tenant in (None, entry.head.tenant) and model in (None, entry.head.model)
        ]
        for key in doomed:
            self._drop(key)
        if self._store is not None and self._writer is not None:
            written = self._writer.mark()
            everything = tenant is None and model is None
            await self._offload(written.result)
            await self._offload(partial(_erase, self._store, None if everything else doomed))
        return len(doomed)

    async def verify(self) -> Checked:
        """Read every entry, and forget what does not read as it was written. Raises
        `StoreError`."""
        if self._store is None or self._writer is None:
            return Checked(len(self._index), 0)
        entries = dict(self._index)  # before the mark: what comes later is not on the disk yet
        await self._offload(self._writer.mark().result)
        keys, damaged = list(entries), 0
        for start in range(0, len(keys), VALUES_AT_ONCE):
            some = [key for key in keys[start : start + VALUES_AT_ONCE] if key in self._index]
            for key in await self._offload(partial(self._unsound, some)):
                if self._index.get(key) is entries[key]:
                    damaged += 1
                    self._forget(key)
        return Checked(len(keys), damaged)

    def close(self) -> None:
        """Write what waits. The store stays open."""
        if self._writer is not None:
            self._writer.close()

    # The index.

    def _fresh(self, head: _Head, max_age_s: int | None) -> bool:
        most_s = self.ttl_s if max_age_s is None else min(self.ttl_s, max_age_s)
        return 0 <= self._wall_ns() - head.at_ns < most_s * NS_PER_S

    def _too_much(self) -> bool:
        figures, room = self.figures, self._room
        return figures.entries > room.entries or figures.bytes > room.bytes

    def _warm(self, key: bytes, entry: _Entry, answer: Recalled) -> None:
        """Keep it in memory; for want of room others are on the disk alone, or gone."""
        entry.answer = answer
        self._hot[key] = None
        self.figures.memory_bytes += entry.head.size
        while self.figures.memory_bytes > self._room.memory_bytes:
            oldest = next(iter(self._hot))
            if self._store is None:
                self.figures.evicted += 1
                self._forget(oldest)
            else:
                self._cool(oldest, self._index[oldest])

    def _cool(self, key: bytes, entry: _Entry) -> None:
        del self._hot[key]
        entry.answer = None
        self.figures.memory_bytes -= entry.head.size

    def _forget(self, key: bytes) -> None:
        """Here, and in its turn on the disk."""
        self._drop(key)
        self._hand_on(_Write(key, None, None))

    def _hand_on(self, write: _Write) -> None:
        """To the disk, unless it lags too far behind."""
        if self._writer is None:
            return
        if self._writer.waiting >= QUEUED:
            self.figures.lost += 1
            return
        if write.head is not None and write.answer is not None:
            self._unwritten[write.key, write.head.at_ns] = write.answer
        self._writer.put(write)

    def _drop(self, key: bytes) -> None:
        entry = self._index.pop(key)
        if entry.answer is not None:
            del self._hot[key]
            self.figures.memory_bytes -= entry.head.size
        self.figures.entries -= 1
        self.figures.bytes -= entry.head.size

    def _load(self, store: Store) -> None:
        """The index, the oldest first. What is too old, or too much, goes."""
        found: list[tuple[bytes, _Head]] = []
        start = HEAD
        while rows := store.scan(start, VALUE, ROWS_AT_ONCE):
            found += [(key[1:], _head(value)) for key, value in rows]
            start = rows[-1][0] + b"\0"
        for key, head in sorted(found, key=lambda row: row[1].at_ns):
            self._index[key] = _Entry(head, None)
            self._births.append((head.at_ns, key))
            self.figures.bytes += head.size
        self.figures.entries = len(self._index)
        doomed = [key for key, entry in self._index.items() if not self._fresh(entry.head, None)]
        for key in doomed:
            self._drop(key)
        while self._too_much():
            doomed.append(next(iter(self._index)))
            self._drop(doomed[-1])
        _erase(store, doomed)

    # The disk, on other threads.

    def _write(self, batch: Sequence[_Write]) -> None:
        """Of each key what was said last. Where the disk says no the entries are lost, and the
        cache goes on in memory."""
        assert self._store is not None
        last = {one.key: one for one in batch}
        doomed = [key for key, one in last.items() if one.answer is None]
        rows = [row for one in last.values() for row in _rows(one)]
        try:
            if doomed:
                _erase(self._store, doomed)
            if rows:
                self._store.put_many(rows)
        except StoreError as error:
            self.figures.lost += len(rows) // 2
            if not self._trouble:
                self._trouble = True
                self._report(f"cache: {error}; answers are kept in memory alone meanwhile")
            return
        finally:
            for one in batch:
                if one.head is not None:
                    self._unwritten.pop((one.key, one.head.at_ns), None)
        if self._trouble and rows:
            self._trouble = False
            self._report(f"cache: answers are written again; {self.figures.lost} were not")

    def _read(self, key: bytes, at_ns: int) -> Recalled | None:
        """What the index means, and nothing that stood there before it."""
        assert self._store is not None
        try:
            (value,) = self._store.get_many([VALUE + key])
            answer = None if value is None else _sound(key, value)
            return answer if answer is not None and answer.at_ns == at_ns else None
        except StoreError:
            self.figures.damaged += 1
            return None

    def _unsound(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those that do not read as they were written."""
        assert self._store is not None
        values = self._store.get_many([VALUE + key for key in keys])
        return [
            key for key, value in zip(keys, values, strict=True) if not self._is_sound(key, value)
        ]

    def _is_sound(self, key: bytes, value: bytes | None) -> bool:
        try:
            if value is not None:
                _sound(key, value)
                return True
        except StoreError:
            pass
        self.figures.damaged += 1
        return False


def _nothing() -> bool:
    """No upkeep of the writer's own."""
    return False


def _size(answer: Recalled) -> int:
    """The room that it takes."""
    size = len(answer.raw) + ROW_BYTES
    return size if size < PAGE_BYTES // 2 else -(-size // PAGE_BYTES) * PAGE_BYTES


def _rows(write: _Write) -> list[tuple[bytes, bytes]]:
    if write.answer is None:
        return []
    written = _encode(write.answer)
    value = VERSION + _sum(write.key, written) + written
    return [(HEAD + write.key, VERSION + _encode(write.head)), (VALUE + write.key, value)]


def _sum(key: bytes, written: bytes) -> bytes:
    """Of the value under this key: one that stands under another's is none."""
    return blake2b(written, key=key, digest_size=SUM_BYTES).digest()


def _sound(key: bytes, value: bytes) -> Recalled:
    """The answer. Raises `StoreError` unless it reads as it was written."""
    data = body(value)
    written = data[SUM_BYTES:]
    if _sum(key, written) != data[:SUM_BYTES]:
        raise StoreError("an answer is damaged")
    try:
        return _read_answer(written)
    except msgspec.DecodeError as error:
        raise StoreError(f"an answer cannot be read: {error}") from None


def _head(value: bytes) -> _Head:
    try:
        return _read_head(body(value))
    except msgspec.DecodeError as error:
        raise StoreError(f"the cache cannot be read: {error}") from None


def _erase(store: Store, keys: Sequence[bytes] | None) -> None:
    """Forget these; `None`: everything. Raises `StoreError`."""
    if keys is None:
        while store.delete_range(HEAD, END, ROWS_AT_ONCE):
            pass
        return
    for start in range(0, len(keys), ROWS_AT_ONCE):
        some = keys[start : start + ROWS_AT_ONCE]
        store.delete_many([kind + key for key in some for kind in (HEAD, VALUE)])
