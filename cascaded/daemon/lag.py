"""How late the event loop comes to what it has planned."""

from collections.abc import Callable

from cascaded.daemon.every import Every
from cascaded.ports import Clock
from cascaded.types.times import NS_PER_S

LOOK_EVERY_S = 0.5


def watch_lag(clock: Clock, tell: Callable[[int], object]) -> Every:
    """Tell, every half second, by how many nanoseconds a timer was served late."""
    last_ns = clock.monotonic_ns()

    def look() -> None:
        nonlocal last_ns
        now_ns = clock.monotonic_ns()
        tell(max(0, now_ns - last_ns - int(LOOK_EVERY_S * NS_PER_S)))
        last_ns = now_ns

    return Every(LOOK_EVERY_S, look)
