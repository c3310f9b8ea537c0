"""`cascaded config`: what the configuration says, and what is wrong with it."""

import click

from cascaded.cli.serve import EXIT_CONFIG, read_config
from cascaded.config import explain


@click.group()
def config() -> None:
    """Check the configuration, or show the effective one."""


FILE = click.argument("file", required=False, envvar="CASCADED_CONFIG")


@config.command()
@FILE
def check(file: str | None) -> None:
    """Explain every mistake in FILE, with its line. Ends with 78 when there are any."""
    from cascaded.daemon import StartError
    from cascaded.daemon import check as check_models

    try:
        check_models(read_config(file, search=True))
    except StartError as error:
        click.echo(str(error), err=True)
        raise click.exceptions.Exit(EXIT_CONFIG) from None
    click.echo("no mistakes")


@config.command()
@FILE
def show(file: str | None) -> None:
    """Print the effective configuration, defaults included, secrets hidden."""
    click.echo(explain(read_config(file, search=True)), nl=False)
