"""What the nearness of a question and an answer means.

The cosine of two embeddings is no probability: what lies at 0.4 may be a short right answer, or
a long one to another question of the same textbook. `belongs` says how probably an answer is to
this question, if one answer in twenty is to another one of the same source. It was fitted on the
development data (`scripts/fit_similarity.py`): at the default limit of 0.70 it finds 84% of the
answers to other questions there and loses 2% of the rest. Whether an answer is right the cosine
does not tell: for that its area under the curve is 0.50.
"""

from math import log1p
from typing import Final

from cascaded.policy.quality.judgement import squashed

AT_ZERO: Final = -4.14
SLOPE: Final = 21.4
PER_LOG_WORD: Final = -0.55
"""The logit is at_zero + slope x cosine + per_log_word x log(1 + words of the answer)."""
ANSWER_WORDS_MIN: Final = 8
"""Of shorter answers (a letter, a number, a name) a vector says little."""


def belongs(cosine: float, answer_words: int) -> float:
    """How probably an answer is to this question, in (0, 1); grows with the cosine."""
    return squashed(AT_ZERO + SLOPE * cosine + PER_LOG_WORD * log1p(answer_words))
