"""The state folder: whether its disk is fast, large and lasting enough, and who else has it."""

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from cascaded.cli.doctor.finding import Finding, ok, problem, warning
from cascaded.cli.show import MIB

AREA = "state"
LOCK = Path("ledger", "lock")
FLUSHES = 100
FLUSHES_WITHIN_S = 2.0
BLOCK_BYTES = 4096
SLOW_P99_MS = 25.0
LITTLE_BYTES = 1024 * MIB
TOO_LITTLE_BYTES = 128 * MIB
MAX_AHEAD_S = 60.0
_FORGETFUL = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs"})


class Flushes(NamedTuple):
    """How long the disk takes to write a block so that it lasts, in milliseconds."""

    p50_ms: float
    p99_ms: float


def look(folder: Path, now: datetime, *, served: bool) -> Iterator[Finding]:
    """Everything about it; `served`: whether a daemon answers on the configured socket."""
    place = _nearest(folder)
    if place != folder:
        yield ok(AREA, f"{folder} is not there yet; the first start makes it")
    yield from _permissions(folder, place)
    yield _filesystem(place)
    yield _space(place)
    yield _speed(place)
    yield from _lock(folder, served=served)
    yield from _newest(folder, now)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above that is there."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _permissions(folder: Path, place: Path) -> Iterator[Finding]:
    found = place.stat()
    if not os.access(place, os.W_OK | os.X_OK):
        advice = "run this as the daemon's user, or choose another ledger.dir"
        yield problem(AREA, f"{place} may not be written by uid {os.getuid()}", advice)
    if place != folder:
        return
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield problem(AREA, f"others may write {folder}", f"chmod 0700 {folder}")
    elif found.st_mode & stat.S_IROTH:
        yield warning(AREA, f"everybody may read {folder}", f"chmod 0700 {folder}")
    if found.st_uid != os.getuid():
        advice = "run this as that user to see what the daemon sees"
        yield warning(AREA, f"{folder} belongs to uid {found.st_uid}", advice)


def _filesystem(place: Path) -> Finding:
    kind = filesystem(place, _read(Path("/proc/self/mountinfo")))
    if kind in _FORGETFUL:
        advice = "choose a ledger.dir on a disk"
        return problem(AREA, f"{place} is in memory ({kind}): a reboot forgets the ledger", advice)
    if kind in _REMOTE:
        advice = "choose a ledger.dir on a disk of this machine"
        return warning(AREA, f"{place} is on a network ({kind}): locks and flushes may lie", advice)
    return ok(AREA, f"{place} is on {kind or 'a file system of unknown kind'}")


def filesystem(place: Path, mountinfo: str) -> str:
    """The kind of file system that holds a folder, from the kernel's list; empty if unknown."""
    real = place.resolve()
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        mounted, _, about = line.partition(" - ")
        fields = mounted.split(" ")
        if len(fields) > 4 and about:  # noqa: PLR2004 (the mount point is the fifth field)
            point = Path(fields[4].replace("\\040", " "))
            if real.is_relative_to(point) and len(point.parts) >= best:
                best, kind = len(point.parts), about.split(" ")[0]
    return kind


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _space(place: Path) -> Finding:
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    said = f"{free / MIB:,.0f} MiB are free at {place}"
    if free < TOO_LITTLE_BYTES or (found.f_files and not found.f_favail):
        return problem(AREA, said, "make room, or choose another ledger.dir")
    if free < LITTLE_BYTES:
        return warning(AREA, said, "make room before it is full: a full disk refuses every call")
    return ok(AREA, said)


def _speed(place: Path) -> Finding:
    try:
        found = flushes(place)
    except OSError as error:
        advice = "run this as the daemon's user"
        return warning(AREA, f"flushes could not be timed ({error.strerror})", advice)
    said = f"a flush takes {found.p50_ms:.2f} ms (p99 {found.p99_ms:.2f} ms) at {place}"
    if found.p99_ms > SLOW_P99_MS:
        return warning(AREA, said, "calls under a hard limit wait for it: choose a faster disk")
    return ok(AREA, said)


def flushes(place: Path) -> Flushes:
    """Write blocks and flush each, as the ledger does. Raises `OSError`."""
    took: list[float] = []
    with tempfile.TemporaryFile(dir=place, prefix=".cascaded-doctor-") as file:
        began = time.perf_counter()
        while len(took) < FLUSHES and (not took or time.perf_counter() - began < FLUSHES_WITHIN_S):
            at = time.perf_counter()
            os.pwrite(file.fileno(), b"\0" * BLOCK_BYTES, len(took) * BLOCK_BYTES)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - at) * 1000)
    took.sort()
    return Flushes(took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)])


def _lock(folder: Path, *, served: bool) -> Iterator[Finding]:
    """Whether a daemon has the ledger open that does not answer where this config says."""
    holder = lock_holder(folder / LOCK)
    if holder is not None and not served:
        advice = "stop it, give this one another ledger.dir, or look at its socket"
        yield problem(AREA, f"another daemon (pid {holder}) has {folder} open", advice)


def lock_holder(path: Path) -> str | None:
    """Who holds a lock file; `None` where nobody does or it cannot be opened."""
    with contextlib.suppress(OSError), path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.read().strip() or "unknown"
    return None


def _newest(folder: Path, now: datetime) -> Iterator[Finding]:
    """Whether the clock was set back since the ledger was written."""
    times = [0.0]
    with contextlib.suppress(OSError):
        times += (file.stat().st_mtime for file in (folder / LOCK.parent).iterdir())
    ahead = max(times) - now.timestamp()
    if ahead > MAX_AHEAD_S:
        said = f"the ledger was written {ahead:,.0f} s in the future of this clock"
        yield problem(AREA, said, "set the clock right: budgets do not reset until it is there")
