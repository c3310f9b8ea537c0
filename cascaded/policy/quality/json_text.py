"""JSON out of a model's text: a value, or `NOT_JSON`; never an exception."""

import re
from typing import Final

import msgspec

NOT_JSON: Final = object()
"""Told apart from every JSON value by identity."""
PARSED_CHARS_MAX: Final = 1_000_000
"""Longer text is not parsed; at C speed this is still some milliseconds."""
SEARCHED_CHARS_MAX: Final = 64_000
"""JSON is looked for inside text no longer than this."""
BLOCKS_TRIED_MAX: Final = 4

_BLOCK: Final = re.compile(r"```[a-z0-9]*\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)


def parse(text: str) -> object:
    """The JSON value that the whole text is, strictly (no NaN, no trailing comma)."""
    if len(text) > PARSED_CHARS_MAX:
        return NOT_JSON
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return NOT_JSON


def parse_inside(text: str) -> object:
    """The JSON value somewhere in the text: all of it, a code block, or brace to brace."""
    if len(text) > SEARCHED_CHARS_MAX:
        return NOT_JSON
    candidates = [text]
    for number, block in enumerate(_BLOCK.finditer(text)):
        if number == BLOCKS_TRIED_MAX:
            break
        candidates.append(block.group(1))
    candidates.extend(_between(text, opening, closing) for opening, closing in ("{}", "[]"))
    for candidate in candidates:
        value = parse(candidate.strip())
        if value is not NOT_JSON:
            return value
    return NOT_JSON


def _between(text: str, opening: str, closing: str) -> str:
    return text[max(text.find(opening), 0) : text.rfind(closing) + 1]
