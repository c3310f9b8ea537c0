"""Hooks that are URLs: a signed POST of JSON, and a short answer."""

import hashlib
import hmac

import aiohttp
import msgspec

from cascaded.ports import Clock
from cascaded.types.errors import HookError
from cascaded.types.hooks import EnforcementContext, HookKind, HookTerms, Point
from cascaded.types.secret import Secret
from cascaded.types.times import NS_PER_S

MAX_ANSWER_BYTES = 64 * 1024
MAX_CONNECTIONS = 16
"""To one URL; a call that finds them all taken waits, within its deadline."""
SIGNATURE = "X-Cascaded-Signature"
_OK, _MULTIPLE_CHOICES = 200, 300
_encode = msgspec.json.Encoder(decimal_format="number").encode


class HttpHook:
    """A `ports.Hook` at one URL, for one point."""

    kind: HookKind = "http"

    def __init__(
        self, point: Point, url: str, terms: HookTerms, secret: Secret | None, clock: Clock
    ) -> None:
        self.name: str = point
        self.points: frozenset[Point] = frozenset({point})
        self.terms = terms
        self._url = url
        self._secret = secret
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def ask(
        self, point: Point, context: EnforcementContext, models: tuple[str, ...]
    ) -> object:
        """See `ports.Hook.ask`. Redirects are not followed. Whoever has only to be told need not
        say anything."""
        told: dict[str, object] = {"hook": f"on_{point}", "context": context}
        body = _encode({**told, "models": models} if point == "model_filter" else told)
        session = self._session or self._open()
        async with session.post(
            self._url, data=body, headers=self._headers(body), allow_redirects=False
        ) as response:
            if not _OK <= response.status < _MULTIPLE_CHOICES:
                raise HookError(f"status {response.status}")
            if point == "budget_warning":
                return None
            return await _read(response)

    async def close(self) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # the deadline is its caller's
            auto_decompress=False,
        )
        return self._session

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._secret is not None:
            headers[SIGNATURE] = signature(self._secret, body, self._clock.wall_ns() // NS_PER_S)
        return headers


def signature(secret: Secret, body: bytes, unix_s: int) -> str:
    """`t=SECONDS,v1=HEX`: HMAC-SHA256 over `SECONDS.BODY`, so that an old call cannot be replayed
    for long."""
    signed = b"%d." % unix_s + body
    digest = hmac.new(secret.reveal().encode(), signed, hashlib.sha256).hexdigest()
    return f"t={unix_s},v1={digest}"


async def _read(response: aiohttp.ClientResponse) -> object:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            response.close()
            raise HookError(f"more than {MAX_ANSWER_BYTES} bytes")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise HookError("not JSON") from None
