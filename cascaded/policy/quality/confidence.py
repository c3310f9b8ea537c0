"""How sure the model itself was, from the log-probabilities of its tokens.

A logistic curve over the mean log-probability, fitted by `scripts/fit_certainty.py` on
one-line questions to SmolLM2-135M (area under the curve: capitals 0.89, chemical symbols 0.70,
products 0.59, sums 0.54; 0.76 over all). It is a weak signal: it tells known facts from guessed
ones, not right sums from wrong ones, and its level moves with the model and the temperature. So
it never raises a score, and the default mode gives it a small say.
"""

from math import exp
from typing import Final

CERTAINTY_AT_ZERO: Final = 2.1
CERTAINTY_SLOPE: Final = 4.9
"""The logit of "right" is at_zero + slope x mean log-probability (natural, per token)."""
MEAN_LOGPROB_MIN: Final = -20.0
"""Below it every answer is noise; also keeps the exponential in range."""


def certainty(mean_logprob: float) -> float:
    """The fitted chance that such an answer is right, in (0, 1); grows with its argument."""
    if mean_logprob != mean_logprob:
        return 0.0  # not a number: the provider sent nonsense, so nothing is certain
    bounded = min(max(mean_logprob, MEAN_LOGPROB_MIN), 0.0)
    return 1 / (1 + exp(-(CERTAINTY_AT_ZERO + CERTAINTY_SLOPE * bounded)))
