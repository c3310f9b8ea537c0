"""What a setting's type says: its bounds, and the words for them."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from msgspec import inspect

from cascaded.config.mistakes import listed
from cascaded.config.schema import Config
from cascaded.config.secrets import REFERENCE

KIND_WORDS: Mapping[str, str] = {
    "string": "a text",
    "integer": "a whole number",
    "float": "a number with a point",
    "boolean": "a truth (true or false)",
    "datetime": "a date",
    "array": "a list",
    "table": "a table",
}
"""TOML's types in our words."""
AMOUNT = 'an amount in US dollars, such as "0.15"'
ANY_NAME = "NAME"


def bare(kind: inspect.Type) -> tuple[inspect.Type, dict[str, Any]]:
    """The type without `None` and without annotations, and the annotations."""
    extra: dict[str, Any] = {}
    while True:
        if isinstance(kind, inspect.Metadata):
            extra |= kind.extra or {}
            kind = kind.type
        elif isinstance(kind, inspect.UnionType) and kind.includes_none:
            rest = tuple(one for one in kind.types if not isinstance(one, inspect.NoneType))
            kind = rest[0] if len(rest) == 1 else inspect.UnionType(rest)
        else:
            return kind, extra


def within(value: float, least: float | None, most: float | None) -> bool:
    """Whether it is between two bounds, either of which may be open."""
    return (least is None or value >= least) and (most is None or value <= most)


def fits(kind: inspect.StrType, text: str) -> bool:
    """Whether a text has the form and the length that its type asks for."""
    if not within(len(text), kind.min_length, kind.max_length):
        return False
    return kind.pattern is None or re.search(kind.pattern, text) is not None


def expectation(kind: inspect.Type) -> str:
    """What a setting of this type looks like, in words."""
    core, extra = bare(kind)
    said = extra.get("expected")
    if said:
        return str(said)
    if isinstance(core, inspect.CustomType) and extra.get("literal"):
        return f"a text, or a reference to a secret: {REFERENCE}"
    return _WORDS.get(type(core), _a_table)(core)


def _a_table(_kind: inspect.Type) -> str:
    return "a table"


def _a_list(kind: Any) -> str:
    count = f"{kind.min_length or 0} to {kind.max_length} of: " if kind.max_length else ""
    return f"a list of {count}{expectation(kind.item_type)}"


_WORDS: Mapping[type, Callable[[Any], str]] = {
    inspect.BoolType: lambda _: "true or false",
    inspect.IntType: lambda kind: f"a whole number from {kind.ge} to {kind.le}",
    inspect.FloatType: lambda kind: f"a number from {kind.ge} to {kind.le}",
    inspect.DecimalType: lambda _: AMOUNT,
    inspect.LiteralType: lambda kind: listed(kind.values),
    inspect.VarTupleType: _a_list,
    inspect.FrozenSetType: _a_list,
    inspect.CustomType: lambda _: f"a reference to a secret: {REFERENCE}",
    inspect.StrType: lambda _: "a text in double quotes",
}


@cache
def config_type() -> inspect.Type:
    """`Config` as msgspec describes it."""
    return inspect.type_info(Config)


@cache
def homes() -> Mapping[str, list[str]]:
    """Every setting that is not a table, and the tables that have one of that name."""
    found: dict[str, list[str]] = {}
    for name, table in _settings(config_type(), ""):
        found.setdefault(name, []).append(table)
    return found


def _settings(kind: inspect.Type, table: str) -> Iterator[tuple[str, str]]:
    core, _ = bare(kind)
    if isinstance(core, inspect.DictType):
        yield from _settings(core.value_type, f"{table}.{ANY_NAME}")
    elif isinstance(core, inspect.UnionType):
        for one in core.types:
            yield from _settings(one, table)
    elif isinstance(core, inspect.StructType):
        tag = f" with {core.tag_field} = {listed([core.tag])}" if core.tag_field else ""
        for field in core.fields:
            inner, _ = bare(field.type)
            if isinstance(inner, inspect.StructType | inspect.DictType):
                name = field.encode_name
                yield from _settings(inner, f"{table}.{name}" if table else name)
            else:
                yield field.encode_name, f"[{table}]{tag}"
