"""Who administers: root, the daemon's own user, and the members of a group."""

import grp
import os
import pwd
from types import SimpleNamespace

import pytest

from cascaded.adapters.accounts import Administrators

OPS = 4_321
USERS = {1_000: "alice", 1_001: "bob"}


@pytest.fixture(autouse=True)
def _database(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where alice is entered in the group `ops`, and uid 1002 has no name."""

    def by_uid(uid: int) -> SimpleNamespace:
        return SimpleNamespace(pw_name=USERS[uid])

    def by_name(name: str) -> SimpleNamespace:
        return SimpleNamespace(gr_gid={"ops": OPS}[name])

    def entered(name: str, gid: int) -> list[int]:
        return [gid, *([OPS] if name == "alice" else [])]

    monkeypatch.setattr(pwd, "getpwuid", by_uid)
    monkeypatch.setattr(grp, "getgrnam", by_name)
    monkeypatch.setattr(os, "getgrouplist", entered)


@pytest.mark.parametrize(
    ("uid", "gid", "alone", "with_group"),
    [
        (0, 0, True, True),
        (77, 77, True, True),
        (1_000, 1_000, False, True),
        (1_001, 1_001, False, False),
        (1_001, OPS, False, True),
        (1_002, 1_002, False, False),
        (1_002, OPS, False, True),
    ],
    ids=["root", "own", "entered", "other", "primary", "nameless", "nameless primary"],
)
def test_who(uid: int, gid: int, alone: bool, with_group: bool) -> None:
    assert Administrators(own_uid=77, group=None)(uid, gid) is alone
    assert Administrators(own_uid=77, group="ops")(uid, gid) is with_group


def test_without_a_group_the_database_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(uid: int) -> None:
        raise AssertionError

    monkeypatch.setattr(pwd, "getpwuid", never)
    assert not Administrators(own_uid=77, group=None)(1_000, 1_000)
    assert Administrators(own_uid=77, group="ops")(77, 1)


def test_a_group_that_is_not_there() -> None:
    with pytest.raises(LookupError, match="no group 'wheels'"):
        Administrators(own_uid=77, group="wheels")
