"""Keep-alive lines to one upstream: HTTP/1.1 on TCP, TLS, a Unix socket or through a proxy.

Of all that a call costs on this machine, a general HTTP client is the most (docs/performance.md);
this is what a call to a model needs of one and no more. It follows no redirect, keeps no cookie,
repeats nothing, and offers no compression.
"""

import asyncio
import socket
import ssl
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, cast

import aiohappyeyeballs
import httptools
from yarl import URL

from cascaded.ports import Progress

IDLE_S = 15.0
"""A line that has lain idle for longer is not trusted with a call: upstreams hang up."""
HAPPY_EYEBALLS_S = 0.25
"""How long an address has before the next one is tried beside it."""
MAX_HEAD_BYTES = 64 * 1024
"""Of an answer: its status and headers."""
MAX_WAITING_BYTES = 256 * 1024
"""Of an answer that nobody has read yet; beyond it the upstream is made to wait."""
_OK = 200
_COMPRESSED = frozenset({"gzip", "deflate", "br", "zstd", "compress"})


class LineError(Exception):
    """The line broke, or what came down it is not HTTP."""


class DialError(LineError):
    """Nobody was reached, so nothing was sent."""


class Target(NamedTuple):
    """Who is called, and how they are reached. Times are seconds."""

    url: URL
    """What every path is put after."""
    uds: str | None = None
    """Dial this Unix socket instead of the URL's host."""
    proxy: URL | None = None
    trust: ssl.SSLContext | None = None
    """Of `https`, for the upstream and for a proxy."""
    connect_timeout_s: float = 5.0
    most: int = 100
    """Lines at one time; further calls wait for one."""
    keep_alive: bool = True

    @property
    def place(self) -> str:
        """Who is dialled, in words. A proxy's password is not among them."""
        return self.uds or (self.proxy or self.url).host_port_subcomponent or ""

    @property
    def told_whole(self) -> bool:
        """Whether a proxy must be told the whole URL of each call; a tunnel needs no telling."""
        return self.proxy is not None and self.url.scheme == "http"


class Line(asyncio.Protocol):
    """One connection. It carries one call at a time; the answer is read off it in pieces."""

    def __init__(self, lost: Callable[["Line"], None]) -> None:
        """`lost` hears of its end."""
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._begin()
        self._busy = False
        self.idle_since = 0.0

    def _begin(self) -> None:
        """A fresh answer is expected."""
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._waiting = 0
        self._head_left = MAX_HEAD_BYTES
        self._headed = self._complete = self._lasting = self._paused = False
        self._fault: LineError | None = None
        self._wake: asyncio.Future[None] | None = None
        self.headers: dict[str, str] = {}
        """Of the answer, names in lower case."""

    # What the call does

    async def ask(self, head: bytes, body: bytes) -> int:
        """Send a call; the status of its answer, as soon as that and the headers are there."""
        assert self._transport is not None
        self._begin()
        self._busy = True
        self._transport.write(head + body)
        while not self._headed:
            await self._news()
        encoding = self.headers.get("content-encoding", "")
        if encoding in _COMPRESSED:
            raise LineError(f"its answer is compressed ({encoding}), which was not asked for")
        return self._parser.get_status_code()

    async def read(self) -> bytes:
        """What has arrived of the answer's body; empty at its end. Raises `LineError`."""
        while not self._parts and not self._complete:
            await self._news()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._waiting = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    @property
    def open(self) -> bool:
        """Whether nobody has begun to close it."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether its answer was read to the end and another call may follow."""
        return self._complete and not self._parts and self._lasting and self.open

    def rest(self, now: float) -> None:
        """No call is under way."""
        self._busy = False
        self.idle_since = now

    async def tunnel(self, head: bytes, trust: ssl.SSLContext, host: str) -> None:
        """Have the proxy at its end pass it on to the host, and speak TLS with that one."""
        status = await self.ask(head, b"")
        if status != _OK:
            raise LineError(f"the proxy answers {status}")
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        secured = await loop.start_tls(self._transport, self, trust, server_hostname=host)
        if secured is None:
            raise LineError("closed before it was secured")
        self._transport = secured

    def hang_up(self) -> None:
        """Close it at once, whatever is still to be sent."""
        if self._transport is not None:
            self._transport.abort()

    async def _news(self) -> None:
        if self._fault is not None:
            raise self._fault
        self._wake = asyncio.get_running_loop().create_future()
        await self._wake

    def _tell(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _fail(self, what: str) -> None:
        self._fault = self._fault or LineError(what)
        self._tell()

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of no such class

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if not self._busy or self._complete:  # words that nobody asked for
            self.hang_up()
            return
        if not self._headed:
            self._head_left -= len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as fault:
            self._fail(f"its answer is not HTTP ({fault})")
            self.hang_up()
        if not self._headed and self._head_left < 0:
            self._fail(f"its answer's head is longer than {MAX_HEAD_BYTES} bytes")
            self.hang_up()
        self._tell()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        if self._busy and not self._complete:
            if self._headed and exc is None and not self._told_length():
                self._complete = True
                self._tell()
            else:
                self._fail(str(exc or "closed in the middle of its answer"))
        self._lost(self)

    def _told_length(self) -> bool:
        return "content-length" in self.headers or "transfer-encoding" in self.headers

    # What the parser tells

    def on_message_begin(self) -> None:
        """See `httptools`. A second answer to one call ends the line; the first one stands."""
        if self._complete:
            raise LineError("it answered twice")

    def on_header(self, name: bytes, value: bytes) -> None:
        """See `httptools`."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """See `httptools`."""
        if self._parser.get_status_code() >= _OK:
            self._headed = True

    def on_body(self, body: bytes) -> None:
        """See `httptools`."""
        self._parts.append(body)
        self._waiting += len(body)
        if self._waiting > MAX_WAITING_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """See `httptools`. What comes before the answer (`100 Continue`) is not the answer."""
        if self._headed:
            self._complete = True
            self._lasting = self._parser.should_keep_alive()
        else:
            self.headers = {}


class Answer:
    """One answer, while it arrives. Close it: only what was read to its end is used again."""

    def __init__(self, status: int, line: Line, release: Callable[[Line], None]) -> None:
        self.status = status
        self.headers: Mapping[str, str] = line.headers
        """Names in lower case."""
        self.read = line.read
        self._line: Line | None = line
        self._release = release

    def close(self) -> None:
        """Give the line back, or hang up."""
        if self._line is not None:
            self._release(self._line)
            self._line = None

    def __enter__(self) -> "Answer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


class Lines:
    """The lines to one upstream: at most so many, the last used first."""

    def __init__(self, target: Target, headers: Mapping[str, str]) -> None:
        """`headers` are sent with every call."""
        self._target = target
        self._idle: deque[Line] = deque()
        self._places = asyncio.Semaphore(target.most)
        self._prefixes: dict[str, bytes] = {}
        host = target.url.host_port_subcomponent or ""
        fixed = {"Host": host, "Accept-Encoding": "identity", **headers}
        if not target.keep_alive:
            fixed["Connection"] = "close"
        if target.told_whole and target.proxy is not None:
            fixed |= _proxy_authorization(target.proxy)
        self._fixed = _header_lines(fixed)

    async def ask(
        self,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        progress: Progress,
        *,
        method: str = "POST",
    ) -> Answer:
        """Send a body; the head of the answer. `progress` is told when it is no longer waiting.
        Raises `LineError`."""
        prefix = self._prefix(path) if method == "POST" else self._begin(method, path)
        head = prefix + _header_lines(headers)
        head += b"Content-Length: %d\r\n\r\n" % len(body)
        await self._places.acquire()
        line = None
        try:
            line = self._rested() or await self._dial()
            progress.queued = False
            status = await line.ask(head, body)
        except BaseException:
            self._release(line)
            raise
        return Answer(status, line, self._release)

    def close(self) -> None:
        """Close what lies idle. Lines in use close when they are given back."""
        self._target = self._target._replace(keep_alive=False)
        while self._idle:
            self._idle.pop().hang_up()

    def _prefix(self, path: str) -> bytes:
        """The head's beginning; there are as many as an upstream has routes and deployments."""
        prefix = self._prefixes.get(path)
        if prefix is None:
            prefix = self._prefixes[path] = self._begin("POST", path)
        return prefix

    def _begin(self, method: str, path: str) -> bytes:
        url = URL(str(self._target.url) + path)
        asked = str(url) if self._target.told_whole else url.raw_path_qs
        return f"{method} {asked} HTTP/1.1\r\n".encode() + self._fixed

    def _rested(self) -> Line | None:
        """The line that was used last and may still be trusted."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            line = self._idle.pop()
            if line.open and now - line.idle_since <= IDLE_S:
                return line
            line.hang_up()
        return None

    def _release(self, line: Line | None) -> None:
        """Its place is free again."""
        self._places.release()
        if line is None:
            return
        if self._target.keep_alive and line.reusable:
            line.rest(asyncio.get_running_loop().time())
            self._idle.append(line)
        else:
            line.hang_up()

    def _lost(self, line: Line) -> None:
        if line in self._idle:
            self._idle.remove(line)

    async def _dial(self) -> Line:
        """A new line. Raises `DialError`."""
        target = self._target
        line = Line(self._lost)
        try:
            async with asyncio.timeout(target.connect_timeout_s):
                await self._connect(line)
        except BaseException as fault:
            line.hang_up()
            if isinstance(fault, TimeoutError):
                fault = DialError(f"no connection within {target.connect_timeout_s:g} s")
            if isinstance(fault, OSError | LineError):
                raise DialError(f"{target.place}: {fault}") from fault
            raise
        return line

    async def _connect(self, line: Line) -> None:
        loop = asyncio.get_running_loop()
        url, trust = self._target.url, self._target.trust
        if self._target.uds:
            await loop.create_unix_connection(lambda: line, self._target.uds)
            return
        first = self._target.proxy or url
        assert first.host is not None
        secured = first.scheme == "https"
        addresses = await loop.getaddrinfo(first.host, first.port, type=socket.SOCK_STREAM)
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_S
        )
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            await loop.create_connection(
                lambda: line,
                sock=sock,
                ssl=trust if secured else None,
                server_hostname=first.host if secured else None,
            )
        except BaseException:
            sock.close()
            raise
        if first is not url and url.scheme == "https":
            assert trust is not None
            assert url.host is not None
            await line.tunnel(self._tunnel_head(first), trust, url.host)

    def _tunnel_head(self, proxy: URL) -> bytes:
        place = f"{self._target.url.host_subcomponent}:{self._target.url.port}"
        headers = {"Host": place, **_proxy_authorization(proxy)}
        return f"CONNECT {place} HTTP/1.1\r\n".encode() + _header_lines(headers) + b"\r\n"


def _header_lines(headers: Mapping[str, str]) -> bytes:
    """Raises `ValueError` where a value would begin a header of its own."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        raise ValueError("a header's value has a line's end in it")
    return text.encode()


def _proxy_authorization(proxy: URL) -> dict[str, str]:
    if proxy.user is None:
        return {}
    words = b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {words}"}
