"""The verdict: how findings and the model's own certainty join."""

import math

import pytest

from cascaded.policy.quality import QualityMode, assess
from cascaded.policy.quality.checks import CHECKS
from cascaded.policy.quality.confidence import certainty
from cascaded.policy.quality.phrases import phrases
from cascaded.policy.quality.reading import ANSWER_WINDOW_CHARS, read
from cascaded.policy.quality.scale import FATAL, MILD, SERIOUS, SLIGHT
from cascaded.policy.quality.scripts import letters
from cascaded.types.request import Asks
from cascaded.types.result import Completion

GENERAL_THRESHOLD = 0.60
LOWEST_THRESHOLD = 0.45
GOOD = Completion(text="The Elbe rises in the Giant Mountains.", finish_reason="stop")
QUESTION = "Where does the Elbe rise?"


def test_no_fault_found() -> None:
    verdict = assess(QUESTION, GOOD, Asks())
    assert verdict.score == verdict.confidence == 1
    assert verdict.failed == ()
    assert len(verdict.checks) == len(CHECKS)


def test_the_scale_means_what_it_says() -> None:
    assert SERIOUS < LOWEST_THRESHOLD < GENERAL_THRESHOLD
    assert MILD > GENERAL_THRESHOLD > MILD * MILD
    assert SLIGHT**2 > MILD
    assert SLIGHT * MILD > GENERAL_THRESHOLD
    assert FATAL < SERIOUS


def test_findings_multiply() -> None:
    text = "Maybe it rises, perhaps it does not, it might, or it possibly never did"
    cut = Completion(text=text, finish_reason="length")
    verdict = assess(QUESTION, cut, Asks())
    assert verdict.score == pytest.approx(SERIOUS * SLIGHT)
    assert verdict.failed == ("truncation", "hedging")


def test_a_refusal_of_the_provider_fails_whatever_else() -> None:
    assert assess(QUESTION, Completion(refusal="No."), Asks()).score == 0


@pytest.mark.parametrize("mode", ["fast", "balanced", "strict"])
def test_certainty_only_lowers(mode: QualityMode) -> None:
    scores = []
    for mean in (0.0, -0.2, -0.5, -1.0, -3.0, -1e9, -math.inf):
        answer = Completion(text=GOOD.text, mean_logprob=mean)
        verdict = assess(QUESTION, answer, Asks(), mode=mode)
        assert 0 <= verdict.confidence <= verdict.score <= 1
        scores.append(verdict.score)
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < GENERAL_THRESHOLD


def test_stricter_modes_hear_the_model_more() -> None:
    doubtful = Completion(text=GOOD.text, mean_logprob=-0.9)
    fast, balanced, strict = (
        assess(QUESTION, doubtful, Asks(), mode=mode).score
        for mode in ("fast", "balanced", "strict")
    )
    assert fast > GENERAL_THRESHOLD > balanced > strict


def test_certainty_is_monotone_and_bounded() -> None:
    curve = [certainty(step / 100) for step in range(-3000, 200)]
    assert curve == sorted(curve)
    assert 0 < curve[0] < 0.01
    assert 0.8 < curve[-1] < 1
    assert certainty(math.nan) == 0


def test_nonsense_from_the_provider() -> None:
    answer = Completion(text=GOOD.text, mean_logprob=math.nan)
    assert assess(QUESTION, answer, Asks()).score == 0


def test_reasons_quote_nobody() -> None:
    secret = "hunter2hunter2"
    text = f"I'm sorry, I cannot help with {secret}."
    verdict = assess(f"What is {secret}?", Completion(text=text), Asks(json_object=True))
    assert verdict.failed
    assert all(secret not in check.reason for check in verdict.checks)


def test_both_ends_of_a_long_answer_are_read() -> None:
    middle = "x" * (3 * ANSWER_WINDOW_CHARS)
    reading = read("", Completion(text=f"HEAD {middle} TAIL’s"), Asks())
    assert reading.low.startswith("head ")
    assert reading.low.endswith(" tail's")
    assert len(reading.sample) == 2 * ANSWER_WINDOW_CHARS + 1
    assert len(reading.text) > len(reading.sample)


def test_words() -> None:
    reading = read("", Completion(text="It’s 12 o_k 河水 über"), Asks())
    assert reading.words == ["it", "s", "12", "o_k", "河", "水", "über"]


def test_letters() -> None:
    assert letters("abc 1") == {"Latin": 3}
    assert letters("é я 河 か 강 ψ ش 𠀀 ꙁ") == {
        "Latin": 1,
        "Cyrillic": 1,
        "Chinese or Japanese": 3,
        "Korean": 1,
        "Greek": 1,
        "Arabic": 1,
        "other": 1,
    }


def test_phrases() -> None:
    assert phrases(" a b; c\n\n d ;") == ("a b", "c", "d")
