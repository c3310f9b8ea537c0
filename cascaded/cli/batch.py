"""`cascaded batch`: many queries at once."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import click
import msgspec

from cascaded.cli.exits import Exit
from cascaded.cli.show import JSON, SOCKET, dollars, table
from cascaded.client import BatchInfo, BatchResult, Client
from cascaded.client.calls import Asked, BatchQuery
from cascaded.types.batch import MAX_SIDE_BY_SIDE, BatchConfig

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

JSON_ENDINGS = (".jsonl", ".ndjson")
COLUMNS = ("id", "state", "answered", "failed", "of", "cost", "created", "ended")


@click.group()
def batch() -> None:
    """Ask many queries at once. Batches outlive a restart."""


@batch.command()
@click.argument("name", metavar="FILE")
@click.option("--model", default="auto", show_default=True, help="A ladder, an alias or a model.")
@click.option("--max-tokens", type=int, help="Bound on each answer's length.")
@click.option("--max-cost", metavar="USD", help="The most that each answer may cost.")
@click.option(
    "--parallel",
    type=click.IntRange(1, MAX_SIDE_BY_SIDE),
    default=BatchConfig().max_parallel,
    show_default=True,
    help="How many queries are under way at once.",
)
@click.option("--within", "seconds", type=float, help="Seconds that all may take.")
@click.option("--stop-on-error", is_flag=True, help="End at the first error.")
@click.option("--detach", is_flag=True, help="Print the batch's id, and do not wait.")
@JSON
@SOCKET
def run(
    name: str,
    model: str,
    max_tokens: int | None,
    max_cost: str | None,
    parallel: int,
    seconds: float | None,
    stop_on_error: bool,
    detach: bool,
    as_json: bool,
    socket: str | None,
) -> None:
    """Ask the queries of FILE and print their answers.

    There is one a line, and the answers are in their order. In a file called .jsonl each line is
    JSON: a text, a list of messages, or a body of /infer. In any other, and from - (what is piped
    in), each line is a question. Ends with 1 if any failed.
    """
    with _opened(name) as file:
        queries = list(_queries(name, file))
    if not queries:
        raise click.UsageError(f"{name} has no queries: give one a line")
    asked: Asked = {"model": model}
    if max_tokens is not None:
        asked["max_tokens"] = max_tokens
    if max_cost is not None:
        asked["max_cost"] = max_cost
    config = BatchConfig(
        max_parallel=parallel,
        stop_on_error=stop_on_error,
        total_timeout=seconds or _usual_s(len(queries), parallel),
    )
    with Client(socket) as client:
        begun = client.start_batch(queries, config, **asked)
        if detach:
            click.echo(msgspec.json.encode(begun) if as_json else begun.id)
            return
        ended = _waited(client, begun)
    _print_result(ended, as_json=as_json)


@batch.command()
@click.argument("id")
@click.option("--wait", is_flag=True, help="Wait for its end.")
@JSON
@SOCKET
def status(id: str, wait: bool, as_json: bool, socket: str | None) -> None:
    """Show how the batch ID stands."""
    with Client(socket) as client:
        told = client.batch_info(id)
        if wait:
            told = _waited(client, told)
    _print(told, as_json=as_json)


@batch.command("list")
@JSON
@SOCKET
def list_batches(as_json: bool, socket: str | None) -> None:
    """Show your batches, the newest first."""
    found: list[BatchInfo] = []
    with Client(socket) as client:
        page = client.batches()
        found += page.batches
        while page.after is not None:
            page = client.batches(after=page.after)
            found += page.batches
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        table(COLUMNS, map(_row, found))


@batch.command()
@click.argument("id")
@JSON
@SOCKET
def cancel(id: str, as_json: bool, socket: str | None) -> None:
    """End the batch ID early.

    No further query is asked; those under way are finished.
    """
    with Client(socket) as client:
        _print(client.cancel_batch(id), as_json=as_json)


@batch.command()
@click.argument("id")
@JSON
@SOCKET
def results(id: str, as_json: bool, socket: str | None) -> None:
    """Print the answers of the batch ID, once it has ended. Ends with 1 if any query failed."""
    with Client(socket) as client:
        told = client.batch_info(id)
    if told.result is None:
        raise click.UsageError(f"batch {id} is {told.state}: there are no results to show")
    _print_result(told, as_json=as_json)


def _opened(name: str) -> IO[bytes]:
    try:
        return click.open_file(name, "rb")
    except OSError as error:
        raise click.UsageError(f"{name}: {error.strerror}") from None


def _queries(name: str, file: IO[bytes]) -> Iterator[BatchQuery]:
    """The queries of a file, in the order of its lines."""
    as_json = name.endswith(JSON_ENDINGS)
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield msgspec.json.decode(line) if as_json else line.strip().decode()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise click.UsageError(f"{name}, line {number}: {error}") from None


def _usual_s(queries: int, parallel: int) -> float:
    """The time of so many queries, if each took all that it may."""
    return BatchConfig().timeout_per_query * -(-queries // parallel)


def _waited(client: Client, batch: BatchInfo) -> BatchInfo:
    """Wait for its end, and show meanwhile how far it is; then with its result."""
    with _bar(batch.total) as bar:
        for now in client.watch_batch(batch.id):
            bar.update(now.completed + now.failed - bar.pos)
    return client.batch_info(batch.id)


@contextmanager
def _bar(total: int) -> "Iterator[ProgressBar[int]]":
    """A progress bar, where somebody may see it."""
    hidden = not sys.stderr.isatty()
    with click.progressbar(
        length=total, label="queries", show_pos=True, file=sys.stderr, hidden=hidden
    ) as bar:
        yield bar


def _print(told: BatchInfo, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(told))
    else:
        table(COLUMNS, [_row(told)])


def _print_result(told: BatchInfo, *, as_json: bool) -> None:
    result = told.result
    assert result is not None  # it has ended
    if as_json:
        click.echo(msgspec.json.encode(told))
    else:
        _print_answers(result)
        cost = "" if result.total_cost is None else f"  {dollars(result.total_cost)}"
        click.echo(
            f"{told.id}: {told.state}, {result.success_count} answered,"
            f" {result.failure_count} failed{cost}  {result.total_time:.1f} s",
            err=True,
        )
    if result.failure_count:
        raise click.exceptions.Exit(Exit.FAULT)


def _print_answers(result: BatchResult) -> None:
    failed = {error.index: error for error in result.errors}
    for index, answer in enumerate(result.results):
        if answer is not None:
            click.echo(answer.content)
        elif index in failed:
            click.echo(f"query {index + 1}: {failed[index].message}", err=True)


def _row(one: BatchInfo) -> tuple[str, ...]:
    return (
        one.id,
        one.state,
        str(one.completed),
        str(one.failed),
        str(one.total),
        "" if one.cost is None else dollars(one.cost),
        one.created_at or "",
        one.ended_at or "",
    )
