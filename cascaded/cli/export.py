"""`cascaded export`: usage records as a file."""

import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import click
import msgspec

from cascaded.cli.show import JSON, SOCKET, colour
from cascaded.client import Client, history
from cascaded.client.calls import ExportForm
from cascaded.client.exports import Export

FORMS = ("jsonl", "json", "csv", "focus", "sqlite", "parquet")
FILTERS = (
    click.option("--since", metavar="TIME", help="From this day or time on (ISO 8601, UTC)."),
    click.option("--until", metavar="TIME", help="Up to this one, without it."),
    click.option("--user", "user_id", metavar="ID", help="Only this user's."),
    click.option("--organization", "organization_id", metavar="ID", help="Only this one's."),
    click.option("--workspace", "workspace_id", metavar="ID", help="Only this one's."),
    click.option("--team", "team_id", metavar="ID", help="Only this one's."),
    click.option("--tier", metavar="NAME", help="Only this tier's."),
    click.option("--model", metavar="NAME", help="Only calls that asked for it, or tried it."),
    click.option("--provider", metavar="NAME", help="Only calls that it was asked for."),
    click.option("--feature", metavar="TAG=VALUE", help="Only calls with this tag."),
    click.option("--domain", metavar="NAME", help="Only of this topic domain."),
    click.option("--status", metavar="CODE", help="`ok`, or the code of a refusal."),
    click.option("--imported/--own", default=None, help="Only what was imported, or was not."),
)


class Written(msgspec.Struct, frozen=True):
    """A file that is there now."""

    file: str
    format: str
    bytes: int


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which records are meant."""
    for option in reversed(FILTERS):
        command = option(command)
    return command


@click.command()
@click.argument("file", metavar="[FILE]", required=False)
@click.option(
    "--format", "form", type=click.Choice(FORMS), help="By default what FILE's ending says."
)
@filtered
@JSON
@SOCKET
def export(
    file: str | None, form: str | None, as_json: bool, socket: str | None, **records: Any
) -> None:
    """Write usage records to FILE, or to standard output.

    The oldest first; for administrators.

    FILE is there when all of it is written, and not before; what was there is replaced. `focus` is
    what calls cost in the columns of FinOps FOCUS 1.2, as CSV. SQLite and Parquet need a FILE.
    """
    form = form or history.FORMS.get(Path(file).suffix.lower() if file else ".jsonl")
    if form is None:
        raise click.UsageError(f"what should {file} be? Name a --format: {', '.join(FORMS)}")
    if file is None and form in ("sqlite", "parquet"):
        raise click.UsageError(f"{form} needs a FILE")
    over_the_line = cast("ExportForm", "jsonl" if form in ("sqlite", "parquet") else form)
    with Client(socket) as client, client.export(over_the_line, **records) as found:
        if file is None:
            _pour(found, sys.stdout.buffer)
            return
        with replacing(Path(file)) as draft, _progress(found) as pieces:
            _write(form, pieces, draft)
    if as_json:
        written = Written(str(Path(file).absolute()), form, Path(file).stat().st_size)
        click.echo(msgspec.json.encode(written))


@click.command("import")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--format",
    "form",
    type=click.Choice(sorted(set(history.FORMS.values()))),
    help="By default what FILE's ending says.",
)
@JSON
@SOCKET
def import_(file: str, form: str | None, as_json: bool, socket: str | None) -> None:
    """Bring in usage records of a FILE that `cascaded export` wrote. For administrators.

    They count in summaries, forecasts and exports, marked as imported; no budget is touched. What
    is there already is left alone, so that it may be done again.
    """
    with Client(socket) as client:
        try:
            done = client.load_from_file(file, form=form)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(msgspec.json.encode(done))
        return
    click.echo(f"{done.added:,} records brought in, {done.known:,} were there already")
    if done.too_old:
        click.echo(f"{done.too_old:,} are older than records are kept (records.retention_days)")


def _write(form: str, pieces: Iterable[bytes], draft: Path) -> None:
    from cascaded.cli.export_files import write_parquet, write_sqlite

    if form == "sqlite":
        write_sqlite(_lines(pieces), draft)
    elif form == "parquet":
        write_parquet(_lines(pieces), draft)
    else:
        with draft.open("wb") as output:
            _pour(pieces, output)


def _pour(pieces: Iterable[bytes], output: BinaryIO) -> None:
    for piece in pieces:
        output.write(piece)
    output.flush()


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside the file, which takes its place once it is whole and on the disk."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield draft
        with draft.open("rb") as whole:
            os.fsync(whole.fileno())
        draft.replace(path)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _progress(found: Export) -> Iterator[Iterable[bytes]]:
    """The pieces, and on a terminal how many records they have been."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, force_terminal=colour(os.environ))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task("")

        def counted() -> Iterator[bytes]:
            size = 0
            for piece in found:
                size += len(piece)
                words = f"{size / 1e6:,.1f} MB, of at most {found.records:,} records"
                shown.update(task, description=words)
                yield piece

        yield counted()
