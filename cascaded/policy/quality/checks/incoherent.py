"""Is it text at all, or noise?"""

import re
from collections import Counter
from typing import Final

from cascaded.policy.quality.phrases import phrases
from cascaded.policy.quality.reading import Reading
from cascaded.policy.quality.scale import FATAL, SERIOUS, fine, found
from cascaded.types.result import Check

NAME: Final = "incoherent"

NOISE_SAMPLE_CHARS: Final = 3_000
CHARS_MIN: Final = 40
"""Shorter answers may be a formula or a symbol."""
CONTROL_SHARE_MAX: Final = 0.02
SYMBOL_SHARE_MAX: Final = 0.6
WORDS_EXAMINED: Final = 600
WORDS_MIN: Final = 12
GARBLED_SHARE_MAX: Final = 0.25
LONG_WORD_CHARS: Final = 6
SCRIPTS_MIXED_MAX: Final = 5
SCRIPT_SHARE_MIN: Final = 0.02

# Controls besides tab and line ends, the replacement sign, private use, surrogates.
_CONTROL: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ud800-\udfff\ue000-\uf8ff\ufff0-\ufff8]"
)
_SYMBOL: Final = re.compile(r"[^\w\s]")
_CONSONANTS: Final = re.compile(r"[bcdfghjklmnpqrstvwxz]{5}")
_MANY_LANGUAGES: Final = phrases("language; translat; alphabet; script; unicode")
_LEAKED: Final = phrases("""
    <|im_start|>; <|im_end|>; <|endoftext|>; <|eot_id|>; <|start_header_id|>; <|end_header_id|>
    <|assistant|>; <|user|>; <|end|>; <start_of_turn>; <end_of_turn>
    [inst]; [/inst]; <<sys>>; <</sys>>
""")


def check(reading: Reading) -> Check:
    """Unprintable characters, leaked markup, symbol soup, mixed scripts, unspeakable words."""
    low = reading.low[:NOISE_SAMPLE_CHARS]
    if any(mark in reading.low and mark not in reading.question for mark in _LEAKED):
        return found(NAME, SERIOUS, "a chat template's markup leaked")
    if len(_CONTROL.findall(low)) > CONTROL_SHARE_MAX * len(low):
        return found(NAME, FATAL, "unprintable characters")
    if len(low) < CHARS_MIN:
        return fine(NAME)
    return _noise(reading, low)


def _noise(reading: Reading, low: str) -> Check:
    if len(_SYMBOL.findall(low)) > SYMBOL_SHARE_MAX * len(low):
        return found(NAME, SERIOUS, "mostly symbols")
    if _scripts(reading.scripts) > SCRIPTS_MIXED_MAX and not _asks_for_languages(reading.question):
        return found(NAME, FATAL, "a mixture of scripts")
    if _garbled(reading):
        return found(NAME, SERIOUS, "words of no language")
    return fine(NAME)


def _scripts(counts: Counter[str]) -> int:
    """How many scripts have more than a stray letter."""
    return sum(1 for count in counts.values() if count > SCRIPT_SHARE_MIN * counts.total())


def _asks_for_languages(question: str) -> bool:
    return any(word in question for word in _MANY_LANGUAGES)


def _garbled(reading: Reading) -> bool:
    """Whether too many long Latin words have a run of consonants that none can speak."""
    new = set(reading.words[:WORDS_EXAMINED]).difference(reading.question_words)
    long = [w for w in new if len(w) >= LONG_WORD_CHARS and w.isascii() and w.isalpha()]
    if len(long) < WORDS_MIN:
        return False
    return sum(1 for word in long if _CONSONANTS.search(word)) > GARBLED_SHARE_MAX * len(long)
