"""What systemd hands a service, and what it wants to hear. Without systemd all of it is silent.

Own code, because the protocol is a datagram and three variables, and the packages for it are C
bindings or unkept. See sd_notify(3) and sd_listen_fds(3).
"""

import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence

from cascaded.types.environment import Variable

FIRST_PASSED_FD = 3
MAX_PASSED = 16
MAX_STATUS_CHARS = 500
US_PER_S = 1_000_000
NS_PER_US = 1_000


class PassedSocketError(RuntimeError):
    """The sockets that were passed are not what is needed; the message says what to do."""


class Systemd:
    """The service's side of systemd's protocols."""

    def __init__(self, environ: MutableMapping[str, str], *, pid: int) -> None:
        """Takes its variables out of `environ`: they are for this process, not for its children.

        Raises `PassedSocketError`.
        """
        told = {name: environ.pop(name, "") for name in _ITS_VARIABLES}
        self._address = _address(told[Variable.NOTIFY_SOCKET])
        self.watchdog_s = _watchdog_s(told, pid)
        """How long it waits for `alive` before it takes the daemon for hung; `None`: for ever."""
        self.door = _door(told, pid)
        """The listening socket that was passed; it stays open when this process ends."""

    def ready(self, status: str) -> None:
        """The start, or a reload, is done. `status` is for whoever asks systemd."""
        line = " ".join(status.split())[:MAX_STATUS_CHARS]
        self._tell("READY=1", f"STATUS={line}")

    def reloading(self, monotonic_ns: int) -> None:
        """A reload begins; `ready` ends it, whatever came of it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns // NS_PER_US}")

    def stopping(self, within_s: float) -> None:
        """The end begins, and may take this long."""
        self._tell(
            "STOPPING=1", "STATUS=draining", f"EXTEND_TIMEOUT_USEC={int(within_s * US_PER_S)}"
        )

    def alive(self) -> None:
        """The event loop turns."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        """Never raises: nobody may be listening any more."""
        if self._address is None:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller,
        ):
            teller.setblocking(False)
            teller.sendto("\n".join(lines).encode(), self._address)


_ITS_VARIABLES: Sequence[Variable] = (
    Variable.NOTIFY_SOCKET,
    Variable.WATCHDOG_USEC,
    Variable.WATCHDOG_PID,
    Variable.LISTEN_FDS,
    Variable.LISTEN_PID,
    Variable.LISTEN_FDNAMES,
)


def _address(text: str) -> bytes | None:
    """A path, or a name in the abstract namespace (`@name`). Of other families we know nothing."""
    if text.startswith("@"):
        return b"\0" + os.fsencode(text[1:])
    return os.fsencode(text) if text.startswith("/") else None


def _watchdog_s(told: Mapping[Variable, str], pid: int) -> float | None:
    text, meant = told[Variable.WATCHDOG_USEC], told[Variable.WATCHDOG_PID]
    if meant not in ("", str(pid)) or not text.isdecimal():
        return None
    return int(text) / US_PER_S or None


def _door(told: Mapping[Variable, str], pid: int) -> socket.socket | None:
    """The one socket that was passed. Raises `PassedSocketError`."""
    count = told[Variable.LISTEN_FDS]
    if told[Variable.LISTEN_PID] != str(pid) or not count.isdecimal() or not int(count):
        return None
    passed = [socket.socket(fileno=FIRST_PASSED_FD + n) for n in range(min(int(count), MAX_PASSED))]
    for one in passed:
        one.set_inheritable(False)
        one.setblocking(False)
    door = passed[0]
    if len(passed) > 1 or not _listens_on_unix(door):
        for one in passed:
            one.close()
        raise PassedSocketError(
            "systemd passed something else than one listening Unix stream socket: the socket unit"
            " may have one ListenStream=/path; TCP is server.tcp of the configuration"
        )
    return door


def _listens_on_unix(one: socket.socket) -> bool:
    return (
        one.family == socket.AF_UNIX
        and one.type == socket.SOCK_STREAM
        and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    )
