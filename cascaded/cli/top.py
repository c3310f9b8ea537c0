"""`cascaded top`: what the daemon does, live."""

import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import click
import msgspec

from cascaded.cli.budget import BUDGET_COLUMNS, budget_row
from cascaded.cli.show import JSON, SOCKET, colour, dollars, duration, plain
from cascaded.client import Client
from cascaded.client.results import Budget, Readiness, Share, Summary

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

EVERY_S = 2.0
SHOWN = 10
NEAREST = 8


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """One look."""

    ready: Readiness
    spend: Summary
    """Everybody's for administrators, one's own for others."""
    nearest: tuple[Budget, ...]
    """Budgets, the most used up first."""
    calls_per_s: float | None = None
    """Since the look before."""


@click.command()
@click.option(
    "--every",
    type=click.FloatRange(0.2, 3_600),
    default=EVERY_S,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="One look, as where there is no terminal.")
@JSON
@SOCKET
def top(every: float, once: bool, as_json: bool, socket: str | None) -> None:
    """Show calls, spend and budgets, live, until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    console = Console(force_terminal=colour(os.environ))
    with Client(socket) as client:
        if as_json:
            click.echo(msgspec.json.encode(_look(client, None, every)))
        elif once or not console.is_terminal:
            console.print(_page(_look(client, None, every)))
        else:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                for now in _looks(client, every):
                    live.update(_page(now), refresh=True)


def _looks(client: Client, every: float) -> Iterator[Now]:
    before: Now | None = None
    try:
        while True:
            before = _look(client, before, every)
            yield before
            time.sleep(every)
    except KeyboardInterrupt:
        return


def _look(client: Client, before: Now | None, every: float) -> Now:
    ready, spend, budgets = client.ready(), client.summary(), client.budgets()
    limited = [one for one in budgets if one.limit]
    limited.sort(key=_used, reverse=True)
    calls = None
    if before is not None and spend.requests_today >= before.spend.requests_today:
        calls = (spend.requests_today - before.spend.requests_today) / every
    return Now(ready=ready, spend=spend, nearest=tuple(limited[:NEAREST]), calls_per_s=calls)


def _used(budget: Budget) -> float:
    assert budget.limit
    return float((budget.posted + budget.held + budget.unknown) / budget.limit)


def _page(now: Now) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    ready, spend = now.ready, now.spend
    rate = "" if now.calls_per_s is None else f", {now.calls_per_s:.1f} calls/s"
    state = "draining" if ready.draining else "ready" if ready.ready else "not ready"
    head = Text.assemble(
        (state, "green" if ready.ready else "red"),
        f", up {duration(ready.uptime_s)}, {ready.in_flight} calls under way{rate}\n",
        ("today ", "bold"),
        f"{dollars(spend.daily_cost)} for {spend.requests_today:,} calls   ",
        ("month ", "bold"),
        f"{dollars(spend.monthly_cost)}, {dollars(spend.monthly_saved)} saved",
    )
    shares = (("model", spend.top_models), ("feature", spend.top_features))
    tables: list[RenderableType] = [
        _table((what, "this month", "calls"), map(_share, rows)) for what, rows in shares if rows
    ]
    if now.nearest:
        tables.append(_table(BUDGET_COLUMNS, map(budget_row, now.nearest)))
    return Group(head, *tables)


def _share(one: Share) -> tuple[str, ...]:
    return (one.name, dollars(one.cost), f"{one.requests:,}")


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    shown = Table(*columns)
    for row in islice(rows, SHOWN):
        shown.add_row(*(Text(plain(cell)) for cell in row))
    return shown
