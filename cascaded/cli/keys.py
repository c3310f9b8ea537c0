"""`cascaded keys`: API keys that the daemon issues."""

import click
import msgspec

from cascaded.cli.show import JSON, SOCKET, table
from cascaded.client import Client
from cascaded.client.results import KeyInfo

DAY_S = 86_400
COLUMNS = ("id", "key", "name", "state", "user", "tier", "admin", "last used", "expires")


@click.group()
def keys() -> None:
    """API keys that this daemon issues. For administrators."""


@keys.command()
@click.argument("name")
@click.option("--user", metavar="ID", help="Whose calls it makes. By default its own.")
@click.option("--tier", metavar="NAME", help="The tier of these calls.")
@click.option("--organization", metavar="ID", help="To which organisation they are charged.")
@click.option("--workspace", metavar="ID", help="To which workspace they are charged.")
@click.option("--admin", is_flag=True, help="It may administer.")
@click.option("--days", type=click.IntRange(min=1), help="It expires after so many days.")
@JSON
@SOCKET
def issue(
    name: str,
    user: str | None,
    tier: str | None,
    organization: str | None,
    workspace: str | None,
    admin: bool,
    days: int | None,
    as_json: bool,
    socket: str | None,
) -> None:
    """Issue a key called NAME, and print it: it is not shown again."""
    with Client(socket) as client:
        made = client.issue_key(
            name,
            user_id=user,
            tier=tier,
            organization_id=organization,
            workspace_id=workspace,
            admin=admin,
            expires_in_s=None if days is None else days * DAY_S,
        )
    if as_json:
        click.echo(msgspec.json.encode(made))
        return
    click.echo(made.key)
    click.echo(f"key {made.id}: keep it now, it is not shown again", err=True)


@keys.command("list")
@click.option("--user", metavar="ID", help="Only those of this user.")
@JSON
@SOCKET
def list_keys(user: str | None, as_json: bool, socket: str | None) -> None:
    """Show the keys that were issued, without their secrets."""
    found: list[KeyInfo] = []
    with Client(socket) as client:
        after: str | None = ""
        while after is not None:
            page = client.keys(user, after=after)
            found += page.keys
            after = page.after
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    table(COLUMNS, map(_row, found))


@keys.command()
@click.argument("id")
@JSON
@SOCKET
def revoke(id: str, as_json: bool, socket: str | None) -> None:
    """Take the key ID back: from now on it opens nothing."""
    with Client(socket) as client:
        gone = client.revoke_key(id)
    told = f"key {gone.id} ({gone.name}) is revoked"
    click.echo(msgspec.json.encode(gone) if as_json else told)


def _row(one: KeyInfo) -> tuple[str, ...]:
    return (
        one.id,
        one.hint,
        one.name,
        one.state,
        one.user_id or "",
        one.tier or "",
        "yes" if one.admin else "no",
        one.last_used_at or "never",
        one.expires_at or "never",
    )
