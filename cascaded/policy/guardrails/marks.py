"""Marks of a text that its meaning does not tell well: whom it is about, and whether it denies."""

import re
from array import array
from collections.abc import Sequence

MARKS_SCALE = 0.3
"""Marks beside a vector of length 1."""
MAX_CHARS = 10_000
_SPELT = str.maketrans("013457@$!", "oieastasi")
"""Figures in the place of letters."""
_ENDS = r"\b(?:{})\b"
_WORDS: Sequence[str] = (
    # groups, by their names and by bad ones
    "women|woman|girls?|females?|feminists?|trans|transgender|transsexuals?|trann(?:y|ies)|gays?"
    "|homosexuals?|lesbians?|queers?|fags?|faggots?|lgbt\\w{0,3}|dykes?|blacks?|african americans?"
    "|niggers?|niggas?|negroes|whites?|asians?|chinks?|gooks?|mexicans?|spics?|beaners?|latinos?"
    "|hispanics?|immigrants?|migrants?|refugees?|foreigners?|aliens|muslims?|islam|islamic|arabs?"
    "|ragheads?|towelheads?|terrorists?|jews?|jewish|kikes?|zionists?|christians?|disabled"
    "|disabilit(?:y|ies)|cripples?|retards?|retarded|mongs?|autistics?|autists?|indians?|pakis?"
    "|gypsies|romani|elderly|minorit(?:y|ies)|race|ethnic|ethnicity|religion|bitches|sluts?"
    "|whores?|cunts?|hoes?",
    "not|no|never|don't|isn't|aren't|nobody|none|without|can't|won't|shouldn't|stop|against|wrong"
    "|disgrace|disgraceful|unacceptable|condemn",
    "fuck|fucking|fucked|shit|shitty|bitch|cunt|damn|assholes?|ass|crap|bloody|bastards?|dicks?",
    "saying|said|say|call|called|calling",
    "i am|i'm|we are|as a|my",
)
_PATTERNS = [re.compile(_ENDS.format(words)) for words in _WORDS]


def marks(text: str) -> bytes:
    """As little-endian 32-bit floats, `MARK_COUNT` of them."""
    said = text[:MAX_CHARS].lower()
    said = f"{said}\n{said.translate(_SPELT)}"
    group, denial, curse, quote, first = (bool(one.search(said)) for one in _PATTERNS)
    quote = quote or '"' in said
    found = (
        *(group, denial, curse, quote, first),
        *(group and denial, group and curse, group and quote, denial and quote, group and first),
    )
    return array("f", [MARKS_SCALE * one for one in found]).tobytes()


MARK_COUNT = len(marks("")) // 4
