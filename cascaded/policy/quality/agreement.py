"""Do two answers to one question say the same?

By their final answers where both have one (a letter, a number, a boxed text). Other texts are
compared without the words of the question, first in what embeddings do not tell apart (numbers,
negation, order), then by the words they share, or by an embedding where there is one and they are
long.
"""

from collections.abc import Sequence, Set
from typing import Final

from cascaded.policy.quality.final import FinalAnswer, final_answer, number, numbers_in
from cascaded.policy.quality.phrases import phrases
from cascaded.policy.quality.reading import plain, words_of

SAME_WORDS_MIN, SHORT_SAME_WORDS_MIN = 0.5, 0.7
"""New words that both have over those that either has, of two texts that say the same,
long or short."""
SAME_MEANING_MIN: Final = 0.85
"""Cosine of the embeddings of two long texts that say the same."""
COMPARED_CHARS_MAX: Final = 4_000
SHORT_WORDS_MAX: Final = 20
RELATIVE: Final = 1e-6

_NEGATIONS: Final = frozenset(
    phrases("""
    not; no; never; none; nothing; neither; nor; cannot; without; isn't; aren't; wasn't
    weren't
    don't; doesn't; didn't; can't; won't; wouldn't; shouldn't; couldn't; hasn't; haven't; false
    nicht; kein; keine; nie; pas; jamais; nunca; non; ne
    """)
)
_FILLERS: Final = frozenset(
    phrases("""
    the; a; an; and; or; of; to; in; on; at; is; are; was; were; be; it; its; this; that
    as; by; for; with; from; has; have; had; will; would; can; could; so; thus; therefore; then
    there; i; you; we
    """)
)


def agreement(
    question: str, answer: str, others: Sequence[str], nearness: Sequence[float | None] = ()
) -> float | None:
    """The share of other answers that say what this one says, 0 to 1; `None` without others.
    `nearness`: the cosine of each one's embedding and this one's, where there are embeddings."""
    if not others:
        return None
    near = nearness or [None] * len(others)
    pairs = zip(others, near, strict=True)
    return sum(same(question, answer, other, cosine) for other, cosine in pairs) / len(others)


def same(question: str, one: str, other: str, cosine: float | None = None) -> bool:
    """Whether two answers to a question say the same."""
    left, right = final_answer(one), final_answer(other)
    if left.kind in {"letter", "number"} or right.kind in {"letter", "number"}:
        return _same_value(left, right)
    if left.kind == right.kind == "text" and (left.marked and right.marked):
        return left.value == right.value or _inside(left.value, right.value)
    known = set(words_of(plain(question[:COMPARED_CHARS_MAX])))
    if differ_hard(one, other, known) is not None:
        return False
    return _near(_new_words(one, known), _new_words(other, known), cosine)


def differ_hard(one: str, other: str, known: Set[str] = frozenset()) -> str | None:
    """What two texts differ in that embeddings do not see: "numbers", "negation", "order". Of
    `known` words the order does not matter."""
    one, other = plain(one[:COMPARED_CHARS_MAX]), plain(other[:COMPARED_CHARS_MAX])
    if set(map(number, numbers_in(one))) != set(map(number, numbers_in(other))):
        return "numbers"
    left, right = words_of(one), words_of(other)
    if _negations(left) % 2 != _negations(right) % 2:
        return "negation"
    left, right = _new_words(one, known), _new_words(other, known)
    if max(len(left), len(right)) <= SHORT_WORDS_MAX and set(left) == set(right) and left != right:
        return "order"  # in longer texts sentences may change places and say the same
    return None


def _same_value(left: FinalAnswer, right: FinalAnswer) -> bool:
    if left.kind != right.kind:
        return False
    if left.kind == "letter":
        return left.value == right.value
    one, other = float(left.value), float(right.value)
    return abs(one - other) <= RELATIVE * max(abs(one), abs(other))


def _inside(left: str, right: str) -> bool:
    short, long = sorted((left, right), key=len)
    return bool(short) and f" {short} " in f" {long} "


def _near(left: list[str], right: list[str], cosine: float | None) -> bool:
    short = max(len(left), len(right)) <= SHORT_WORDS_MAX
    if cosine is not None and not short:
        return cosine >= SAME_MEANING_MIN
    shared = len(set(left) & set(right)) / max(len(set(left) | set(right)), 1)
    return left == right or shared >= (SHORT_SAME_WORDS_MIN if short else SAME_WORDS_MIN)


def _negations(words: list[str]) -> int:
    return sum(map(_NEGATIONS.__contains__, words))


def _new_words(text: str, known: Set[str]) -> list[str]:
    """Its words, each once, in order, without fillers and what is known."""
    words = dict.fromkeys(words_of(plain(text[:COMPARED_CHARS_MAX])))
    return [word for word in words if word not in _FILLERS and word not in known]
