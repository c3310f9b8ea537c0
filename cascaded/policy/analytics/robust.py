"""Middles and spreads that a few wild values do not move. Pure."""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

SIGMA = 1.4826
"""What turns a median deviation into a standard deviation, for normal values."""


def median(values: Sequence[float]) -> float:
    """The middle; of none, 0."""
    ordered, half = sorted(values), len(values) // 2
    if not ordered:
        return 0.0
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def spread(values: Sequence[float], middle: float) -> float:
    """As a standard deviation, by the median of what lies between."""
    return SIGMA * median([abs(value - middle) for value in values])


def clipped(
    values: Sequence[float], *, around: int, spreads: float, least: float = 0.05
) -> list[float]:
    """Each value, no further from the median of those around it than so many spreads; of a spread
    that is at least this share of the median."""
    found = []
    for index, value in enumerate(values):
        window = values[max(0, index - around) : index + around + 1]
        middle = median(window)
        room = spreads * max(spread(window, middle), least * middle)
        found.append(min(max(value, middle - room), middle + room))
    return found


class Window:
    """The last so many values, in order of size."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._values = deque[float]()
        self._ordered: list[float] = []

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: float) -> None:
        """One more; the oldest goes where there are too many."""
        self._values.append(value)
        insort(self._ordered, value)
        if len(self._values) > self._length:
            del self._ordered[bisect_left(self._ordered, self._values.popleft())]

    def quantile(self, share: float) -> float:
        """The value below which this share of them lies."""
        return self._ordered[min(int(share * len(self._ordered)), len(self._ordered) - 1)]
