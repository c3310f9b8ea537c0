"""`cascaded state`: the folder in which everything is remembered."""

from pathlib import Path

import click
import msgspec

from cascaded.cli.serve import read_config
from cascaded.cli.show import CONFIG, JSON, MIB, SOCKET, table
from cascaded.client import Client


@click.group()
def state() -> None:
    """Check the daemon's state, or copy it while the daemon works."""


@state.command()
@click.argument("folder", metavar="[DIR]", required=False)
@CONFIG
@JSON
def verify(folder: str | None, config: str | None, as_json: bool) -> None:
    """Read all of a backup DIR, or of the state of a daemon that is stopped.

    Without DIR it is the state folder of the configuration. Ends with 1 for what is damaged.
    """
    from cascaded.daemon import StartError
    from cascaded.daemon import verify as read_all

    place = Path(folder or str(read_config(config, search=True).ledger.dir))
    try:
        found = read_all(place)
    except StartError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(msgspec.json.encode({"dir": str(place), **found}))
        return
    click.echo(f"{place}: nothing is damaged")
    table(("what", "how many"), ((name, f"{count:,}") for name, count in found.items()))


@state.command()
@click.argument("folder", metavar="DIR")
@JSON
@SOCKET
def backup(folder: str, as_json: bool, socket: str | None) -> None:
    """Copy the state of the running daemon into DIR, which must not be there yet.

    For administrators. What is in it: the ledger, usage records and the audit log; not the
    configuration, its secrets, or models.
    """
    with Client(socket) as client:
        made = client.backup(str(Path(folder).absolute()))
    if as_json:
        click.echo(msgspec.json.encode(made))
        return
    click.echo(made.dir)
    table(("part", "MiB"), ((one.name, f"{one.bytes / MIB:,.1f}") for one in made.contents))
