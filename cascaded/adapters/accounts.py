"""Who administers this machine's daemon: its own user, root, and the members of a group."""

import grp
import os
import pwd

ROOT = 0


class Administrators:
    """Tells administrators by the credentials of their process.

    Nobody but root and the daemon's own user, unless a group is named. Raises `LookupError` for
    a group that this machine does not have.
    """

    def __init__(self, *, own_uid: int, group: str | None) -> None:
        self._always = frozenset({ROOT, own_uid})
        self._group: int | None = None
        if group is not None:
            try:
                self._group = grp.getgrnam(group).gr_gid
            except KeyError:
                raise LookupError(f"there is no group {group!r} on this machine") from None

    def __call__(self, uid: int, gid: int) -> bool:
        """Whether a process of this user and primary group may administer.

        Reads the machine's user database where that matters, which may take its time: ask once
        for each connection.
        """
        if uid in self._always:
            return True
        return self._group is not None and self._group in _groups(uid, gid)


def _groups(uid: int, gid: int) -> frozenset[int]:
    """The process's primary group, and the groups that its user is entered in."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a user without a name, as in containers
        return frozenset({gid})
    return frozenset({gid, *os.getgrouplist(name, gid)})
