"""Responses that are kept for who asked for them, each with the items of its call.

What goes on from an earlier one stores only its own items; the thread is put together when it is
read. The folder is made at the first that is kept. All of it is one thread's (`offload`), which
waits for the disk.

Keys: `r` owner and id → size and `KeptResponse`; `o` owner, time and id, and `t` time, owner and id
→ size. An owner is the hash of a tenant's name.
"""

from collections.abc import Callable
from functools import partial
from hashlib import blake2b

import msgspec

from cascaded.ports import Clock, Offload, Store
from cascaded.state.log_rows import VERSION, body, time_of
from cascaded.types.errors import StoreError
from cascaded.types.kept import KeptResponse
from cascaded.types.times import NS_PER_S

ROW, OF_OWNER, BY_TIME = b"r", b"o", b"t"
OWNER_BYTES = 16
TIME_BYTES = 8
ROW_BYTES = 512
"""Beside the response and its input: three keys, figures."""
MAX_ID_BYTES = 128
MAX_TURNS = 1_000
"""Of one thread."""
SWEPT_AT_ONCE = 500

_encode = msgspec.msgpack.Encoder().encode
_read = msgspec.msgpack.Decoder(KeptResponse).decode


class ResponseRoom(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept, and for how long."""

    ttl_s: int
    entry_bytes: int
    per_owner: int
    bytes: int


class KeptResponses:
    """What is kept. Methods raise `StoreError` where the disk says no."""

    def __init__(
        self,
        open_store: Callable[[], Store],
        clock: Clock,
        offload: Offload,
        room: ResponseRoom,
        *,
        there: bool,
    ) -> None:
        """`there`: whether something is kept already."""
        self.room = room
        """May change."""
        self._open = open_store
        self._clock = clock
        self._offload = offload
        self._there = there
        self._store: Store | None = None
        self._bytes = 0

    async def put(self, id: str, kept: KeptResponse) -> bool:
        """Keep it; on disk when this returns. False for one that is too long."""
        if ROW_BYTES + len(kept.input) + len(kept.response) > self.room.entry_bytes:
            return False
        self._there = True
        await self._offload(partial(self._put, id, kept))
        return True

    async def get(self, tenant: str, id: str) -> KeptResponse | None:
        """What this tenant has under the id."""
        if not self._there:
            return None
        return await self._offload(partial(self._get, tenant, id))

    async def thread(self, tenant: str, id: str, max_bytes: int) -> list[KeptResponse] | None:
        """It and all that it goes on from, the first one first; `None` where one is missing, or
        where it is longer than that or than `MAX_TURNS`."""
        if not self._there:
            return None
        return await self._offload(partial(self._thread, tenant, id, max_bytes))

    async def delete(self, tenant: str, id: str) -> bool:
        """Forget one; whether it was there."""
        return self._there and await self._offload(partial(self._delete, tenant, id))

    async def sweep(self) -> None:
        """Forget some of what is too old."""
        if self._there:
            await self._offload(self._sweep)

    def close(self) -> None:
        """Close the store. Nobody may be in it any more."""
        if self._store is not None:
            self._store.close()

    # On the one thread.

    @property
    def _rows(self) -> Store:
        if self._store is None:
            self._store = store = self._open()
            start = BY_TIME
            while rows := store.scan(start, _after(BY_TIME), SWEPT_AT_ONCE):
                self._bytes += sum(int.from_bytes(size, "big") for _, size in rows)
                start = rows[-1][0] + b"\0"
        return self._store

    def _put(self, id: str, kept: KeptResponse) -> None:
        owner, name, at = _owner(kept.tenant), id.encode(), time_of(kept.at_ns)
        store = self._rows
        mine = store.scan(OF_OWNER + owner, _after(OF_OWNER + owner), self.room.per_owner)
        if len(mine) >= self.room.per_owner:
            key = mine[0][0][1 + OWNER_BYTES :]
            self._forget([BY_TIME + key[:TIME_BYTES] + owner + key[TIME_BYTES:]])
        value = VERSION + _encode(kept)
        size = len(value) + ROW_BYTES
        while self._bytes and self._bytes + size > self.room.bytes:
            oldest = store.scan(BY_TIME, _after(BY_TIME), 1)
            self._forget([key for key, _ in oldest])
        told = size.to_bytes(8, "big")
        rows = (
            (ROW + owner + name, value),
            (OF_OWNER + owner + at + name, told),
            (BY_TIME + at + owner + name, told),
        )
        store.put_many(rows)
        self._bytes += size

    def _get(self, tenant: str, id: str) -> KeptResponse | None:
        name = id.encode()
        if len(name) > MAX_ID_BYTES:
            return None
        (value,) = self._rows.get_many([ROW + _owner(tenant) + name])
        if value is None:
            return None
        try:
            kept = _read(body(value))
        except msgspec.DecodeError as error:
            raise StoreError(f"a response cannot be read: {error}") from None
        fresh = kept.tenant == tenant and self._is_fresh(kept.at_ns)
        return kept if fresh else None

    def _thread(self, tenant: str, id: str, max_bytes: int) -> list[KeptResponse] | None:
        turns: list[KeptResponse] = []
        size, at = 0, id
        while len(turns) < MAX_TURNS:
            kept = self._get(tenant, at)
            if kept is None:
                return None
            turns.append(kept)
            size += len(kept.input) + len(kept.response)
            if size > max_bytes:
                return None
            if kept.previous is None:
                return turns[::-1]
            at = kept.previous
        return None

    def _delete(self, tenant: str, id: str) -> bool:
        kept = self._get(tenant, id)
        if kept is None:
            return False
        owner = _owner(tenant)
        self._forget([BY_TIME + time_of(kept.at_ns) + owner + id.encode()])
        return True

    def _sweep(self) -> None:
        rows = self._rows.scan(BY_TIME, _after(BY_TIME), SWEPT_AT_ONCE)
        old = [key for key, _ in rows if not self._is_fresh(int.from_bytes(key[1:9], "big"))]
        self._forget(old)

    def _is_fresh(self, at_ns: int) -> bool:
        return self._clock.wall_ns() - at_ns < self.room.ttl_s * NS_PER_S

    def _forget(self, keys: list[bytes]) -> None:
        """All rows of these, named by those that sort by time."""
        sizes = self._rows.get_many(keys)
        doomed = [row for key in keys for row in (key, *_others(key))]
        self._rows.delete_many(doomed)
        self._bytes -= sum(int.from_bytes(size, "big") for size in sizes if size is not None)


def _others(key: bytes) -> tuple[bytes, bytes]:
    """The other rows of what has this row in the order of time."""
    at, rest = key[1 : 1 + TIME_BYTES], key[1 + TIME_BYTES :]
    owner, name = rest[:OWNER_BYTES], rest[OWNER_BYTES:]
    return ROW + rest, OF_OWNER + owner + at + name


def _owner(tenant: str) -> bytes:
    return blake2b(tenant.encode("utf-8", "surrogatepass"), digest_size=OWNER_BYTES).digest()


def _after(prefix: bytes) -> bytes:
    """The first key after all that begin so; owners are hashes, so there is one."""
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")
