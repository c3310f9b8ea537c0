"""Keys that take turns, and calls at even distances."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from cascaded.providers.turns import Keys, Pace
from cascaded.types.secret import Secret
from cascaded.types.times import NS_PER_S

THREE = [Secret("sk-one"), Secret("sk-two"), Secret("sk-three")]


def test_keys_take_turns() -> None:
    keys = Keys(THREE)
    assert [keys.take(0) for _ in range(5)] == [0, 1, 2, 0, 1]
    assert keys.reveal(1) == "sk-two"


def test_one_that_rests_is_passed_over() -> None:
    keys = Keys(THREE)
    assert keys.rest(1, 0, 10)
    assert [keys.take(1) for _ in range(4)] == [0, 2, 0, 2]
    assert 1 in {keys.take(10 * NS_PER_S) for _ in range(3)}


def test_when_all_rest_the_one_that_is_ready_first_is_used() -> None:
    keys = Keys(THREE)
    assert keys.rest(0, 0, 30)
    assert keys.rest(1, 0, 10)
    assert not keys.rest(2, 0, 20)
    assert keys.take(1) == 1


def test_one_key_alone_is_always_used() -> None:
    keys = Keys(THREE[:1])
    assert not keys.rest(0, 0, 0)
    assert not keys.rest(0, 0, 10)
    assert keys.take(1) == 0
    assert Keys([]).take(0) is None


def test_none_of_them_is_told() -> None:
    assert Keys(THREE).hide("sk-one, sk-two and sk-three") == "***, *** and ***"


@given(
    st.sampled_from([0.5, 3.0, 100.0]),
    st.lists(st.tuples(st.integers(0, NS_PER_S), st.integers(0, 3 * NS_PER_S)), max_size=50),
)
def test_calls_are_never_nearer_than_their_distance(
    rate: float, asked: list[tuple[int, int]]
) -> None:
    pace, now, starts = Pace(rate), 0, list[int]()
    for later, most in asked:
        now += later
        taken, wait = pace.take(now, most)
        assert taken == (wait <= most)
        if taken:
            starts.append(now + wait)
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    assert all(gap >= int(NS_PER_S / rate) for gap in gaps)
