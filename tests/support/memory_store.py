"""A store in memory whose disk can be told to fail."""

from collections.abc import Iterable

from cascaded.types.errors import StoreError


class MemoryStore:
    """See `ports.Store`."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.fails: StoreError | None = None
        self.puts = 0

    def put_many(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        if self.fails:
            raise self.fails
        self.puts += 1
        self.rows.update(items)

    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]

    def scan(
        self, start: bytes, end: bytes, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        keys = sorted((key for key in list(self.rows) if start <= key < end), reverse=reverse)
        return [(key, self.rows[key]) for key in keys[: max(limit, 0)]]

    def delete_many(self, keys: Iterable[bytes]) -> int:
        if self.fails:
            raise self.fails
        return sum(self.rows.pop(key, None) is not None for key in keys)

    def delete_range(self, start: bytes, end: bytes, limit: int) -> int:
        return self.delete_many([key for key, _ in self.scan(start, end, limit)])

    def count(self) -> int:
        return len(self.rows)

    def size_bytes(self) -> int:
        return sum(len(key) + len(value) for key, value in self.rows.items())

    def close(self) -> None:
        self.fails = StoreError("closed")
