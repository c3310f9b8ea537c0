"""`cascaded forecast`, `anomalies`, `recommend`, `breakdown`: what spend will be, and should be."""

import os
from collections.abc import Callable
from typing import get_args

import click
import msgspec

from cascaded.cli.export import filtered
from cascaded.cli.plot import columns
from cascaded.cli.show import JSON, SOCKET, colour, dollars, plain, table
from cascaded.client import Client
from cascaded.client.calls import Grain, GroupBy, Period, Sensitivity
from cascaded.client.insight import Anomaly, Forecast, Group, Recommendation

SHOWN_DAYS = 42
"""Of history, in a plot."""
CENTS = 2
SURE = 0.2
"""The risk from which it is shown in red."""
COLOURS = {"on_track": "green", "optimize_usage": "yellow", "upgrade_tier": "red"}
MEANINGS = {
    "on_track": "on track",
    "optimize_usage": "spend less: `cascaded recommend` says on what",
    "upgrade_tier": "the budget is too small for this: raise it, or upgrade the tier",
}
ZONE = click.option("--zone", metavar="NAME", help="Whose days, such as Europe/Berlin.")
WHOSE = (
    click.option("--user", "user_id", metavar="ID", help="Of this user."),
    click.option("--organization", "organization_id", metavar="ID", help="Of this one."),
    click.option("--workspace", "workspace_id", metavar="ID", help="Of this one."),
    click.option("--model", metavar="NAME", help="Only with this model."),
    click.option("--feature", metavar="TAG=VALUE", help="Only with this tag."),
)


def of_somebody(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say whose spend is meant."""
    for option in reversed(WHOSE):
        command = option(command)
    return command


@click.command()
@click.option(
    "--period",
    type=click.Choice(get_args(Period)),
    default="month",
    show_default=True,
    help="To the end of which.",
)
@click.option("--limit", metavar="USD", help="A budget in place of the one there is.")
@ZONE
@of_somebody
@JSON
@SOCKET
def forecast(
    period: Period,
    limit: str | None,
    zone: str | None,
    as_json: bool,
    socket: str | None,
    **whose: str | None,
) -> None:
    """Show what the period will have cost at its end.

    And how sure that is: by everybody for administrators, by yourself for others, unless somebody
    is named.
    """
    with Client(socket) as client:
        told = client.forecast(period, limit=limit, zone=zone, **whose)
    if as_json:
        click.echo(msgspec.json.encode(told))
    else:
        _print_forecast(told)


@click.command()
@click.option(
    "--sensitivity",
    type=click.Choice(get_args(Sensitivity)),
    default="medium",
    show_default=True,
    help="How far out it must be.",
)
@click.option("--grain", type=click.Choice(get_args(Grain)), help="Days, or hours.")
@click.option("--days", type=click.IntRange(1, 366), help="Of the last so many days.")
@ZONE
@of_somebody
@JSON
@SOCKET
def anomalies(
    sensitivity: Sensitivity,
    grain: Grain | None,
    days: int | None,
    zone: str | None,
    as_json: bool,
    socket: str | None,
    **whose: str | None,
) -> None:
    """Show days, or hours, on which far more was spent than before."""
    with Client(socket) as client:
        found = client.anomalies(sensitivity, grain=grain, days=days, zone=zone, **whose)
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif found:
        table(("at", "severity", "what"), map(_anomaly_row, found))
    else:
        click.echo("nothing out of the ordinary")


@click.command()
@click.option("--days", type=click.IntRange(1, 366), help="From the last so many days.")
@of_somebody
@JSON
@SOCKET
def recommend(days: int | None, as_json: bool, socket: str | None, **whose: str | None) -> None:
    """Show what would cost less, and how much a month."""
    with Client(socket) as client:
        found = client.recommendations(days=days, **whose)
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif found:
        table(("a month", "what", "why"), map(_advice_row, found))
    else:
        click.echo("nothing to recommend: too few calls, or nothing that would save a hundredth")


@click.command()
@click.argument("by", type=click.Choice(get_args(GroupBy)), default="model")
@click.option(
    "--top", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many."
)
@ZONE
@filtered
@JSON
@SOCKET
def breakdown(
    by: GroupBy,
    top: int,
    zone: str | None,
    as_json: bool,
    socket: str | None,
    **records: str | None,
) -> None:
    """Show what was spent BY model, user, feature or day.

    Or by organization, workspace, domain or tier.
    """
    with Client(socket) as client:
        groups = client.breakdown(by, top=top, zone=zone, **records)  # type: ignore[arg-type]
    if as_json:
        click.echo(msgspec.json.encode(groups))
    else:
        table((by, "cost", "saved", "unknown", "calls", "tokens"), map(_group_row, groups))


def _print_forecast(told: Forecast) -> None:
    whose = told.feature or told.model or told.id or "everybody"
    click.echo(f"{plain(whose)}, {told.period} from {told.starts} to before {told.ends}")
    rows = {
        "spent": dollars(round(told.spent, CENTS)),
        "predicted": click.style(dollars(round(told.predicted_cost, CENTS)), bold=True),
        "between": f"{dollars(round(told.lower, CENTS))} and {dollars(round(told.upper, CENTS))}"
        " in 95 of 100 cases",
    }
    if told.budget_limit is not None:
        risk = click.style(f"{told.risk_score:.0%}", fg="red" if told.risk_score >= SURE else None)
        rows["budget"] = f"{dollars(told.budget_limit)}, overrun with a probability of {risk}"
        words = MEANINGS.get(told.recommendation, told.recommendation)
        rows["advice"] = click.style(words, fg=COLOURS.get(told.recommendation))
    for name, value in rows.items():
        click.echo(f"  {name:<11} {value}")
    if not told.firm:
        click.echo(f"  not firm: {told.history_days} whole days of history, and 7 are needed")
    _plot(told)


def _plot(told: Forecast) -> None:
    """On a terminal: whole days that were, and those to come."""
    from rich.console import Console

    console = Console(force_terminal=colour(os.environ))
    history = [float(one.cost) for one in told.history[-SHOWN_DAYS:]]
    coming = [float(one.expected) for one in told.days]
    if not console.is_terminal or not history:
        return
    most = max((*history, *coming))
    lines = zip(columns(history, most), columns(coming, most), strict=True)
    for row, (was, will_be) in enumerate(lines):
        mark = f"{most:>10,.2f} ┤" if row == 0 else f"{'':>10} │"
        click.echo(mark + click.style(was, fg="blue") + "│" + click.style(will_be, fg="cyan"))
    first = told.history[-len(history)].day
    click.echo(f"{'':>12}{first}{'today':>{max(len(history) - len(first), 6)}}")


def _anomaly_row(one: Anomaly) -> tuple[str, ...]:
    return (one.timestamp, one.severity, one.description)


def _advice_row(one: Recommendation) -> tuple[str, ...]:
    return (dollars(round(one.at_stake, CENTS)), one.kind, one.description)


def _group_row(one: Group) -> tuple[str, ...]:
    tokens = one.input_tokens + one.output_tokens
    money = map(dollars, (one.cost, one.cost_saved, one.unknown_cost))
    return (one.name, *money, f"{one.requests:,}", f"{tokens:,}")
