"""State folders that are put right while no daemon runs: a backup is put back, a damaged journal
is cut. What is replaced is put aside; nothing is deleted."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cascaded.adapters.clock import SystemClock
from cascaded.daemon.errors import StartError
from cascaded.daemon.state import (
    LEDGER,
    STAGING,
    STAMP,
    STORES,
    check_owner,
    check_version,
    verify,
)
from cascaded.state.backup import sync
from cascaded.state.ledger import DurableLedger
from cascaded.types.errors import LedgerOpenError
from cascaded.types.times import NS_PER_S

PARTS = (*STORES, LEDGER)
REPLACED = "replaced-"


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was put back."""

    dir: str
    replaced: str | None
    """Where what was there is now."""
    found: dict[str, int]
    """What the backup holds, by name."""


class CutShort(msgspec.Struct, frozen=True, kw_only=True):
    """A journal that was cut at its first unreadable record."""

    dir: str
    last_seq: int
    """The last record that is kept."""
    lost_seq: int
    """At least up to this record, all are lost."""
    set_aside: tuple[str, ...]
    """The damaged files, under the names that they have now."""


def restore(backup: Path, folder: Path) -> Restored:
    """Put a backup where the state is, after reading all of it. Raises `StartError`.

    A run that is cut off leaves a folder that does not start and can be restored again.
    """
    if backup.resolve().is_relative_to(folder.resolve()):
        raise StartError(f"{backup} is inside the state folder {folder}: move it out first")
    check_version(backup)
    found = verify(backup)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_owner(folder)
        with _held(folder / LEDGER):
            staging = folder / STAGING
            shutil.rmtree(staging, ignore_errors=True)
            _copy(backup, staging)
            replaced = _swap(staging, folder)
    except OSError as error:
        raise StartError(f"{folder}: the backup was not restored: {error}") from None
    return Restored(
        dir=str(folder), replaced=None if replaced is None else str(replaced), found=found
    )


def cut(folder: Path) -> CutShort | None:
    """Give up what cannot be read of a journal, and all behind it; `None`: nothing is damaged.

    Raises `StartError`.
    """
    check_owner(folder)
    try:
        done = DurableLedger.cut(folder / LEDGER)
    except LedgerOpenError as error:
        raise StartError(f"{folder}: {error}") from None
    if done is None:
        return None
    last_seq, lost_seq, aside = done
    names = tuple(str(folder / LEDGER / name) for name in aside)
    return CutShort(dir=str(folder), last_seq=last_seq, lost_seq=lost_seq, set_aside=names)


@contextmanager
def _held(ledger: Path) -> Iterator[None]:
    """Keep daemons away from a ledger, as another daemon would. Raises `StartError`."""
    if not ledger.is_dir():
        yield
        return
    with open(ledger / "lock", "a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read(20).decode(errors="replace") or "unknown"
            raise StartError(f"a daemon (process {holder}) has {ledger} open: stop it") from None
        yield


def _copy(backup: Path, staging: Path) -> None:
    """The parts of a backup, flushed."""
    staging.mkdir(mode=0o700)
    for name in PARTS:
        shutil.copytree(backup / name, staging / name)
    if (backup / STAMP).exists():
        shutil.copy2(backup / STAMP, staging / STAMP)
    for path in (staging, *staging.rglob("*")):
        sync(path)


def _swap(staging: Path, folder: Path) -> Path | None:
    """Put what is there aside, and the copies in its place. As long as the staging folder is there
    no daemon starts: without a ledger one would begin with empty books."""
    names = (*PARTS, STAMP)
    there = [name for name in names if (folder / name).exists()]
    replaced = None
    if there:
        now = datetime.fromtimestamp(SystemClock().wall_ns() / NS_PER_S, UTC)
        replaced = folder / f"{REPLACED}{now:%Y%m%dT%H%M%S.%fZ}"
        replaced.mkdir(mode=0o700)
        for name in there:
            os.rename(folder / name, replaced / name)
        sync(replaced)
    for name in names:
        if (staging / name).exists():
            os.rename(staging / name, folder / name)
    sync(folder)
    staging.rmdir()
    sync(folder)
    return replaced
