"""The daemon as a process of its own, the way an operator starts it."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cascaded.client import Client, DaemonUnreachableError

START_WITHIN_S = 20.0
STOP_WITHIN_S = 20.0


def wait_for(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


STATE = tempfile.TemporaryDirectory(prefix="cascaded-state-")
atexit.register(STATE.cleanup)
"""Where daemons keep their ledgers whose configuration does not say."""


def environ(**more: str) -> dict[str, str]:
    """The test's environment without what would lead to the person's own daemon."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CASCADED_")}
    own = {"FAKE_KEY": "sk-upstream-secret", "XDG_STATE_HOME": STATE.name}
    return {**kept, **own, **more}


def cascaded(
    *words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run a command of the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "cascaded", *words],
        input=stdin,
        capture_output=True,
        env=env or environ(),
        timeout=START_WITHIN_S,
        check=False,
    )


class Served:
    """A daemon process under way."""

    def __init__(self, process: "subprocess.Popen[bytes]", socket: Path, said: Path) -> None:
        self.process = process
        self.socket = socket
        self._said = said

    def client(self) -> Client:
        return Client(str(self.socket), timeout_s=10)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it; its exit code."""
        self.send(number)
        return self.process.wait(STOP_WITHIN_S)

    @property
    def said(self) -> str:
        """Everything on its standard error."""
        return self._said.read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its log. Every line of it must be JSON."""
        return [json.loads(line) for line in self.said.splitlines()]

    def events(self) -> list[str]:
        return [str(line["event"]) for line in self.lines]


@contextmanager
def serving(
    folder: Path,
    toml: str,
    *,
    socket: Path | None = None,
    ready: bool = True,
    launcher: Sequence[str] = (),
    python: str = sys.executable,
    stdin: int | None = None,
    **env: str,
) -> Iterator[Served]:
    """`cascaded serve` with this config, its log on standard error; killed if it is left running.

    `{socket}` in the config is filled in. With `ready` it has answered before the block begins.
    `launcher` is a command that runs the daemon's; `python` is whose package it is.
    """
    socket = socket or folder / "d.sock"
    config, said = folder / f"{socket.stem}.toml", folder / f"{socket.stem}.log"
    text = toml.replace("{socket}", str(socket)).replace("{uid}", str(os.getuid()))
    config.write_text(text.replace("{folder}", str(folder)))
    command = [*launcher, python, "-m", "cascaded", "serve", "--config", str(config)]
    with (
        said.open("ab") as output,
        subprocess.Popen(
            command,
            stdin=stdin,
            stderr=output,
            env=environ(**{"XDG_STATE_HOME": str(folder / f"{socket.stem}-state"), **env}),
        ) as process,
    ):
        served = Served(process, socket, said)
        try:
            if ready:
                wait_for(lambda: _answers(served), START_WITHIN_S)
            yield served
        finally:
            if process.poll() is None:
                process.kill()


def _answers(served: Served) -> bool:
    assert served.process.poll() is None, served.said
    try:
        with served.client() as client:
            return client.health().status == "ok"
    except DaemonUnreachableError:
        return False
