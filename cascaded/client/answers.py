"""How answers are read: whole, as a stream, or as an error. No I/O."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Generic, TypeVar

import msgspec

from cascaded.client.calls import Call
from cascaded.client.errors import (
    APIError,
    BudgetExceededError,
    ProtocolError,
    RateLimitedError,
    StreamBrokenError,
    VersionError,
)
from cascaded.wire import protocol
from cascaded.wire.sse import DONE, SseError, SseReader

ERROR_STATUS = 400
MAX_QUOTED_BYTES = 200

T = TypeVar("T")
_ERRORS: dict[str, type[APIError]] = {
    "insufficient_quota": BudgetExceededError,
    "rate_limited": RateLimitedError,
}


class Head(msgspec.Struct, frozen=True):
    """How an answer begins."""

    status: int
    headers: Mapping[str, str]
    """Their names in lower case."""


def understood(head: Head) -> Head:
    """The same, if it is in a version that this client reads. Raises `VersionError`."""
    told = head.headers.get(protocol.HEADER)
    daemon = protocol.version(told)
    if protocol.spoken(daemon):
        return head
    old = daemon is not None and daemon < protocol.OLDEST
    raise VersionError(
        f"the daemon speaks protocol {told}, this client {protocol.CURRENT}: upgrade the"
        + (" daemon and restart it" if old else " client (pip install --upgrade cascaded)"),
        daemon=daemon,
        client=protocol.CURRENT,
    )


def refused(call: Call[T], head: Head) -> bool:
    """Whether the body to come is an error."""
    return head.status >= ERROR_STATUS and head.status not in call.answers


def result(call: Call[T], head: Head, body: bytes) -> T:
    """What a whole answer says. Raises `APIError` and `ProtocolError`."""
    if refused(call, head):
        raise api_error(head, body)
    try:
        return call.read(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"{call.path} answered in an unknown shape: {error}") from None


class Chunks(Generic[T]):
    """The events of a streamed answer, whatever pieces it comes in."""

    def __init__(self, call: Call[T]) -> None:
        self._call = call
        self._reader = SseReader()
        self._done = False

    def feed(self, piece: bytes) -> Iterator[T]:
        """The events that this piece completes. Raises `StreamBrokenError`, `ProtocolError`."""
        try:
            for data in self._reader.feed(piece):
                if data == DONE:
                    self._done = True
                elif not self._done:
                    yield self._event(data)
        except SseError as error:
            raise ProtocolError(f"the stream is not one of this daemon's: {error}") from None

    def end(self) -> None:
        """Nothing more comes. Raises `StreamBrokenError` unless that was said before."""
        if not self._done:
            raise StreamBrokenError("the stream ended before its last chunk")

    def _event(self, data: bytes) -> T:
        try:
            if b'"error"' in data[:10]:
                error = msgspec.json.decode(data, type=_ErrorBody).error
                raise StreamBrokenError(msgspec.json.decode(error, type=_Error).message)
            return self._call.read(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolError(f"the stream has a chunk of unknown shape: {error}") from None


class _Error(msgspec.Struct):
    message: str = "the daemon gave no reason"
    code: str = "unknown"
    type: str = ""
    param: str | None = None


class _ErrorBody(msgspec.Struct):
    error: msgspec.Raw


class _Amounts(msgspec.Struct):
    """The members of an error that are money, and so must not pass through a float."""

    budget_limit: Decimal | None = None
    current_spend: Decimal | None = None
    next_tier_budget: Decimal | None = None


def _seconds(headers: Mapping[str, str]) -> float | None:
    """When to try again: in milliseconds as ours tells it, else in seconds as others do."""
    for name, parts in (("retry-after-ms", 1000), ("retry-after", 1)):
        with suppress(KeyError, ValueError):
            return float(headers[name]) / parts
    return None


def api_error(head: Head, body: bytes) -> APIError:
    """Why a call was refused. Raises `ProtocolError` when it was not the daemon who did."""
    try:
        raw = msgspec.json.decode(body, type=_ErrorBody).error
        error = msgspec.json.decode(raw, type=_Error)
        details = msgspec.json.decode(raw, type=dict[str, object])
        details |= msgspec.structs.asdict(msgspec.json.decode(raw, type=_Amounts))
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = body[:MAX_QUOTED_BYTES].decode(errors="replace")
        raise ProtocolError(f"status {head.status}, not from this daemon: {text}") from None
    raised = _ERRORS.get(error.code, APIError)
    return raised(
        error.message,
        status=head.status,
        code=error.code,
        type=error.type,
        param=error.param,
        request_id=head.headers.get("x-request-id"),
        retry_after_s=_seconds(head.headers),
        should_retry={"true": True, "false": False}.get(head.headers.get("x-should-retry", "")),
        details=details,
    )
