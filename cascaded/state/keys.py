"""Issued keys, in memory as they are on the disk: a look-up reads no disk.

Keys: `k` id → `IssuedKey`; `u` id → when it was last used. All of it is read at the start, where
keys that have been dead for long are forgotten.
"""

from collections.abc import Sequence

import msgspec

from cascaded.ports import Clock, Store
from cascaded.state.log_rows import DAY_NS, VERSION, body, time_of
from cascaded.state.write_behind import Report, WriteBehind
from cascaded.types.errors import StoreError
from cascaded.types.keys import IssuedKey

KEY, USED, END = b"k", b"u", b"v"
MAX_KEYS = 65_536
KEEP_DEAD_NS = 90 * DAY_NS
"""How long a revoked or expired key is still shown."""
USED_EVERY_NS = DAY_NS // 24
"""How exact the time of the last use is."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(IssuedKey).decode


class KeyRing:
    """Every key that was issued. Raises `StoreError` where the store cannot be read."""

    def __init__(self, store: Store, clock: Clock, *, report: Report) -> None:
        self._store = store
        self._wall_ns = clock.wall_ns
        self._by_digest: dict[bytes, IssuedKey] = {}
        self._by_id: dict[str, IssuedKey] = {}
        self._used: dict[str, int] = {}
        self._read()
        self._writer = WriteBehind("keys", write=self._write_used, tidy=_nothing, report=report)

    def find(self, digest: bytes) -> IssuedKey | None:
        """The key with this SHA-256, whatever its state. Its use is noted if it is active."""
        key = self._by_digest.get(digest)
        if key is None:
            return None
        now_ns = self._wall_ns()
        if now_ns - self._used.get(key.id, 0) >= USED_EVERY_NS and key.state(now_ns) == "active":
            self._used[key.id] = now_ns - now_ns % USED_EVERY_NS
            self._writer.put(key.id)
        return key

    def get(self, id: str) -> IssuedKey | None:
        """The key of this id."""
        return self._by_id.get(id)

    def used_ns(self, id: str) -> int | None:
        """When it was last used, to the hour."""
        return self._used.get(id)

    def all(self) -> Sequence[IssuedKey]:
        """Every key, in the order of their ids."""
        return [self._by_id[id] for id in sorted(self._by_id)]

    def users_of(self, tier: str) -> list[str]:
        """Who would miss a tier: the active keys of it, by name. On any thread."""
        now_ns = self._wall_ns()
        return [
            f"key '{key.name}' ({key.id})"
            for key in list(self._by_id.values())
            if key.owner.tier == tier and key.state(now_ns) == "active"
        ]

    def full(self) -> bool:
        """Whether no further key can be kept."""
        return len(self._by_id) >= MAX_KEYS

    def put_in_force(self, key: IssuedKey) -> None:
        """From now on this is what is known of the key."""
        self._by_digest[key.digest] = self._by_id[key.id] = key

    def write(self, key: IssuedKey) -> None:
        """Keep it on the disk, which this waits for. Raises `StoreError`."""
        self._store.put_many([(KEY + key.id.encode(), VERSION + _encode(key))])

    def close(self) -> None:
        """Write what waits. The store stays open."""
        self._writer.close()

    def _read(self) -> None:
        long_ago = self._wall_ns() - KEEP_DEAD_NS
        doomed: list[bytes] = []
        try:
            for stored, value in self._store.scan(KEY, USED, 2 * MAX_KEYS):
                key = _decode(body(value))
                if (key.revoked_ns or key.expires_ns or long_ago + 1) <= long_ago:
                    doomed += (stored, USED + stored[1:])
                else:
                    self.put_in_force(key)
        except msgspec.DecodeError as error:
            raise StoreError(f"an issued key cannot be read: {error}") from None
        if doomed:
            self._store.delete_many(doomed)
        for stored, value in self._store.scan(USED, END, MAX_KEYS):
            self._used[stored[1:].decode()] = int.from_bytes(body(value), "big")

    def _write_used(self, ids: Sequence[str]) -> None:
        """On the writer's thread. A row of its own, so that it cannot undo a revocation."""
        used = [(USED + id.encode(), VERSION + time_of(self._used[id])) for id in ids]
        self._store.put_many(used)


def _nothing() -> bool:
    return False
