"""Did the answer stop before its end?"""

import re
from typing import Final

from cascaded.policy.quality.reading import Reading
from cascaded.policy.quality.scale import MILD, SERIOUS, SLIGHT, fine, found
from cascaded.types.result import Check

NAME: Final = "truncation"

LENGTH_REASONS: Final = frozenset({"length", "max_tokens", "max_output_tokens"})
PROSE_CHARS_MIN: Final = 200
"""Shorter answers are often a phrase without a full stop."""
PROSE_LINE_WORDS_MIN: Final = 8

_FENCE: Final = "```"
_END_CHARS: Final = 400
_SENTENCE_END: Final = re.compile(r"[.!?…。！？।؟:;)\]}>\"'”’»」』`*|$_~]$")
_DANGLING: Final = re.compile(
    r"(?:[,(]|\b(?:the|an|and|or|of|to|with|for|because|which|that|und|oder|et|ou|y|o))$"
)


def check(reading: Reading) -> Check:
    """The provider's word first, then an open code fence, then a sentence left hanging."""
    if not reading.text:
        return fine(NAME)
    complete = _ends_well(reading)
    if reading.answer.finish_reason in LENGTH_REASONS:
        if complete:
            return found(NAME, MILD, "stopped at the token limit, at the end of a sentence")
        return found(NAME, SERIOUS, "stopped at the token limit")
    if reading.text.count(_FENCE) % 2:
        # A model that forgets the closing fence after complete code is sloppy, not cut off.
        return found(NAME, MILD if complete else SERIOUS, "a code block is not closed")
    return fine(NAME) if complete else _weak(reading)


def _ends_well(reading: Reading) -> bool:
    return bool(_SENTENCE_END.search(reading.text[-1:]))


def _weak(reading: Reading) -> Check:
    last_line = reading.low[-_END_CHARS:].rsplit("\n", 1)[-1]
    if len(reading.text) < PROSE_CHARS_MIN or len(last_line.split()) < PROSE_LINE_WORDS_MIN:
        return fine(NAME)
    if _DANGLING.search(last_line):
        return found(NAME, MILD, "the last sentence is left hanging")
    return found(NAME, SLIGHT, "the last sentence has no end")
