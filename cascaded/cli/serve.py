"""`cascaded serve`: the daemon itself, in the foreground."""

import os
from pathlib import Path

import click
from msgspec.structs import replace

from cascaded.config import Config, load
from cascaded.types.places import config_path

EXIT_CONFIG = 78
"""`EX_CONFIG` of sysexits.h: restarting will not help."""


@click.command()
@click.option("--config", "-c", metavar="FILE", envvar="CASCADED_CONFIG", help="The TOML file.")
@click.option("--zero-config", is_flag=True, help="Use the defaults, whatever file there is.")
@click.option("--socket", metavar="PATH", help="Listen here instead of where the config says.")
@click.option("--state", metavar="DIR", help="Keep the ledger here instead.")
def serve(config: str | None, zero_config: bool, socket: str | None, state: str | None) -> None:
    """Run the daemon until it is told to stop (SIGTERM, Ctrl-C)."""
    from cascaded.daemon import StartError
    from cascaded.daemon import serve as run

    loaded = read_config(None if zero_config else config, search=not zero_config)
    if socket is not None:
        server = replace(loaded.server, socket=str(Path(socket).absolute()))
        loaded = replace(loaded, server=server)
    if state is not None:
        loaded = replace(loaded, ledger=replace(loaded.ledger, dir=str(Path(state).absolute())))
    try:
        run(loaded)
    except StartError as error:
        raise click.ClickException(str(error)) from None


def read_config(path: str | None, *, search: bool) -> Config:
    """The config of the file named, else of the usual place, else of no file at all.

    Prints every mistake and ends the process when there are any.
    """
    if path is None and search:
        usual = config_path(os.environ)
        path = usual if usual and Path(usual).is_file() else None
    try:
        text = Path(path).read_bytes() if path is not None else b""
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from None
    loaded = load(
        text,
        source_name=path or "(no file)",
        env=os.environ,
        read_file=lambda file: file.read_bytes(),
    )
    if isinstance(loaded, Config):
        return loaded
    for mistake in loaded:
        click.echo(str(mistake), err=True)
    raise click.exceptions.Exit(EXIT_CONFIG)
