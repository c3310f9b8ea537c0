"""`cascaded route`: what would become of a question, and why."""

from collections.abc import Iterator

import click
import msgspec

from cascaded.cli.show import JSON, SOCKET, dollars, table
from cascaded.client import Client, Routing
from cascaded.client.calls import Asked


@click.command()
@click.argument("question")
@click.option("--model", default="auto", show_default=True, help="A ladder, an alias or a model.")
@click.option("--domain", help="Say what it is about, instead of having it found out.")
@click.option("--max-tokens", type=int, help="Bound on the answer's length.")
@click.option("--user", metavar="ID", help="On whose behalf; believed if the operator trusts you.")
@JSON
@SOCKET
def route(
    question: str,
    model: str,
    domain: str | None,
    max_tokens: int | None,
    user: str | None,
    as_json: bool,
    socket: str | None,
) -> None:
    """Show how QUESTION would be routed, and why. Asks no model and spends nothing."""
    asked: Asked = {"model": model}
    if domain is not None:
        asked["domain"] = domain
    if max_tokens is not None:
        asked["max_tokens"] = max_tokens
    if user is not None:
        asked["user_id"] = user
    with Client(socket) as client:
        told = client.route(question, **asked)
    if as_json:
        click.echo(msgspec.json.encode(told))
        return
    for line in _about(told):
        click.echo(line)
    table(
        ("model", "provider", "kept from", "fallbacks"),
        (
            (rung.model, rung.provider, f"{rung.threshold:.2f}", ", ".join(rung.fallbacks))
            for rung in told.rungs
        ),
    )


def _about(told: Routing) -> Iterator[str]:
    if told.domain is None:
        yield "domain: nobody looks (`[domains] detect`)"
    else:
        sure = "" if told.domain_confidence is None else f", {told.domain_confidence:.0%} sure"
        also = f"; perhaps {', '.join(told.secondary_domains)}" if told.secondary_domains else ""
        took = "" if told.domain_detection_ms is None else f", {told.domain_detection_ms:.1f} ms"
        yield f"domain: {told.domain} (by {told.domain_layer}{sure}{took}){also}"
    if told.complexity is not None:
        yield f"complexity: {told.complexity}"
    if told.worst_cost is not None:
        yield f"held at most: {dollars(told.worst_cost)} for {told.max_tokens} tokens of answer"
    if told.reason is not None:
        yield f"refused: {told.reason.get('message')}"
    yield from told.notices
    if told.ladder is not None:
        strict = ", strict" if told.strict else ""
        yield f"ladder {told.ladder}{strict}:"
