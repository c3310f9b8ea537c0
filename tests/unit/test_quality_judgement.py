"""One probability out of everything, and how it is fitted."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascaded._core import fit_logistic
from cascaded.policy.quality.fitting import (
    Row,
    fit,
    log_loss,
    logits,
    out_of_fold,
    scales_of,
    straightened,
)
from cascaded.policy.quality.judge import judge_messages, judged_chance
from cascaded.policy.quality.judgement import (
    NO_EVIDENCE,
    Evidence,
    Judgement,
    read_judgement,
    squashed,
    traits,
    usually,
)
from cascaded.policy.quality.signals import NAMES
from cascaded.policy.quality.similarity import belongs
from cascaded.policy.quality.verdict import read_answer
from cascaded.policy.quality.weighing import Known, Weighing
from cascaded.types.quality import QualityConfig
from cascaded.types.request import Asks
from cascaded.types.result import Completion
from tests.support.fakes import shipped_judgement

SUM = "Tom has 17 boxes of 23 pens each. How many pens has he?"
RIGHT = "Each box has 23 pens, so 17 * 23 = 391. The answer is 391."
WRONG = "Each box has 23 pens, so 17 * 23 = 381. The answer is 381."


def chance(question: str, text: str, evidence: Evidence = NO_EVIDENCE) -> float:
    reading, rules, _ = read_answer(question, Completion(text=text), Asks())
    return shipped_judgement().chance(traits(reading, rules, evidence)).probability


def row(text: str, good: bool, group: str = "") -> Row:
    reading, rules, _ = read_answer(SUM, Completion(text=text), Asks())
    return Row(traits(reading, rules), good, group)


def rows(count: int) -> list[Row]:
    """Answers that are right where their sum holds."""
    return [
        row(f"So {n} * 3 = {n * 3 + (n % 2)}. The answer is {n}.", n % 2 == 0, f"q{n}")
        for n in range(2, 2 + count)
    ]


class TestShipped:
    def test_a_wrong_sum_is_less_probable(self) -> None:
        assert chance(SUM, WRONG) + 0.1 < chance(SUM, RIGHT)

    @pytest.mark.parametrize(
        ("better", "worse"),
        [
            (Evidence(agreement=1.0), Evidence(agreement=0.0)),
            (Evidence(judge=0.9), Evidence(judge=0.1)),
            (Evidence(mean_logprob=-0.01), Evidence(mean_logprob=-1.5)),
        ],
    )
    def test_evidence_moves_it(self, better: Evidence, worse: Evidence) -> None:
        assert chance(SUM, RIGHT, worse) < chance(SUM, RIGHT) < chance(SUM, RIGHT, better)

    def test_nonsense_for_a_log_probability_speaks_against_the_answer(self) -> None:
        assert chance(SUM, RIGHT, Evidence(mean_logprob=float("nan"))) < chance(SUM, RIGHT)

    def test_the_parts_are_the_whole(self) -> None:
        reading, rules, _ = read_answer(SUM, Completion(text=RIGHT), Asks())
        own = shipped_judgement()
        said = own.chance(traits(reading, rules, Evidence(agreement=1.0)))
        logit = own.offset + own.slope * sum(said.parts.values())
        assert said.probability == pytest.approx(squashed(logit), abs=0.01)
        assert {"question", "answer", "sums", "words", "agreement"} <= set(said.parts)

    def test_it_is_moved_to_another_share_of_good_answers(self) -> None:
        own = shipped_judgement()
        moved = usually(own, 0.95)
        assert moved.good_share == 0.95
        assert moved.offset > own.offset
        assert usually(own, own.good_share).offset == pytest.approx(own.offset)

    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=300), st.text(max_size=600))
    def test_any_answer_has_a_probability(self, question: str, text: str) -> None:
        assert 0 < chance(question, text) < 1


class TestFiles:
    def test_one_of_other_signals_is_refused(self) -> None:
        raw = msgspec.json.decode(msgspec.json.encode(shipped_judgement()))
        for change in (
            {"signals": ["other"]},
            {"version": 2},
            {"weights": [1.0]},
            {"good_share": 1},
        ):
            with pytest.raises((ValueError, msgspec.ValidationError)):
                read_judgement(msgspec.json.encode({**raw, **change}))
        flat = {**raw["scales"], "deviation": [0.0] * len(NAMES)}
        with pytest.raises((ValueError, msgspec.ValidationError)):
            read_judgement(msgspec.json.encode({**raw, "scales": flat}))

    def test_it_comes_back_as_it_was_written(self) -> None:
        own = shipped_judgement()
        assert read_judgement(msgspec.json.encode(own)) == own


class TestFitting:
    def test_held_out_answers_are_told_apart(self) -> None:
        some = rows(120)
        scales = scales_of(some)
        vectors = [scales.vector(one.traits) for one in some]
        good = [one.good for one in some]
        held = out_of_fold(some, vectors, prior=[0.0] * scales.size, cost=0.1)
        assert log_loss(held, good) < 0.45
        slope, offset = straightened(held, good)
        assert log_loss([offset + slope * one for one in held], good) <= log_loss(held, good) + 0.05

    def test_with_few_rows_the_prior_stays(self) -> None:
        own = shipped_judgement()
        some = rows(4)
        vectors = [own.scales.vector(one.traits) for one in some]
        weights = fit(vectors, [one.good for one in some], prior=own.weights, cost=1e-6)
        assert max(abs(a - b) for a, b in zip(weights, own.weights, strict=True)) < 0.01
        assert logits(weights, vectors) == pytest.approx(logits(own.weights, vectors), abs=0.1)

    def test_logits_without_a_message_are_flattened(self) -> None:
        slope, _ = straightened([1.0, -1.0] * 50, [True, True, False, False] * 25)
        assert slope < 0.1
        assert straightened([0.0, 0.0], [True, False]) == pytest.approx((1.0, 0.0), abs=0.01)

    def test_rows_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(ValueError, match="row 0"):
            fit_logistic([([5], [1.0])], [True], [0.0], 1.0)
        with pytest.raises(ValueError, match="cost"):
            fit_logistic([], [], [0.0], 0.0)
        with pytest.raises(ValueError, match="labels"):
            fit_logistic([([0], [1.0])], [], [0.0], 1.0)


class TestSimilarity:
    def test_nearer_is_more_probable(self) -> None:
        chances = [belongs(step / 10, 50) for step in range(-10, 11)]
        assert all(low < high for low, high in pairwise(chances))
        assert belongs(0.6, 100) > 0.9
        assert belongs(0.05, 100) < 0.1


class TestWeighing:
    def weighed(self, config: QualityConfig, **known: float) -> tuple[float, tuple[str, ...]]:
        weighing = Weighing(config, None, SUM, Completion(text=RIGHT), Asks())
        verdict = weighing.verdict(msgspec.convert(known, Known))
        return verdict.score, verdict.failed

    def test_limits_reject(self) -> None:
        config = QualityConfig.custom(combined=False)
        assert self.weighed(config) == (1.0, ())
        assert self.weighed(config, similarity=0.2) == (0.4, ("similarity",))
        assert self.weighed(config, toxicity=0.9) == (0.05, ("toxicity",))
        assert self.weighed(config, agreement=0.3) == (0.4, ("self_consistency",))
        assert self.weighed(config, similarity=0.8, toxicity=0.1, agreement=1.0)[0] == 1.0


class TestJudge:
    @pytest.mark.parametrize(
        ("word", "logprob", "expected"),
        [
            *(("Yes", None, 1.0), (" no.", None, 0.0), ("yes", -0.5, 0.6065)),
            *(("No", -0.5, 0.3935), ("yes", -3.0, 0.5), ("maybe", None, None)),
            *(("", None, None), ("nothing", None, None), ("not sure", None, None)),
        ],
    )
    def test_its_word(self, word: str, logprob: float | None, expected: float | None) -> None:
        said = judged_chance(Completion(text=word, mean_logprob=logprob))
        assert said == (None if expected is None else pytest.approx(expected, abs=1e-3))

    def test_it_is_shown_both(self) -> None:
        system, user = judge_messages("the question", "the answer")
        assert "the question" in user["content"]
        assert "the answer" in user["content"]
        assert "instruction" in system["content"]


def test_presets() -> None:
    assert QualityConfig.fast().rules_only
    assert QualityConfig.balanced().similarity_min == 0.70
    assert QualityConfig.balanced().toxicity_max == 0.80
    assert QualityConfig.strict().selfcheck_samples == 3
    own = QualityConfig.custom(selfcheck_samples=5, validation_mode="async")
    assert (own.mode, own.selfcheck_samples, own.validation_mode) == ("custom", 5, "async")
    with pytest.raises(msgspec.ValidationError):
        QualityConfig.custom(toxicity_max=2.0)
    with pytest.raises(msgspec.ValidationError):
        QualityConfig.custom(nonsense=1)


def test_a_judgement_with_fewer_deviations_is_refused() -> None:
    own = shipped_judgement()
    with pytest.raises(ValueError, match="as many"):
        Judgement(scales=own.scales, weights=own.weights[:-1])
