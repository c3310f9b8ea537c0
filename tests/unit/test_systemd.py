"""What systemd hands over, and what it is told; the rest is tried with real processes."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cascaded.adapters.systemd import MAX_STATUS_CHARS, Systemd

ME = 4711


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(1)
        yield listener


def told(listener: socket.socket) -> list[str]:
    return listener.recv(65_536).decode().split("\n")


def test_without_systemd_it_is_silent() -> None:
    silent = Systemd({}, pid=ME)
    assert (silent.door, silent.watchdog_s) == (None, None)
    for tell in (silent.alive, lambda: silent.ready("x"), lambda: silent.stopping(1)):
        tell()


def test_what_it_tells(heard: socket.socket) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": heard.getsockname()}, pid=ME)
    systemd.ready("one\nREADY=0\ntwo" + "x" * 1000)
    ready, status = told(heard)
    assert ready == "READY=1"
    assert status.startswith("STATUS=one READY=0 twoxx"), "a line of somebody's words stays one"
    assert len(status) == MAX_STATUS_CHARS + len("STATUS=")
    systemd.reloading(5_999)
    assert told(heard) == ["RELOADING=1", "MONOTONIC_USEC=5"]
    systemd.stopping(2.5)
    assert told(heard)[-1] == "EXTEND_TIMEOUT_USEC=2500000"
    systemd.alive()
    assert told(heard) == ["WATCHDOG=1"]


def test_nobody_listens_any_more(tmp_path: Path) -> None:
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}, pid=ME).ready("x")
    Systemd({"NOTIFY_SOCKET": "vsock:2:1234"}, pid=ME).ready("x")


def test_its_variables_are_not_inherited() -> None:
    environ = dict.fromkeys(("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDNAMES"), "")
    environ |= {"LISTEN_FDS": "0", "LISTEN_PID": str(ME), "WATCHDOG_PID": "", "PATH": "/bin"}
    Systemd(environ, pid=ME)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", str(ME), 30.0),
        ("500000", "", 0.5),
        ("500000", "1", None),
        ("0", "", None),
        ("-5", "", None),
        ("soon", "", None),
    ],
)
def test_the_watchdog(usec: str, pid: str, seconds: float | None) -> None:
    environ = {"WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    assert Systemd(environ, pid=ME).watchdog_s == seconds


@pytest.mark.parametrize("environ", [("1", "1"), ("x", str(ME)), ("0", str(ME)), ("", "")])
def test_sockets_for_somebody_else_or_none(environ: tuple[str, str]) -> None:
    count, pid = environ
    before = set(os.listdir("/proc/self/fd"))
    assert Systemd({"LISTEN_FDS": count, "LISTEN_PID": pid}, pid=ME).door is None
    assert set(os.listdir("/proc/self/fd")) == before
