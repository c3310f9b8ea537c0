"""Versioned rows of one kind in a store: read, written and changed one at a time or in bulk.

A version is given once and never again, so that whoever saw one knows what it overwrites.
Keys: a byte for the kind and the id → version and JSON; `m` → the last version that was given.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from cascaded.ports import Store
from cascaded.state.log_rows import VERSION, body, checked_limit
from cascaded.types.errors import ConflictError, RowsError, StoreError, StoreFullError
from cascaded.types.ids import is_id
from cascaded.types.kept import Expected, Kept, Page, nothing_under

MAX_ROWS = 2_000_000
"""Of all kinds together."""
MAX_ROW_BYTES = 32 * 1024
META = b"m"


class Named(Protocol):
    """What has an id."""

    @property
    def id(self) -> str:
        """It, as `is_id` wants it."""
        ...


Item = TypeVar("Item", bound=Named)


class Shelf(Generic[Item]):
    """One kind of rows."""

    def __init__(
        self,
        store: Store,
        kind: bytes,
        shape: type[Item],
        *,
        checked: Callable[[Item], Item],
        shown: Callable[[Item], Item],
        changed: Callable[[Sequence[str]], None],
        writing: threading.Lock,
    ) -> None:
        """`checked`: an item as it is to be stored, or `ValueError`; `shown`: as it is handed out.
        `changed` is told the ids of what was written. `writing` is one lock for the store."""
        self._store = store
        self._kind = kind
        self._decode: Callable[[bytes], Item] = msgspec.json.Decoder(shape).decode
        self._checked = checked
        self._shown_item = shown
        self._changed = changed
        self._writing = writing

    def get(self, id: str) -> Kept[Item] | None:
        """What is stored under this id; a user with whom it belongs to."""
        kept = self._row(id)
        return None if kept is None else self._shown(kept)

    def read(self, id: str) -> Item | None:
        """The row alone, past the cache."""
        kept = self._row(id)
        return None if kept is None else kept.item

    def put(self, item: Item, *, expected: Expected) -> Kept[Item]:
        """Store one where the writer is right about what is there. On disk when it returns."""
        with self._writing:
            if self._check_version(item.id, expected) is None:
                self._check_room(1)
            return self._write([self._fit(item)])[0]

    def change(
        self, id: str, how: Callable[[Item], Item], expected: Expected = "any"
    ) -> Kept[Item]:
        """Change what is stored; nobody writes in between."""
        with self._writing:
            kept = self._check_version(id, expected)
            if kept is None:
                raise ConflictError("not_found", nothing_under(id))
            item = how(kept.item)
            if item.id != id:
                raise ValueError("an id cannot be changed; create another and delete this one")
            return self._write([self._fit(item)])[0]

    def delete(self, id: str, *, expected: Expected = "any") -> Kept[Item]:
        """Forget one; what it was."""
        with self._writing:
            kept = self._check_version(id, expected)
            if kept is None:
                raise ConflictError("not_found", nothing_under(id))
            self._store.delete_many([self._key(id)])
            self._changed([id])
            return kept

    def page(self, *, limit: int, after: str | None = None) -> Page[Item]:
        """Rows by id. Raises `ValueError` for a limit that is none."""
        if after is not None and not is_id(after):
            raise ValueError("after must be the id that the last page ended with")
        start = self._kind if after is None else self._key(after) + b"\0"
        end = bytes([self._kind[0] + 1])
        found = self._store.scan(start, end, checked_limit(limit) + 1)
        rows = [self._shown(self._decoded(value)) for _, value in found[:limit]]
        return Page(rows, rows[-1].item.id if len(found) > limit else None)

    def create(self, items: Sequence[Item]) -> list[Kept[Item]]:
        """Store new ones, all or none, in one transaction. Raises `RowsError`."""
        with self._writing:
            there = self._store.get_many([self._key(item.id) for item in items])
            stored = {item.id for item, row in zip(items, there, strict=True) if row is not None}
            wrong: dict[int, str] = {}
            sound: list[Item] = []
            for row, item in enumerate(items):
                try:
                    if item.id in stored:
                        raise ValueError(f"{item.id!r} is there already")
                    stored.add(item.id)
                    sound.append(self._fit(item))
                except ValueError as error:
                    wrong[row] = str(error)
            if wrong:
                raise RowsError(wrong)
            self._check_room(len(sound))
            return self._write(sound)

    def _fit(self, item: Item) -> Item:
        """As it is to be stored. Raises `ValueError`."""
        fit = self._checked(item)
        size = len(msgspec.json.encode(fit))
        if size > MAX_ROW_BYTES:
            raise ValueError(f"{item.id!r} has {size} bytes; at most {MAX_ROW_BYTES} are kept")
        return fit

    def _write(self, items: Sequence[Item]) -> list[Kept[Item]]:
        """On disk when it returns."""
        first = self._last_version() + 1
        kept = [Kept(item, version) for version, item in enumerate(items, first)]
        rows = [
            (self._key(item.id), _row(version, msgspec.json.encode(item))) for item, version in kept
        ]
        self._store.put_many([*rows, (META, _row(first + len(kept) - 1))])
        self._changed([item.id for item in items])
        return [self._shown(one) for one in kept]

    def _shown(self, kept: Kept[Item]) -> Kept[Item]:
        return Kept(self._shown_item(kept.item), kept.version)

    def _check_room(self, more: int) -> None:
        if self._store.count() + more > MAX_ROWS:
            raise StoreFullError(f"at most {MAX_ROWS} users, organisations and workspaces are kept")

    def _check_version(self, id: str, expected: Expected) -> Kept[Item] | None:
        """What is there, if the writer is right about it."""
        kept = self._row(id)
        if expected == "any" or expected == (kept.version if kept else "absent"):
            return kept
        if expected == "absent":
            raise ConflictError("already_exists", f"{id!r} is stored already")
        now = "is not there any more" if kept is None else f"is at version {kept.version}"
        raise ConflictError("version_conflict", f"{id!r} {now}, not at {expected}: read it again")

    def _row(self, id: str) -> Kept[Item] | None:
        if not is_id(id):
            return None
        (value,) = self._store.get_many([self._key(id)])
        return None if value is None else self._decoded(value)

    def _decoded(self, value: bytes) -> Kept[Item]:
        data = body(value)
        try:
            return Kept(self._decode(data[8:]), int.from_bytes(data[:8], "big"))
        except msgspec.DecodeError as error:
            raise StoreError(f"a stored profile cannot be read: {error}") from None

    def _last_version(self) -> int:
        (value,) = self._store.get_many([META])
        return 0 if value is None else int.from_bytes(body(value), "big")

    def _key(self, id: str) -> bytes:
        return self._kind + id.encode()


def _row(version: int, data: bytes = b"") -> bytes:
    return VERSION + version.to_bytes(8, "big") + data
