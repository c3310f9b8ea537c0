"""A circuit breaker: a provider that fails again and again is left alone for a while.

Closed, every call may pass. Open, none may. After a pause one call goes ahead to try (half-open):
answered, it closes the breaker; failed, it opens it for twice as long.
"""

from collections import deque
from typing import Literal

import msgspec

from cascaded.types.times import NS_PER_S

State = Literal["closed", "open", "half_open"]

MAX_REMEMBERED = 100
"""Calls that are looked back at: under load the window is shorter than its time."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """When it opens, and for how long."""

    failures: int = 5
    """It opens at so many failures within the window, if they are also `share` of the calls in
    it. 0: never."""
    share: float = 0.5
    window_ns: int = 30 * NS_PER_S
    open_ns: int = 10 * NS_PER_S
    """First pause, at its longest; it doubles with every trial that fails."""
    max_open_ns: int = 120 * NS_PER_S


NEVER = Thresholds(failures=0)
"""For who looks after itself."""


class Breaker:
    """The state of one provider. Time and chance are handed in.

    Each call enters and then says once how it ended, with the number that it was given: what was
    under way when the state changed says nothing about the new one.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self.state: State = "closed"
        self.retry_ns = 0
        """When it is open: from when a call may try."""
        self._thresholds = thresholds
        self._era = 0
        self._pause_ns = 0
        self._ended: deque[tuple[int, bool]] = deque()
        self._failures = 0

    def enter(self, now_ns: int) -> int | None:
        """The number of a call that may pass; `None`: it must not."""
        if self.state == "closed":
            return self._era
        if self.state == "half_open" or now_ns < self.retry_ns:
            return None
        self._turn("half_open")
        return self._era

    def answered(self, number: int, now_ns: int) -> None:
        """The provider is alive."""
        if number != self._era:
            return
        if self.state == "half_open":
            self._pause_ns = 0
            self._turn("closed")
        elif self._thresholds.failures:
            self._remember(now_ns, failed=False)

    def failed(self, number: int, now_ns: int, chance: float) -> None:
        """The provider did not do its part. `chance`, 0 to 1, spreads the trials of many hosts."""
        if number != self._era or not self._thresholds.failures:
            return
        if self.state == "half_open":
            self._open(now_ns, chance)
            return
        self._remember(now_ns, failed=True)
        least = max(self._thresholds.failures, self._thresholds.share * len(self._ended))
        if self._failures >= least:
            self._open(now_ns, chance)

    def unknown(self, number: int, now_ns: int) -> None:
        """The call ended without telling (its caller left). A trial is then still to be made."""
        if number == self._era and self.state == "half_open":
            self.retry_ns = now_ns
            self._turn("open")

    def _open(self, now_ns: int, chance: float) -> None:
        limits = self._thresholds
        self._pause_ns = min(self._pause_ns * 2 or limits.open_ns, limits.max_open_ns)
        self.retry_ns = now_ns + int(self._pause_ns * (0.5 + chance / 2))
        self._turn("open")

    def _turn(self, state: State) -> None:
        self.state = state
        self._era += 1
        self._ended.clear()
        self._failures = 0

    def _remember(self, now_ns: int, *, failed: bool) -> None:
        ended = self._ended
        ended.append((now_ns, failed))
        self._failures += failed
        oldest = now_ns - self._thresholds.window_ns
        while len(ended) > MAX_REMEMBERED or ended[0][0] <= oldest:
            self._failures -= ended.popleft()[1]
