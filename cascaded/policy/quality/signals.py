"""What an answer shows that goes with being right: numbers, not verdicts.

Each signal is a small number that a fitted weight is put on (`judgement`). They were chosen to mean
the same for questions of any kind and models of any maker: how long and how hard the question is,
whether sums hold, where the final answer comes from, what is hedged, corrected or repeated.
"""

import re
import zlib
from collections.abc import Iterator
from math import log, log1p
from typing import Final

from cascaded.policy.quality.arithmetic import Equation, equations
from cascaded.policy.quality.final import FinalAnswer, final_answer, number
from cascaded.policy.quality.phrases import phrases
from cascaded.policy.quality.reading import Reading

LONG_WORD_CHARS: Final = 9
OPTIONS_MIN, OPTIONS_MAX = 2, 16
CONTENT_CHARS_MIN: Final = 4
SENTENCE_CHARS_MIN: Final = 21
SENTENCE_WORDS_MIN: Final = 41
"""A shorter answer may well be a phrase without a full stop."""
RULES_FLOOR: Final = 0.05

_NUMBER: Final = re.compile(r"\d[\d,]{0,24}(?:\.\d{1,15})?")
_OPTION: Final = re.compile(r"^[ \t]{0,4}\(?([a-p])[.):][ \t]+(\S[^\n]{0,300})", re.M)
_NEGATED: Final = re.compile(r"\b(?:not|except|least|never|false|incorrect|without|unlikely)\b")
_LATEX: Final = re.compile(r"\\[a-z]{2,}|\$[^$\n]{1,80}\$")
_CODE: Final = re.compile(r"```|\bdef \w|\breturn\b|\bclass \w|=>|;\n|\{\n")
_HEDGES: Final = phrases("""
    closest; approximately; roughly; assume; assuming; suppose; estimate; likely; probably; perhaps
    might; possibly; seems; appears; typically; generally; could be; may be; unclear; ambiguous
""")
_MISFITS: Final = phrases("""
    not listed; none of the; not among; no option; not match; doesn't match; does not match; closest
    not in the; not given; not provided; insufficient; cannot be determined; there seems to be
    missing; typo; error in the
""")
_CORRECTIONS: Final = phrases("""
    wait; however; let me re; re-evaluat; reconsider; mistake; i apologize; correction; but this
    contradict; try again; let's check; double-check; instead; incorrect
""")
_STEPS: Final = re.compile(r"^[ \t]{0,6}(?:#{1,4} |\*\*|step \d|\d{1,2}[.)] |[-*] )", re.M)
_ASKS_NUMBER: Final = re.compile(
    r"\bhow (?:many|much|long|far|old|fast)\b|\bcalculat|\bcomput|\bfind the\b|\bdetermine the\b"
    r"|\bwhat (?:is|are) the (?:value|sum|total|number|probability|area|volume|length|cost)\b"
)
_ASKS_WHY: Final = re.compile(r"\bwhy\b|\bexplain|\bdescribe|\bdiscuss|\bcompare")
_ASKS_CODE: Final = re.compile(r"\bfunction\b|\bpython\b|\bcode\b|\bprogram\b|\bassert\b|\bsql\b")
_STOP: Final = frozenset(
    phrases("""
    the; and; that; this; with; for; are; was; from; which; what; have; has; not; you; they; its
    their; there; then; than; these; those; will; would; can; could; how; when; who; following
    """)
)

NAMES: Final = (
    *("q_words", "q_numbers", "q_digits", "q_options", "q_latex", "q_code", "q_negated"),
    *("q_long_words", "q_word_chars", "q_asks_number", "q_asks_why", "q_asks_code", "q_lines"),
    *("a_words", "a_words2", "a_ratio", "a_lines", "a_steps", "a_dense", "a_distinct"),
    *("a_latex", "a_code"),
    *("a_hedges", "a_misfit", "a_corrections", "a_numbers", "a_new_numbers", "a_used_numbers"),
    *("a_numbers_big", "a_decimals", "a_overlap", "a_rules", "a_unfinished", "a_says_again"),
    *("e_count", "e_wrong", "e_any_wrong", "e_all_right", "e_last_final", "e_magnitude"),
    *("f_none", "f_marked", "f_letter", "f_number", "f_text", "f_in_question", "f_in_work"),
    *("f_digits", "f_decimal", "f_negative", "f_round"),
    *("o_fits", "o_stated", "o_rivals", "o_matches"),
)  # fmt: skip


def signals(reading: Reading, rules: float) -> tuple[float, ...]:
    """The signals in the order of `NAMES`. `rules`: the rules' score of the same answer."""
    final = final_answer(reading.text)
    values: dict[str, float] = dict.fromkeys(NAMES, 0.0)
    values.update(_of_question(reading))
    values.update(_of_answer(reading, rules))
    sums = equations(reading.sample)
    asked = _numbers(reading.question)
    values.update(_of_sums(sums, final))
    values.update(_of_final(reading, final, asked))
    values.update(_of_options(reading, final, sums))
    return tuple(values[name] for name in NAMES)


def _numbers(text: str) -> list[str]:
    return [number(one) for one in _NUMBER.findall(text)]


def _of_question(reading: Reading) -> Iterator[tuple[str, float]]:
    question, words = reading.question, reading.question_words
    count = max(len(words), 1)
    numbers = _NUMBER.findall(question)
    yield "q_words", log1p(len(words))
    yield "q_numbers", log1p(len(numbers))
    yield "q_digits", float(max(map(len, numbers), default=0))
    yield "q_options", log1p(len(set(_OPTION.findall(question))))
    yield "q_latex", log1p(len(_LATEX.findall(question)))
    yield "q_code", log1p(len(_CODE.findall(question)))
    yield "q_negated", float(bool(_NEGATED.search(question)))
    yield "q_long_words", sum(len(word) >= LONG_WORD_CHARS for word in words) / count
    yield "q_word_chars", sum(map(len, words)) / count
    yield "q_asks_number", float(bool(_ASKS_NUMBER.search(question)))
    yield "q_asks_why", float(bool(_ASKS_WHY.search(question)))
    yield "q_asks_code", float(bool(_ASKS_CODE.search(question)))
    yield "q_lines", log1p(question.count("\n"))


def _of_answer(reading: Reading, rules: float) -> Iterator[tuple[str, float]]:
    low, words = reading.low, reading.words
    count = max(len(words), 1)
    asked, said = _numbers(reading.question), _numbers(low)
    whole = len(reading.text) / max(len(reading.sample), 1) * count
    yield "a_words", log1p(whole)
    yield "a_words2", (log1p(whole) - 4.5) ** 2
    yield "a_ratio", log1p(whole) - log1p(len(reading.question_words))
    yield "a_lines", log1p(reading.text.count("\n"))
    yield "a_steps", log1p(len(_STEPS.findall(low)))
    packed = len(zlib.compress(low.encode("utf-8", "replace"), 1))
    yield "a_dense", packed / max(len(low), 1)
    yield "a_distinct", len(set(words)) / count
    yield "a_latex", log1p(len(_LATEX.findall(low)))
    yield "a_code", log1p(len(_CODE.findall(low)))
    yield "a_hedges", log1p(sum(map(low.count, _HEDGES)))
    yield "a_misfit", log1p(sum(map(low.count, _MISFITS)))
    yield "a_corrections", log1p(sum(map(low.count, _CORRECTIONS)))
    yield "a_numbers", log1p(len(said))
    new = set(said).difference(asked)
    yield "a_new_numbers", log1p(len(new))
    yield "a_used_numbers", len(set(asked).intersection(said)) / max(len(set(asked)), 1)
    yield "a_numbers_big", float(max(map(len, new), default=0))
    yield "a_decimals", sum("." in one for one in said) / max(len(said), 1)
    content = {
        word
        for word in reading.question_words
        if len(word) >= CONTENT_CHARS_MIN and word not in _STOP
    }
    yield "a_overlap", len(content.intersection(words)) / max(len(content), 1)
    yield "a_rules", log(max(rules, RULES_FLOOR))
    yield "a_unfinished", float(reading.text[-1:].isalnum() and whole >= SENTENCE_WORDS_MIN)
    sentences = [part for part in re.split(r"[.\n]", low) if len(part) >= SENTENCE_CHARS_MIN]
    yield "a_says_again", 1 - len(set(sentences)) / max(len(sentences), 1)


def _of_sums(sums: list[Equation], final: FinalAnswer) -> Iterator[tuple[str, float]]:
    wrong = sum(not one.holds for one in sums)
    yield "e_count", log1p(len(sums))
    yield "e_wrong", wrong / max(len(sums), 1)
    yield "e_any_wrong", float(wrong > 0)
    yield "e_all_right", float(bool(sums) and not wrong)
    if sums:
        last = number(f"{sums[-1].right:.10f}")
        yield "e_last_final", 1.0 if final.kind == "number" and final.value == last else -1.0
        yield "e_magnitude", log1p(max(abs(one.right) for one in sums)) / 10


def _of_final(
    reading: Reading, final: FinalAnswer, asked: list[str]
) -> Iterator[tuple[str, float]]:
    yield f"f_{final.kind}", 1.0
    yield "f_marked", float(final.marked)
    if final.kind == "number":
        yield "f_in_question", float(final.value in asked)
        yield "f_in_work", log1p(_numbers(reading.low).count(final.value.lstrip("-")))
        yield "f_digits", float(len(final.value))
        yield "f_decimal", float("." in final.value)
        yield "f_negative", float(final.value.startswith("-"))
        yield "f_round", float(final.value.endswith("0"))
    elif final.kind == "text":
        yield "f_in_question", float(final.value in " ".join(reading.question_words))
        yield "f_in_work", log1p(" ".join(reading.words).count(final.value))
        yield "f_digits", float(min(len(final.value), 100)) / 20


def _of_options(
    reading: Reading, final: FinalAnswer, sums: list[Equation]
) -> Iterator[tuple[str, float]]:
    """Whether what was reasoned goes with the option that was chosen."""
    options = dict(_OPTION.findall(reading.question)[:OPTIONS_MAX])
    if final.kind != "letter" or len(options) < OPTIONS_MIN:
        return
    said = set(reading.words)
    shares = {letter: _share(text, said) for letter, text in options.items()}
    chosen = final.value.lower()
    own = shares.get(chosen, 0.0)
    best = max((share for letter, share in shares.items() if letter != chosen), default=0.0)
    yield "o_fits", own - best
    yield "o_stated", float(options.get(chosen, "?").strip(" .") in reading.low)
    yield (
        "o_rivals",
        sum(share >= own for letter, share in shares.items() if letter != chosen) / len(options),
    )
    if sums:
        values = {number(f"{one.right:.10f}") for one in sums[-3:]}
        yield "o_matches", 1.0 if values.intersection(_numbers(options.get(chosen, ""))) else -1.0


def _share(option: str, said: set[str]) -> float:
    words = {word for word in re.findall(r"\w+", option) if word not in _STOP}
    return len(words & said) / max(len(words), 1)
