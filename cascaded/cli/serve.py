"""`cascaded serve`: the daemon itself, in the foreground."""

import os
from functools import partial
from pathlib import Path

import click
from msgspec.structs import replace

from cascaded.cli.exits import Exit
from cascaded.cli.show import CONFIG
from cascaded.config import Config, Loaded, Mistake, examine
from cascaded.types.places import config_path


@click.command()
@CONFIG
@click.option("--zero-config", is_flag=True, help="Use the defaults, whatever file there is.")
@click.option("--socket", metavar="PATH", help="Listen here instead of where the config says.")
@click.option("--state", metavar="DIR", help="Keep the ledger here instead.")
def serve(config: str | None, zero_config: bool, socket: str | None, state: str | None) -> None:
    """Run the daemon until it is told to stop (SIGTERM, Ctrl-C)."""
    from cascaded.daemon import StartError
    from cascaded.daemon import serve as run

    file, search = (None if zero_config else config), not zero_config
    placed = partial(_placed, socket=_absolute(socket), state=_absolute(state))

    def reread() -> Config | list[str]:
        try:
            found = checked(file, search=search)
        except click.ClickException as error:
            return [error.message]
        return placed(found.config) if isinstance(found, Loaded) else list(map(str, found))

    try:
        run(placed(read_config(file, search=search)), reread)
    except StartError as error:
        raise click.ClickException(str(error)) from None


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _placed(config: Config, *, socket: str | None, state: str | None) -> Config:
    """The command line's word stands above the file's."""
    if socket is not None:
        config = replace(config, server=replace(config.server, socket=socket))
    if state is not None:
        config = replace(config, ledger=replace(config.ledger, dir=state))
    return config


def read_config(path: str | None, *, search: bool) -> Config:
    """The config of the file named, else of the usual place, else of no file at all.

    Prints every mistake and ends the process when there are any.
    """
    found = examined(path, search=search)
    if isinstance(found, Loaded):
        return found.config
    told(found)
    raise click.exceptions.Exit(Exit.CONFIG)


def examined(path: str | None, *, search: bool) -> Loaded | list[Mistake]:
    """What there is to say of that config. Raises `ClickException` for a file that cannot be
    read."""
    if path is None and search:
        usual = config_path(os.environ)
        path = usual if usual and Path(usual).is_file() else None
    try:
        text = Path(path).read_bytes() if path is not None else b""
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from None
    return examine(
        text,
        file=Path(path) if path is not None else None,
        env=os.environ,
        read_file=Path.read_bytes,
        mode_of=lambda file: file.stat().st_mode,
    )


def checked(path: str | None, *, search: bool) -> Loaded | list[Mistake]:
    """`examined`, and whether the price catalogue knows the models."""
    from cascaded.daemon import faults

    found = examined(path, search=search)
    if not isinstance(found, Loaded):
        return found
    wrong = [found.mistake(fault.path, fault.message) for fault in faults(found.config)]
    return [*found.warnings, *wrong] if wrong else found


def told(mistakes: list[Mistake]) -> None:
    """Print mistakes, one a line."""
    for mistake in mistakes:
        click.echo(str(mistake), err=True)
