"""`cascaded users`: who is stored, on which tier and with which limits, and what they spend."""

from decimal import Decimal
from pathlib import Path

import click
import msgspec

from cascaded.cli.exits import Exit
from cascaded.cli.records import summary
from cascaded.cli.show import JSON, SOCKET, dollars, table
from cascaded.client import Client
from cascaded.client.stored import StoredUser
from cascaded.types.profile import (
    BudgetConfig,
    OrganizationConfig,
    UserProfile,
    WorkspaceConfig,
)

MOST_USERS = 1_000
COLUMNS = ("user", "tier", "organization", "workspace", "daily", "monthly", "version")
WINDOWS = ("daily", "weekly", "monthly", "total")


@click.group()
def users() -> None:
    """Users: their profiles, and what they spend."""


users.add_command(summary)


@users.command("list")
@click.option(
    "--limit", type=click.IntRange(1, MOST_USERS), default=100, show_default=True, help="How many."
)
@click.option("--after", metavar="ID", help="Read on where a page before ended.")
@JSON
@SOCKET
def list_users(limit: int, after: str | None, as_json: bool, socket: str | None) -> None:
    """Show users who are stored. For administrators."""
    with Client(socket) as client:
        page = client.users(limit=limit, after=after)
    if as_json:
        click.echo(msgspec.json.encode(page))
        return
    table(COLUMNS, map(_row, page.users))
    if page.after is not None:
        click.echo(f"More: --after {page.after}", err=True)


@users.command()
@click.argument("user")
@JSON
@SOCKET
def show(user: str, as_json: bool, socket: str | None) -> None:
    """Print the profile of USER, and the limits it makes."""
    with Client(socket) as client:
        told = msgspec.json.encode(client.user(user))
    click.echo(told if as_json else msgspec.json.format(told))


@users.command()
@click.argument("user")
@click.option("--tier", metavar="NAME", help="A tier of the configuration.")
@click.option("--organization", metavar="ID", help="To whom the user belongs.")
@click.option("--workspace", metavar="ID", help="Where the user works.")
@click.option("--daily", metavar="USD", help="A budget of the user's own, over the tier's.")
@click.option("--weekly", metavar="USD", help="The same for a week.")
@click.option("--monthly", metavar="USD", help="The same for a month.")
@click.option("--total", metavar="USD", help="The same for good.")
@JSON
@SOCKET
def create(
    user: str,
    tier: str | None,
    organization: str | None,
    workspace: str | None,
    as_json: bool,
    socket: str | None,
    **budgets: str | None,
) -> None:
    """Store USER. More than these options have `users import` and the API. For administrators."""
    own = {window: budgets[window] for window in WINDOWS if budgets[window] is not None}
    plain = {
        "user_id": user,
        "tier": tier,
        "organization": None if organization is None else {"organization_id": organization},
        "workspace": None if workspace is None else {"workspace_id": workspace},
        "budget_overrides": own or None,
    }
    with Client(socket) as client:
        made = client.create_users([_profile(plain)])
    told = f"{user} is stored"
    click.echo(msgspec.json.encode(made) if as_json else told)


@users.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@JSON
@SOCKET
def import_users(file: Path, as_json: bool, socket: str | None) -> None:
    """Store the users of FILE, all or none. For administrators.

    FILE is a JSON list of profiles, or has one profile a line.
    """
    profiles = [_profile(plain, row) for row, plain in enumerate(_read(file))]
    with Client(socket) as client:
        made = client.create_users(profiles)
    click.echo(msgspec.json.encode(made) if as_json else f"{made.created} users are stored")


@users.command("set-tier")
@click.argument("user")
@click.argument("tier")
@JSON
@SOCKET
def set_tier(user: str, tier: str, as_json: bool, socket: str | None) -> None:
    """Move USER to TIER, from the next call on. For administrators."""
    with Client(socket) as client:
        stored = client.set_tier(user, tier)
    click.echo(msgspec.json.encode(stored) if as_json else f"{user} is on tier {tier}")


@users.command()
@click.argument("user")
@JSON
@SOCKET
def delete(user: str, as_json: bool, socket: str | None) -> None:
    """Forget the profile of USER, and print what it was. For administrators.

    What was spent stays in the ledger, and configured limits go on.
    """
    with Client(socket) as client:
        gone = client.delete_user(user)
    shown = msgspec.json.encode(gone)
    click.echo(shown if as_json else msgspec.json.format(shown))


def _read(file: Path) -> list[object]:
    """The plain values of a list, or of lines; amounts exact."""
    decode = msgspec.json.Decoder(float_hook=Decimal)
    text = file.read_bytes().strip()
    try:
        if text.startswith(b"["):
            found = decode.decode(text)
            assert isinstance(found, list)
            return found
        return decode.decode_lines(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        click.echo(f"cascaded: {file} is not JSON: {error}", err=True)
        raise SystemExit(Exit.FAULT) from None


def _profile(plain: object, row: int | None = None) -> UserProfile:
    """Checked here, so that a mistake is told with its place before anything is sent."""
    where = "" if row is None else f"row {row}: "
    if not isinstance(plain, dict):
        raise click.UsageError(f"{where}a profile is a JSON object")
    try:
        return UserProfile.from_dict(plain)
    except ValueError as error:
        raise click.UsageError(f"{where}{error}") from None


def _row(stored: StoredUser) -> tuple[str, ...]:
    user = stored.user
    own = user.budget_overrides or BudgetConfig()
    return (
        user.user_id,
        user.tier or "",
        _id(user.organization),
        _id(user.workspace),
        "" if own.daily is None else dollars(own.daily),
        "" if own.monthly is None else dollars(own.monthly),
        str(stored.version),
    )


def _id(owner: OrganizationConfig | WorkspaceConfig | None) -> str:
    return "" if owner is None else owner.id
