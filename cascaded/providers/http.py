"""The line to an upstream over HTTP, on TCP or on a Unix socket, whatever is spoken on it."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Protocol, TypeVar

import msgspec
from yarl import URL

from cascaded.ports import Call, Clock, Progress, ProviderTraits
from cascaded.providers.lines import Answer, DialError, LineError, Lines, Target
from cascaded.providers.turns import BUSY_REST_S, REFUSED_REST_S, Keys, Pace
from cascaded.types.errors import ProviderError
from cascaded.types.event import Event
from cascaded.types.result import Billing
from cascaded.types.secret import Secret
from cascaded.types.times import NS_PER_S
from cascaded.wire.openai_chat import UpstreamSaidError, WireError
from cascaded.wire.sse import SseError, SseReader

MAX_ERROR_BYTES = 64 * 1024
MAX_FILE_BYTES = 256 * 1024 * 1024
"""Of what is fetched that is no answer to a call: the results of a batch."""
MAX_RETRY_AFTER_S = 86_400.0
MAX_QUOTED_BYTES = 200
_OK = 200
_MULTIPLE_CHOICES = 300
_BAD_REQUEST = 400
_UNAUTHORIZED = 401
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500

T = TypeVar("T")


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where an upstream is and how patient we are with it. Times are seconds."""

    base_url: str
    uds: str | None = None
    """Dial this Unix socket instead of the URL's host."""
    api_key: Secret | None = None
    api_keys: tuple[Secret, ...] = ()
    """Several, used in turn; instead of `api_key`."""
    requests_per_second: float | None = None
    headers: Mapping[str, str] = {}
    ca_file: str | None = None
    proxy: str | None = None
    connect_timeout_s: float = 5.0
    first_token_timeout_s: float = 60.0
    idle_timeout_s: float = 60.0
    total_timeout_s: float = 300.0
    max_connections: int = 100
    keep_alive: bool = True
    max_response_bytes: int = 32 * 1024 * 1024


class Ear(Protocol):
    """Hears one streamed answer."""

    def hear(self, data: bytes) -> Event | None:
        """The next event; `None` at the end mark. Raises `WireError`."""
        ...


class Speech(Protocol):
    """What is spoken on the line."""

    def path(self, call: Call) -> str:
        """Where the call goes, after the base URL."""
        ...

    def headers(self, call: Call, key: str | None) -> dict[str, str]:
        """What this call is sent with, besides its body's type and what the endpoint says."""
        ...

    def whole(self, call: Call, body: bytes) -> Event:
        """A plain answer. Raises `WireError`."""
        ...

    def ear(self, call: Call) -> Ear:
        """For one streamed answer."""
        ...


class HttpUpstream:
    """One upstream with its keep-alive pool."""

    def __init__(
        self, name: str, endpoint: Endpoint, traits: ProviderTraits, clock: Clock, speech: Speech
    ) -> None:
        self.name = name
        self.traits = traits
        self._endpoint = endpoint
        self._clock = clock
        self.speech = speech
        self._base_url = endpoint.base_url.rstrip("/")
        self._lines: Lines | None = None
        alone = (endpoint.api_key,) if endpoint.api_key else ()
        self._keys = Keys(endpoint.api_keys or alone)
        rate = endpoint.requests_per_second
        self._pace = Pace(rate) if rate else None

    async def call(self, call: Call) -> AsyncGenerator[Event]:
        """See `ports.Provider.call`."""
        if not call.stream:
            whole = partial(self.speech.whole, call)
            yield await self._plainly(call, self.speech.path(call), whole)
            return
        patience = _Patience(self._endpoint, self._clock, stream=True)
        try:
            answer = await patience.wait(self._send(call, self.speech.path(call)))
            with answer:  # an early end hangs up
                async with aclosing(self._chunks(call, answer, patience)) as chunks:
                    async for event in chunks:
                        yield event
        except (LineError, TimeoutError, WireError, SseError) as fault:
            raise self._explain(fault, unsent=call.progress.queued) from fault

    async def _plainly(self, call: Call, path: str, read: Callable[[bytes], T]) -> T:
        """What is read in a plain answer. Raises `ProviderError`."""
        patience = _Patience(self._endpoint, self._clock, stream=False)
        try:
            return read(await patience.wait(self._whole(call, path)))
        except (LineError, TimeoutError, WireError) as fault:
            raise self._explain(fault, unsent=call.progress.queued) from fault

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes,
        read: Callable[[bytes], T],
        *,
        sign: Callable[[str | None], dict[str, str]],
        form: str | None = None,
    ) -> T:
        """What is read in the answer to something that is no call. `sign` makes headers of a key;
        `form` is the boundary of a body that is a form. Raises `ProviderError`."""
        patience = _Patience(self._endpoint, self._clock, stream=False)
        progress = Progress(queued=True)
        place = self._keys.take(self._clock.monotonic_ns())
        headers = sign(None if place is None else self._keys.reveal(place))
        kind = "application/json" if form is None else f"multipart/form-data; boundary={form}"

        async def asked() -> bytes:
            lines = self._open(kind)
            try:
                with await lines.ask(path, headers, body, progress, method=method) as answer:
                    if answer.status != _OK:
                        raise self._refused(answer, await _start(answer), place)
                    return await _read_all(answer, MAX_FILE_BYTES)
            finally:
                lines.close()

        try:
            return read(await patience.wait(asked()))
        except (LineError, TimeoutError, WireError) as fault:
            raise self._explain(fault, unsent=progress.queued) from fault
        except OSError as fault:
            raise self._error("upstream_connect", str(fault), "not_billed") from None

    async def close(self) -> None:
        """Close the lines."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    async def _send(self, call: Call, path: str) -> Answer:
        """The head of the answer, its status checked."""
        try:
            lines = self._lines = self._lines or self._open("application/json")
        except OSError as fault:
            words = f"cannot be trusted with {self._endpoint.ca_file}: {fault}"
            raise self._error("upstream_connect", words, "not_billed") from None
        call.progress.queued = True
        if self._pace is not None:
            await self._take_turn(self._pace, call)
        place = None if call.caller_key else self._keys.take(self._clock.monotonic_ns())
        body = msgspec.json.encode(call.fields)
        answer = await lines.ask(path, self._headers_for(call, place), body, call.progress)
        if answer.status != _OK:
            with answer:
                raise self._refused(answer, await _start(answer), place)
        return answer

    async def _take_turn(self, pace: Pace, call: Call) -> None:
        """Wait until it may be asked, if that is within the time there is to answer."""
        limits = self._endpoint
        first_s = limits.first_token_timeout_s if call.stream else limits.total_timeout_s
        most_s = min(first_s, limits.total_timeout_s)
        taken, wait_ns = pace.take(self._clock.monotonic_ns(), int(most_s * NS_PER_S))
        if not taken:
            raise ProviderError(
                "upstream_unavailable",
                self._told(f"is asked {limits.requests_per_second:g} times a second, and no more"),
                billing="not_billed",
                retry_after_s=wait_ns / NS_PER_S,
            )
        if wait_ns:
            await self._clock.sleep(wait_ns / NS_PER_S)

    def _open(self, kind: str) -> Lines:
        """Lines for bodies of this type. Raises `OSError` where its authorities cannot be read."""
        endpoint = self._endpoint
        url, proxy = URL(self._base_url), URL(endpoint.proxy) if endpoint.proxy else None
        secured = "https" in (url.scheme, proxy and proxy.scheme)
        target = Target(
            url=url,
            uds=endpoint.uds,
            proxy=proxy,
            trust=ssl.create_default_context(cafile=endpoint.ca_file) if secured else None,
            connect_timeout_s=endpoint.connect_timeout_s,
            most=endpoint.max_connections,
            keep_alive=endpoint.keep_alive,
        )
        return Lines(target, {"Content-Type": kind, **endpoint.headers})

    def _headers_for(self, call: Call, place: int | None) -> Mapping[str, str]:
        key = call.caller_key if place is None else self._keys.reveal(place)
        told = self.speech.headers(call, key)
        return {"X-Request-ID": call.request_id, **call.trace, **told}

    def _refused(self, answer: Answer, body: bytes, place: int | None) -> ProviderError:
        """What an error status says. `place`: of the key of ours that it was asked with."""
        status = answer.status
        if status < _BAD_REQUEST:
            kind = "a redirect" if status >= _MULTIPLE_CHOICES else f"status {status}"
            return self._error("upstream_garbage", f"answered with {kind}", "unknown", status)
        billed = status >= _SERVER_ERROR and self.traits.bills_on_5xx
        pause_s = _retry_after(answer.headers, self._clock)
        another = place is not None and self._another_key(place, status, pause_s)
        return ProviderError(
            _code_of(status),
            self._told(f"answered {status}: {_message_of(body)}"),
            billing="unknown" if billed else "not_billed",
            status=status,
            retry_after_s=None if another else pause_s,
            body=body,
            another_key=another,
        )

    def _another_key(self, place: int, status: int, pause_s: float | None) -> bool:
        """Lets a key rest that was refused or is used up; whether another one may do."""
        if status == _UNAUTHORIZED:
            rest_s = REFUSED_REST_S
        elif status == _TOO_MANY_REQUESTS:
            rest_s = BUSY_REST_S if pause_s is None else pause_s
        else:
            return False
        return self._keys.rest(place, self._clock.monotonic_ns(), rest_s)

    async def _whole(self, call: Call, path: str) -> bytes:
        """A plain answer's body."""
        with await self._send(call, path) as answer:
            return await _read_all(answer, self._endpoint.max_response_bytes)

    async def _chunks(
        self, call: Call, answer: Answer, patience: "_Patience"
    ) -> AsyncGenerator[Event]:
        reader, ear = SseReader(), self.speech.ear(call)
        limit = self._endpoint.max_response_bytes
        size = 0
        finished = False
        while part := await patience.wait(answer.read()):
            size += len(part)
            if size > limit:
                raise WireError(f"its answer is longer than {limit} bytes")
            for data in reader.feed(part):
                event = ear.hear(data)
                if event is None:
                    return
                patience.heard(event)
                finished = finished or event.finish_reason is not None
                yield event
        if not finished:
            raise self._error("upstream_reset", "ended its stream in the middle", "unknown")

    def _error(
        self, code: str, what: str, billing: Billing, status: int | None = None
    ) -> ProviderError:
        return ProviderError(code, self._told(what), billing=billing, status=status)

    def _told(self, what: str) -> str:
        """A message for callers. Upstreams have been seen to repeat the key that they refuse."""
        return f"provider '{self.name}' {self._keys.hide(what)}"

    def _explain(self, fault: Exception, *, unsent: bool) -> ProviderError:
        """The transport's fault in our words. Unbilled only where nothing can have been sent."""
        billing: Billing = "not_billed" if unsent else "unknown"
        match fault:
            case DialError():
                return self._error("upstream_connect", f"cannot be reached: {fault}", "not_billed")
            case TimeoutError():
                return self._error("upstream_timeout", str(fault) or "timed out", billing)
            case UpstreamSaidError():
                return self._error(fault.code, f"reported: {fault}", billing)
            case WireError() | SseError():
                return self._error("upstream_garbage", f"sent nonsense: {fault}", billing)
            case _:
                return self._error("upstream_reset", f"broke the connection: {fault}", billing)


async def _read_all(answer: Answer, limit: int) -> bytes:
    """Its whole body. Raises `WireError` for one that is too long."""
    parts: list[bytes] = []
    size = 0
    while part := await answer.read():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise WireError(f"its answer is longer than {limit} bytes")
    return b"".join(parts)


async def _start(answer: Answer) -> bytes:
    """The beginning of its body, all that is read of an error's."""
    body = b""
    while len(body) < MAX_ERROR_BYTES and (part := await answer.read()):
        body += part
    return body[:MAX_ERROR_BYTES]


class _Patience:
    """The deadlines of one call. A plain answer has only the total; a stream must also begin in
    time and not pause for long."""

    def __init__(self, endpoint: Endpoint, clock: Clock, *, stream: bool) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._started_ns = clock.monotonic_ns()
        self._stream = stream
        self._speaking = False

    def heard(self, event: Event) -> None:
        """The answer has begun: from here on its pauses are timed, no longer its start."""
        self._speaking = self._speaking or event.speaks

    async def wait(self, piece: Awaitable[T]) -> T:
        """The next piece of the response. Raises `TimeoutError` saying which limit passed."""
        endpoint = self._endpoint
        spent = (self._clock.monotonic_ns() - self._started_ns) / NS_PER_S
        seconds, limit = endpoint.total_timeout_s - spent, "total time"
        if self._stream and self._speaking and endpoint.idle_timeout_s < seconds:
            seconds, limit = endpoint.idle_timeout_s, "pause between chunks"
        elif self._stream and not self._speaking:
            first = endpoint.first_token_timeout_s - spent
            seconds, limit = min((seconds, limit), (first, "first-token time"))
        try:
            async with asyncio.timeout(seconds):
                return await piece
        except TimeoutError:
            raise TimeoutError(f"gave no answer within its {limit}") from None


def _code_of(status: int) -> str:
    """The error code that an upstream status means to our callers."""
    if status in (401, 403):
        return "upstream_authentication"
    if status == _TOO_MANY_REQUESTS:
        return "upstream_rate_limited"
    if status in (408, 504):
        return "upstream_timeout"
    if status in (503, 529):
        return "upstream_overloaded"
    return "upstream_server_error" if status >= _SERVER_ERROR else "upstream_refused"


class _ErrorDetail(msgspec.Struct):
    message: str = ""


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail


def _message_of(body: bytes) -> str:
    """The upstream's own words, or the start of what it sent instead."""
    try:
        return msgspec.json.decode(body, type=_ErrorBody).error.message
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body[:MAX_QUOTED_BYTES].decode(errors="replace")


def _retry_after(headers: Mapping[str, str], clock: Clock) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or an HTTP date)."""
    text = headers.get("retry-after-ms")
    scale = 1e-3
    if text is None:
        text, scale = headers.get("retry-after"), 1.0
    if text is None:
        return None
    try:
        seconds = float(text) * scale
    except ValueError:
        try:
            when = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = when.timestamp() - clock.wall_ns() / 1e9
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if seconds == seconds else None
