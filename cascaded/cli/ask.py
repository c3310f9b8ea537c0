"""`cascaded ask`: one question to the running daemon."""

import sys

import click
import msgspec

from cascaded.cli.show import JSON, SOCKET, footer
from cascaded.client import CascadeStreamChunk, Client
from cascaded.client.calls import Asked


@click.command()
@click.argument("question", required=False)
@click.option("--model", default="auto", show_default=True, help="A ladder, an alias or a model.")
@click.option("--max-tokens", type=int, help="Bound on the answer's length.")
@click.option("--max-cost", metavar="USD", help="The most that the answer may cost.")
@click.option("--stream", is_flag=True, help="Print the answer as it comes.")
@JSON
@SOCKET
def ask(
    question: str | None,
    model: str,
    max_tokens: int | None,
    max_cost: str | None,
    stream: bool,
    as_json: bool,
    socket: str | None,
) -> None:
    """Ask QUESTION, or what is piped in, and print the answer."""
    question = _text(question)
    if not question.strip():
        raise click.UsageError("there is no question: give one, or pipe it in")
    asked: Asked = {"model": model}
    if max_tokens is not None:
        asked["max_tokens"] = max_tokens
    if max_cost is not None:
        asked["max_cost"] = max_cost
    with Client(socket) as client:
        if stream and not as_json:
            _print_stream(client, question, asked)
            return
        result = client.run(question, **asked)
    if as_json:
        click.echo(msgspec.json.encode(result))
    else:
        click.echo(result.content)
        click.echo(footer(result.metadata), err=True)


def _text(question: str | None) -> str:
    """The question, of which every character must be one."""
    try:
        text = question or sys.stdin.read()
        text.encode()
    except UnicodeError:
        raise click.UsageError("the question is not text in UTF-8") from None
    return text


def _print_stream(client: Client, question: str, asked: Asked) -> None:
    last = CascadeStreamChunk()
    for chunk in client.stream(question, **asked):
        click.echo(chunk.content, nl=False)
        last = chunk
    click.echo()
    if last.metadata is not None:
        click.echo(footer(last.metadata), err=True)
