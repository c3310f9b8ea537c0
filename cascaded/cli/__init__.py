"""The command line. It speaks to the daemon only through the client."""

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version

import click

from cascaded.cli.exits import Exit
from cascaded.cli.show import colour
from cascaded.client.errors import CascadedError

COMMANDS = {
    "serve": "cascaded.cli.serve:serve",
    "demo": "cascaded.cli.demo:demo",
    "ask": "cascaded.cli.ask:ask",
    "batch": "cascaded.cli.batch:batch",
    "status": "cascaded.cli.status:status",
    "check": "cascaded.cli.budget:check",
    "route": "cascaded.cli.route:route",
    "budget": "cascaded.cli.budget:budget",
    "unknowns": "cascaded.cli.budget:unknowns",
    "tiers": "cascaded.cli.terms:tiers",
    "keys": "cascaded.cli.keys:keys",
    "users": "cascaded.cli.users:users",
    "audit": "cascaded.cli.records:audit",
    "top": "cascaded.cli.top:top",
    "breakdown": "cascaded.cli.insight:breakdown",
    "forecast": "cascaded.cli.insight:forecast",
    "anomalies": "cascaded.cli.insight:anomalies",
    "recommend": "cascaded.cli.insight:recommend",
    "export": "cascaded.cli.export:export",
    "import": "cascaded.cli.export:import_",
    "reconcile": "cascaded.cli.reconcile:reconcile",
    "reload": "cascaded.cli.reload:reload",
    "state": "cascaded.cli.state:state",
    "cache": "cascaded.cli.cache:cache",
    "models": "cascaded.cli.models:models",
    "quality": "cascaded.cli.quality:quality",
    "config": "cascaded.cli.config:config",
    "doctor": "cascaded.cli.doctor:doctor",
    "completion": "cascaded.cli.completion:completion",
}


class LazyGroup(click.Group):
    """Loads a command when it is named, so that none pays for another's imports."""

    def __init__(self, *args: object, places: Mapping[str, str], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """In the order that a newcomer needs them."""
        return list(self._places)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """The command, loaded now."""
        place = self._places.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=LazyGroup, places=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(version("cascaded"), prog_name="cascaded")
@click.pass_context
def cascaded(ctx: click.Context) -> None:
    """The LLM cost-control sidecar: a cheap model first, a stronger one only when needed."""
    ctx.color = colour(os.environ)


def main() -> None:
    """The entry point: errors are told in a line, with what to do about them."""
    try:
        cascaded.main(standalone_mode=True)
    except CascadedError as error:
        click.echo(f"cascaded: {error}", err=True)
        sys.exit(Exit.REFUSED)
