"""Does the answer go round in circles?

Three views, all linear: a period at the very end (a model that fell into a loop), long
sentences or lines said more than once, and few different word groups over the whole.
"""

import re
from collections.abc import Sequence
from typing import Final

from cascaded.policy.quality.reading import Reading
from cascaded.policy.quality.scale import FATAL, MILD, SERIOUS, fine, found
from cascaded.types.result import Check

NAME: Final = "repetition"

TAIL_WORDS: Final = 300
TAIL_CHARS: Final = 300
LOOP_REPEATS_MIN: Final = 4
LOOP_WORDS_MIN: Final = 20
LOOP_CHARS_MIN: Final = 120
LETTERS_SHARE_MIN: Final = 0.3
"""Rules of dashes, rows of a table and runs of digits repeat by right."""
LONG_PIECE_CHARS: Final = 30
PIECES_MIN: Final = 4
REPEATED_SHARE_MILD: Final = 0.35
REPEATED_SHARE_SERIOUS: Final = 0.6
GROUP_WORDS: Final = 5
GROUPED_WORDS: Final = 1_500
GROUPS_MIN: Final = 60
DIFFERENT_GROUPS_SERIOUS: Final = 0.35
DIFFERENT_GROUPS_MILD: Final = 0.5

_PIECE_ENDS: Final = ("! ", "? ", "\n", "。", "！", "？")
_ASKED_TO_REPEAT: Final = re.compile(
    r"\brepeat|\bover and over|\b(?:write|print|say|output|type)\b[^\n]{0,80}\btimes\b"
    r"|\bwiederhol|\brépét|\brepit|重复|重複|繰り返|반복"
)


def check(reading: Reading) -> Check:
    """The worst of the three views, unless repetition was asked for."""
    if _ASKED_TO_REPEAT.search(reading.question):
        return fine(NAME)
    if _ends_in_loop(reading):
        return found(NAME, FATAL, "ends in a loop")
    share = _repeated_share(reading.low)
    different = _different_groups(
        [word for word in reading.words[-GROUPED_WORDS:] if not word.isdigit()]
    )
    if share >= REPEATED_SHARE_SERIOUS or different < DIFFERENT_GROUPS_SERIOUS:
        return found(NAME, SERIOUS, "mostly says the same again")
    if share >= REPEATED_SHARE_MILD or different < DIFFERENT_GROUPS_MILD:
        return found(NAME, MILD, "repeats itself")
    return fine(NAME)


def _ends_in_loop(reading: Reading) -> bool:
    words = reading.words[-TAIL_WORDS:]
    looped = _loop_at_end(words)
    if looped >= LOOP_WORDS_MIN and _wordy("".join(words[-looped:])):
        return True
    chars = reading.low[-TAIL_CHARS:]
    looped = _loop_at_end(chars)
    return looped >= LOOP_CHARS_MIN and _wordy(chars[-looped:])


def _wordy(text: str) -> bool:
    return sum(map(str.isalpha, text)) >= LETTERS_SHARE_MIN * len(text)


def _loop_at_end(items: Sequence[str]) -> int:
    """How many items at the end are one period, `LOOP_REPEATS_MIN` times or more; else 0.

    The Z function of the reversed items: `matched[p]` items at distance p from the end equal
    those at the end, so the last p + matched[p] items have the period p.
    """
    backward = items[::-1]
    count = len(backward)
    matched = [0] * count
    left = right = longest = 0
    for start in range(1, count):
        run = min(right - start, matched[start - left]) if start < right else 0
        while start + run < count and backward[run] == backward[start + run]:
            run += 1
        if start + run > right:
            left, right = start, start + run
        matched[start] = run
        if start + run >= LOOP_REPEATS_MIN * start:
            longest = max(longest, start + run)
    return longest


def _repeated_share(low: str) -> float:
    """The share of the long pieces' characters that are in a piece said before."""
    for end in _PIECE_ENDS:
        low = low.replace(end, ". ")
    pieces = [piece for piece in low.split(". ") if len(piece) >= LONG_PIECE_CHARS]
    if len(pieces) < PIECES_MIN:
        return 0.0
    total = sum(map(len, pieces))
    return 1 - sum(map(len, set(pieces))) / total


def _different_groups(words: list[str]) -> float:
    """Distinct groups of neighbouring words over all of them; 1 for short answers."""
    count = len(words) - GROUP_WORDS + 1
    if count < GROUPS_MIN:
        return 1.0
    groups = zip(*(words[shift:] for shift in range(GROUP_WORDS)), strict=False)
    return len(set(groups)) / count
