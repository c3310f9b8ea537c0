"""Personal data: found, put aside for placeholders, and put back."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from cascaded._core import data_kinds, personal_data
from cascaded.types.guarding import PiiType

MAX_STANDING_IN = 10_000
"""Values of one call that get a number of their own; further ones share a placeholder that is not
restored."""
PLACEHOLDER = re.compile(r"\[[A-Z]{2,8}_[0-9]{1,5}\]")
BEGUN = re.compile(r"\[(?:[A-Z]{1,8}(?:_[0-9]{0,5})?)?\Z")
"""What may become a placeholder."""


class Found(NamedTuple):
    """A place in a text, in characters, and what stands there."""

    start: int
    end: int
    kind: str


class Seeker:
    """Looks for these types."""

    def __init__(self, types: Iterable[PiiType]) -> None:
        self._kinds = data_kinds(list(types))

    def find(self, text: str) -> list[Found]:
        """In order, apart from one another."""
        return [Found(*found) for found in personal_data(text, self._kinds)]


class StandIns:
    """One call's placeholders: the same value has the same one wherever it stands."""

    def __init__(self, texts: Iterable[str]) -> None:
        """`texts`: all of the call's, whose own words of this form are no placeholders."""
        self._taken = {word for text in texts for word in PLACEHOLDER.findall(text)}
        self._by_value: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    def redacted(self, text: str, found: Iterable[Found]) -> str:
        """The text with placeholders."""
        return "".join(_said_anew(text, found, self._stand_in))

    @property
    def values(self) -> Mapping[str, str]:
        """What each placeholder stands for."""
        return {placeholder: value for (_, value), placeholder in self._by_value.items()}

    def _stand_in(self, kind: str, value: str) -> str:
        known = self._by_value.get((kind, value))
        if known is not None:
            return known
        if len(self._by_value) >= MAX_STANDING_IN:
            return anonymous(kind)
        placeholder = self._next(kind)
        while placeholder in self._taken:
            placeholder = self._next(kind)
        self._by_value[kind, value] = placeholder
        return placeholder

    def _next(self, kind: str) -> str:
        number = self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"[{kind.upper()}_{number}]"


def anonymous(kind: str, _value: str = "") -> str:
    """What stands for something that nobody gets back."""
    return f"[{kind.upper()}]"


def _said_anew(text: str, found: Iterable[Found], say: Callable[[str, str], str]) -> Iterator[str]:
    at = 0
    for start, end, kind in found:
        yield text[at:start]
        yield say(kind, text[start:end])
        at = end
    yield text[at:]
