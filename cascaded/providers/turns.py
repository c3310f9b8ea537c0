"""Whose turn it is: calls spread over time, and over several keys."""

from collections.abc import Sequence

from cascaded.types.secret import HIDDEN, Secret
from cascaded.types.times import NS_PER_S

REFUSED_REST_S = 300.0
"""How long a key rests that was refused: somebody must correct it."""
BUSY_REST_S = 10.0
"""How long one rests whose limit is used up, where the provider does not say."""


class Keys:
    """Keys that take turns. One that was refused or is used up rests; when all of them rest, the
    one that has rested nearly enough is used all the same, so that one key alone always is."""

    def __init__(self, keys: Sequence[Secret]) -> None:
        self._keys = tuple(keys)
        self._rested_ns = [0] * len(self._keys)
        self._next = 0

    def take(self, now_ns: int) -> int | None:
        """The place of a key; `None` where there is none."""
        count = len(self._keys)
        if count < 2:  # noqa: PLR2004  nothing to choose from
            return 0 if count else None
        turns = [(self._next + step) % count for step in range(count)]
        ready = (place for place in turns if self._rested_ns[place] <= now_ns)
        place = next(ready, None)
        if place is None:
            return min(turns, key=self._rested_ns.__getitem__)
        self._next = place + 1
        return place

    def reveal(self, place: int) -> str:
        """The key itself."""
        return self._keys[place].reveal()

    def rest(self, place: int, now_ns: int, seconds: float) -> bool:
        """Leave a key alone for a while; whether another one is ready."""
        self._rested_ns[place] = now_ns + int(seconds * NS_PER_S)
        others = (until for other, until in enumerate(self._rested_ns) if other != place)
        return any(until <= now_ns for until in others)

    def hide(self, text: str) -> str:
        """The text without any of them."""
        for key in self._keys:
            text = text.replace(key.reveal(), HIDDEN)
        return text


class Pace:
    """Calls at even distances."""

    def __init__(self, per_second: float) -> None:
        self._distance_ns = int(NS_PER_S / per_second)
        self._free_ns = 0

    def take(self, now_ns: int, most_ns: int) -> tuple[bool, int]:
        """Whether there is a turn within `most_ns`, which is then taken; and how far off it is."""
        wait_ns = max(0, self._free_ns - now_ns)
        if wait_ns > most_ns:
            return False, wait_ns
        self._free_ns = now_ns + wait_ns + self._distance_ns
        return True, wait_ns
