"""How answers and amounts look in a terminal, and the options that many commands have."""

import os
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from cascaded.client.results import Metadata
from cascaded.types.environment import Variable

if TYPE_CHECKING:
    from rich.console import Console

Row = tuple[str, ...]
MIB = 1024 * 1024
SOCKET = click.option(
    "--socket", metavar="PATH", envvar=Variable.SOCKET, help="The daemon's socket."
)
CONFIG = click.option(
    "--config", "-c", metavar="FILE", envvar=Variable.CONFIG, help="The TOML file."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def colour(env: Mapping[str, str]) -> bool | None:
    """Whether there are colours; `None`: where a terminal is."""
    if env.get(Variable.NO_COLOR) or env.get(Variable.TERM) == "dumb":
        return False
    return True if env.get(Variable.FORCE_COLOR) else None


def dollars(amount: Decimal) -> str:
    """An amount with every digit it has, at least cents."""
    return f"{'-' if amount < 0 else ''}${abs(amount):f}"


def duration(seconds: float) -> str:
    """The two largest units of it: `3 d 4 h`, `12 min 5 s`."""
    parts: list[str] = []
    rest = int(seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def plain(text: str) -> str:
    """Somebody's words, without what would make a terminal do more than show them."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def verdict(metadata: Metadata) -> str:
    """What became of the draft, in words."""
    if metadata.cache is not None:
        return "from the cache"
    if metadata.draft_model is None:
        return "asked by name"
    if metadata.draft_accepted:
        return "draft accepted"
    if metadata.flagged:
        return f"escalated, and flagged: {', '.join(metadata.quality_failed) or 'unsure'}"
    return "escalated"


def saving(metadata: Metadata) -> str:
    """The saving; where the models are free, at whose price it is shown."""
    verb = "lost" if metadata.cost_saved < 0 else "saved"
    told = f"{verb} {dollars(abs(metadata.cost_saved))} ({metadata.savings_percent:g}%)"
    if metadata.savings_reference:
        told += f" at the prices of {metadata.savings_reference}; these models are free"
    return told


def footer(metadata: Metadata) -> str:
    """One line under an answer."""
    return (
        f"— {metadata.model_used}, {verdict(metadata)}, cost {dollars(metadata.total_cost)},"
        f" {saving(metadata)}, {metadata.latency_ms / 1000:.2f} s"
    )


def table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows of text; what others said is neither markup nor a command to the terminal."""
    from rich.console import Console

    console = Console(force_terminal=colour(os.environ))
    cells = [tuple(map(plain, row)) for row in rows]
    if console.is_terminal:
        _print_rich(console, columns, cells)
    else:
        _print_aligned(columns, cells)


def _print_rich(console: "Console", columns: Row, rows: list[Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    shown = Table(*columns)
    for row in rows:
        shown.add_row(*map(Text, row))
    console.print(shown)


def _print_aligned(columns: Row, rows: list[Row]) -> None:
    """Nothing is cut off or wrapped: a program may read it."""
    every = [columns, *rows]
    widths = [max(len(row[index]) for row in every) for index in range(len(columns))]
    for row in every:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())
