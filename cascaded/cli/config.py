"""`cascaded config`: what the configuration says, and what is wrong with it."""

import os
from pathlib import Path

import click
import msgspec

from cascaded.cli.exits import Exit
from cascaded.cli.serve import checked, examined, told
from cascaded.cli.show import JSON
from cascaded.config import Loaded, effective, explain, reference, rows, schema
from cascaded.types.environment import Variable
from cascaded.types.places import config_path


@click.group()
def config() -> None:
    """Check the configuration, show what is in force, or begin one."""


FILE = click.argument("file", required=False, envvar=Variable.CONFIG)


@config.command()
@FILE
@JSON
def check(file: str | None, as_json: bool) -> None:
    """Explain every mistake in FILE, with its line. Ends with 78 when there are any.

    Warnings tell what is valid and most likely not meant; they do not count.
    """
    found = checked(file, search=True)
    sound = isinstance(found, Loaded)
    noted = found.warnings if isinstance(found, Loaded) else found
    if as_json:
        click.echo(msgspec.json.encode(noted))
    else:
        told(noted)
        if sound:
            click.echo("no mistakes")
    if not sound:
        raise click.exceptions.Exit(Exit.CONFIG)


@config.command()
@FILE
@click.option("--origin", is_flag=True, help="Tell of each value where it comes from.")
@JSON
def show(file: str | None, origin: bool, as_json: bool) -> None:
    """Print what is in force, defaults included, secrets hidden."""
    found = examined(file, search=True)
    if isinstance(found, list):
        told(found)
        raise click.exceptions.Exit(Exit.CONFIG)
    if not as_json:
        click.echo(explain(found.config, found.origins if origin else None), nl=False)
    elif origin:
        click.echo(msgspec.json.encode(list(rows(found.config, found.origins))))
    else:
        click.echo(msgspec.json.encode(effective(found.config)))


@config.command()
@FILE
@click.option("--preset", type=click.Choice(sorted(schema.PRESETS)), help="What it begins with.")
@JSON
def init(file: str | None, preset: str | None, as_json: bool) -> None:
    """Write a commented FILE to begin with; `-` prints it. What is there is never overwritten.

    Without FILE it is the usual place.
    """
    text = reference.starter(preset)
    name = file or config_path(os.environ)
    if name == "-":
        click.echo(text, nl=False)
        return
    if name is None:
        raise click.UsageError("there is no usual place here: name a file")
    path = Path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as begun:
            begun.write(text)
    except FileExistsError:
        raise click.ClickException(f"{path} is there already; it was left alone") from None
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
    click.echo(msgspec.json.encode({"path": str(path)}) if as_json else path)
