"""Who is calling: peer credentials on the socket, a key on TCP."""

import asyncio
import hashlib
import hmac
import socket
import struct
from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

from aiohttp import web

from cascaded.types.decision import Refusal
from cascaded.types.request import Principal
from cascaded.types.secret import Secret

_UCRED = struct.Struct("iII")

Administers = Callable[[int, int], bool]
"""Whether a process of this user and primary group is an administrator's."""


class Gate:
    """Who may pass."""

    def __init__(self, *, administers: Administers, tcp_key_digests: Mapping[str, bytes]) -> None:
        """`tcp_key_digests`: SHA-256 of each key by its name."""
        self._administers = administers
        self._tcp_key_digests = tcp_key_digests
        # A peer's credentials are those of the moment it connected: one look a connection.
        self._peers: WeakKeyDictionary[asyncio.Transport, Principal | None] = WeakKeyDictionary()

    def principal(self, request: web.BaseRequest) -> Principal | Refusal:
        """The caller, or why it may not call."""
        if "Origin" in request.headers or "Referer" in request.headers:
            return Refusal(
                code="forbidden", message="Browsers may not call this API (Origin/Referer is set)."
            )
        return self._peer(request.transport) or self._by_key(caller_key(request))

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
                " with one of the keys in [server.tcp_keys].",
            )
        given = digest(key)
        for name, known in self._tcp_key_digests.items():
            if hmac.compare_digest(given, known):
                return Principal(kind="key", id=name)
        return Refusal(code="unauthenticated", message="This key is not one of [server.tcp_keys].")


def digests(keys: Mapping[str, Secret]) -> dict[str, bytes]:
    """The keys as they are kept: hashed."""
    return {name: digest(key.reveal()) for name, key in keys.items()}


def digest(key: str) -> bytes:
    """SHA-256 of a key. One that came in a header may hold bytes that are no text."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def caller_key(request: web.BaseRequest) -> str | None:
    """The key that came with the call, if one did."""
    authorization = request.headers.get("Authorization", "")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return request.headers.get("x-api-key")


def forwardable_key(request: web.BaseRequest, principal: Principal) -> str | None:
    """The caller's key, unless it is one of ours: those open this daemon and nothing else."""
    return caller_key(request) if principal.kind == "peer" else None


def _peer_ids(peer: socket.socket) -> tuple[int, int]:
    """The user and the primary group of the process."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, gid = _UCRED.unpack(credentials)
    return int(uid), int(gid)
