"""Is the answer in the form that the request declared (JSON, or JSON of a schema)?"""

from typing import Final

import msgspec

from cascaded.policy.quality.json_text import NOT_JSON, PARSED_CHARS_MAX, parse, parse_inside
from cascaded.policy.quality.reading import Reading
from cascaded.policy.quality.scale import FATAL, SERIOUS, fine, found
from cascaded.policy.quality.schema import violation
from cascaded.types.result import Check

NAME: Final = "format"


def check(reading: Reading) -> Check:
    """What was declared is a contract: callers parse the answer without looking."""
    asks = reading.asks
    if not (asks.json_object or asks.json_schema):
        return fine(NAME)
    if reading.answer.refusal or (reading.answer.tool_calls and not reading.text):
        return fine(NAME)  # another turn than the one the form is for
    if len(reading.text) > PARSED_CHARS_MAX:
        return fine(NAME)
    value = parse(reading.text)
    if value is NOT_JSON:
        return _not_json(reading.text)
    if asks.json_schema:
        return _against_schema(asks.json_schema, value)
    return fine(NAME) if isinstance(value, dict) else found(NAME, FATAL, "JSON, but no object")


def _not_json(text: str) -> Check:
    if parse_inside(text) is NOT_JSON:
        return found(NAME, FATAL, "not JSON")
    return found(NAME, SERIOUS, "JSON with other text around it")


def _against_schema(sent: msgspec.Raw, value: object) -> Check:
    schema = parse(str(bytes(sent), "utf-8", "replace"))
    broken = violation(schema, value)
    if broken is None:
        return fine(NAME)
    return found(NAME, FATAL, f"breaks the JSON schema: {broken}")
