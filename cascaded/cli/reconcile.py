"""`cascaded reconcile`: the ledger beside what a provider bills."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import click
import msgspec

from cascaded.cli.exits import Exit
from cascaded.cli.show import JSON, SOCKET, dollars, table
from cascaded.client import Client
from cascaded.client.errors import APIError
from cascaded.client.insight import UsageAttempt, UsageRow
from cascaded.policy.analytics.bills import Key, Tolerance, compared, covered, resolutions
from cascaded.types.invoices import Cell, Difference, InvoiceLine, Resolution, UnknownCall
from cascaded.types.money import MoneyError, parse_usd, to_usd
from cascaded.types.records import ADJUSTED
from cascaded.wire.exports import nano_usd_of
from cascaded.wire.invoices import read_invoice
from cascaded.wire.openai_chat import WireError

MAX_BYTES = 256 * 1024 * 1024
CENT = "0.01"
PERCENT = 100
COLUMNS = ("day", "model", "ledger", "unknown", "invoice", "off", "why")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    since: date
    until: date
    """The last day."""
    tolerance_percent: float
    tolerance_usd: Decimal
    ledger: Decimal
    unknown: Decimal
    invoice: Decimal
    differences: tuple[dict[str, object], ...]
    resolutions: tuple[dict[str, object], ...]
    resolved: int
    """Of these; without --resolve none."""


@click.command()
@click.argument("invoice", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--provider", metavar="NAME", help="Only calls of this provider, as configured.")
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="THEIRS=OURS",
    help="A model that has another name on the invoice; repeatable.",
)
@click.option(
    "--percent",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="What may differ.",
)
@click.option("--amount", metavar="USD", default=CENT, show_default=True, help="Besides.")
@click.option("--resolve", is_flag=True, help="Settle unknowns by it; without this only shown.")
@click.option("--all", "every", is_flag=True, help="Show what matches, too.")
@JSON
@SOCKET
def reconcile(
    invoice: Path,
    provider: str | None,
    aliases: tuple[str, ...],
    percent: float,
    amount: str,
    resolve: bool,
    every: bool,
    as_json: bool,
    socket: str | None,
) -> None:
    """Compare INVOICE with the ledger.

    Model by model and day by day; for administrators.

    INVOICE is a usage or cost report of OpenAI or Anthropic (JSON of their API, CSV of their
    console), or a CSV with the columns date, model, cost. Amounts match that differ by no more than
    --percent and --amount together. Ends with 3 where something does not match.
    """
    lines = _read(invoice)
    names = _aliases(aliases)
    try:
        tolerance = Tolerance(percent / PERCENT, parse_usd(amount))
    except MoneyError as error:
        raise click.BadParameter(str(error), param_hint="--amount") from None
    first, last = covered(lines)
    with Client(socket) as client:
        cells = _cells(client, first, last, provider)
        rows = compared(cells, lines, names, tolerance)
        plan = resolutions(cells, lines, names)
        resolved = sum(_settled(client, one) for one in plan) if resolve else 0
    found = Found(
        since=first,
        until=last,
        tolerance_percent=percent,
        tolerance_usd=Decimal(amount),
        ledger=to_usd(sum(row.billed for row in rows)),
        unknown=to_usd(sum(row.unknown for row in rows)),
        invoice=to_usd(sum(row.invoice or 0 for row in rows)),
        differences=tuple(_row(row) for row in rows if every or not row.matches),
        resolutions=tuple(_resolution_row(one) for one in plan),
        resolved=resolved,
    )
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        _print(found, [row for row in rows if every or not row.matches or row.explanation], plan)
    if not all(row.matches for row in rows):
        raise click.exceptions.Exit(Exit.NO)


def _read(path: Path) -> list[InvoiceLine]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise click.ClickException(f"{path} is larger than {MAX_BYTES} bytes: give fewer days")
        return read_invoice(path.read_bytes())
    except WireError as error:
        raise click.ClickException(f"{path}: {error}") from None


def _aliases(given: tuple[str, ...]) -> dict[str, str]:
    pairs = [one.partition("=") for one in given]
    for theirs, mark, ours in pairs:
        if not (theirs and mark and ours):
            raise click.BadParameter("an alias is THEIRS=OURS, such as GPT-4o=gpt-4o")
    return {theirs: ours for theirs, _, ours in pairs}


def _cells(client: Client, first: date, last: date, provider: str | None) -> dict[Key, Cell]:
    """What the ledger has of these days, by day and model; imported history is another ledger's."""
    cells: dict[Key, Cell] = {}
    unknown: dict[int, list[tuple[Cell, UnknownCall]]] = {}
    until = (last + timedelta(days=1)).isoformat()
    with client.export(since=first.isoformat(), until=until, imported=False) as export:
        for row in export.rows():
            day = datetime.fromisoformat(row.at[:19]).date()
            for attempt in row.attempts:
                if provider is None or attempt.provider == provider:
                    cell = cells.setdefault((day, attempt.model), Cell())
                    _count(cell, row, attempt, unknown)
            if row.status == ADJUSTED and row.hold is not None:
                _settle(unknown.pop(row.hold, []))
    return cells


def _count(
    cell: Cell,
    row: UsageRow,
    attempt: UsageAttempt,
    unknown: dict[int, list[tuple[Cell, UnknownCall]]],
) -> None:
    nano_usd = nano_usd_of(attempt.cost)
    cell.requests += int(row.status != ADJUSTED)
    cell.input_tokens += attempt.input_tokens
    cell.output_tokens += attempt.output_tokens
    if attempt.billing != "unknown" or row.hold is None:
        cell.billed += nano_usd
        return
    call = UnknownCall(row.hold, row.request_id, nano_usd)
    cell.unknown += nano_usd
    cell.calls.append(call)
    unknown.setdefault(row.hold, []).append((cell, call))


def _settle(calls: list[tuple[Cell, UnknownCall]]) -> None:
    """A later record has told what these cost: it has the difference."""
    for cell, call in calls:
        cell.unknown -= call.nano_usd
        cell.billed += call.nano_usd
        cell.calls.remove(call)


def _settled(client: Client, one: Resolution) -> bool:
    """Whether it was settled; somebody may have been faster."""
    try:
        client.resolve(one.hold, to_usd(one.nano_usd))
    except APIError as error:
        click.echo(f"hold {one.hold}: {error}", err=True)
        return False
    return True


def _print(found: Found, rows: list[Difference], plan: list[Resolution]) -> None:
    click.echo(
        f"{found.since} to {found.until}: ledger {dollars(found.ledger)} and"
        f" {dollars(found.unknown)} unknown, invoice {dollars(found.invoice)}; alike within"
        f" {found.tolerance_percent:g}% and {dollars(found.tolerance_usd)}"
    )
    if rows:
        table(COLUMNS, map(_shown, rows))
    else:
        click.echo("every model on every day matches")
    if plan:
        table(
            ("hold", "request", "charged", "really", "how"),
            (
                (
                    str(one.hold),
                    one.request_id,
                    dollars(to_usd(one.charged)),
                    dollars(to_usd(one.nano_usd)),
                    one.how,
                )
                for one in plan
            ),
        )
        done = f"{found.resolved} of {len(plan)} unknowns are settled"
        click.echo(done if found.resolved else "--resolve settles these unknowns so")


def _shown(row: Difference) -> tuple[str, ...]:
    money = map(dollars, map(to_usd, (row.billed, row.unknown)))
    invoice = "tokens" if row.invoice is None else dollars(to_usd(row.invoice))
    return (str(row.day), row.model, *money, invoice, dollars(to_usd(row.off)), row.explanation)


def _row(row: Difference) -> dict[str, object]:
    return {
        "day": row.day,
        "model": row.model,
        "ledger": to_usd(row.billed),
        "unknown": to_usd(row.unknown),
        "invoice": None if row.invoice is None else to_usd(row.invoice),
        "off": to_usd(row.off),
        "matches": row.matches,
        "explanation": row.explanation,
        "ledger_tokens": row.ledger_tokens,
        "invoice_tokens": row.invoice_tokens,
    }


def _resolution_row(one: Resolution) -> dict[str, object]:
    return {
        "hold": one.hold,
        "request_id": one.request_id,
        "charged": to_usd(one.charged),
        "cost": to_usd(one.nano_usd),
        "how": one.how,
    }
