"""Who is asked and who is left alone: a breaker for each provider, told how its calls end."""

from collections.abc import Callable

from cascaded.policy.outages import Breaker, State, Thresholds
from cascaded.ports import Clock
from cascaded.types.errors import ProviderError
from cascaded.types.times import NS_PER_S

OUTAGES = frozenset(
    {
        "upstream_connect",
        "upstream_timeout",
        "upstream_reset",
        "upstream_overloaded",
        "upstream_server_error",
        "upstream_garbage",
    }
)
"""Faults of the provider itself. What it refuses (4xx) shows that it is alive."""
UNASKED = "upstream_unavailable"
"""Nothing was sent, so nothing is known."""


Tell = Callable[[str, State, float], None]
"""Who hears that a provider is left alone, and for how many seconds, or is asked again. It must
neither block nor raise."""


class Watch:
    """One provider, watched."""

    def __init__(
        self,
        provider: str,
        thresholds: Thresholds,
        clock: Clock,
        random: Callable[[], float],
        tell: Tell,
    ) -> None:
        self._provider = provider
        self._breaker = Breaker(thresholds)
        self._clock = clock
        self._random = random
        self._tell = tell

    @property
    def state(self) -> State:
        """As it is now."""
        return self._breaker.state

    @property
    def asked(self) -> bool:
        """Whether a call may pass now; a single one, if it is to try."""
        if self.state == "open":
            return self._clock.monotonic_ns() >= self._breaker.retry_ns
        return self.state == "closed"

    @property
    def retry_after_s(self) -> float:
        """How long it is still left alone."""
        left = self._breaker.retry_ns - self._clock.monotonic_ns()
        return max(0, left) / NS_PER_S if self.state == "open" else 0.0

    def enter(self) -> int | None:
        """A number for one call, given back in `leave`; `None`: the provider is left alone."""
        before = self._breaker.state
        if before == "closed":
            return self._breaker.enter(0)
        number = self._breaker.enter(self._clock.monotonic_ns())
        self._changed(before)
        return number

    def leave(self, number: int, fault: ProviderError | None, *, ended: bool) -> None:
        """How the call ended; without a fault `ended` tells an answer from a caller who left."""
        breaker, now_ns = self._breaker, self._clock.monotonic_ns()
        before = breaker.state
        if fault is not None and fault.code in OUTAGES:
            breaker.failed(number, now_ns, self._random())
        elif ended or (fault is not None and fault.code != UNASKED):
            breaker.answered(number, now_ns)
        else:
            breaker.unknown(number, now_ns)
        self._changed(before)

    def left_alone(self) -> ProviderError:
        """What a call is told that may not pass."""
        return ProviderError(
            UNASKED,
            f"provider '{self._provider}' has failed again and again and is left alone for now;"
            " ask again later, or give its models a fallback",
            billing="not_billed",
            retry_after_s=self.retry_after_s,
        )

    def _changed(self, before: State) -> None:
        if self._breaker.state != before:
            self._tell(self._provider, self._breaker.state, self.retry_after_s)
