"""Which scripts the letters of a text belong to."""

from bisect import bisect_right
from collections import Counter
from typing import Final

SAMPLE_CHARS: Final = 1_000
"""Read from the start of a text; a script shows soon."""

OTHER: Final = "other"
HAN_AND_KANA: Final = "Chinese or Japanese"

# (first code point, script from there on); what lies between two scripts is OTHER.
_STARTS: Final = (
    (0x0000, "Latin"),
    (0x0250, OTHER),
    (0x0370, "Greek"),
    (0x0400, "Cyrillic"),
    (0x0530, "Armenian"),
    (0x0590, "Hebrew"),
    (0x0600, "Arabic"),
    (0x0700, OTHER),
    (0x0900, "Indic"),
    (0x0E00, "Thai"),
    (0x0E80, OTHER),
    (0x10A0, "Georgian"),
    (0x1100, "Korean"),
    (0x1200, "Ethiopic"),
    (0x13A0, OTHER),
    (0x1E00, "Latin"),
    (0x1F00, "Greek"),
    (0x2000, OTHER),
    (0x3040, HAN_AND_KANA),
    (0x3130, "Korean"),
    (0x3190, OTHER),
    (0x3400, HAN_AND_KANA),
    (0xA000, "Yi"),
    (0xA4D0, OTHER),
    (0xAC00, "Korean"),
    (0xD7B0, OTHER),
    (0xF900, HAN_AND_KANA),
    (0xFB00, OTHER),
    (0x20000, HAN_AND_KANA),
    (0x32000, OTHER),
)
_POINTS: Final = tuple(point for point, _ in _STARTS)
_NAMES: Final = tuple(name for _, name in _STARTS)


def letters(text: str) -> Counter[str]:
    """How many letters of each script are at the start of a text."""
    sample = text[:SAMPLE_CHARS]
    if sample.isascii():
        return Counter({"Latin": sum(map(str.isalpha, sample))})
    counts: Counter[str] = Counter()
    for char, times in Counter(sample).items():
        if char.isalpha():
            counts[_NAMES[bisect_right(_POINTS, ord(char)) - 1]] += times
    return counts
