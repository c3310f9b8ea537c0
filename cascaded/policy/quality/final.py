"""What an answer comes to in the end: its final answer, so that two answers can be compared.

Looked for in the forms that models are asked for or have the habit of: a JSON member `answer`,
`\\boxed{…}`, `#### 42`, "the answer is (C)", else all of a short answer, else the last number.
"""

import re
from typing import Final, Literal, NamedTuple

TAIL_CHARS: Final = 1_500
"""A final answer stands at the end; JSON and boxes are looked for in as much at the head, too."""
FINAL_CHARS_MAX: Final = 200
UNIT_WORDS_MAX: Final = 4
"""Beside a number: "12 dollars a week". With more it is a sentence."""
SHORT_WORDS_MAX: Final = 12
"""An answer this short is its own final answer."""

Kind = Literal["none", "letter", "number", "text"]


class FinalAnswer(NamedTuple):
    """A final answer."""

    kind: Kind
    value: str
    """Normalised: numbers without separators and trailing zeros, texts in lower case."""
    marked: bool
    """Whether the answer said that this is it."""


NOTHING: Final = FinalAnswer("none", "", False)

_JSON: Final = re.compile(
    r'"(?:final_?)?answer"\s*:\s*("(?:[^"\\\n]|\\.){0,200}"|[^,}\n]{1,200})', re.I
)
_BOXED: Final = re.compile(r"\\boxed\s*\{((?:[^{}\n]|\{[^{}\n]{0,80}\}){1,200})\}")
_HASHES: Final = re.compile(r"####[ \t]*(?:answer:?)?[ \t]*([^\n]{1,200})", re.I)
_SAID: Final = re.compile(
    r"\b(?:answer|result|antwort|réponse|respuesta|risposta)(?: choice| option)?"
    r"(?: is| =|:| ist| est| es| è)[ \t]*:?\s{0,3}([^\n]{1,200})",
    re.I,
)
_LINE: Final = re.compile(r"^[ \t]*(?:A|Answer)[:=][ \t]*([^\n]{1,200})$", re.M)
_LETTER: Final = re.compile(
    r"^[\s*_$\\({\[]*(?:text|textbf|mathrm|option|choice)?[\s{(]*([A-P])(?:[\s)}\].:,*_$]|$)"
)
_NUMBER: Final = re.compile(r"-?\d[\d,]{0,24}(?:\.\d{1,15})?|-?\.\d{1,15}")
_WORD: Final = re.compile(r"\w+")


def final_answer(text: str) -> FinalAnswer:
    """The final answer of a whole answer."""
    ends = text if len(text) <= 2 * TAIL_CHARS else f"{text[:TAIL_CHARS]}\n{text[-TAIL_CHARS:]}"
    for form in (_JSON, _BOXED, _HASHES, _SAID, _LINE):
        found = form.findall(ends)
        if found and (value := found[-1].strip()):
            return _normal(value.strip('"'), marked=True)
    if len(_WORD.findall(ends[: 8 * FINAL_CHARS_MAX])) <= SHORT_WORDS_MAX:
        return _normal(ends, marked=False) if ends.strip() else NOTHING
    numbers = numbers_in(ends[-TAIL_CHARS:])
    return FinalAnswer("number", number(numbers[-1]), False) if numbers else NOTHING


def numbers_in(text: str) -> list[str]:
    """The numbers of a text, as written."""
    return _NUMBER.findall(text)


def number(written: str) -> str:
    """A number in one way of writing."""
    plain = written.replace(",", "")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    sign, digits = ("-", plain[1:]) if plain.startswith("-") else ("", plain)
    digits = digits.lstrip("0") or "0"
    return f"{sign}{'0' if digits.startswith('.') else ''}{digits}"


def _normal(value: str, *, marked: bool) -> FinalAnswer:
    value = value[:FINAL_CHARS_MAX]
    if letter := _LETTER.match(value):
        return FinalAnswer("letter", letter.group(1), marked)
    numbers = numbers_in(value)
    words = _WORD.findall(value)
    if numbers and len(words) - 2 * len(numbers) <= UNIT_WORDS_MAX:
        return FinalAnswer("number", number(numbers[-1]), marked)
    return (
        FinalAnswer("text", " ".join(word.lower() for word in words), marked) if words else NOTHING
    )
