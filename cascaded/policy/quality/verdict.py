"""The checks' findings joined into one `Verdict`."""

from collections.abc import Mapping
from math import prod
from typing import Final, Literal

from cascaded.policy.quality.checks import CHECKS
from cascaded.policy.quality.confidence import certainty
from cascaded.policy.quality.reading import Reading, read
from cascaded.types.request import Asks
from cascaded.types.result import Check, Completion, Verdict

QualityMode = Literal["fast", "balanced", "strict"]

CERTAINTY_SAY: Final[Mapping[QualityMode, float]] = {"fast": 0.15, "balanced": 0.3, "strict": 0.5}
"""The power that the model's certainty enters the score with: 0 is no say, 1 a full one."""


def read_answer(
    question: str, answer: Completion, asks: Asks
) -> tuple[Reading, float, tuple[Check, ...]]:
    """An answer laid out, what the rules make of it, and their findings."""
    reading = read(question, answer, asks)
    checks = tuple(check(reading) for check in CHECKS)
    return reading, prod(check.score for check in checks), checks


def assess(question: str, answer: Completion, asks: Asks, *, mode: QualityMode = "fast") -> Verdict:
    """Judge one whole answer, a draft's or a verifier's, by rules alone.

    `score` multiplies the checks' scores: 1.0 says that no fault was found, not that the answer
    is right. Where the provider gave log-probabilities, the model's certainty lowers it, the
    more the stricter the mode. `confidence` gives that certainty its full say; without
    log-probabilities it is the score.

    Pure, never raises on what a model may send, and bounded in time whatever its length.
    """
    _, flawless, checks = read_answer(question, answer, asks)
    if answer.mean_logprob is None:
        return Verdict(score=flawless, confidence=flawless, checks=checks)
    sure = certainty(answer.mean_logprob)
    return Verdict(
        score=flawless * sure ** CERTAINTY_SAY[mode], confidence=flawless * sure, checks=checks
    )
