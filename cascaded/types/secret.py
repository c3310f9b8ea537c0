"""`Secret`: a text that never prints itself."""

import hmac
from typing import Any, NoReturn, final

HIDDEN = "***"


@final
class Secret:
    """An API key or the like. Only `reveal()` gives it away, so every leak is a call to search for.

    Printing, formatting, JSON, pickling, `vars()` and tracebacks with locals show at most `source`.
    Equal secrets compare equal, in constant time.
    """

    __slots__ = ("_source", "_value")

    _source: str
    _value: str

    def __init__(self, value: str, *, source: str = HIDDEN) -> None:
        object.__setattr__(self, "_value", value)
        object.__setattr__(self, "_source", source)

    @property
    def source(self) -> str:
        """What stands for it in the configuration, such as `env:OPENAI_API_KEY`. Not secret."""
        return self._source

    def reveal(self) -> str:
        """The secret itself. Use the result at once; never keep or print it."""
        return self._value

    def matches(self, candidate: str) -> bool:
        """Whether `candidate` is the secret, in constant time."""
        ours, theirs = (text.encode("utf-8", "surrogatepass") for text in (self._value, candidate))
        return hmac.compare_digest(ours, theirs)

    def __repr__(self) -> str:
        return f"Secret({self._source})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return self.matches(other._value) if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Secret":
        return self

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret does not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret does not change")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is not pickled: it would be readable in the result")
