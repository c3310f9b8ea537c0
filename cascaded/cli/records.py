"""`cascaded users summary` and `audit`: what was spent, and what was decided."""

import click
import msgspec

from cascaded.cli.show import JSON, SOCKET, dollars, plain, table
from cascaded.client import Client
from cascaded.client.results import AuditEntry, Share, Summary

DEFAULT_RECORDS = 20
MOST_RECORDS = 1_000


@click.command()
@click.argument("user", required=False)
@JSON
@SOCKET
def summary(user: str | None, as_json: bool, socket: str | None) -> None:
    """Show what USER spent today, this week and this month.

    Without USER it is everybody for administrators, and yourself for others.
    """
    with Client(socket) as client:
        told = client.summary(user)
    if as_json:
        click.echo(msgspec.json.encode(told))
    else:
        _print_summary(told)


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(1, MOST_RECORDS),
    default=DEFAULT_RECORDS,
    show_default=True,
    help="How many, the newest first.",
)
@click.option("--after", metavar="CURSOR", help="Read on where a page before ended.")
@JSON
@SOCKET
def audit(limit: int, after: str | None, as_json: bool, socket: str | None) -> None:
    """Show decisions about money and access, the newest first. For administrators."""
    with Client(socket) as client:
        page = client.audit(limit=limit, after=after)
    if as_json:
        click.echo(msgspec.json.encode(page))
        return
    columns = ("number", "at", "actor", "subject", "outcome", "reason", "user")
    table(columns, map(_audit_row, page.records))
    if page.after is not None:
        click.echo(f"More: --after {page.after}", err=True)


def _print_summary(told: Summary) -> None:
    click.echo("everybody" if told.user_id is None else plain(told.user_id))
    rows = {
        "today": f"{dollars(told.daily_cost)} for {told.requests_today} calls",
        "this week": dollars(told.weekly_cost),
        "this month": f"{dollars(told.monthly_cost)} for {told.requests_this_month} calls",
        "saved": f"{dollars(told.monthly_saved)} this month",
    }
    for name, value in rows.items():
        click.echo(f"  {name:<11} {value}")
    for what, shares in (("model", told.top_models), ("tag", told.top_features)):
        if shares:
            table((what, "this month", "calls"), map(_share_row, shares))


def _share_row(share: Share) -> tuple[str, ...]:
    return (share.name, dollars(share.cost), str(share.requests))


def _audit_row(entry: AuditEntry) -> tuple[str, ...]:
    about = (entry.actor, entry.subject, entry.outcome, entry.reason, entry.user_id or "")
    return (str(entry.sequence), entry.at, *about)
