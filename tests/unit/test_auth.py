"""Who may pass: peer credentials on the socket, a key on TCP, never a browser."""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import web
from msgspec.structs import replace
from multidict import CIMultiDict

from cascaded.api.auth import Administers, Gate, caller_key, digest, digests
from cascaded.policy.access.keys import SECRET_BYTES, compose
from cascaded.types.decision import Refusal
from cascaded.types.keys import IssuedKey
from cascaded.types.request import Owner, Principal
from cascaded.types.secret import Secret
from tests.support.fakes import FakeClock

KEYS = digests({"app": Secret("sk-app"), "other": Secret("sk-other")})
PEER = Principal(kind="peer", id="uid:1")
KEY = Principal(kind="key", id="app")


class Transport:
    """As much of a transport as the gate looks at."""

    def __init__(self, peer: socket.socket | None) -> None:
        self.peer = peer
        self.looks = 0

    def get_extra_info(self, name: str) -> object:
        if name != "socket":
            return None
        self.looks += 1
        return self.peer


def request(peer: socket.socket | None = None, **headers: str) -> web.Request:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return Mock(headers=CIMultiDict(sent), transport=Transport(peer))


@pytest.fixture
def ours() -> Iterator[socket.socket]:
    """One end of a Unix socket whose other end is this process."""
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        yield one


class Ring:
    """Keys that were issued."""

    def __init__(self, *keys: IssuedKey) -> None:
        self.keys = {key.digest: key for key in keys}

    def find(self, digest: bytes) -> IssuedKey | None:
        return self.keys.get(digest)

    def get(self, id: str) -> IssuedKey | None:
        return next((key for key in self.keys.values() if key.id == id), None)


def opened(administers: Administers, *issued: IssuedKey) -> Gate:
    return Gate(
        administers=administers, tcp_key_digests=KEYS, issued=Ring(*issued), clock=FakeClock()
    )


def gate(admins: frozenset[int] = frozenset({os.getuid()})) -> Gate:
    return opened(lambda uid, _: uid in admins)


def test_a_peer_is_known_by_its_uid(ours: socket.socket) -> None:
    uid = os.getuid()
    assert gate().principal(request(ours)) == Principal(kind="peer", id=f"uid:{uid}", admin=True)
    stranger = gate(admins=frozenset()).principal(request(ours))
    assert stranger == Principal(kind="peer", id=f"uid:{uid}", admin=False)


def test_a_peers_user_and_group_are_what_the_kernel_says() -> None:
    """Any 32-bit id: uids above 2^31 are in use where users come from a directory."""
    with socket.socket() as tcp:
        peer = Mock(family=socket.AF_UNIX)
        peer.getsockopt.return_value = struct.pack("iII", 1, 3_000_000_000, 3_000_000_001)
        asked: list[tuple[int, int]] = []

        def administers(uid: int, gid: int) -> bool:
            asked.append((uid, gid))
            return True

        door = opened(administers)
        call = request(peer)
        for _ in range(2):
            passed = door.principal(call)
        assert passed == Principal(kind="peer", id="uid:3000000000", admin=True)
        assert asked == [(3_000_000_000, 3_000_000_001)], "once for each connection"
        door.principal(request(tcp, x_api_key="sk-app"))
        assert len(asked) == 1, "a key is nobody's process"


def test_a_peer_needs_no_key_and_a_wrong_one_does_no_harm(ours: socket.socket) -> None:
    assert gate().principal(request(ours, Authorization="Bearer nonsense")) == gate().principal(
        request(ours)
    )


def test_one_look_at_the_socket_for_each_connection(ours: socket.socket) -> None:
    door, asked = gate(), request(ours)
    for _ in range(3):
        door.principal(asked)
    transport: Any = asked.transport
    assert transport.looks == 1


@pytest.mark.parametrize(
    ("headers", "who"),
    [
        ({"Authorization": "Bearer sk-app"}, "app"),
        ({"Authorization": "bearer  sk-app "}, "app"),
        ({"x_api_key": "sk-other"}, "other"),
        ({"Authorization": "Basic sk-app", "x_api_key": "sk-other"}, "other"),
        ({"Authorization": "Bearer sk-app", "x_api_key": "sk-wrong"}, "app"),
        ({}, None),
        ({"Authorization": "Bearer sk-apple"}, None),
        ({"Authorization": "Bearer sk-ap"}, None),
        ({"Authorization": "Bearer \udcff"}, None),
        ({"x_api_key": ""}, None),
    ],
)
def test_keys(headers: dict[str, str], who: str | None) -> None:
    with socket.socket() as tcp:
        for peer in (tcp, None):
            passed = gate().principal(request(peer, **headers))
            if who is None:
                assert isinstance(passed, Refusal)
                assert passed.code == "unauthenticated"
                assert "tcp_keys" in passed.message
            else:
                assert passed == Principal(kind="key", id=who, admin=False)


def test_without_a_transport_it_is_not_a_peer() -> None:
    asked = Mock(transport=None, headers={})
    assert isinstance(gate().principal(asked), Refusal)


@pytest.mark.parametrize("header", ["Origin", "Referer", "origin", "REFERER"])
def test_browsers_are_turned_away(ours: socket.socket, header: str) -> None:
    sent: Any = {header: "http://localhost", "Authorization": "Bearer sk-app"}
    for peer in (ours, None):
        passed = gate().principal(request(peer, **sent))
        assert isinstance(passed, Refusal)
        assert passed.code == "forbidden"


def test_only_a_peers_key_may_be_forwarded() -> None:
    asked = request(Authorization="Bearer sk-mine")
    assert caller_key(asked) == "sk-mine"
    assert gate().forwardable_key(asked, PEER) == "sk-mine"
    assert gate().forwardable_key(asked, KEY) is None
    assert gate().forwardable_key(request(), PEER) is None
    ours = request(Authorization="Bearer sk-app")
    assert gate().forwardable_key(ours, PEER) is None, "it opens our TCP door"


OURS = compose("pro", b"x" * SECRET_BYTES)
ISSUED = IssuedKey(
    id="0123456789ab",
    digest=digest(OURS),
    hint="sk_pro_…",
    name="app",
    owner=Owner(user_id="alice", tier="pro"),
    created_ns=0,
)


def test_an_issued_key_identifies_on_either_door(ours: socket.socket) -> None:
    door = opened(lambda *_: True, ISSUED)
    for peer in (ours, None):
        passed = door.principal(request(peer, Authorization=f"Bearer {OURS}"))
        assert passed == Principal(kind="key", id="key:0123456789ab", owner=ISSUED.owner)
        assert passed.user_id == "alice"
        assert not passed.admin, "the key's holder is not its process's administrator"
        assert door.forwardable_key(request(peer, x_api_key=OURS), passed) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"revoked_ns": 1}, "revoked"),
        ({"expires_ns": 1}, "expired"),
        ({"digest": b"another"}, "not issued here"),
    ],
)
def test_one_that_is_not_valid_opens_nothing(
    ours: socket.socket, changes: dict[str, Any], why: str
) -> None:
    """Not even what the process itself may do."""
    door = opened(lambda *_: True, replace(ISSUED, **changes))
    for peer in (ours, None):
        passed = door.principal(request(peer, x_api_key=OURS))
        assert isinstance(passed, Refusal)
        assert passed.code == "unauthenticated"
        assert why in passed.message


def test_who_was_let_in_earlier_may_be_so_no_more() -> None:
    """As it is asked for a batch, whose queries are asked long after its maker has gone."""
    holder = Principal(kind="key", id="key:0123456789ab", owner=ISSUED.owner)
    assert opened(lambda *_: False).still(PEER) is None
    assert opened(lambda *_: False).still(KEY) is None
    assert opened(lambda *_: False, ISSUED).still(holder) is None
    for keys in ([], [replace(ISSUED, revoked_ns=1)], [replace(ISSUED, expires_ns=1)]):
        refused = opened(lambda *_: False, *keys).still(holder)
        assert refused is not None
        assert refused.code == "unauthenticated"


def test_keys_are_kept_as_digests() -> None:
    assert KEYS.keys() == {"app", "other"}
    assert all(len(value) == 32 for value in KEYS.values())
    assert digest("a") != digest("b")
    assert b"sk-app" not in b"".join(KEYS.values())
