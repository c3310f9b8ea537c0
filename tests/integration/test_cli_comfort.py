"""`cascaded status` and `completion`, and what all commands have in common."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from cascaded.cli import cascaded as command
from cascaded.cli.completion import SHELLS
from cascaded.cli.exits import Exit
from cascaded.cli.show import colour, duration, table
from cascaded.client import Client
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Upstream

LIMITS = """
[limits.users.ids.alice]
total_usd = "1"
enforcement = "block"
"""
NOT_FOR_PROGRAMS = {"serve", "completion"}


@pytest.fixture(scope="module")
def spending(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(CASCADE + LIMITS, url=_upstream.url) as daemon:
        yield daemon


def invoke(*words: str, **env: str) -> Result:
    return CliRunner().invoke(command, words, prog_name="cascaded", env=env)


def test_status(spending: Daemon) -> None:
    words = ("status", "--socket", spending.socket)
    shown = invoke(*words)
    assert shown.exit_code == 0, shown.output
    assert "ready" in shown.stdout
    assert "of fake" in shown.stdout
    assert "near their end" not in shown.stdout
    with Client(spending.socket) as client, client.reserve("0.75", user_id="alice"):
        shown = invoke(*words)
        assert "limits near their end:\nscope  id     window" in shown.stdout
        assert "$0.75" in shown.stdout
        told = json.loads(invoke(*words, "--json").stdout)
        assert [one["id"] for one in told["near"]] == ["alice"]
        assert (told["ready"], told["providers"]) == (True, ["fake"])
        assert told["uptime_s"] > 0


def test_status_of_a_daemon_that_drains(spending: Daemon) -> None:
    spending.services.status.ready = False
    try:
        shown = invoke("status", "--socket", spending.socket)
    finally:
        spending.services.status.ready = True
    assert shown.exit_code == Exit.NO
    assert "not ready" in shown.stdout


def leaves(group: click.Group, ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(ctx):
        one = group.get_command(ctx, name)
        assert one is not None
        if isinstance(one, click.Group):
            yield from ((f"{name} {below}", leaf) for below, leaf in leaves(one, ctx))
        else:
            yield name, one


def test_every_command_speaks_json_and_says_what_it_does() -> None:
    found = dict(leaves(command, click.Context(command)))
    assert len(found) > 15
    for name, one in found.items():
        options = {option for param in one.params for option in param.opts}
        assert name in NOT_FOR_PROGRAMS or "--json" in options, f"{name} has no --json"
        assert one.help
        for param in one.params:
            assert isinstance(param, click.Argument) or getattr(param, "help", None), name


def test_exit_codes_are_apart_and_explained() -> None:
    assert [int(one) for one in Exit] == sorted({0, 1, 2, 3, 78})
    assert all(one.meaning for one in Exit)


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_scripts(shell: str) -> None:
    script = invoke("completion", shell)
    assert script.exit_code == 0
    assert f"_CASCADED_COMPLETE={shell}_complete" in script.stdout
    assert "cascaded" in script.stdout
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=script.stdout, text=True, check=False)
        assert checked.returncode == 0


def test_what_is_completed() -> None:
    env = {
        **os.environ,
        "_CASCADED_COMPLETE": "bash_complete",
        "COMP_WORDS": "cascaded config ",
        "COMP_CWORD": "2",
    }
    program = "from cascaded.cli import cascaded; cascaded(prog_name='cascaded')"
    ended = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert sorted(ended.stdout.split()) == ["plain,check", "plain,init", "plain,show"]
    assert invoke("completion", "tcsh").exit_code == Exit.REFUSED


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, None),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, None),
        ({"FORCE_COLOR": "1"}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_when_there_are_colours(env: dict[str, str], wanted: bool | None) -> None:
    assert colour(env) is wanted


def test_colours_reach_what_is_printed(spending: Daemon) -> None:
    words = ("status", "--socket", spending.socket)
    assert "\x1b[32mready" in invoke(*words, FORCE_COLOR="1").stdout
    assert "\x1b" not in invoke(*words, FORCE_COLOR="1", NO_COLOR="1").stdout
    assert "\x1b" not in invoke(*words).stdout


def test_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("a", "x" * 200), ("b\x1b[31m", "y")]
    table(("one", "two"), rows)
    assert capsys.readouterr().out == f"one     two\na       {'x' * 200}\nb�[31m  y\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    table(("one", "two"), [("a", "[red]y")])
    shown = capsys.readouterr().out
    assert "[red]y" in shown
    assert "│" in shown


def test_durations() -> None:
    told = {0.2: "0 s", 61: "1 min 1 s", 3_600: "1 h", 90_061: "1 d 1 h", 86_400: "1 d"}
    assert {seconds: duration(seconds) for seconds in told} == told
