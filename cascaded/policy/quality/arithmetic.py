"""The sums of an answer, done again.

`12 * 7 = 84` is read wherever it stands in prose: units, currency signs, thousands separators,
LaTeX and words in brackets between the numbers are passed over, algebra is left alone. What is not
surely a sum is none: a wrong alarm costs more than a missed slip.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

EQUATIONS_MAX: Final = 80
"""Done again in one answer; the last ones, for they lead to its result."""
LEFT_CHARS_MAX: Final = 120
"""How far before its equals sign a sum may begin."""
TOKENS_MAX: Final = 40
POWER_MAX: Final = 64
"""Higher ones are no sum that anybody does by hand."""
APPROXIMATELY: Final = 0.02
"""Relative error allowed where the answer itself says "about"."""
ROUNDING: Final = 0.0051
"""Relative error that is somebody's rounding on the way, not a slip."""

_REWRITTEN: Final = (
    ("\\times", "*"), ("\\cdot", "*"), ("×", "*"), ("·", "*"), ("\\div", "/"), ("÷", "/"),
    ("−", "-"), ("–", "-"), ("\\approx", "≈"), ("\\left", ""), ("\\right", ""), ("\\,", ""),
    ("\\%", "%"), ("\\$", ""), ("$", ""), ("£", ""), ("€", ""), ("**", "^"), ("\\text", ""),
    ("&=", "="), ("\\", " "),
)  # fmt: skip
_ANNOTATION: Final = re.compile(r"<<[^<>]{0,120}>>")
_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_FRACTION: Final = re.compile(r"\\d?frac\{([\d.\s]{1,20})\}\{([\d.\s]{1,20})\}")
_ASIDE: Final = re.compile(r"\([^()\d]{0,60}\)|\{[^{}\d]{0,60}\}")
_BREAK: Final = re.compile(r"[=≈\n;:,]|[.!?](?=\s|$)|\b(?:is|are|so|and|then|gives?|get)\b")
_RIGHT: Final = re.compile(
    r"\s*\(?\s*(-?\s?\d{1,18}(?:\.\d{1,12})?)\s*(%?)(?!\s*[\d*/^+(]|\.\d|[a-z]\b)"
)
_RIGHT_GOES_ON: Final = re.compile(r"\s*(?:[a-z]{1,20}\s*){0,2}[-+*/^]\s*\d")
_TOKEN: Final = re.compile(
    r"(\d{1,18}(?:\.\d{1,12})?|\.\d{1,12})(%?)|([-+*/^()])|([a-z]+)|(\S)", re.IGNORECASE
)
_MARKS: Final = "'\"{}[]*_`|~"
"""Of quotation and typography: passed over."""
_TIMES: Final = frozenset({"x", "of", "times"})
_PRECEDENCE: Final = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 3}


class Equation(NamedTuple):
    """A sum as the answer has it."""

    left: float
    """Its left side, worked out here."""
    right: float
    """Its right side, as written."""
    holds: bool


def equations(text: str) -> list[Equation]:
    """The sums in a text, in order, at most the last `EQUATIONS_MAX`."""
    plain = _plainly(text)
    found = [one for one in _found(plain) if one is not None]
    return found[-EQUATIONS_MAX:]


def _plainly(text: str) -> str:
    plain = _ANNOTATION.sub("", text)
    plain = _FRACTION.sub(r"(\1/\2)", plain)
    for written, meant in _REWRITTEN:
        plain = plain.replace(written, meant)
    return _ASIDE.sub(" ", _THOUSANDS.sub("", plain))


def _found(plain: str) -> Iterator[Equation | None]:
    signs = [sign.start() for sign in re.finditer(r"[=≈]", plain)]
    for at in signs[-EQUATIONS_MAX:]:
        yield _equation(plain, at)


def _equation(plain: str, at: int) -> Equation | None:
    said = _RIGHT.match(plain, at + 1)
    if said is None or _RIGHT_GOES_ON.match(plain, said.end()):
        return None
    before = plain[max(0, at - LEFT_CHARS_MAX) : at]
    ends = [end.end() for end in _BREAK.finditer(before)]
    left = _value(before[ends[-1] :] if ends else before)
    if left is None:
        return None
    number = said.group(1).replace(" ", "")
    right = float(number) / (100 if said.group(2) else 1)
    decimals = len(number.partition(".")[2])
    holds = _close(left, right, decimals, about=plain[at] == "≈")
    if not holds and said.group(2):
        holds = _close(left, right * 100, decimals, about=False)
    return Equation(left, right, holds)


def _close(left: float, right: float, decimals: int, *, about: bool) -> bool:
    rounded = 0.5 * 10.0**-decimals if decimals else 0.0
    relative = APPROXIMATELY if about else (ROUNDING if decimals else 1e-9)
    return abs(left - right) <= rounded + relative * max(abs(left), abs(right)) + 1e-9


def _value(text: str) -> float | None:
    """What a sum of numbers comes to; `None` for anything else."""
    tokens = _tokens(text)
    if tokens is None or not any(token in _PRECEDENCE for token in tokens[1:]):
        return None
    return _evaluated(tokens)


def _tokens(text: str) -> list[str | float] | None:
    """Numbers and operators; words are passed over, letters on a number are algebra."""
    tokens: list[str | float] = []
    for token in _TOKEN.finditer(text):
        number, percent, sign, word, other = token.groups()
        if number and not (tokens and isinstance(tokens[-1], float)):
            tokens.append(float(number) / (100 if percent else 1))
        elif sign and not _in_unit(text, token):
            tokens.append(sign)
        elif word and word.lower() in _TIMES and tokens and isinstance(tokens[-1], float):
            tokens.append("*")
        elif number or (word and _is_algebra(text, token)) or (other and other not in _MARKS):
            return None
    return tokens if len(tokens) <= TOKENS_MAX else None


def _in_unit(text: str, token: re.Match[str]) -> bool:
    """Whether a slash is that of "hours/day"."""
    return token.group() == "/" and _letter(text, token.start() - 1) and _letter(text, token.end())


def _is_algebra(text: str, token: re.Match[str]) -> bool:
    return len(token.group()) == 1 or _digit(text, token.start() - 1)


def _letter(text: str, at: int) -> bool:
    return 0 <= at < len(text) and text[at].isalpha()


def _digit(text: str, at: int) -> bool:
    return 0 <= at < len(text) and text[at].isdigit()


def _evaluated(tokens: list[str | float]) -> float | None:
    """By precedence, left to right; `None` where the tokens are no sum."""
    values: list[float] = []
    signs: list[str] = []
    may_negate = True
    try:
        for token in tokens:
            if isinstance(token, float):
                values.append(token)
            elif token == "(":
                signs.append(token)
            elif token == ")":
                _close_bracket(values, signs)
            else:
                if may_negate:
                    values.append(_nought(token))
                _stack(values, signs, token)
            may_negate = not isinstance(token, float) and token != ")"
        while signs:
            _apply(values, signs.pop())
    except (ArithmeticError, LookupError, ValueError):
        return None
    return values[0] if len(values) == 1 else None


def _nought(sign: str) -> float:
    """What a sign without a left side is applied to. Raises `ValueError` for any but a minus."""
    if sign != "-":
        raise ValueError
    return 0.0


def _close_bracket(values: list[float], signs: list[str]) -> None:
    while signs[-1] != "(":
        _apply(values, signs.pop())
    signs.pop()


def _stack(values: list[float], signs: list[str], sign: str) -> None:
    while signs and signs[-1] != "(" and _PRECEDENCE[signs[-1]] >= _PRECEDENCE[sign]:
        _apply(values, signs.pop())
    signs.append(sign)


def _apply(values: list[float], sign: str) -> None:
    right, left = values.pop(), values.pop()
    match sign:
        case "+":
            values.append(left + right)
        case "-":
            values.append(left - right)
        case "*":
            values.append(left * right)
        case "/":
            values.append(left / right)
        case "^":
            values.append(_power(left, right))
        case _:
            raise ValueError


def _power(left: float, right: float) -> float:
    """Raises `ArithmeticError` or `ValueError` where it is no number, or a monstrous one."""
    power = left**right if abs(right) <= POWER_MAX else None
    if not isinstance(power, float):
        raise ValueError
    return power
