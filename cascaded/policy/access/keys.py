"""What an issued key looks like: `sk_<tier>_<secret><checksum>`.

The tier in it is a hint for people; what a key may do stands in its record. The checksum tells a
key of ours from an upstream's or a dummy without looking anywhere; it proves nothing.
"""

import re
import string
import zlib

SECRET_BYTES = 24
"""192 bits of chance: nobody guesses one."""
NO_TIER = "key"
"""In place of the tier where a key has none."""
_DIGITS = string.digits + string.ascii_letters
_SECRET_CHARS, _CHECK_CHARS = 33, 6
"""What 192 and 32 bits take in base 62."""
_MAX_CHARS = 128
_FORM = re.compile(rf"sk_[a-z0-9][a-z0-9_-]{{0,63}}_[0-9A-Za-z]{{{_SECRET_CHARS + _CHECK_CHARS}}}")
_HINT_CHARS = 4


def compose(tier: str | None, secret: bytes) -> str:
    """The key of this secret (`SECRET_BYTES` of chance)."""
    begun = f"sk_{tier or NO_TIER}_{_base62(int.from_bytes(secret, 'big'), _SECRET_CHARS)}"
    return begun + _checksum(begun)


def is_ours(key: str) -> bool:
    """Whether it has the form of an issued key, its checksum included."""
    if not key.startswith("sk_") or len(key) > _MAX_CHARS or not _FORM.fullmatch(key):
        return False
    return _checksum(key[:-_CHECK_CHARS]) == key[-_CHECK_CHARS:]


def hint_of(key: str) -> str:
    """A key as it may be shown: without its secret, but for the last characters."""
    return f"{key[: -_SECRET_CHARS - _CHECK_CHARS]}…{key[-_HINT_CHARS:]}"


def _checksum(begun: str) -> str:
    return _base62(zlib.crc32(begun.encode()), _CHECK_CHARS)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
