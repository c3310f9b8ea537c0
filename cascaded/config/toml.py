"""TOML text → nodes that know their line; or every syntax mistake in it.

Lines and values come from one parser (`_core.toml_tree`), so they cannot disagree; the standard
library's knows no lines, reads floats in binary and stops at the first error.
"""

import codecs
import re
from typing import NamedTuple, cast

from cascaded import _core
from cascaded.config.mistakes import MAX_MISTAKES, KeyPath, Mistake, capped

MAX_TEXT_BYTES = 1024 * 1024
_KEY = re.compile(r"\s*([A-Za-z0-9_.\"'-]+)\s*=")
_HEADER = re.compile(r"\s*\[\[?\s*([^\[\]#]+?)\s*\]")
_NO_VALUE = r"string values must be quoted|invalid (float|boolean)"
# What the parser says, what stands there, and what that most likely means. Never quotes a value:
# it may be an API key.
_MEANINGS = tuple(
    (re.compile(fault), re.compile(rest), message, expected)
    for fault, rest, message, expected in (
        (_NO_VALUE, r"\s*(#|\Z)", "the key has no value", "a value after ="),
        (
            _NO_VALUE,
            r"(?i)(true|false|yes|no|on|off)\s*(#|\Z)",
            "neither true nor false",
            "true or false in small letters, or a text in double quotes",
        ),
        (
            _NO_VALUE,
            r"[+-]?[0-9][0-9_.]*\s*[A-Za-z%]+\s*(#|\Z)",
            "a number takes no unit",
            "the number alone, in the unit that the key's name ends in",
        ),
        (_NO_VALUE, r"[^0-9+-]", "a text needs quotes", "the value in double quotes"),
        ("unexpected leading zero", "", "a number begins with a zero", "none, or double quotes"),
        ("too few unicode|missing escaped", "", "a backslash begins an escape", "two of them"),
        ("invalid key-value pair", r"\{", "this looks like JSON", "TOML: name = value"),
        (
            "invalid unquoted key|extra `=`|key with no value",
            r"<{7}|={7}|={6}|>{7}",
            "a mark of a merge that was not finished",
            "one of the two sides",
        ),
        ("invalid unquoted key|key with no value", ":", "a colon after a key", "="),
        ("invalid unquoted key", r"[^\s<>]", "a name needs quotes here", "it in double quotes"),
        ("duplicate key", "", "it stands here twice", "it once"),
    )
)


class Node(NamedTuple):
    """A value, what TOML calls its type, and its line (that of its key, where it has one)."""

    line: int
    kind: "_core._TomlKind"
    value: object
    """`str` (strings, dates, and floats as written), `int`, `bool`, or see below."""

    def entries(self) -> dict[str, "Node"]:
        """A table's, in the order of the text; none for anything else."""
        if self.kind != "table":
            return {}
        table = cast("dict[str, _core._TomlNode]", self.value)
        return {key: Node(*node) for key, node in table.items()}

    def items(self) -> list["Node"]:
        """An array's; to be asked of nothing else."""
        return [Node(*node) for node in cast("list[_core._TomlNode]", self.value)]

    def child(self, part: str | int) -> "Node | None":
        """The entry or the item, if there is one."""
        if isinstance(part, int):
            items = self.items()
            return items[part] if part < len(items) else None
        if self.kind != "table":
            return None
        node = cast("dict[str, _core._TomlNode]", self.value).get(part)
        return Node(*node) if node else None

    def has(self, path: KeyPath) -> bool:
        """Whether this stands in the text."""
        return self._follow(path)[1]

    def line_of(self, path: KeyPath) -> int:
        """The line of what stands there, or of the table that it is missing from."""
        return self._follow(path)[0].line

    def _follow(self, path: KeyPath) -> tuple["Node", bool]:
        node = self
        for part in path:
            child = node.child(part)
            if child is None:
                return node, False
            node = child
        return node, True


def read(text: str | bytes, source: str) -> Node | list[Mistake]:
    """The document, or what is wrong with its text.

    With a syntax mistake nothing else is judged: what a broken line means to the lines that
    follow is anyone's guess.
    """
    found = _decoded(text, source)
    if isinstance(found, Mistake):
        return [found]
    table, faults = _core.toml_tree(found)
    if not faults:
        return Node(1, "table", table)
    lines = found.split("\n")
    told = [_mistake(source, lines, *fault) for fault in faults[:MAX_MISTAKES]]
    return capped(told, len(faults))


def _decoded(text: str | bytes, source: str) -> str | Mistake:
    if isinstance(text, str):
        # Surrogates stand for bytes that were not UTF-8 when the text was read.
        text = text.encode("utf-8", "surrogatepass")
    if len(text) > MAX_TEXT_BYTES:
        message = f"the file has {len(text)} bytes"
        expected = f"at most {MAX_TEXT_BYTES} bytes"
        return Mistake(source=source, line=1, key="", message=message, expected=expected)
    try:
        return text.decode()
    except UnicodeDecodeError as fault:
        line = text.count(b"\n", 0, fault.start) + 1
        wide = text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        message = f"the text is {'UTF-16' if wide else 'not UTF-8'}"
        return Mistake(source=source, line=line, key="", message=message, expected="UTF-8")


def _mistake(source: str, lines: list[str], line: int, column: int, fault: str) -> Mistake:
    text = lines[line - 1]
    message, expected = _meaning(fault, text[column - 1 :])
    return Mistake(
        source=source,
        line=line,
        key=_key_at(lines, line),
        message=f"{message} (column {column})",
        expected=expected,
    )


def _meaning(fault: str, rest: str) -> tuple[str, str]:
    """A fault in our words (message, what was expected) or else in the parser's own."""
    for said, stands, message, expected in _MEANINGS:
        if said.match(fault) and stands.match(rest):
            return message, expected
    message, _, expected = fault.partition(", expected ")
    return message, "" if expected == "nothing" else expected


def _key_at(lines: list[str], line: int) -> str:
    """The key of a broken line as far as it can be made out, under its table's name."""
    own = _HEADER.match(lines[line - 1])
    key = _KEY.match(lines[line - 1])
    if own or not key:
        return own[1] if own else ""
    headers = (_HEADER.match(lines[index]) for index in range(line - 2, -1, -1))
    header = next(filter(None, headers), None)
    return f"{header[1]}.{key[1]}" if header else key[1]
