"""Looking after a running daemon's state, as it travels. Pure."""

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
