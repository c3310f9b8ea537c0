"""Things that are stored."""

from typing import Generic, Literal, NamedTuple, TypeVar

import msgspec

T = TypeVar("T")

Expected = int | Literal["absent", "any"]
"""What a writer thinks is there: this version, nothing, or whatever it is."""


class Kept(NamedTuple, Generic[T]):
    """What is stored, and its version."""

    item: T
    version: int


class Page(NamedTuple, Generic[T]):
    """Rows by id, and the id to go on after; `None` at the end."""

    rows: list[Kept[T]]
    after: str | None


class KeptResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One response of OpenAI's Responses, as it was given."""

    tenant: str
    """Whose it is: nobody else is ever given it."""
    previous: str | None
    """The id of the one that it goes on from."""
    input: bytes
    """The items of its own call, as a JSON list, each with an id."""
    response: bytes
    """As JSON."""
    at_ns: int
    """When it was given, since the Unix epoch."""


def nothing_under(id: str) -> str:
    """What to say to who asks for an id that is not there."""
    return f"nothing is stored under {id!r}: create it first, or look for its name in the list"
