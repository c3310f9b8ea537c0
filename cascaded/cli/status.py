"""`cascaded status`: how the running daemon does, on one page."""

from decimal import Decimal

import click
import msgspec

from cascaded.cli.budget import BUDGET_COLUMNS, budget_row
from cascaded.cli.exits import Exit
from cascaded.cli.show import JSON, SOCKET, dollars, duration, plain, table
from cascaded.client import Client
from cascaded.client.results import Budget, Health, Readiness, Summary

NEAR = Decimal("0.7")
"""Share of a limit from which it is shown: where warnings begin unless configured otherwise."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What is told."""

    version: str
    ready: bool
    draining: bool
    in_flight: int
    uptime_s: float
    providers: tuple[str, ...]
    """Who answers the models that may be asked for."""
    left_alone: tuple[str, ...]
    """Providers that are not asked for now, because they failed."""
    resting: tuple[str, ...]
    """Where models are not asked for now, because there is too much to do."""
    models: int
    spend: Summary
    """Everybody's for administrators, one's own for others."""
    near: tuple[Budget, ...]
    """Limits of which most is used up."""


@click.command()
@JSON
@SOCKET
def status(as_json: bool, socket: str | None) -> None:
    """Show how the daemon does: calls, spend, limits near their end.

    Ends with 3 when it answers and takes no calls.
    """
    with Client(socket) as client:
        models = client.models()
        told = _told(
            client.health(),
            client.ready(),
            tuple(sorted({one.owned_by for one in models} - {"", "cascaded"})),
            len(models),
            client.summary(),
            client.budgets(),
        )
    if as_json:
        click.echo(msgspec.json.encode(told))
    else:
        _print(told)
    if not told.ready:
        raise click.exceptions.Exit(Exit.NO)


def _told(
    health: Health,
    ready: Readiness,
    providers: tuple[str, ...],
    models: int,
    spend: Summary,
    budgets: list[Budget],
) -> Status:
    return Status(
        version=health.version,
        ready=ready.ready,
        draining=ready.draining,
        in_flight=ready.in_flight,
        uptime_s=ready.uptime_s,
        providers=providers,
        left_alone=tuple(sorted(one for one, now in ready.providers.items() if now != "closed")),
        resting=tuple(
            f"{one.model} at {one.provider}" for one in ready.deployments if one.state == "resting"
        ),
        models=models,
        spend=spend,
        near=tuple(budget for budget in budgets if _is_near(budget)),
    )


def _is_near(budget: Budget) -> bool:
    used = budget.posted + budget.held + budget.unknown
    return budget.limit is not None and used >= budget.limit * NEAR


def _print(told: Status) -> None:
    state = "draining" if told.draining else "ready" if told.ready else "not ready"
    spend = told.spend
    mark = click.style(state, fg="green" if told.ready else "red")
    whose = "" if spend.user_id is None else f" by {plain(spend.user_id)}"
    rows = {
        "daemon": f"{plain(told.version)}, {mark}",
        "up": duration(told.uptime_s),
        "under way": f"{told.in_flight} calls",
        "today": f"{dollars(spend.daily_cost)} for {spend.requests_today} calls{whose}",
        "this month": f"{dollars(spend.monthly_cost)}, {dollars(spend.monthly_saved)} saved",
        "models": f"{told.models} of {plain(', '.join(told.providers))}",
    }
    for name, value in rows.items():
        click.echo(f"{name:<11} {value}")
    if told.left_alone:
        names = plain(", ".join(told.left_alone))
        click.echo(f"{'failing':<11} " + click.style(names, fg="red") + ": left alone for now")
    if told.resting:
        click.echo(f"{'resting':<11} {plain(', '.join(told.resting))}: busy for now")
    if told.near:
        click.echo("limits near their end:")
        table(BUDGET_COLUMNS, map(budget_row, told.near))
