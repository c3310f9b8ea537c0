"""`cascaded cache`: answers that are kept and given again."""

import click
import msgspec

from cascaded.cli.exits import Exit
from cascaded.cli.show import JSON, MIB, SOCKET, table
from cascaded.client import Client
from cascaded.client.results import CacheInfo


@click.group()
def cache() -> None:
    """Look after the answers that are kept and given again. For administrators."""


@cache.command()
@JSON
@SOCKET
def show(as_json: bool, socket: str | None) -> None:
    """Show what the cache holds, and what it did since the daemon started."""
    with Client(socket) as client:
        told = client.cache()
    if as_json:
        click.echo(msgspec.json.encode(told))
    else:
        table(("what", "how much"), _rows(told))


@cache.command()
@click.option("--organization", metavar="ID", help="Only the answers of this organisation.")
@click.option("--user", metavar="ID", help="Only those of this user, who belongs to none.")
@click.option("--model", metavar="NAME", help="Only those that this model gave.")
@JSON
@SOCKET
def clear(
    organization: str | None,
    user: str | None,
    model: str | None,
    as_json: bool,
    socket: str | None,
) -> None:
    """Forget kept answers, all of them unless an option says which."""
    with Client(socket) as client:
        told = client.clear_cache(organization=organization, user_id=user, model=model)
    click.echo(msgspec.json.encode(told) if as_json else f"forgotten: {told.cleared:,}")


@cache.command()
@JSON
@SOCKET
def verify(as_json: bool, socket: str | None) -> None:
    """Read every kept answer, and forget what is damaged. Ends with 1 if anything was."""
    with Client(socket) as client:
        told = client.verify_cache()
    if as_json:
        click.echo(msgspec.json.encode(told))
    else:
        click.echo(f"{told.checked:,} answers read, {told.damaged:,} were damaged and are gone")
    if told.damaged:
        raise click.exceptions.Exit(Exit.FAULT)


def _rows(told: CacheInfo) -> list[tuple[str, str]]:
    asked = told.hits + told.misses
    share = f" ({told.hits / asked:.0%} of {asked:,})" if asked else ""
    return [
        ("kept", "on the disk" if told.on_disk else "in memory"),
        ("enabled", "yes" if told.enabled else "no"),
        ("given again for", f"{told.ttl_s:,} s"),
        ("answers", f"{told.entries:,}"),
        ("room", f"{told.bytes / MIB:,.1f} MiB"),
        ("of it in memory", f"{told.memory_bytes / MIB:,.1f} MiB"),
        ("hits", f"{told.hits:,}{share}"),
        ("of them shared with a call under way", f"{told.shared:,}"),
        ("stored", f"{told.stored:,}"),
        ("gone for want of room", f"{told.evicted:,}"),
        ("gone of age", f"{told.expired:,}"),
        ("damaged", f"{told.damaged:,}"),
        ("not written to the disk", f"{told.lost:,}"),
    ]
