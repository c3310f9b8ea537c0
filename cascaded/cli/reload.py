"""`cascaded reload`: another configuration for the running daemon."""

import click
import msgspec

from cascaded.cli.exits import Exit
from cascaded.cli.show import JSON, SOCKET, plain
from cascaded.client import APIError, Client

INVALID = "config_invalid"


@click.command()
@JSON
@SOCKET
def reload(as_json: bool, socket: str | None) -> None:
    """Have the daemon read its configuration again: all, or nothing.

    Ends with 78, and every mistake, when the old one was kept. For administrators.
    """
    try:
        with Client(socket) as client:
            reloaded = client.reload()
    except APIError as error:
        mistakes = error.details.get("mistakes")
        if error.code != INVALID or not isinstance(mistakes, list):
            raise
        for mistake in mistakes:
            click.echo(plain(str(mistake)), err=True)
        click.echo("The old configuration is still in force.", err=True)
        raise click.exceptions.Exit(Exit.CONFIG) from None
    if as_json:
        click.echo(msgspec.json.encode(reloaded))
    else:
        click.echo("changed: " + (", ".join(reloaded.changed) or "nothing"))
