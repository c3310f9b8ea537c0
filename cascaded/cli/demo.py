"""`cascaded demo`: the whole thing, with no key and no server."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from cascaded.cli.models import DEFAULT_SOURCES, progress_bar
from cascaded.cli.show import JSON, dollars, saving, verdict
from cascaded.client import CascadeResult, Client, DaemonUnreachableError
from cascaded.models.catalogue import MODELS
from cascaded.models.folder import look, models_folder
from cascaded.models.pull import PullError, make_sources, pull

QUESTIONS = (
    ("An easy one", "What is the capital of France? Answer in one sentence."),
    ("A harder one", "Give me exactly five prime numbers as a JSON array, nothing else."),
)
START_WITHIN_S = 30.0
STOP_WITHIN_S = 40.0
ANSWER_TOKENS = 120


@click.command()
@JSON
def demo(as_json: bool) -> None:
    """Ask the embedded models two questions through the cascade.

    Fetches the models once, and starts a daemon of its own for it.
    """
    _fetch_models()
    results: list[CascadeResult] = []
    with tempfile.TemporaryDirectory(prefix="cascaded-demo-") as folder:
        socket = Path(folder) / "cascaded.sock"
        with _daemon(socket), Client(str(socket)) as client:
            for title, question in QUESTIONS:
                if not as_json:
                    click.secho(f"\n{title}: {question}", bold=True)
                result = client.run(question, max_tokens=ANSWER_TOKENS, options={"temperature": 0})
                results.append(result)
                if not as_json:
                    _show(result)
    if as_json:
        click.echo(msgspec.json.encode(results))
        return
    click.echo(
        '\nNext: `cascaded serve` in one terminal, `cascaded ask "…"` in another, or point the'
        " OpenAI SDK at the socket (README)."
    )


def _fetch_models() -> None:
    folder = models_folder(os.environ)
    sources = make_sources(DEFAULT_SOURCES, os.environ)
    for model in MODELS:
        if look(model, folder).usable:
            continue
        click.echo(f"Fetching {model.name} ({model.size_bytes / 1e6:,.0f} MB, once) …", err=True)
        with progress_bar(model) as tick:
            try:
                pull(model, folder, sources, on_progress=tick)
            except PullError as error:
                raise click.ClickException(str(error)) from None


@contextmanager
def _daemon(socket: Path) -> Iterator[None]:
    """A daemon of our own with no configuration at all."""
    command = [sys.executable, "-m", "cascaded", "serve", "--zero-config"]
    command += ["--socket", str(socket), "--state", str(socket.with_suffix(".state"))]
    log = socket.with_suffix(".log")
    with log.open("wb") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            _wait_until_ready(process, socket, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(process: "subprocess.Popen[bytes]", socket: Path, log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with Client(str(socket)) as client:
                client.health()
                return
        except DaemonUnreachableError:
            time.sleep(0.02)
    raise click.ClickException(f"the daemon did not start:\n{log.read_text(errors='replace')}")


def _show(result: CascadeResult) -> None:
    metadata = result.metadata
    click.echo(result.content)
    click.echo()
    for attempt in metadata.attempts:
        score = "" if attempt.quality_score is None else f"quality {attempt.quality_score:.2f}"
        kept = "kept" if attempt.accepted else "not kept"
        click.echo(f"  {attempt.model:<28} {score:<14} {kept:<9} {attempt.latency_ms / 1000:.2f} s")
    rows = {
        "model": metadata.model_used,
        "decision": verdict(metadata),
        "cost": dollars(metadata.total_cost),
        "saving": saving(metadata),
        "overhead": f"{metadata.overhead_ms:.2f} ms beside the models",
    }
    for name, value in rows.items():
        click.echo(f"  {name:<9} {value}")
