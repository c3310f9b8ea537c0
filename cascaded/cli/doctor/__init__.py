"""`cascaded doctor`: what is wrong with this machine."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from cascaded.cli.doctor import door, machine, state, upstreams
from cascaded.cli.doctor.finding import Finding, ok, problem, warning
from cascaded.cli.exits import Exit
from cascaded.cli.serve import checked
from cascaded.cli.show import CONFIG, JSON, plain
from cascaded.config import Config, Loaded, Mistake, schema
from cascaded.models.catalogue import UnknownModelError, find
from cascaded.models.folder import look as look_at_model
from cascaded.models.folder import models_folder, verify

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@CONFIG
@click.option("--offline", is_flag=True, help="Ask no provider.")
@click.option("--no-hash", is_flag=True, help="Do not hash the models, which takes seconds.")
@JSON
def doctor(config: str | None, offline: bool, no_hash: bool, as_json: bool) -> None:
    """Say what is wrong with this machine, and what to do about it.

    Looks at the configuration, the disk of the state folder, sockets, models, providers, the
    clock, limits and libraries; changes nothing. Providers are asked for their list of models,
    which is free. Ends with 1 when there is a problem; warnings do not count.
    """
    findings = []
    for finding in _examine(config, offline=offline, hashed=not no_hash):
        findings.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        click.echo(msgspec.json.encode(findings))
    if any(one.verdict == "problem" for one in findings):
        raise click.exceptions.Exit(Exit.FAULT)


def _print(finding: Finding) -> None:
    colour = _COLOURS[finding.verdict]
    mark = click.style(f"{finding.verdict:<8}", fg=colour)
    click.echo(f"{mark} {finding.area}: {plain(finding.message)}")
    if finding.advice:
        click.echo(f"{'':<8} → {plain(finding.advice)}")


def _examine(file: str | None, *, offline: bool, hashed: bool) -> Iterator[Finding]:
    now = datetime.now(UTC)
    found = checked(file, search=True)
    yield from _configuration(found)
    yield from machine.clock(now)
    if not isinstance(found, Loaded):
        return  # where the rest would be is not known
    config = found.config
    doors, served = door.look(Path(config.server.socket))
    yield from doors
    yield from state.look(Path(str(config.ledger.dir)), now, served=served)
    yield from machine.limits(config)
    yield from machine.software(config)
    yield from _models(config, hashed=hashed)
    if not offline:
        yield from upstreams.look(config.providers)


def _configuration(found: Loaded | list[Mistake]) -> Iterator[Finding]:
    area, advice = "config", "correct it, then `cascaded config check`"
    for one in found.warnings if isinstance(found, Loaded) else found:
        if one.severity == "warning":
            yield warning(area, str(one), "look whether it is meant")
        else:
            yield problem(area, str(one), advice)
    if isinstance(found, Loaded):
        yield ok(area, f"{found.origins.place(())[0]} has no mistakes")


def _models(config: Config, *, hashed: bool) -> Iterator[Finding]:
    """The weights of the models that the configuration runs here."""
    for model in config.models.values():
        provider = config.providers[model.provider]
        if not isinstance(provider, schema.Embedded):
            continue
        own = provider.models_dir
        folder = Path(own) if own else models_folder(os.environ)
        try:
            weights = find(model.upstream_name)
        except UnknownModelError as error:
            yield problem("models", str(error), "correct upstream_name")
            continue
        found = verify(weights, folder) if hashed else look_at_model(weights, folder)
        if found.usable:
            seen = "its hash is right" if found.state == "good" else "it is there"
            yield ok("models", f"{weights.name}: {seen}")
        else:
            said = found.detail or f"it is not in {folder}"
            yield problem(
                "models", f"{weights.name}: {said}", f"cascaded models pull {weights.name}"
            )
