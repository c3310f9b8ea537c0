"""The daemon's Unix socket: one daemon on it, stale ones taken over, permissions set."""

import contextlib
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

MAX_PATH_BYTES = 107
"""What the kernel takes in `sun_path`."""


class SocketError(RuntimeError):
    """The socket cannot be had; the message says why and what to do."""


@contextmanager
def listen(path: Path, *, mode: int, group: str | None, backlog: int) -> Iterator[socket.socket]:
    """A listening socket at `path`, removed again at the end.

    A lock file beside it makes sure that one daemon owns the path: a socket file that is there
    although nobody holds the lock is stale and is taken over. Raises `SocketError`.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise SocketError(
            f"{path} is longer than the {MAX_PATH_BYTES} bytes a socket path may have"
        )
    _make_folder(path.parent)
    with _locked(path):
        _remove_stale(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            _bind(listener, path, mode, group)
            listener.listen(backlog)
            listener.setblocking(False)
            try:
                yield listener
            finally:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SocketError(f"cannot make the socket's folder {folder}: {error.strerror}") from None
    owner = folder.stat().st_uid
    if folder.stat().st_mode & stat.S_IWOTH and not folder.stat().st_mode & stat.S_ISVTX:
        raise SocketError(f"{folder} may be written by anybody; choose a folder of your own")
    if owner not in (0, os.getuid()):
        raise SocketError(f"{folder} belongs to another user (uid {owner})")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock_path = path.with_name(path.name + ".lock")
    with _own_lock(lock_path, path) as lock:
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
        lock_path.unlink(missing_ok=True)


def _own_lock(lock_path: Path, path: Path) -> TextIO:
    """The lock file, held. One that its last owner removed before we had it counts for nothing."""
    while True:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.fdopen(os.open(lock_path, flags, 0o600), "r+")
        except OSError as error:
            raise SocketError(f"cannot open {lock_path}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with lock:
                owner = lock.read().strip() or "unknown"
            raise SocketError(
                f"another daemon (pid {owner}) serves {path}; stop it or choose another socket"
            ) from None
        if os.fstat(lock.fileno()).st_nlink:
            return lock
        lock.close()


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody serves. Anything else is left alone."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise SocketError(f"{path} is there already and is not a socket; it was left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise SocketError(f"cannot tell whether {path} is in use: {error}") from None
    raise SocketError(f"another program serves {path}; stop it or choose another socket")


def _bind(listener: socket.socket, path: Path, mode: int, group: str | None) -> None:
    """Bind with no permissions at all, then open up to what was asked."""
    before = os.umask(0o777)
    try:
        listener.bind(os.fspath(path))
    except OSError as error:
        raise SocketError(f"cannot make the socket {path}: {error.strerror}") from None
    finally:
        os.umask(before)
    try:
        if group is not None:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        path.chmod(mode)
    except (KeyError, OSError) as error:
        # Left there, without permissions, it would stop the next start as well.
        path.unlink(missing_ok=True)
        raise SocketError(_why_closed(path, group, error)) from None


def _why_closed(path: Path, group: str | None, error: KeyError | OSError) -> str:
    if isinstance(error, KeyError):
        return f"there is no group {group!r} on this machine"
    of_group = f" of group {group!r}" if group else ""
    return f"cannot open {path} to the callers{of_group}: {error.strerror}"
