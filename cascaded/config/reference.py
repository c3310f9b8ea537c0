"""Every setting in words, read from the schema: for the reference and for a file to begin with."""

import ast
import inspect as python
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import msgspec
from msgspec import inspect

from cascaded.config.explain import plain, toml_value
from cascaded.config.kinds import ANY_NAME, bare, config_type, expectation
from cascaded.config.schema import Config
from cascaded.types.places import CONFIG_NAME


class Setting(NamedTuple):
    """One key of a table."""

    name: str
    expected: str
    """What may stand there."""
    default: str | None
    """As TOML; `None`: it has none."""
    required: bool
    meaning: str


class Table(NamedTuple):
    """A table of settings; `NAME` in its header is the operator's choice."""

    header: str
    """Such as `providers.NAME`; empty for the settings above all tables."""
    kind: str
    """For tables of several kinds: this one's line, `kind = "embedded"`; else empty."""
    meaning: str
    same_as: str
    """The header of a table before with just these settings; else empty."""
    settings: tuple[Setting, ...]


@cache
def tables() -> tuple[Table, ...]:
    """All of them, in the order of the schema."""
    seen: dict[type, str] = {}
    # Kinds that have a table in common tell of it once.
    return tuple(dict.fromkeys(_tables(config_type(), "", _meaning_of(Config), seen)))


def _tables(
    kind: inspect.Type, header: str, meaning: str, seen: dict[type, str]
) -> Iterator[Table]:
    core, _ = bare(kind)
    if isinstance(core, inspect.DictType):
        yield from _of_names(core, header, meaning, seen)
    elif isinstance(core, inspect.UnionType):
        for one in core.types:
            assert isinstance(one, inspect.StructType)  # kinds of one table
            yield from _tables(one, header, _meaning_of(one.cls), seen)
    elif isinstance(core, inspect.StructType):
        yield from _of_struct(core, header, meaning, seen)


def _of_names(
    kind: inspect.DictType, header: str, meaning: str, seen: dict[type, str]
) -> Iterator[Table]:
    value, _ = bare(kind.value_type)
    if isinstance(value, inspect.StructType | inspect.UnionType):
        yield from _tables(value, f"{header}.{ANY_NAME}", meaning, seen)
    else:
        entry = Setting(ANY_NAME, expectation(kind.value_type), None, False, "")
        yield Table(header, "", meaning, "", (entry,))


def _of_struct(
    core: inspect.StructType, header: str, meaning: str, seen: dict[type, str]
) -> Iterator[Table]:
    tag = f"{core.tag_field} = {toml_value(core.tag)}" if core.tag_field else ""
    fields = core.fields
    below = [field for field in fields if _is_table(field.type)]
    same_as = seen.setdefault(core.cls, header)
    mine = tuple(_setting(core.cls, field) for field in fields if field not in below)
    if mine:
        told = "" if same_as == header else same_as
        yield Table(header, tag, meaning, told, mine)
    for field in below:
        name = field.encode_name
        inner = f"{header}.{name}" if header else name
        yield from _tables(field.type, inner, _docs(core.cls)[field.name], seen)


def _is_table(kind: inspect.Type) -> bool:
    return isinstance(bare(kind)[0], inspect.StructType | inspect.DictType)


def _setting(struct: type, field: inspect.Field) -> Setting:
    default = None if field.default in (None, msgspec.NODEFAULT, "") else plain(field.default)
    return Setting(
        field.encode_name,
        expectation(field.type),
        None if default is None else toml_value(default),
        field.required,
        _docs(struct)[field.name],
    )


@cache
def _docs(struct: type) -> dict[str, str]:
    """What stands under each field of a struct and of those that it is made from."""
    found: dict[str, str] = {}
    for kind in reversed(struct.__mro__):
        if not issubclass(kind, msgspec.Struct) or kind is msgspec.Struct:
            continue
        [tree] = ast.parse(textwrap.dedent(python.getsource(kind))).body
        assert isinstance(tree, ast.ClassDef)  # the source of a class is one
        for node, after in zip(tree.body, tree.body[1:], strict=False):
            match node, after:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = " ".join(text.split())
    return found


def _meaning_of(struct: type) -> str:
    return " ".join((python.getdoc(struct) or "").split())


# A file to begin with

_WIDTH = 96
_ADVICE = f"""\
{CONFIG_NAME}: every setting there is, with its default. Take away a # to set one.
`cascaded config check` explains mistakes.
`cascaded config show --origin` prints what is in force, and why."""
_EXAMPLE = """\
[providers.openai]
kind = "openai_compatible"
base_url = "https://api.openai.com/v1"
api_key = "env:OPENAI_API_KEY"

[models.gpt-4o-mini]
provider = "openai"

[models.gpt-4o]
provider = "openai"

[ladders.default]
rungs = ["gpt-4o-mini", "gpt-4o"]   # cheapest first
aliases = ["auto"]

[limits.global]
monthly_usd = 500
"""


def starter(preset: str | None = None) -> str:
    """A commented file that sets nothing; with a preset it, and an example with models."""
    begin = f"preset = {toml_value(preset)}" if preset else '#preset = "production"'
    example = _EXAMPLE if preset else _disabled(_EXAMPLE)
    parts = [_commented(_ADVICE), begin, "# An example:", example.strip()]
    below = (table for table in tables() if table.header)
    parts += ("\n".join(_starter_table(table)) for table in below)
    return "\n\n".join(parts) + "\n"


def _starter_table(table: Table) -> Iterator[str]:
    yield "# " + "-" * (_WIDTH - 2)
    yield _commented(table.meaning)
    yield f"#[{table.header}]"
    if table.kind:
        yield f"#{table.kind}"
    if table.same_as:
        yield f"# … the settings of [{table.same_as}]"
        return
    for setting in table.settings:
        if setting.meaning:
            yield _commented(setting.meaning)
        yield f"#{setting.name} = {setting.default or '…'}"


def _commented(text: str) -> str:
    lines = (line for part in text.splitlines() for line in textwrap.wrap(part, _WIDTH))
    return "\n".join(f"# {line}" for line in lines)


def _disabled(toml: str) -> str:
    return "\n".join(f"#{line}" if line else "" for line in toml.splitlines())
