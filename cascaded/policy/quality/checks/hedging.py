"""Does the answer doubt itself?

Saying "I don't know" is an honest non-answer and worth a stronger model; a "perhaps" is
ordinary prose, so weak words only count when they are dense.
"""

from typing import Final

from cascaded.policy.quality.phrases import phrases
from cascaded.policy.quality.reading import Reading
from cascaded.policy.quality.scale import MILD, SERIOUS, SLIGHT, fine, found
from cascaded.types.result import Check

NAME: Final = "hedging"

SHORT_ANSWER_WORDS: Final = 60
"""In an answer this short, a confession of ignorance is the answer."""
WEAK_PER_WORD_MAX: Final = 0.035
WEAK_MIN: Final = 4

_IGNORANCE: Final = phrases("""
    i don't know; i do not know; i really don't know; i have no idea; i'm guessing; i am guessing
    i'm not sure; i am not sure; i'm unsure; i am unsure; i'm uncertain; i am uncertain
    not entirely sure; not completely sure; my best guess; wild guess; just a guess
    i can't tell; i cannot tell; i can't determine; i cannot determine; i can't be sure
    i cannot be certain
    ich weiß nicht; ich weiß es nicht; ich bin mir nicht sicher; ich bin nicht sicher
    je ne sais pas; je ne suis pas sûr; je ne suis pas certain
    no lo sé; no estoy segur; non lo so; não sei; não tenho certeza; weet ik niet
    я не знаю; я не уверен
    我不知道; 我不确定; 我不確定; 我不清楚; 分かりません; わかりません; 모르겠
""")
_WEAK_WORDS: Final = frozenset(
    phrases("""
    maybe; perhaps; possibly; presumably; probably; might
    vielleicht; möglicherweise; vermutlich; probablement; quizás; quizá; probablemente
    forse; talvez; misschien
""")
)
_WEAK_PHRASES: Final = phrases("""
    i think; i believe; i guess; i suppose; it seems; seems like; could be; sort of
    peut-être; tal vez; 也许; 大概; かもしれ; たぶん; 아마
""")


def check(reading: Reading) -> Check:
    """A confession of ignorance, or many weak words for the answer's length."""
    confessed = any(phrase in reading.low for phrase in _IGNORANCE)
    if confessed and len(reading.words) <= SHORT_ANSWER_WORDS:
        return found(NAME, SERIOUS, "says that it does not know")
    weak = sum(map(_WEAK_WORDS.__contains__, reading.words))
    weak += sum(map(reading.low.count, _WEAK_PHRASES))
    dense = weak >= WEAK_MIN and weak > WEAK_PER_WORD_MAX * len(reading.words)
    if confessed and dense:
        return found(NAME, SERIOUS, "is a guess throughout")
    if confessed:
        return found(NAME, MILD, "is not sure of a part")
    return found(NAME, SLIGHT, "hedges often") if dense else fine(NAME)
