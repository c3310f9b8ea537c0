"""Copies of everything that is remembered, made while the daemon works.

A backup is whole or not there: it is made beside its place and moved there when it is complete.
The ledger is copied last, so that it knows of all money that the logs speak of; a ledger that is
a copy refuses to start by itself, because what was spent after it was made is not in it.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from cascaded.types.errors import LedgerFaultError, StoreError

FOLDER_MODE = 0o700
UNFINISHED = ".unfinished"
NAME_BYTES_MAX = 255 - len(UNFINISHED)
"""Of a folder that is to have such a neighbour."""

Copy = Callable[[Path], object]
"""Copies one part into a folder that is not there yet."""


def back_up(folder: Path, parts: Mapping[str, Copy], *, own: Path) -> dict[str, int]:
    """Copy each part into the folder; their sizes in bytes. Waits for the disk.

    `own` is where the daemon keeps its state. Raises `ValueError` for a folder that will not do
    and `StoreError` where the disk says no; then nothing is left of the backup.
    """
    _check(folder, own)
    unfinished = folder.with_name(folder.name + UNFINISHED)
    try:
        unfinished.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        raise ValueError(
            f"{unfinished} is there: of a backup that is being made, or was cut off; remove it"
        ) from None
    except OSError as error:
        raise StoreError(f"cannot make {unfinished}: {error.strerror}") from None
    try:
        for name, copy in parts.items():
            copy(unfinished / name)
        sizes = {name: _bytes(unfinished / name) for name in parts}
        sync(unfinished)
        unfinished.rename(folder)
        sync(folder.parent)
    except (OSError, TimeoutError, StoreError, LedgerFaultError) as error:
        with suppress(OSError):
            shutil.rmtree(unfinished)
        raise StoreError(f"the backup was not made: {error}") from error
    return sizes


def _check(folder: Path, own: Path) -> None:
    """Raises `ValueError` for a folder that is no place for a backup."""
    name = str(folder)
    if not name.isprintable() or not folder.is_absolute():
        raise ValueError("dir must be an absolute path, beginning with /, of printable characters")
    if len(os.fsencode(folder.name)) > NAME_BYTES_MAX:
        raise ValueError(f"the name of {name} has more than {NAME_BYTES_MAX} bytes")
    try:
        if os.path.lexists(folder):
            raise ValueError(f"{name} is there already: name a folder that is not")
        if not folder.parent.is_dir():
            raise ValueError(f"{folder.parent} is not a folder of the daemon's host")
        if folder.resolve().is_relative_to(own.resolve()):
            raise ValueError(f"{name} is inside the daemon's own state folder {own}")
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be used: {error}") from None


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
