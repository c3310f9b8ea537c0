"""Breakers against a model that remembers everything, under any order of calls, ends and time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cascaded.policy.outages import Breaker, Thresholds
from cascaded.policy.outages.breaker import MAX_REMEMBERED

LIMITS = Thresholds(failures=3, share=0.5, window_ns=100, open_ns=50, max_open_ns=150)


class Plain:
    """The same in the plainest words: every end that counts, and the whole list looked through."""

    def __init__(self) -> None:
        self.state = "closed"
        self.until = 0
        self.pause = 0
        self.ends: list[tuple[int, bool]] = []
        self.under_way = set[int]()
        """Calls that began in this state."""

    def enter(self, call: int, now: int) -> bool:
        if self.state == "open" and now >= self.until:
            self.turn("half_open")
        elif self.state != "closed":
            return False
        self.under_way.add(call)
        return True

    def leave(self, call: int, how: str, now: int, chance: float) -> None:
        if call not in self.under_way:
            return
        self.under_way.discard(call)
        if self.state == "half_open":
            if how == "answered":
                self.turn("closed")
                self.pause = 0
            elif how == "failed":
                self.open(now, chance)
            else:
                self.turn("open")
                self.until = now
        elif self.state == "closed" and how != "unknown":
            self.ends.append((now, how == "failed"))
            recent = [bad for at, bad in self.ends[-MAX_REMEMBERED:] if at > now - LIMITS.window_ns]
            if how == "failed" and sum(recent) >= max(LIMITS.failures, len(recent) * LIMITS.share):
                self.open(now, chance)

    def open(self, now: int, chance: float) -> None:
        self.pause = min(self.pause * 2 or LIMITS.open_ns, LIMITS.max_open_ns)
        self.until = now + int(self.pause * (0.5 + chance / 2))
        self.turn("open")

    def turn(self, state: str) -> None:
        self.state = state
        self.ends.clear()
        self.under_way.clear()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "enter", "answered", "failed", "failed", "unknown"]),
        st.integers(0, 40),
        st.integers(0, 7),
        st.floats(0, 1),
    ),
    max_size=300,
)


@settings(max_examples=300)
@given(STEPS)
def test_it_is_what_the_model_says(steps: list[tuple[str, int, int, float]]) -> None:
    breaker, plain, now = Breaker(LIMITS), Plain(), 0
    under_way: list[tuple[int, int]] = []
    for call, (what, later, which, chance) in enumerate(steps):
        now += later
        if what == "enter":
            number = breaker.enter(now)
            assert (number is not None) == plain.enter(call, now)
            if number is not None:
                under_way.append((call, number))
        elif under_way:
            ended, number = under_way.pop(which % len(under_way))
            if what == "failed":
                breaker.failed(number, now, chance)
            else:
                getattr(breaker, what)(number, now)
            plain.leave(ended, what, now, chance)
        assert breaker.state == plain.state
        if plain.state == "open":
            assert breaker.retry_ns == plain.until
        if plain.state == "half_open":
            assert len(plain.under_way) == 1, "one call tries, no more"


@given(st.integers(0, 1000), st.floats(0, 1))
def test_a_pause_is_spread_over_half_of_itself(now: int, chance: float) -> None:
    breaker = Breaker(LIMITS)
    for _ in range(LIMITS.failures):
        breaker.failed(0, now, chance)
    assert breaker.state == "open"
    assert now + LIMITS.open_ns // 2 <= breaker.retry_ns <= now + LIMITS.open_ns


def test_pauses_double_up_to_their_longest_and_begin_anew() -> None:
    breaker, now, pauses = Breaker(LIMITS), 0, []
    for _ in range(LIMITS.failures):
        breaker.failed(0, now, 1)
    for _ in range(4):
        pauses.append(breaker.retry_ns - now)
        now = breaker.retry_ns
        number = breaker.enter(now)
        assert number is not None
        breaker.failed(number, now, 1)
    assert pauses == [50, 100, 150, 150]
    now = breaker.retry_ns
    number = breaker.enter(now)
    assert number is not None
    breaker.answered(number, now)
    for _ in range(LIMITS.failures):
        breaker.failed(number + 1, now, 1)
    assert breaker.retry_ns - now == 50


def test_under_load_the_window_is_the_last_calls() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(5_000):
        breaker.answered(0, 1)
    failures = 0
    while breaker.state == "closed":
        failures += 1
        breaker.failed(0, 1, 0)
    assert failures == MAX_REMEMBERED * LIMITS.share


def test_one_that_never_opens() -> None:
    breaker = Breaker(Thresholds(failures=0))
    for _ in range(1_000):
        breaker.failed(0, 1, 0)
    breaker.answered(0, 1)
    assert breaker.state == "closed"
