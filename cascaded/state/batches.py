"""Batches and files on the disk, their heads in memory too.

Keys: `b` id → `Batch`; `f` id → `StoredFile`; and by batch or file, NUL and a number: `c` pieces
of a file, `l` queries, `m` what was done about them, `a` answers, `e` errors; `h` and a name: calls
that are with a provider. Queries, marks and these go when their batch has ended, the rest with its
age.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import TypeVar

import msgspec

from cascaded.ports import Store
from cascaded.state.log_rows import VERSION, body
from cascaded.types.batch import Answered, Batch, Bounds, Handover, Line, Mark, StoredFile
from cascaded.types.errors import StoreError, StoreFullError

T = TypeVar("T")
Row = tuple[bytes, bytes]
"""Key and value."""

BATCH, FILE, PIECE, LINE, MARK, ANSWER, ERROR = b"b", b"f", b"c", b"l", b"m", b"a", b"e"
HANDOVER = b"h"
PIECE_BYTES = 256 * 1024
MAX_KEPT = 20_000
"""Batches, and files, that are kept at most."""
MAX_LINES = 1_000_000
"""Queries that a batch can have."""
AT_ONCE = 1_000
"""Rows that are read or written in one go."""
INDEX_BYTES = 4

_encode = msgspec.msgpack.Encoder().encode
_batch = msgspec.msgpack.Decoder(Batch).decode
_file = msgspec.msgpack.Decoder(StoredFile).decode
_line = msgspec.msgpack.Decoder(Line).decode
_mark = msgspec.msgpack.Decoder(Mark).decode
_handover = msgspec.msgpack.Decoder(Handover).decode
_answered = msgspec.msgpack.Decoder(Answered).decode


class StoredBatches:
    """One event loop looks at the heads and changes them; whatever reads or writes the disk blocks,
    and raises `StoreError`."""

    def __init__(self, store: Store, bounds: Bounds) -> None:
        self._store = store
        self.bounds = bounds
        self.batches: dict[str, Batch] = {}
        self.files: dict[str, StoredFile] = {}
        for _, value in store.scan(BATCH, _after(BATCH), MAX_KEPT):
            batch = _read(_batch, value)
            self.batches[batch.id] = batch
        for _, value in store.scan(FILE, _after(FILE), MAX_KEPT):
            file = _read(_file, value)
            self.files[file.id] = file

    # What there is. No disk.

    def check_room(self, owner: str, more: int) -> None:
        """Raises `StoreFullError` where so many bytes more cannot be kept for this user."""
        bounds, all_bytes, own_bytes = self.bounds, 0, 0
        kept: Iterable[tuple[str, int]] = (
            *((file.owner, file.bytes) for file in self.files.values() if file.batch is None),
            *((batch.owner, batch.stored_bytes) for batch in self.batches.values()),
        )
        for whose, size in kept:
            all_bytes += size
            own_bytes += size if whose == owner else 0
        if own_bytes + more > bounds.max_user_bytes:
            raise StoreFullError(
                f"user '{owner}' has {own_bytes} bytes of files and batches stored, and"
                f" batch.max_user_bytes allows {bounds.max_user_bytes}: delete some"
            )
        full = max(len(self.files), len(self.batches)) >= MAX_KEPT
        if full or all_bytes + more > bounds.max_bytes:
            raise StoreFullError(
                f"files and batches take {all_bytes} bytes, and batch.max_bytes allows"
                f" {bounds.max_bytes}: delete some, or let the operator raise it"
            )

    def check_open(self, owner: str) -> None:
        """Raises `StoreFullError` for a user who has enough batches under way."""
        mine = (batch for batch in self.batches.values() if batch.owner == owner)
        count = sum(not batch.ended for batch in mine)
        if count >= self.bounds.max_open:
            raise StoreFullError(
                f"user '{owner}' has {count} batches under way, and batch.max_open allows no more:"
                " wait for one of them, or cancel it"
            )

    # Batches.

    def put(self, batch: Batch, lines: Sequence[Line] = ()) -> None:
        """Keep a batch's head, and queries of it, all or nothing."""
        self._store.put_many([head(batch), *(line_row(batch.id, line) for line in lines)])

    def put_rows(self, rows: Sequence[Row]) -> None:
        """Keep all of these or none."""
        self._store.put_many(rows)

    def lines(self, batch: str, first: int, limit: int) -> list[Line]:
        """The queries from this index on, so many of them."""
        start, end = _span(LINE, batch, first)
        return [_read(_line, value) for _, value in self._store.scan(start, end, limit)]

    def marks(self, batch: str) -> dict[int, Mark]:
        """What was done about queries, by index."""
        start, end = _span(MARK, batch)
        rows = self._store.scan(start, end, MAX_LINES)
        return {int.from_bytes(key[-INDEX_BYTES:], "big"): _read(_mark, row) for key, row in rows}

    def handovers(self) -> list[Handover]:
        """What was handed over of batches that have not ended."""
        rows = self._store.scan(HANDOVER, _after(HANDOVER), MAX_LINES)
        return [_read(_handover, value) for _, value in rows]

    def results(self, batch: str, *, errors: bool) -> Iterator[Answered]:
        """How queries ended, by index: those that were answered, or those that failed."""
        start, end = _span(ERROR if errors else ANSWER, batch)
        while rows := self._store.scan(start, end, AT_ONCE):
            for _, value in rows:
                yield _read(_answered, value)
            start = rows[-1][0] + b"\0"

    def forget_lines(self, batch: str) -> None:
        """The queries and marks of a batch are not needed any more, nor what was handed over."""
        self._forget((LINE, MARK, HANDOVER), batch)

    def forget_results(self, batch: str, *, errors: bool) -> None:
        """The answers, or the errors, are not wanted any more."""
        self._forget((ERROR if errors else ANSWER,), batch)

    def forget_batch(self, batch: str) -> None:
        """All of it, its head last."""
        self._forget((LINE, MARK, HANDOVER, ANSWER, ERROR), batch)
        self._store.delete_many([BATCH + batch.encode()])

    # Files.

    def put_file(self, file: StoredFile, data: bytes = b"") -> None:
        """Keep a file, all of it or nothing."""
        pieces = range(0, len(data), PIECE_BYTES)
        self._store.put_many(
            [
                (FILE + file.id.encode(), VERSION + _encode(file)),
                *(
                    (_key(PIECE, file.id, number), data[start : start + PIECE_BYTES])
                    for number, start in enumerate(pieces)
                ),
            ]
        )

    def piece(self, file: str, number: int) -> bytes | None:
        """A piece of an uploaded file; `None` after its end."""
        return self._store.get_many([_key(PIECE, file, number)])[0]

    def pieces(self, file: str) -> Iterator[bytes]:
        """An uploaded file, piece by piece."""
        for number in count():
            piece = self.piece(file, number)
            if piece is None:
                return
            yield piece

    def forget_file(self, file: StoredFile) -> None:
        """The file, and what it shows."""
        if file.batch is not None:
            self.forget_results(file.batch, errors=file.errors)
        self._forget((PIECE,), file.id)
        self._store.delete_many([FILE + file.id.encode()])

    def _forget(self, kinds: Iterable[bytes], id: str) -> None:
        for kind in kinds:
            start, end = _span(kind, id)
            while self._store.delete_range(start, end, AT_ONCE) == AT_ONCE:
                pass


def head(batch: Batch) -> Row:
    """A batch's head as it is stored."""
    return BATCH + batch.id.encode(), VERSION + _encode(batch)


def file_row(file: StoredFile) -> Row:
    """A file that has no pieces of its own, as it is stored."""
    return FILE + file.id.encode(), VERSION + _encode(file)


def line_row(batch: str, line: Line) -> Row:
    """A query as it is stored."""
    return _key(LINE, batch, line.index), VERSION + _encode(line)


def mark_row(batch: str, index: int, mark: Mark) -> Row:
    """What was done about a query, as it is stored."""
    return _key(MARK, batch, index), VERSION + _encode(mark)


def handover_row(handover: Handover) -> Row:
    """Calls that are with a provider, as they are stored."""
    key = HANDOVER + handover.batch.encode() + b"\0" + handover.name.encode()
    return key, VERSION + _encode(handover)


def result_row(batch: str, answered: Answered) -> Row:
    """A result as it is stored."""
    kind = ERROR if answered.failed else ANSWER
    return _key(kind, batch, answered.index), VERSION + _encode(answered)


def _key(kind: bytes, id: str, number: int) -> bytes:
    return kind + id.encode() + b"\0" + number.to_bytes(INDEX_BYTES, "big")


def _span(kind: bytes, id: str, first: int = 0) -> tuple[bytes, bytes]:
    """Where the rows of one batch or file are, from a number on."""
    return _key(kind, id, first), kind + id.encode() + b"\1"


def _after(kind: bytes) -> bytes:
    return bytes([kind[0] + 1])


def _read(decode: Callable[[bytes], T], value: bytes) -> T:
    with suppress(msgspec.DecodeError):
        return decode(body(value))
    raise StoreError("a batch, or a part of one, cannot be read: was the disk damaged?")
