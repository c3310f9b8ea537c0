"""Looking after a running daemon, as it travels. Pure."""

from collections.abc import Mapping

import msgspec


class BackupRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `/state/backup`."""

    dir: str
    """A folder on the daemon's host that is not there yet."""


def backup_row(folder: str, contents: Mapping[str, int]) -> dict[str, object]:
    """What a backup has in it: its parts, each a folder, and their bytes."""
    parts = [{"name": name, "bytes": size} for name, size in contents.items()]
    return {"dir": folder, "contents": parts}


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration came into force."""

    generation: int
    """How many configurations were in force since the start, this one included."""
    changed: tuple[str, ...]
    """The tables in which it differs from the one before."""
