"""Is there an answer at all?"""

import re
from typing import Final

from cascaded.policy.quality.reading import Reading
from cascaded.policy.quality.scale import FATAL, fine, found
from cascaded.types.result import Check

NAME: Final = "empty"

# Zero-width and control characters show nothing; a lone "+" or an emoji may be a right answer.
_VISIBLE: Final = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_SAYS_SOMETHING: Final = re.compile(r"[^\s.…\-–—_*`~#\"'|:;,]")
_PLACEHOLDERS: Final = frozenset({"todo", "tbd", "your answer here", "insert answer here"})
_PLACEHOLDER_EDGES: Final = " .[]<>()\"'"


def check(reading: Reading) -> Check:
    """Nothing visible, punctuation only, or a placeholder; a tool call needs no text."""
    if reading.thinking_only:
        return found(NAME, FATAL, "the reasoning never reached an answer")
    if reading.answer.tool_calls:
        return fine(NAME)
    if not _VISIBLE.search(reading.sample):
        return found(NAME, 0.0, "no visible text")
    if not _SAYS_SOMETHING.search(reading.sample):
        return found(NAME, FATAL, "punctuation only")
    if reading.low.strip(_PLACEHOLDER_EDGES) in _PLACEHOLDERS:
        return found(NAME, FATAL, "a placeholder")
    return fine(NAME)
