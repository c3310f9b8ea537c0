"""Nodes → structs, by the structs' own types: unknown, missing and ill-formed settings.

A setting with a mistake gets its default (or its entry is left out), so that everything else can
still be judged; the result counts only when no mistake was noted.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from msgspec import inspect

from cascaded.config.kinds import (
    AMOUNT,
    ANY_NAME,
    KIND_WORDS,
    bare,
    config_type,
    expectation,
    fits,
    homes,
    within,
)
from cascaded.config.meant import KEYS, WORDS, familiar
from cascaded.config.mistakes import KeyPath, Report, clipped, dotted, listed, quoted_key, shown
from cascaded.config.schema import Config, ScopeLimits, TagLimits
from cascaded.config.secrets import Unresolved, Vault
from cascaded.config.toml import Node
from cascaded.types.money import MoneyError, parse_usd, parse_usd_per_mtok

_BAD: Final = object()
_MONEY: Mapping[str, Callable[[str], int]] = {
    "usd": parse_usd,
    "usd_per_mtok": parse_usd_per_mtok,
}
MIN_PERCENT, PERCENT = 2, 100
_NUMBERS = (inspect.IntType, inspect.FloatType)
_WITH_UNIT = re.compile(r"\s*[+-]?[0-9][0-9_.]*\s*([A-Za-z%/]{0,12})\s*")
_WITH_SIGN = re.compile(r"\s*(?:\$|USD|US\$)\s*([0-9]+(?:\.[0-9]{1,9})?)\s*")
_BY_ID: Mapping[type, str] = {ScopeLimits: "ids", TagLimits: "values"}
"""Tables whose single ones stand in a table below."""
MAX_SHOWN_PLACES = 4
"""Tables that a misplaced key may belong to; more of them are not told."""


def read_config(document: Node, report: Report, vault: Vault) -> Config:
    """The configuration as far as it is sound; mistakes go to the report."""
    config = _Reader(report, vault).read(config_type(), document, ())
    assert isinstance(config, Config)  # none of its own settings is required
    return config


class _Setting(NamedTuple):
    """What stands at one key, and what its type says of it."""

    node: Node
    path: KeyPath
    kind: inspect.Type
    """As declared, with its annotations."""
    extra: dict[str, Any]

    @property
    def expected(self) -> str:
        return expectation(self.kind)


class _Reader:
    def __init__(self, report: Report, vault: Vault) -> None:
        self._report = report
        self._vault = vault
        self._homes = homes()
        self._named: set[KeyPath] = set()
        """Tables that have a name of the operator's choice: `[models.NAME]`."""
        self._readers: Mapping[type, Callable[[Any, _Setting], Any]] = {
            inspect.StructType: self._struct,
            inspect.UnionType: self._union,
            inspect.DictType: self._mapping,
            inspect.VarTupleType: self._list,
            inspect.FrozenSetType: self._set,
            inspect.StrType: self._text,
            inspect.LiteralType: self._word,
            inspect.IntType: self._integer,
            inspect.FloatType: self._float,
            inspect.BoolType: self._boolean,
            inspect.DecimalType: self._money,
            inspect.CustomType: self._secret,
        }
        self._tomls: Mapping[type, tuple[str, ...]] = {
            inspect.StructType: ("table",),
            inspect.UnionType: ("table",),
            inspect.DictType: ("table",),
            inspect.VarTupleType: ("array",),
            inspect.FrozenSetType: ("array",),
            inspect.IntType: ("integer",),
            inspect.FloatType: ("integer", "float"),
            inspect.BoolType: ("boolean",),
            inspect.DecimalType: ("string", "integer", "float"),
        }

    def read(self, kind: inspect.Type, node: Node, path: KeyPath) -> Any:
        """The value, or `_BAD` with its mistake in the report."""
        core, extra = bare(kind)
        if node.kind not in self._tomls.get(type(core), ("string",)):
            if isinstance(core, inspect.DictType) and node.kind == "array":
                expected = f"a table [{dotted(path)}.{ANY_NAME}] for each"
                return self._bad(path, "it is a list", expected)
            message = f"it is {KIND_WORDS[node.kind]}"
            quoted = node.kind == "string" and isinstance(core, _NUMBERS)
            if quoted and _WITH_UNIT.fullmatch(str(node.value)):
                message = "a number takes neither quotes nor a unit"
            return self._bad(path, message, expectation(kind))
        return self._readers[type(core)](core, _Setting(node, path, kind, extra))

    def _bad(
        self, path: KeyPath, message: str, expected: str, suggestion: str | None = None
    ) -> Any:
        self._report.add(path, message, expected, suggestion)
        return _BAD

    # Tables

    def _struct(self, kind: inspect.StructType, at: _Setting, *, guessed: bool = False) -> Any:
        """With `guessed`, its kind is not certain, so nothing is missing from it."""
        node, path = at.node, at.path
        entries = node.entries()
        fields = {field.encode_name: field for field in kind.fields}
        values = {}
        for name in filter(fields.__contains__, entries):
            value = self.read(fields[name].type, entries[name], (*path, name))
            if value is not _BAD:
                values[name] = value
        meant = self._unknown_keys(kind, entries, path)
        required = [name for name, field in fields.items() if field.required]
        for name in required:
            if name not in entries and name not in meant and not guessed:
                self._report.add((*path, name), "missing", expectation(fields[name].type))
        if not all(name in values for name in required):
            return _BAD
        return kind.cls(**{fields[name].name: value for name, value in values.items()})

    def _unknown_keys(
        self, kind: inspect.StructType, entries: Mapping[str, Node], path: KeyPath
    ) -> set[str]:
        """Notes them; returns the settings that they were probably meant to be."""
        known = [field.encode_name for field in kind.fields]
        valid = [*known, kind.tag_field] if kind.tag_field else known
        meant: set[str] = set()
        for name in (name for name in entries if name not in valid):
            at = (*path, name)
            scalar = entries[name].kind != "table"
            places = self._homes.get(name, ()) if scalar else ()
            near = familiar(name, KEYS, valid)
            if near is None and not places:
                near = self._report.nearest(name, valid)
            if near:
                meant.add(near)
                self._report.add(at, "unknown key", f"one of {', '.join(valid)}", near)
            elif places:
                more = " …" if len(places) > MAX_SHOWN_PLACES else ""
                under = " or ".join(places[:MAX_SHOWN_PLACES])
                self._report.add(at, "unknown key", f"it under {under}{more}")
            elif kind.cls in _BY_ID and not scalar:
                whole = f"[{dotted((*path, _BY_ID[kind.cls], name))}]"
                self._report.add(at, "single ones stand in a table of their own", whole)
            elif scalar or path not in self._named or not _has_settings(kind):
                self._report.add(at, "unknown key", f"one of {', '.join(valid)}")
            else:
                # The settings of `[models.gpt-4.1]` are all under the rest of its name.
                meant.update(known)
                whole = _unsplit(path, name, entries[name])
                self._report.add(at, "a name with a dot needs quotes", whole)
        return meant

    def _union(self, kind: inspect.UnionType, at: _Setting) -> Any:
        """One of several structs, told apart by a tag."""
        choices = {str(one.tag): one for one in kind.types if isinstance(one, inspect.StructType)}
        field = str(next(iter(choices.values())).tag_field)
        entries = at.node.entries()
        tag = entries.get(field)
        path, expected = (*at.path, field), listed(choices)
        if tag is None:
            self._report.add(path, "missing", expected)
        elif tag.kind != "string":
            self._report.add(path, f"it is {KIND_WORDS[tag.kind]}", expected)
        elif tag.value in choices:
            return self._struct(choices[str(tag.value)], at)
        else:
            self._unknown_word(path, str(tag.value), choices)
        # The rest is judged by the kind that most of its keys belong to.
        likely = max(choices.values(), key=lambda one: _shared(one, entries))
        self._struct(likely, at, guessed=True)
        return _BAD

    def _mapping(self, kind: inspect.DictType, at: _Setting) -> Any:
        entries = at.node.entries()
        if not within(len(entries), kind.min_length, kind.max_length):
            return self._bad(
                at.path, f"it has {len(entries)} entries", f"at most {kind.max_length}"
            )
        form, extra = bare(kind.key_type)
        assert isinstance(form, inspect.StrType)  # keys are texts
        found = {}
        for name, child in entries.items():
            if not fits(form, name):
                self._report.add((*at.path, name), "not a valid name", extra["expected"])
            self._named.add((*at.path, name))
            value = self.read(kind.value_type, child, (*at.path, name))
            if value is not _BAD:
                found[name] = value
        return MappingProxyType(found)

    # Lists

    def _list(self, kind: inspect.VarTupleType | inspect.FrozenSetType, at: _Setting) -> Any:
        items = at.node.items()
        if not within(len(items), kind.min_length, kind.max_length):
            return self._bad(at.path, f"it has {len(items)} entries", at.expected)
        values = []
        for index, item in enumerate(items):
            value = self.read(kind.item_type, item, (*at.path, index))
            if isinstance(value, str) and value in values:
                self._report.add((*at.path, index), f"{shown(value)} stands here twice", "it once")
            values.append(value)
        return _BAD if _BAD in values else tuple(values)

    def _set(self, kind: inspect.FrozenSetType, at: _Setting) -> Any:
        values = self._list(kind, at)
        return values if values is _BAD else frozenset(values)

    # Single values

    def _text(self, kind: inspect.StrType, at: _Setting) -> Any:
        if fits(kind, str(at.node.value)):
            return at.node.value
        return self._bad(at.path, f"{shown(at.node.value)} is not valid here", at.expected)

    def _word(self, kind: inspect.LiteralType, at: _Setting) -> Any:
        if at.node.value in kind.values:
            return at.node.value
        return self._unknown_word(at.path, str(at.node.value), map(str, kind.values))

    def _unknown_word(self, path: KeyPath, word: str, valid: Iterable[str]) -> Any:
        words = list(valid)
        near = familiar(word, WORDS, words) or self._report.nearest(word, words)
        return self._bad(path, f"unknown value {shown(word)}", listed(words), near)

    def _boolean(self, _kind: inspect.BoolType, at: _Setting) -> Any:
        return at.node.value

    def _integer(self, kind: inspect.IntType, at: _Setting) -> Any:
        return self._bounded(kind, at, int(str(at.node.value)))

    def _float(self, kind: inspect.FloatType, at: _Setting) -> Any:
        return self._bounded(kind, at, float(str(at.node.value)))

    def _bounded(
        self, kind: inspect.IntType | inspect.FloatType, at: _Setting, value: float
    ) -> Any:
        if math.isfinite(value) and within(value, kind.ge, kind.le):
            return value
        share = kind.ge == 0 and kind.le == 1 and MIN_PERCENT <= value <= PERCENT
        near = f"{value / PERCENT:g}" if share else None
        message = f"{clipped(str(at.node.value))} is out of bounds"
        return self._bad(at.path, message, at.expected, near)

    def _money(self, _kind: inspect.DecimalType, at: _Setting) -> Any:
        text = str(at.node.value)
        try:
            _MONEY[at.extra["money"]](text)
        except MoneyError as fault:
            signed = _WITH_SIGN.fullmatch(text)
            return self._bad(at.path, str(fault), AMOUNT, signed[1] if signed else None)
        return Decimal(text)

    def _secret(self, _kind: inspect.CustomType, at: _Setting) -> Any:
        words = [re.sub(r"[^A-Z0-9]+", "_", str(part).upper()) for part in at.path[1:]]
        found = self._vault.resolve(
            str(at.node.value), literal=bool(at.extra.get("literal")), variable="_".join(words)
        )
        return self._bad(at.path, *found) if isinstance(found, Unresolved) else found


def _has_settings(kind: inspect.StructType) -> bool:
    """Whether anything but tables stands in it."""
    cores = (bare(field.type)[0] for field in kind.fields)
    return any(not isinstance(core, inspect.StructType | inspect.DictType) for core in cores)


def _unsplit(path: KeyPath, name: str, child: Node) -> str:
    """The header of a table whose name was split at its dots, as it was meant."""
    parts = [str(path[-1]), name]
    while len(entries := child.entries()) == 1 and next(iter(entries.values())).kind == "table":
        [(part, child)] = entries.items()
        parts.append(part)
    return f"[{dotted(path[:-1])}.{quoted_key('.'.join(parts))}]"


def _shared(kind: inspect.StructType, entries: Mapping[str, Node]) -> int:
    return sum(field.name in entries for field in kind.fields)
