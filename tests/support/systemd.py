"""What systemd does for a service: holds its socket, listens to what it tells, stops it."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cascaded.client import Client
from tests.support.process import START_WITHIN_S, STOP_WITHIN_S, environ, wait_for

PASS_ON = 'export LISTEN_PID=$$; fd=$1; shift; eval "exec \\"\\$@\\" 3<&$fd"'


class Unit:
    """A service and its socket."""

    def __init__(self, folder: Path, *, abstract: bool = False, watchdog_s: float = 1.0) -> None:
        self.folder = folder
        self.told: list[dict[str, str]] = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(folder / "d.sock"))
        self.listener.listen(4096)
        self._notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = f"@cascaded-test-{os.getpid()}-{id(self)}" if abstract else str(folder / "notify")
        self._notes.bind(name.replace("@", "\0"))
        self._env = {
            "NOTIFY_SOCKET": name,
            "WATCHDOG_USEC": str(int(watchdog_s * 1_000_000)),
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "cascaded",
        }
        self.process: subprocess.Popen[bytes] | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def client(self) -> Client:
        return Client(str(self.folder / "d.sock"), timeout_s=30)

    def states(self) -> list[str]:
        """What was told, without the watchdog's ticks."""
        known = ("READY", "RELOADING", "STOPPING")
        return [state for note in self.told for state in known if state in note]

    def start(
        self, *, env: dict[str, str], launcher: Sequence[str] = (), ready: bool = True
    ) -> None:
        before = self.states().count("READY")
        serve = (sys.executable, "-m", "cascaded", "serve", "--config", str(self.folder / "d.toml"))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", PASS_ON, "bash", str(self.listener.fileno()), *launcher, *serve],
                pass_fds=(self.listener.fileno(),),
                stderr=log,
                env=environ(**self._env, **env),
            )
        if ready:
            wait_for(lambda: self.states().count("READY") > before, START_WITHIN_S)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        assert self.process is not None
        self.send(signal.SIGTERM)
        return self.process.wait(STOP_WITHIN_S)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.listener.close()
        self._notes.close()

    def _listen(self) -> None:
        while True:
            try:
                note = self._notes.recv(65_536)
            except OSError:
                return
            self.told.append(dict(line.split("=", 1) for line in note.decode().splitlines()))


@contextmanager
def unit(folder: Path, toml: str, **settings: bool | float) -> Iterator[Unit]:
    """A unit with this configuration, not started."""
    text = toml.replace("{folder}", str(folder)).replace("{socket}", str(folder / "d.sock"))
    (folder / "d.toml").write_text(text.replace("{uid}", str(os.getuid())))
    made = Unit(folder, **settings)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()
