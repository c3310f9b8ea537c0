"""Hooks: what they are told of a call, and what is believed of their answers. They only tighten."""

from cascaded.policy.hooks.answers import NonsenseError, read_advice, read_models
from cascaded.policy.hooks.context import context_of, crossing_context
from cascaded.policy.hooks.tighten import blocked, heeded, nothing_left, unavailable

__all__ = [
    "NonsenseError",
    "blocked",
    "context_of",
    "crossing_context",
    "heeded",
    "nothing_left",
    "read_advice",
    "read_models",
    "unavailable",
]
