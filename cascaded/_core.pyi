"""The Rust core as Python sees it."""

from typing import Literal

TomlKind = Literal["string", "integer", "float", "boolean", "datetime", "array", "table"]
TomlNode = tuple[int, TomlKind, object]

def toml_tree(text: str) -> tuple[dict[str, TomlNode], list[tuple[int, int, str]]]:
    """Read a TOML document: `({key: (line, kind, value)}, [(line, column, message)])`.

    A value is a `str` (strings, dates, and floats as they were written), an `int` of 64 bits, a
    `bool`, a `list` of nodes or a `dict` of nodes. With faults the table is what could be made out.
    """
