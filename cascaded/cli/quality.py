"""`cascaded quality`: teach the judgement of answers your own traffic."""

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from cascaded.cli.show import JSON, table
from cascaded.policy.quality.calibration import CalibrationError, Report, calibrate, read_labelled


@click.group()
def quality() -> None:
    """How answers are judged."""


@quality.command("calibrate")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the calibration goes; without it there is only the report.",
)
@click.option(
    "--false-accept-rate",
    type=click.FloatRange(0, 0.99),
    help="Say the threshold that keeps at most this share of the bad answers.",
)
@JSON
def calibrate_quality(
    file: BinaryIO, out: Path | None, false_accept_rate: float | None, as_json: bool
) -> None:
    """Learn from FILE which answers are good.

    It has JSON lines with `query`, `answer` and `good` (true or false); if known also `model`,
    `domain`, `logprobs`, `entropy`, `agreement`, `judge`, `group`. Name the result in the
    configuration as `quality.calibration`, and reload.
    """
    from cascaded.daemon.quality import shipped_judgement

    try:
        rows = list(read_labelled(file.readlines()))
        source = f"{len(rows)} answers of {Path(file.name).name}"
        made, report = calibrate(
            rows, shipped_judgement(), source=source, false_accepts=false_accept_rate
        )
    except CalibrationError as error:
        raise click.ClickException(str(error)) from None
    if out is not None:
        _write(out, msgspec.json.encode(made) + b"\n")
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        _print(report, out)


def _write(out: Path, content: bytes) -> None:
    """All of it or nothing: a daemon may reload at any time."""
    try:
        with tempfile.NamedTemporaryFile(dir=out.parent, delete=False) as file:
            file.write(content)
        os.replace(file.name, out)
    except OSError as error:
        raise click.ClickException(f"{out}: {error.strerror}") from None


def _print(report: Report, out: Path | None) -> None:
    click.echo(
        f"{report.rows} answers, {report.good_share:.1%} of them good. {report.how.capitalize()}.\n"
        f"Area under the curve: {report.area:.3f} ±{report.area_within:.3f}"
        f" (as shipped {report.area_before:.3f})\n"
        f"Log loss: {report.log_loss:.3f} (as shipped {report.log_loss_before:.3f})\n"
        f"For ±0.05 about {report.rows_for_close} answers are needed.\n"
    )
    said = [(f"{one.said:.2f}", f"{one.good:.2f}", str(one.rows)) for one in report.reliability]
    table(("said", "were good", "answers"), said)
    limits = [
        (
            f"{one.false_accepts:.0%}",
            f"{one.threshold:.3f}",
            f"{one.kept:.1%}",
            f"{one.good_kept:.1%}",
            f"{one.bad_among_kept:.1%}",
        )
        for one in report.limits
    ]
    table(("bad kept", "threshold", "kept", "good kept", "bad among kept"), limits)
    if out is not None:
        click.echo(f'{out}: name it in [quality] as calibration = "{out.resolve()}", and reload.')
