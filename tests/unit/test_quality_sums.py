"""Sums done again, final answers, and whether two answers say the same."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded.policy.quality.agreement import agreement, differ_hard, same
from cascaded.policy.quality.arithmetic import equations
from cascaded.policy.quality.final import final_answer, number

QUESTION = "What is the capital of France? And the chemical symbol of gold?"


@pytest.mark.parametrize(
    ("text", "left", "right"),
    [
        ("22 * 5 = 110 tomatoes", 110, 110),
        ("2 days * 4 hours/day = 8 hours", 8, 8),
        ("2 x 4 = <<2*4=8>>8", 8, 8),
        ("he had $1,200 + $300 = $1,500", 1500, 1500),
        ("4 (Cindy's pets) + 2 = 6 pets", 6, 6),
        ("20% of 50 = 10", 10, 10),
        (r"$\frac{3}{4} \times 8 = 6$", 6, 6),
        ("(12 * 11) / (2 * 1) = 66", 66, 66),
        ("-5 + 3 = -2", -2, -2),
        ("2 ^ 3 + 1 = 9", 9, 9),
    ],
)
def test_a_sum_is_found_in_prose_and_holds(text: str, left: float, right: float) -> None:
    [found] = equations(text)
    assert (found.left, found.right, found.holds) == (left, right, True)


@pytest.mark.parametrize("text", ["12 * 7 = 85", "10 / 3 = 3.5", "1,000 - 1 = 998", "3 * 10 ≈ 40"])
def test_a_wrong_sum_is_seen(text: str) -> None:
    assert not equations(text)[-1].holds


@pytest.mark.parametrize("text", ["10 / 3 = 3.33", "1/3 ≈ 0.33", "100% - 20% = 80%", "2/3 = 0.667"])
def test_rounding_is_no_slip(text: str) -> None:
    assert [one.holds for one in equations(text)] == [True]


@pytest.mark.parametrize(
    "text",
    [
        *("2x + 3 = 7", "S = 2", "f(x) = 3", "1 / 0 = 7", "2 ^ 9999 = 3", "= =", "((( = 4"),
        *("3 + = 4", "(-8) ^ 0.5 = 3", "3 4 = 12", "* 3 = 3", "2 + 2 = x"),
    ],
)
def test_what_is_not_surely_a_sum_is_none(text: str) -> None:
    assert equations(text) == []


@given(st.integers(-999, 999), st.integers(1, 999), st.sampled_from("+-*"))
def test_right_sums_hold_and_wrong_ones_do_not(one: int, other: int, sign: str) -> None:
    value = {"+": one + other, "-": one - other, "*": one * other}[sign]
    assert [found.holds for found in equations(f"so {one} {sign} {other} = {value}.")] == [True]
    assert [found.holds for found in equations(f"so {one} {sign} {other} = {value + 1}.")] == [
        False
    ]


@given(st.text(max_size=400) | st.text(alphabet="0123456789+-*/^()=≈.,% \\{}frac<>", max_size=400))
def test_any_text_is_read(text: str) -> None:
    equations(text)
    final_answer(text)
    same(QUESTION, text, text[::-1])


@pytest.mark.parametrize(
    "text",
    [
        *("(" * 6_000, "1+" * 3_000 + "=", "= " * 3_000, "<<" * 3_000, r"\frac{" * 1_000),
        *("{" * 6_000, r"\boxed{" * 900, '"answer": "' + "\\" * 5_000, "answer is " * 600),
        "1,000" * 1_200,
    ],
)
def test_hostile_texts_take_no_time(text: str) -> None:
    started = time.thread_time()
    equations(text)
    final_answer(text)
    assert time.thread_time() - started < 1


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ('```json\n{"reasoning": "…", "answer": "18"}\n```', "number", "18"),
        (r"Thus the result is \boxed{C}.", "letter", "C"),
        (r"It is \boxed{\frac{1}{2} of it all and some more words}", "text", None),
        ("so he has 5.\n#### 1,234.50", "number", "1234.5"),
        ("Therefore the answer is (B).", "letter", "B"),
        ("The final answer is: 12 dollars.", "number", "12"),
        ("Some work.\nA: 30", "number", "30"),
        ("Paris.", "text", "paris"),
        ("", "none", ""),
        ("   ", "none", ""),
        ("It was a long way to go, and they walked for all of the day until the night of 12.",
         "number", "12"),
        ("word " * 40, "none", ""),
    ],
)  # fmt: skip
def test_the_final_answer(text: str, kind: str, value: str | None) -> None:
    final = final_answer(text)
    assert final.kind == kind
    assert value is None or final.value == value


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("007", "7"),
        ("-0.50", "-0.5"),
        (".5", "0.5"),
        ("1,000.00", "1000"),
        ("0", "0"),
        ("0.0", "0"),
    ],
)
def test_numbers_have_one_way_of_writing(written: str, plain: str) -> None:
    assert number(written) == plain


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The answer is 42.", "So we get 6 * 7 = 42"),
        ("The answer is (B).", "Answer: B"),
        ("The capital of France is Paris.", "Paris is the capital of France."),
        ("The chemical symbol is Au", "Au."),
        ("0.50", ".5"),
        (r"\boxed{the red house}", "The answer is the red house"),
        (r"\boxed{red house}", r"\boxed{the red house in town}"),
    ],
)
def test_these_say_the_same(one: str, other: str) -> None:
    assert same(QUESTION, one, other)
    assert same(QUESTION, other, one)


@pytest.mark.parametrize(
    ("one", "other", "in_what"),
    [
        ("The flight goes from Paris to London.", "The flight goes from London to Paris.", "order"),
        ("It is allowed.", "It is not allowed.", "negation"),
        ("Take two of 5 mg, twice each day.", "Take two of 50 mg, twice each day.", "numbers"),
        ("The capital of France is Paris.", "The capital of France is Lyon.", None),
        ("The answer is (B).", "The answer is (C).", None),
        ("The answer is 7.", "Nobody knows the answer to this.", "numbers"),
    ],
)
def test_these_do_not(one: str, other: str, in_what: str | None) -> None:
    assert not same("Which way?", one, other, cosine=0.99)
    assert differ_hard(one, other) == in_what


def test_long_texts_go_by_their_vectors_where_there_are_any() -> None:
    long = "The river rose and boats went down towards great seas carrying crews home safely while"
    one = f"{long} gulls cried above masts, sails filled, ropes sang, men shouted orders gladly."
    other = one.replace("gladly", "happily").replace("shouted", "called")
    assert same("", one, other)
    assert same("", one, other, cosine=0.9)
    assert not same("", one, other, cosine=0.5)


def test_agreement_is_a_share() -> None:
    answers = ["Paris", "It is Paris.", "Lyon", "Paris!"]
    assert agreement(QUESTION, answers[0], answers[1:]) == pytest.approx(2 / 3)
    assert agreement(QUESTION, "Paris", []) is None
