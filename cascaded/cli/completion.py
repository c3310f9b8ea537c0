"""`cascaded completion`: what the shell may complete."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "cascaded"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completions for SHELL.

    bash: `cascaded completion bash > ~/.local/share/bash-completion/completions/cascaded`;
    zsh: `cascaded completion zsh > "${fpath[1]}/_cascaded"`;
    fish: `cascaded completion fish > ~/.config/fish/completions/cascaded.fish`.
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click knows all of SHELLS
    root = ctx.find_root().command
    click.echo(kind(root, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
