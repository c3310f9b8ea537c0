"""Write the reference documents from the code: `make reference`. A test holds them current."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click
import msgspec

from cascaded.api.openapi import document
from cascaded.api.table import ROUTES
from cascaded.cli import cascaded
from cascaded.cli.exits import Exit
from cascaded.config.reference import Setting, Table, tables
from cascaded.types.environment import Variable

ROOT = Path(__file__).parents[1]
MADE = "<!-- Made by scripts/build_reference.py from the code; edit the code instead. -->"


def configuration() -> str:
    """docs/reference/configuration.md"""
    return "\n".join(_configuration())


def _configuration() -> Iterator[str]:
    yield f"""# Configuration

{MADE}

One TOML file: `--config FILE`, `$CASCADED_CONFIG`, or `cascaded.toml` in the usual place
([environment](environment.md)). Without one the defaults hold. `NAME` in a header is yours to
choose. `cascaded config init` writes a file to begin with, `cascaded config check` explains every
mistake with its line, `cascaded config show --origin` prints what is in force and why.

Money is a decimal in US dollars, exact, as a text or a number. A secret never stands in the file:
`"env:NAME"` reads an environment variable, `"file:/path"` a file, `"credential:NAME"` a systemd
credential. A name with a dot needs quotes: `[models."gpt-4.1"]`.
"""
    for table in tables():
        yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    kind = f", `{table.kind}`" if table.kind else ""
    yield f"## `[{table.header}]`{kind}\n" if table.header else "## Above all tables\n"
    if table.header:
        yield f"{table.meaning}\n"
    if table.same_as:
        yield f"The settings of [`[{table.same_as}]`](#{_anchor(table.same_as)}).\n"
        return
    yield "| setting | what may stand there | default | meaning |\n|---|---|---|---|"
    yield from map(_row, table.settings)
    yield ""


def _row(setting: Setting) -> str:
    default = "required" if setting.required else ""
    if setting.default is not None:
        default = f"`{setting.default}`"
    cells = (f"`{setting.name}`", setting.expected, default, setting.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _anchor(header: str) -> str:
    return "".join(one for one in header.lower() if one.isalnum() or one in "-_")


def environment() -> str:
    """docs/reference/environment.md"""
    rows = "\n".join(f"| `{one}` | {one.meaning} |" for one in Variable)
    return f"""# Environment

{MADE}

Every variable that the daemon and the command line read. Secrets come out of variables that the
configuration names (`"env:NAME"`).

| variable | meaning |
|---|---|
{rows}
"""


def manual() -> str:
    """man/cascaded.1"""
    root = click.Context(cascaded, info_name="cascaded", **cascaded.context_settings)
    commands = "\n".join(line for command in _commands(root) for line in _in_manual(*command))
    exits = "\n".join(f".TP\n.B {int(one)}\n{_roff(one.meaning)}" for one in Exit)
    variables = "\n".join(f".TP\n.B {one}\n{_roff(one.meaning)}" for one in Variable)
    return f"""\
.\\" Made by scripts/build_reference.py from the code; edit the code instead.
.TH CASCADED 1
.SH NAME
cascaded \\- the LLM cost-control sidecar
.SH SYNOPSIS
.B cascaded
.RI [ OPTIONS ]
.I COMMAND
.RI [ ARGUMENTS ]
.SH DESCRIPTION
One daemon per host beside your application, on a Unix socket. It asks a cheap model first, keeps
the answer if it is good enough, and climbs to a stronger one if it is not; budgets and rates are
held before anything is sent. Every command but
.B serve
and
.B completion
takes
.B \\-\\-json
for programs.
.SH COMMANDS
{commands}
.SH EXIT STATUS
{exits}
.SH ENVIRONMENT
{variables}
.SH FILES
.TP
.I ~/.config/cascaded/cascaded.toml
The configuration, where neither
.B \\-\\-config
nor
.B CASCADED_CONFIG
names one.
"""


def _commands(ctx: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command that does something, with its whole name."""
    assert isinstance(ctx.command, click.Group)
    for name in ctx.command.list_commands(ctx):
        command = ctx.command.get_command(ctx, name)
        assert command is not None
        below = click.Context(command, info_name=name, parent=ctx)
        if isinstance(command, click.Group):
            yield from _commands(below)
        else:
            yield below.command_path.removeprefix("cascaded "), command, below


def _in_manual(name: str, command: click.Command, ctx: click.Context) -> Iterator[str]:
    arguments = " ".join(
        one.make_metavar(ctx) for one in command.params if isinstance(one, click.Argument)
    )
    yield f".SS {_roff(f'{name} {arguments}'.strip())}"
    text = inspect.cleandoc(command.help or "")
    yield "\n.PP\n".join(_roff(" ".join(part.split())) for part in text.split("\n\n"))
    for option in command.params:
        record = option.get_help_record(ctx)
        if isinstance(option, click.Option) and record is not None:
            yield f".TP\n.B {_roff(record[0])}\n{_roff(record[1])}"


def _roff(text: str) -> str:
    """A text without what roff would take for its own."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def openapi() -> str:
    """docs/reference/openapi.json"""
    return json.dumps(json.loads(msgspec.json.encode(document(ROUTES))), indent=1) + "\n"


DOCUMENTS: Mapping[str, Callable[[], str]] = {
    "docs/reference/configuration.md": configuration,
    "docs/reference/environment.md": environment,
    "docs/reference/openapi.json": openapi,
    "man/cascaded.1": manual,
}
"""Files, and what makes them."""


def main() -> None:
    """Write them all."""
    for name, make in DOCUMENTS.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make())
        print(name)


if __name__ == "__main__":
    main()
