"""Things that are stored with a version."""

from typing import Generic, Literal, NamedTuple, TypeVar

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


def nothing_under(id: str) -> str:
    """What to say to who asks for an id that is not there."""
    return f"nothing is stored under {id!r}: create it first, or look for its name in the list"
