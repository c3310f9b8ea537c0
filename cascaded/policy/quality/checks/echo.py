"""Does the answer only say the question again?"""

from typing import Final

from cascaded.policy.quality.reading import Reading
from cascaded.policy.quality.scale import SERIOUS, fine, found
from cascaded.types.result import Check

NAME: Final = "echo"

WORDS_MIN: Final = 5
"""Shorter questions may well be their own answer ("true or false")."""
EXTRA_WORDS_MAX: Final = 3
_ASKED_TO_COPY: Final = ("repeat", "echo", "copy", "proofread", "correct", "rewrite", "translat")


def check(reading: Reading) -> Check:
    """The question's words in their order, and next to nothing besides."""
    asked, said = reading.question_words, reading.words
    extra = len(said) - len(asked)
    if len(asked) < WORDS_MIN or not 0 <= extra <= EXTRA_WORDS_MAX:
        return fine(NAME)
    if any(word in reading.question for word in _ASKED_TO_COPY):
        return fine(NAME)
    if any(said[shift : shift + len(asked)] == asked for shift in range(extra + 1)):
        return found(NAME, SERIOUS, "the answer is the question")
    return fine(NAME)
