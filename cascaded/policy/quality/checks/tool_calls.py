"""Are the tool calls ones that the caller can carry out?"""

import re
from typing import Final

import msgspec

from cascaded.policy.quality.json_text import NOT_JSON, parse
from cascaded.policy.quality.reading import Reading
from cascaded.policy.quality.scale import FATAL, MILD, SERIOUS, fine, found
from cascaded.types.result import Check, Completion

NAME: Final = "tool_calls"

CALLS_EXAMINED_MAX: Final = 64
SAME_CALL_MAX: Final = 3
"""More of exactly the same call in one answer is a loop."""
_WRITTEN_OUT: Final = re.compile(r"<tool_call>|<function[=_ ]|<\|python_tag\|>|\[tool_calls\]")


class _Call(msgspec.Struct):
    """A call that a model wrote as text instead of making it."""

    name: str


def check(reading: Reading) -> Check:
    """Known names, arguments that are JSON objects, a call where one was required."""
    if reading.answer.tool_calls:
        return _calls(reading.answer, reading.asks.tools)
    if reading.asks.tool_required:
        return found(NAME, FATAL, "a tool call was required")
    if reading.answer.finish_reason == "tool_calls":
        return found(NAME, SERIOUS, "the provider announced tool calls and sent none")
    if reading.asks.tools and _written_as_text(reading):
        return found(NAME, SERIOUS, "a tool call written as text")
    return fine(NAME)


def _calls(answer: Completion, tools: tuple[str, ...]) -> Check:
    calls = answer.tool_calls[:CALLS_EXAMINED_MAX]
    if tools and any(name not in tools for name, _ in calls):
        return found(NAME, FATAL, "a tool that was not offered")
    if any(not isinstance(parse(arguments or "{}"), dict) for _, arguments in calls):
        return found(NAME, FATAL, "arguments are not a JSON object")
    if len(calls) - len(set(calls)) >= SAME_CALL_MAX:
        return found(NAME, SERIOUS, "the same call again and again")
    if any(not arguments for _, arguments in calls):
        return found(NAME, MILD, "no arguments, not even an empty object")
    return fine(NAME)


def _written_as_text(reading: Reading) -> bool:
    if _WRITTEN_OUT.search(reading.low):
        return True
    if not reading.text.startswith("{"):
        return False
    value = parse(reading.text)
    if value is NOT_JSON:
        return False
    try:
        return msgspec.convert(value, _Call).name in reading.asks.tools
    except msgspec.ValidationError:
        return False
