"""Answers that are kept to be given again."""

from typing import NamedTuple

import msgspec

from cascaded.types.model import Form
from cascaded.types.usage import Usage


class Whole(NamedTuple):
    """A whole answer."""

    form: Form
    raw: bytes
    """As JSON."""


class Recalled(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, and what it took when it was bought."""

    tenant: str
    """Whose it is: nobody else is ever given it."""
    raw: bytes
    """It whole, as JSON, in the form that its provider gave it."""
    form: Form = "chat"
    model: str
    """Who gave it."""
    usage: Usage
    cost_nano_usd: int
    """Of all attempts of its call."""
    full_nano_usd: int
    """What the strongest rung would have cost for it: what is saved by not asking again."""
    reference_priced: bool = False
    at_ns: int
    """When it was given, since the Unix epoch."""


class CacheFigures(msgspec.Struct):
    """What a cache holds, and what it did since the start."""

    entries: int = 0
    bytes: int = 0
    """Of all entries, as they take room on the disk."""
    memory_bytes: int = 0
    """Of those that are kept in memory, too."""
    on_disk: bool = False
    hits: int = 0
    shared: int = 0
    """Of the hits: calls that waited for an equal call's answer."""
    misses: int = 0
    stored: int = 0
    evicted: int = 0
    """For want of room."""
    expired: int = 0
    damaged: int = 0
    """Did not read as they were written; forgotten."""
    lost: int = 0
    """Could not be written to the disk."""
