"""A fingerprint of the prices in force, for the holds that were made under them."""

import hashlib
from collections.abc import Mapping

import msgspec

from cascaded.types.model import Price

HASH_BYTES = 8
_encoder = msgspec.json.Encoder(order="sorted")


def price_table_hash(prices: Mapping[str, Price | None]) -> int:
    """64 bits that are the same wherever, and in whatever order, the same prices are listed.

    `None` (an unknown price) counts: a table that learns a price is another table.
    """
    text = _encoder.encode(dict(prices))
    return int.from_bytes(hashlib.blake2b(text, digest_size=HASH_BYTES).digest(), "big")
