"""Who is calling: peer credentials on the socket, a key on TCP, an issued key on either.

On the socket any other key is the caller's own affair (SDKs send one whatever happens), and is at
most handed upstream. What has the form of an issued key, its checksum included, must be one that is
valid: a key that was revoked does not fall back to what the process may do.
"""

import asyncio
import hashlib
import hmac
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Protocol
from weakref import WeakKeyDictionary

from aiohttp import web

from cascaded.policy.access.keys import is_ours
from cascaded.ports import Clock
from cascaded.types.decision import Refusal
from cascaded.types.keys import IssuedKey
from cascaded.types.request import Principal
from cascaded.types.secret import Secret

_UCRED = struct.Struct("iII")

KEY_PREFIX = "key:"
"""Of the principal's id, before that of an issued key."""
WHY_NOT = {
    "unknown": "This key was not issued here, or was forgotten long ago.",
    "revoked": "This key was revoked. Ask the operator for another one.",
    "expired": "This key has expired. Ask the operator for another one.",
}

Administers = Callable[[int, int], bool]
"""Whether a process of this user and primary group is an administrator's."""


class Issued(Protocol):
    """Who knows the keys that were issued."""

    def find(self, digest: bytes) -> IssuedKey | None:
        """The key with this SHA-256, whatever its state."""
        ...

    def get(self, id: str) -> IssuedKey | None:
        """The key of this id, likewise."""
        ...


class Headed(Protocol):
    """What has headers: an HTTP request, or what is kept of one."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, in any case."""
        ...


class Gate:
    """Who may pass."""

    def __init__(
        self,
        *,
        administers: Administers,
        tcp_key_digests: Mapping[str, bytes],
        issued: Issued,
        clock: Clock,
    ) -> None:
        """`tcp_key_digests`: SHA-256 of each key by its name."""
        self._administers = administers
        self._tcp_key_digests = tcp_key_digests
        self._issued = issued
        self._clock = clock
        # A peer's credentials are those of the moment it connected: one look a connection.
        self._peers: WeakKeyDictionary[asyncio.Transport, Principal | None] = WeakKeyDictionary()

    def principal(self, request: web.BaseRequest) -> Principal | Refusal:
        """The caller, or why it may not call."""
        if "Origin" in request.headers or "Referer" in request.headers:
            return Refusal(
                code="forbidden", message="Browsers may not call this API (Origin/Referer is set)."
            )
        key = caller_key(request)
        if key is not None and is_ours(key):
            return self._by_issued(key)
        return self._peer(request.transport) or self._by_key(key)

    def still(self, principal: Principal) -> Refusal | None:
        """Why somebody who was let in earlier would not be now: the key was taken back."""
        if principal.kind == "peer" or principal.id in self._tcp_key_digests:
            return None
        known = self._issued.get(principal.id.removeprefix(KEY_PREFIX))
        state = known.state(self._clock.wall_ns()) if known else "unknown"
        if state == "active":
            return None
        return Refusal(code="unauthenticated", message=WHY_NOT[state])

    def forwardable_key(self, request: Headed, principal: Principal) -> str | None:
        """The caller's key, unless it is one of ours: those open this daemon and nothing else."""
        key = caller_key(request) if principal.kind == "peer" else None
        return None if key is None or self._name_of(key) is not None else key

    def _peer(self, transport: asyncio.Transport | None) -> Principal | None:
        """The process at the other end of our Unix socket; `None` for TCP."""
        if transport is None:
            return None
        if transport not in self._peers:
            peer = transport.get_extra_info("socket")
            self._peers[transport] = None
            if peer is not None and peer.family == socket.AF_UNIX:
                uid, gid = _peer_ids(peer)
                admin = self._administers(uid, gid)
                self._peers[transport] = Principal(kind="peer", id=f"uid:{uid}", admin=admin)
        return self._peers[transport]

    def _by_key(self, key: str | None) -> Principal | Refusal:
        if key is None:
            return Refusal(
                code="unauthenticated",
                message="Over TCP a key is needed: send 'Authorization: Bearer KEY' or 'x-api-key'"
                " with one of the keys in [server.tcp_keys], or one that was issued here.",
            )
        name = self._name_of(key)
        if name is not None:
            return Principal(kind="key", id=name)
        return Refusal(
            code="unauthenticated",
            message="This key is not one of [server.tcp_keys], nor one that was issued here.",
        )

    def _name_of(self, key: str) -> str | None:
        """The name of a key of the configuration."""
        if not self._tcp_key_digests:
            return None
        given = digest(key)
        for name, known in self._tcp_key_digests.items():
            if hmac.compare_digest(given, known):
                return name
        return None

    def _by_issued(self, key: str) -> Principal | Refusal:
        """The holder of an issued key. Looked up by its hash: how long that takes tells nothing of
        the key. Why a key is refused is told to none but its holder."""
        known = self._issued.find(digest(key))
        state = known.state(self._clock.wall_ns()) if known else "unknown"
        if known is None or state != "active":
            return Refusal(code="unauthenticated", message=WHY_NOT[state])
        return Principal(kind="key", id=KEY_PREFIX + known.id, admin=known.admin, owner=known.owner)


def digests(keys: Mapping[str, Secret]) -> dict[str, bytes]:
    """The keys as they are kept: hashed."""
    return {name: digest(key.reveal()) for name, key in keys.items()}


def digest(key: str) -> bytes:
    """SHA-256 of a key. One that came in a header may hold bytes that are no text."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def caller_key(request: Headed) -> str | None:
    """The key that came with the call, if one did."""
    authorization = request.headers.get("Authorization", "")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return request.headers.get("x-api-key")


def _peer_ids(peer: socket.socket) -> tuple[int, int]:
    """The user and the primary group of the process."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, gid = _UCRED.unpack(credentials)
    return int(uid), int(gid)
