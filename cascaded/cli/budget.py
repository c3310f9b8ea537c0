"""`cascaded check`, `budget` and `unknowns`: what may be spent, what was, and what nobody knows."""

import sys

import click
import msgspec

from cascaded.cli.exits import Exit
from cascaded.cli.show import JSON, SOCKET, dollars, table
from cascaded.cli.terms import set_limits, unset_limits
from cascaded.client import Client
from cascaded.client.calls import Asked
from cascaded.client.results import Budget, Check, LimitInfo, UnresolvedHold

BUDGET_COLUMNS = ("scope", "id", "window", "spent", "held", "unknown", "limit", "left", "resets")
COUNTERS_SHOWN = 12
"""Of those that a crash was charged to, the largest."""


@click.command()
@click.argument("question", required=False)
@click.option("--cost", metavar="USD", help="Check an amount instead of a question.")
@click.option("--model", default="auto", show_default=True, help="A ladder, an alias or a model.")
@click.option("--max-tokens", type=int, help="Bound on the answer's length.")
@click.option("--user", metavar="ID", help="On whose behalf; believed if the operator trusts you.")
@JSON
@SOCKET
def check(
    question: str | None,
    cost: str | None,
    model: str,
    max_tokens: int | None,
    user: str | None,
    as_json: bool,
    socket: str | None,
) -> None:
    """What would happen to QUESTION, or a call of that --cost. Spends nothing.

    Ends with 3 when it would be refused.
    """
    if (question is None) == (cost is None):
        raise click.UsageError("give either a question or --cost")
    asked: Asked = {} if user is None else {"user_id": user}
    if question is not None:
        asked["model"] = model
        if max_tokens is not None:
            asked["max_tokens"] = max_tokens
    with Client(socket) as client:
        told = client.check(question, cost=cost, **asked)
    if as_json:
        click.echo(msgspec.json.encode(told))
    else:
        _print_check(told)
    if not told.allowed:
        sys.exit(Exit.NO)


@click.group(invoke_without_command=True)
@click.option("--scope", help="Only budgets of this kind: user, organization, tier …")
@click.option("--id", "wanted", metavar="ID", help="Only this one's.")
@JSON
@SOCKET
@click.pass_context
def budget(
    ctx: click.Context, scope: str | None, wanted: str | None, as_json: bool, socket: str | None
) -> None:
    """Show how budgets stand: what was spent, is held, and is left. Or set them."""
    if ctx.invoked_subcommand is not None:
        return
    with Client(socket) as client:
        budgets = client.budgets(scope, wanted)
    if as_json:
        click.echo(msgspec.json.encode(budgets))
        return
    table(BUDGET_COLUMNS, map(budget_row, budgets))


budget.add_command(set_limits)
budget.add_command(unset_limits)


@click.group()
def unknowns() -> None:
    """Money that is charged although nobody knows the bill."""


@unknowns.command("list")
@JSON
@SOCKET
def list_unknowns(as_json: bool, socket: str | None) -> None:
    """Show open holds, and those whose bill is unknown."""
    with Client(socket) as client:
        holds = client.unknowns()
    if as_json:
        click.echo(msgspec.json.encode(holds))
        return
    table(
        ("hold", "state", "held", "unknown", "since", "user", "request"),
        [
            (
                str(one.hold),
                "crash" if one.lost else one.state,
                dollars(one.held),
                dollars(one.unknown),
                one.at or "",
                one.user_id or "",
                one.request_id or "",
            )
            for one in holds
        ],
    )
    for one in holds:
        if one.lost:
            _print_crash(one)


def _print_crash(lost: UnresolvedHold) -> None:
    """What a crash's charge is, and how one is rid of it."""
    click.echo(
        f"\n{lost.hold} is no call but a crash: calls of its last moments that are in no record may"
        f" have cost {dollars(lost.unknown)}, mostly nothing.\nWhat the provider billed then and"
        " nothing here explains is what was lost. With that sum, or 0:\n"
        f"  cascaded unknowns resolve {lost.hold} USD    (--of user ID USD: whose it was)\n"
        "Until then it is charged to:"
    )
    table(
        ("budget", "unknown"),
        [
            (f"{one.scope} {one.id} {one.window}", dollars(one.unknown))
            for one in lost.counters[:COUNTERS_SHOWN]
        ],
    )
    if len(lost.counters) > COUNTERS_SHOWN:
        click.echo("and others (--json)")


@unknowns.command("resolve")
@click.argument("hold", type=int)
@click.argument("cost", metavar="USD")
@click.option(
    "--of",
    "shares",
    type=(str, str, str),
    metavar="SCOPE ID USD",
    multiple=True,
    help="Of what a crash lost: what one scope's calls cost. May be given again.",
)
@JSON
@SOCKET
def resolve_unknown(
    hold: int,
    cost: str,
    shares: tuple[tuple[str, str, str], ...],
    as_json: bool,
    socket: str | None,
) -> None:
    """Say what HOLD really cost, from the provider's bill.

    Of a crash's charge everything above that goes back, on every budget it was charged to.
    """
    with Client(socket) as client:
        receipt = client.resolve(hold, cost, {(scope, id): usd for scope, id, usd in shares})
    told = f"hold {receipt.hold}: {dollars(receipt.posted)} posted"
    click.echo(msgspec.json.encode(receipt) if as_json else told)


def _print_check(told: Check) -> None:
    if told.allowed:
        models = ", ".join(told.models) or "this amount"
        worst = "" if told.worst_cost is None else f", at most {dollars(told.worst_cost)}"
        click.echo(f"allowed: {models}{worst}")
    else:
        reason = told.reason or {}
        click.echo(f"refused: {reason.get('message', 'no reason was given')}")
    for notice in told.notices:
        click.echo(f"note: {notice}")
    if told.limits:
        rows = [_limit_row(one) for one in told.limits]
        table(("limit", "of", "used", "limit", "left", "fits", "resets"), rows)


def _limit_row(one: LimitInfo) -> tuple[str, ...]:
    if one.kind == "budget":
        what, show = f"{one.window} budget", dollars
    else:
        what, show = f"{one.unit} in {one.window_s:g} s", "{:,}".format
    limit = "none" if one.limit is None else show(one.limit)
    left = "" if one.remaining is None else show(one.remaining)
    fits = "yes" if one.fits else "no"
    return (what, f"{one.scope} {one.id}", show(one.used), limit, left, fits, one.resets_at or "")


def budget_row(one: Budget) -> tuple[str, ...]:
    """A budget under `BUDGET_COLUMNS`."""
    limit = "none" if one.limit is None else dollars(one.limit)
    left = "" if one.remaining is None else dollars(one.remaining)
    spent, held, unknown = dollars(one.posted), dollars(one.held), dollars(one.unknown)
    window = one.window + (" (degraded)" if one.degraded else "")
    return (one.scope, one.id, window, spent, held, unknown, limit, left, one.resets_at or "never")
