"""How the logs lay out their rows: places in time, versions, texts within bounds."""

from collections.abc import Callable

from cascaded.ports import Clock
from cascaded.types.errors import StoreError

VERSION = b"\x01"
"""The first byte of every value; another one is refused, never guessed at."""
MAX_PAGE = 1_000
MAX_TEXT = 256
"""Longest text of a caller's that is kept."""
DAY_NS = 86_400 * 1_000_000_000
MAX_NS = 2**63 - 1
PLACE_BYTES = 16
"""Time and sequence."""


def time_of(at_ns: int) -> bytes:
    """A time as eight bytes that sort."""
    return min(max(at_ns, 0), MAX_NS).to_bytes(8, "big")


def place_of(at_ns: int, sequence: int = 0) -> bytes:
    """Where a record is: by time, then by number."""
    return time_of(at_ns) + sequence.to_bytes(8, "big")


def place_after(cursor: str | None) -> bytes | None:
    """The place that a cursor stands for. Raises `ValueError` for what is no cursor."""
    if cursor is None:
        return None
    try:
        place = bytes.fromhex(cursor)
    except ValueError:
        place = b""
    if len(place) != PLACE_BYTES:
        raise ValueError("this cursor is none of ours; leave it out to begin anew")
    return place


def narrowed(
    low: bytes, high: bytes, place: bytes | None, newest_first: bool
) -> tuple[bytes, bytes]:
    """What is left of a range once everything up to and with a place was read."""
    if place is None:
        return low, high
    return (low, min(high, place)) if newest_first else (max(low, place + b"\0"), high)


def checked_limit(limit: int) -> int:
    """The length of a page. Raises `ValueError` for one that is none."""
    if not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"limit must be 1 to {MAX_PAGE}, not {limit}")
    return limit


def text_of(text: str) -> str:
    """A caller's text, so long; bytes of a header that were no text become question marks."""
    short = text[:MAX_TEXT]
    return short if short.isascii() else short.encode("utf-8", "replace").decode()


def text_or_none(text: str | None) -> str | None:
    """The same for what may be absent."""
    return text_of(text) if text else None


def body(stored: bytes) -> bytes:
    """A value without its version. Raises `StoreError` for a version that is not ours."""
    if stored[:1] != VERSION:
        raise StoreError("a record was written by a newer version of cascaded; upgrade to read it")
    return stored[1:]


def unskipped(clock: Clock) -> Callable[[], int]:
    """Wall time that never runs ahead of the time since now: a clock that is set to a far year
    while we run must not make us forget everything."""
    wall_ns, monotonic_ns = clock.wall_ns(), clock.monotonic_ns()
    return lambda: min(clock.wall_ns(), wall_ns + clock.monotonic_ns() - monotonic_ns)
