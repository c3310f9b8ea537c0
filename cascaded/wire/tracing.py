"""W3C's Trace Context, as callers send it. Pure.

Source: https://www.w3.org/TR/trace-context/
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
MAX_STATE = 512
"""Characters of `tracestate` that are passed on; the standard lets a longer one be left out."""
_PARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED = 1


class Parent(NamedTuple):
    """Whose call it is a part of."""

    trace_id: int
    span_id: int
    sampled: bool
    state: str


def read_parent(headers: Mapping[str, str]) -> Parent | None:
    """The caller's span; `None` where there is none, or none that can be read: the call then begins
    a trace of its own."""
    found = _PARENT.fullmatch(headers.get(TRACEPARENT, ""))
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return None
    trace_id, span_id = int(found["trace"], 16), int(found["span"], 16)
    if not trace_id or not span_id:
        return None
    state = headers.get(TRACESTATE, "")
    kept = state if len(state) <= MAX_STATE and state.isascii() and state.isprintable() else ""
    return Parent(trace_id, span_id, bool(int(found["flags"], 16) & _SAMPLED), kept)
