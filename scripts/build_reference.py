"""Write the reference documents from the code: `make reference`. A test holds them current."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

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


DOCUMENTS: Mapping[str, Callable[[], str]] = {
    "docs/reference/configuration.md": configuration,
    "docs/reference/environment.md": environment,
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
