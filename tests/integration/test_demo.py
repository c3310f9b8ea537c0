"""`cascaded demo`, with everything but the weights."""

import re
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cascaded.cli import cascaded, demo
from cascaded.client import APIError, Client
from tests.support.daemon import Daemon
from tests.support.upstream import Says, Upstream

GOOD = "The capital of France is Paris."
REFUSAL = "I'm sorry, but I can't help with that."


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CASCADED_MODELS", str(tmp_path))


def run() -> Result:
    return CliRunner().invoke(cascaded, ["demo"])


def test_what_it_shows(daemon: Daemon, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.on("cheap", Says(GOOD), Says(REFUSAL))
    upstream.on("strong", Says("[2, 3, 5, 7, 11]"))
    monkeypatch.setattr(demo, "_fetch_models", lambda: None)
    monkeypatch.setattr(demo, "_daemon", lambda _: nullcontext())
    monkeypatch.setattr(demo, "Client", lambda _: Client(daemon.socket))
    result = run()
    assert result.exit_code == 0, result.output
    easy, harder = result.stdout.split("A harder one")
    assert GOOD in easy
    assert re.search(r"cheap +quality \d\.\d\d +kept", easy)
    assert re.search(r"decision +draft accepted", easy)
    assert re.search(r"cost +\$0\.0000045", easy)
    assert re.search(r"saving +saved \$", easy)
    assert "[2, 3, 5, 7, 11]" in harder
    assert REFUSAL not in harder
    assert re.search(r"cheap +quality \d\.\d\d +not kept", harder)
    assert re.search(r"decision +escalated", harder)
    assert "cascaded ask" in harder


def test_its_own_daemon_starts_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without weights the daemon says what to do, and is gone afterwards."""
    monkeypatch.setattr(demo, "_fetch_models", lambda: None)
    started: list[Any] = []
    real = subprocess.Popen

    def noting(*args: Any, **options: Any) -> Any:
        started.append(real(*args, **options))
        return started[-1]

    monkeypatch.setattr("subprocess.Popen", noting)
    result = run()
    assert isinstance(result.exception, APIError)
    assert "cascaded models pull" in str(result.exception)
    [process] = started
    assert process.returncode == 0


def test_a_daemon_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_fetch_models", lambda: None)
    monkeypatch.setattr("sys.executable", "/bin/false")
    result = run()
    assert result.exit_code == 1
    assert "the daemon did not start" in result.stderr


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr(demo, "DEFAULT_SOURCES", (f"folder:{empty}",))
    result = run()
    assert result.exit_code == 1
    assert "Fetching smollm2-135m-instruct (98 MB, once)" in result.stderr
    assert "could not be pulled" in result.stderr


def test_weights_that_are_there_are_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "MODELS", ())
    monkeypatch.setattr("sys.executable", "/bin/false")
    result = run()
    assert "Fetching" not in result.stdout
    assert "did not start" in result.stderr
