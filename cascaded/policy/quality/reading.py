"""`Reading`: one question and its answer, laid out once for all checks, within bounds.

A long answer is examined in a window at its head and one at its tail: what goes wrong with
answers (refusals, loops, cut ends) shows there, and the time stays bounded whatever a model
sends. `text` is the whole; only operations that run at memory speed may touch it.
"""

import re
from collections import Counter
from typing import Final

import msgspec

from cascaded.policy.quality.scripts import letters
from cascaded.types.request import Asks
from cascaded.types.result import Completion

ANSWER_WINDOW_CHARS: Final = 3_000
"""Examined at each end of an answer."""
QUESTION_WINDOW_CHARS: Final = 1_000
"""Examined at each end of a question; instructions stand first or last."""

_THOUGHT_OPEN: Final = "<think>"
_THOUGHT_CLOSE: Final = "</think>"
_STRAIGHTENED: Final = (("’", "'"), ("‘", "'"), ("ʼ", "'"), ("\u00a0", " "), ("\u202f", " "))

# A Han, kana or Hangul sign counts as a word of its own: those scripts set few spaces.
_UNSPACED: Final = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD: Final = re.compile(rf"[^\W{_UNSPACED}]+|\w")


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What every check is given."""

    answer: Completion
    asks: Asks
    text: str
    """The whole answer, stripped, without the reasoning some local models put before it."""
    thinking_only: bool
    """The reasoning never ended, so there is no answer."""
    sample: str
    """The text, or its two windows with a line break between."""
    low: str
    """The sample in lower case with straight apostrophes."""
    words: list[str]
    """Of `low`."""
    scripts: Counter[str]
    """How many letters of each script are at the start of `low`."""
    question: str
    """Lower case, straight apostrophes, within its windows."""
    question_words: list[str]


def read(question: str, answer: Completion, asks: Asks) -> Reading:
    """Lay out a question and its answer for the checks."""
    text, thinking_only = _without_thought(answer.text)
    sample = _windows(text, ANSWER_WINDOW_CHARS)
    low = plain(sample)
    asked = plain(_windows(question, QUESTION_WINDOW_CHARS))
    return Reading(
        answer=answer,
        asks=asks,
        text=text,
        thinking_only=thinking_only,
        sample=sample,
        low=low,
        words=words_of(low),
        scripts=letters(low),
        question=asked,
        question_words=words_of(asked),
    )


def _without_thought(text: str) -> tuple[str, bool]:
    text = text.strip()
    if not text.startswith(_THOUGHT_OPEN):
        return text, False
    _, closed, rest = text.partition(_THOUGHT_CLOSE)
    return rest.strip(), not closed


def _windows(text: str, chars: int) -> str:
    if len(text) <= 2 * chars:
        return text
    return f"{text[:chars]}\n{text[-chars:]}"


def plain(text: str) -> str:
    """Lower case, straight apostrophes, ordinary spaces."""
    low = text.lower()
    for fancy, straight in _STRAIGHTENED:  # several times faster than one `translate`
        low = low.replace(fancy, straight)
    return low


def words_of(text: str) -> list[str]:
    """The words of a plain text."""
    return _WORD.findall(text)
