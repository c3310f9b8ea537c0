"""JSON Schema, the part that structured outputs use, within bounds.

Checked: `type`, `enum`, `const`, `properties`, `required`, `additionalProperties`, `items`,
`prefixItems`, the limits of length, size and number, `uniqueItems`, `anyOf`, `oneOf`, `allOf`,
`not`, and local `$ref`. Passed: `pattern` and `patternProperties` (a caller's regular
expression may take for ever), `format`, `multipleOf`, remote `$ref`, and whatever else is not
understood: a check of quality must never reject an answer for its own ignorance.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

STEPS_MAX: Final = 500
"""Schemas applied to values in one check; a larger answer passes with its rest unchecked."""
DEPTH_MAX: Final = 64
UNIQUE_ITEMS_MAX: Final = 100
"""Compared pairwise, so a longer array is not checked for uniqueness."""
PATH_CHARS_MAX: Final = 60
POINTER_STEPS_MAX: Final = 16

_COMBINING: Final = frozenset({"$ref", "allOf", "anyOf", "oneOf", "not"})


class _Spent(Exception):
    """The bounds were reached before anything broken was found."""


def violation(schema: object, value: object) -> str | None:
    """The first keyword that `value` breaks and where (`required at $.items[0]`), or `None`."""
    try:
        return _Walk(schema).broken(schema, value, "$", 0)
    except _Spent:
        return None


class _Walk:
    """One check: the root that `$ref` starts from, and how many steps were taken."""

    __slots__ = ("_root", "_steps")

    def __init__(self, root: object) -> None:
        self._root = root
        self._steps = 0

    def broken(self, schema: object, value: object, path: str, depth: int) -> str | None:
        """Apply one schema to one value."""
        self._steps += 1
        if self._steps > STEPS_MAX or depth > DEPTH_MAX:
            raise _Spent
        if schema is False:
            return _at("a value that is not allowed", path)
        if not isinstance(schema, dict):
            return None
        for keyword, wanted in schema.items():
            holds = _ASSERTIONS.get(keyword)
            if holds is not None and not holds(wanted, value):
                return _at(keyword, path)
        for part_schema, part, step in _parts(schema, value):
            if broken := self.broken(part_schema, part, path + step, depth + 1):
                return broken
        if _COMBINING.isdisjoint(schema):
            return None
        return self._combined(schema, value, path, depth + 1)

    def _combined(
        self, schema: Mapping[str, object], value: object, path: str, depth: int
    ) -> str | None:
        every = _branches(schema, "allOf")
        if "$ref" in schema:
            every = [_resolved(self._root, schema["$ref"]), *every]
        for branch in every:
            if broken := self.broken(branch, value, path, depth):
                return broken
        if (some := _branches(schema, "anyOf")) and not self._held(some, value, path, depth):
            return _at("anyOf", path)
        if (one := _branches(schema, "oneOf")) and self._held(one, value, path, depth) != 1:
            return _at("oneOf", path)
        if "not" in schema and self._held([schema["not"]], value, path, depth):
            return _at("not", path)
        return None

    def _held(self, branches: list[object], value: object, path: str, depth: int) -> int:
        return sum(1 for branch in branches if self.broken(branch, value, path, depth) is None)


def _at(keyword: str, path: str) -> str:
    return f"{keyword} at {path[:PATH_CHARS_MAX]}"


# --- the parts of a value, each with its schema and its step in the path -----------------

_Parts = Iterator[tuple[object, object, str]]


def _parts(schema: Mapping[str, object], value: object) -> _Parts:
    if isinstance(value, dict):
        return _members(schema, value)
    if isinstance(value, list):
        return _elements(schema, value)
    return iter(())


def _members(schema: Mapping[str, object], value: Mapping[str, object]) -> _Parts:
    declared = schema.get("properties")
    properties = declared if isinstance(declared, dict) else {}
    for name in properties.keys() & value.keys():
        yield properties[name], value[name], f".{name}"
    others = schema.get("additionalProperties")
    if others is None or "patternProperties" in schema:
        return
    for name in value.keys() - properties.keys():
        # Its name is the model's own word: it stays out of reasons.
        yield others, value[name], ".*"


def _elements(schema: Mapping[str, object], value: list[object]) -> _Parts:
    leading = schema.get("prefixItems")
    first = leading if isinstance(leading, list) else []
    rest = schema.get("items")
    for index, part in enumerate(value):
        if index < len(first):
            yield first[index], part, f"[{index}]"
        elif rest is not None:
            yield rest, part, f"[{index}]"


def _branches(schema: Mapping[str, object], keyword: str) -> list[object]:
    branches = schema.get(keyword)
    return branches if isinstance(branches, list) else []


def _resolved(root: object, reference: object) -> object:
    """The schema that a local `$ref` points to; `True`, which all values pass, if none."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return True
    target = root
    for step in reference[1:].split("/")[1 : POINTER_STEPS_MAX + 1]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, dict) or name not in target:
            return True
        target = target[name]
    return target


# --- assertions: does `value` hold to what the keyword wants? ----------------------------


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and value.is_integer()
    )


_TYPES: Final[Mapping[object, Callable[[object], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": _is_number,
    "integer": _is_integer,
}


def _typed(wanted: object, value: object) -> bool:
    names = wanted if isinstance(wanted, list) else [wanted]
    known = [_TYPES[name] for name in names if isinstance(name, str) and name in _TYPES]
    return len(known) < len(names) or any(is_of(value) for is_of in known)


def _same(one: object, other: object) -> bool:
    """Equal as JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other


def _in_enum(wanted: object, value: object) -> bool:
    return not isinstance(wanted, list) or any(_same(option, value) for option in wanted)


def _has_required(wanted: object, value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(wanted, list):
        return True
    return all(name in value for name in wanted if isinstance(name, str))


def _all_different(wanted: object, value: object) -> bool:
    if wanted is not True or not isinstance(value, list) or len(value) > UNIQUE_ITEMS_MAX:
        return True
    return not any(_same(one, other) for index, one in enumerate(value) for other in value[:index])


def _bounded(
    applies: Callable[[object], bool],
    measure: Callable[..., float],
    within: Callable[[float, float], bool],
) -> Callable[[object, object], bool]:
    """An assertion that a measure of some kinds of value is on the right side of a number."""

    def holds(wanted: object, value: object) -> bool:
        if not applies(value) or isinstance(wanted, bool) or not isinstance(wanted, int | float):
            return True
        return within(measure(value), wanted)

    return holds


def _at_least(measured: float, bound: float) -> bool:
    return measured >= bound


def _at_most(measured: float, bound: float) -> bool:
    return measured <= bound


_ASSERTIONS: Final[Mapping[str, Callable[[object, object], bool]]] = {
    "type": _typed,
    "enum": _in_enum,
    "const": _same,
    "required": _has_required,
    "uniqueItems": _all_different,
    "minLength": _bounded(_TYPES["string"], len, _at_least),
    "maxLength": _bounded(_TYPES["string"], len, _at_most),
    "minItems": _bounded(_TYPES["array"], len, _at_least),
    "maxItems": _bounded(_TYPES["array"], len, _at_most),
    "minProperties": _bounded(_TYPES["object"], len, _at_least),
    "maxProperties": _bounded(_TYPES["object"], len, _at_most),
    "minimum": _bounded(_is_number, lambda value: value, _at_least),
    "maximum": _bounded(_is_number, lambda value: value, _at_most),
    "exclusiveMinimum": _bounded(_is_number, lambda value: value, lambda m, bound: m > bound),
    "exclusiveMaximum": _bounded(_is_number, lambda value: value, lambda m, bound: m < bound),
}
