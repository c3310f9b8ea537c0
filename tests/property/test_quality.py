"""Whatever is said, the verdict is in range, total and the same every time."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cascaded.policy.quality import assess
from cascaded.policy.quality.checks.repetition import LOOP_REPEATS_MIN, _loop_at_end
from cascaded.policy.quality.schema import violation
from cascaded.types.request import Asks
from cascaded.types.result import Completion

ANY_TEXT = st.text(st.characters(), max_size=400)  # surrogates too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
COMPLETIONS = st.builds(
    Completion,
    text=ANY_TEXT,
    finish_reason=st.none() | st.sampled_from(["stop", "length", "tool_calls"]) | ANY_TEXT,
    tool_calls=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=3).map(tuple),
    refusal=st.none() | ANY_TEXT,
    mean_logprob=st.none() | st.floats(),
)
ASKS = st.builds(
    Asks,
    json_object=st.booleans(),
    json_schema=st.none() | JSON.map(lambda value: msgspec.Raw(msgspec.json.encode(value))),
    tools=st.lists(ANY_TEXT, max_size=2).map(tuple),
    tool_required=st.booleans(),
)


@settings(max_examples=300)
@given(ANY_TEXT, COMPLETIONS, ASKS, st.sampled_from(["fast", "balanced", "strict"]))
def test_assess_is_total(question: str, answer: Completion, asks: Asks, mode: str) -> None:
    verdict = assess(question, answer, asks, mode=mode)  # type: ignore[arg-type]
    assert 0 <= verdict.confidence <= verdict.score <= 1
    assert all(0 <= check.score <= 1 for check in verdict.checks)
    assert verdict == assess(question, answer, asks, mode=mode)  # type: ignore[arg-type]


@settings(max_examples=200)
@given(JSON, JSON)
def test_any_json_may_be_a_schema(schema: object, value: object) -> None:
    assert violation(schema, value) == violation(schema, value)


@settings(max_examples=300)
@given(st.text("ab", max_size=24), st.text("ab", min_size=1, max_size=6), st.integers(0, 6))
def test_a_loop_at_the_end_is_found(start: str, unit: str, repeats: int) -> None:
    items = start + unit * repeats
    found = _loop_at_end(items)
    assert found == _longest_loop(items)
    if repeats >= LOOP_REPEATS_MIN:
        assert found >= len(unit) * repeats


def _longest_loop(items: str) -> int:
    """The same by trying every period and length."""
    return max(
        (
            size
            for period in range(1, len(items) // LOOP_REPEATS_MIN + 1)
            for size in range(LOOP_REPEATS_MIN * period, len(items) + 1)
            if items[-size : len(items) - period] == items[len(items) - size + period :]
        ),
        default=0,
    )
