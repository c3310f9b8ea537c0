"""What administrators set at run time, in memory as it is on the disk.

Keys: `l` scope NUL id → `Quotas`; `t` name → `Tier`. All of it is read at the start.
"""

import asyncio
from typing import cast

import msgspec

from cascaded.ports import Store
from cascaded.state.log_rows import VERSION, body
from cascaded.types.errors import StoreError
from cascaded.types.limits import Scope
from cascaded.types.overrides import Overrides
from cascaded.types.quotas import Quotas
from cascaded.types.tables import Tier

LIMIT, TIER, END = b"l", b"t", b"u"
MAX_LIMITS = 10_000
MAX_TIERS = 64

_encode = msgspec.msgpack.Encoder(enc_hook=dict).encode
"""Mappings that are read-only are no `dict`s."""
_quotas = msgspec.msgpack.Decoder(Quotas).decode
_tier = msgspec.msgpack.Decoder(Tier).decode


class StoredOverrides:
    """A change is written first (`write_…`, which wait for the disk), then put in force by setting
    `now`. Whoever makes one holds `turn` meanwhile. Raises `StoreError` where the store cannot be
    read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.turn = asyncio.Lock()
        limits = {}
        try:
            for key, value in store.scan(LIMIT, TIER, MAX_LIMITS):
                scope, _, id = key[1:].decode().partition("\0")
                limits[cast("Scope", scope), id] = _quotas(body(value))
            rows = store.scan(TIER, END, MAX_TIERS)
            tiers = {key[1:].decode(): _tier(body(value)) for key, value in rows}
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreError(f"a limit or a tier that was set cannot be read: {error}") from None
        self.now = Overrides(limits=limits, tiers=tiers)

    def write_limits(self, scope: Scope, id: str, quotas: Quotas | None) -> None:
        """Keep these limits of one scope, or forget them. Raises `StoreError`."""
        self._write(LIMIT + f"{scope}\0{id}".encode(), quotas)

    def write_tier(self, name: str, tier: Tier | None) -> None:
        """Keep a tier, or forget it. Raises `StoreError`."""
        self._write(TIER + name.encode(), tier)

    def _write(self, key: bytes, value: Quotas | Tier | None) -> None:
        if value is None:
            self._store.delete_many([key])
        else:
            self._store.put_many([(key, VERSION + _encode(value))])
