"""The synchronous client, on nothing but the standard library and msgspec."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from http.client import HTTPException, HTTPResponse
from typing import Literal, TypedDict, TypeVar, Unpack
from urllib.parse import urlencode

import msgspec

from cascaded.client.errors import (
    APIError,
    BudgetExceededError,
    DaemonUnreachableError,
    ProtocolError,
    RateLimitedError,
    StreamBrokenError,
)
from cascaded.client.results import (
    AuditPage,
    Backup,
    Budget,
    CascadeResult,
    CascadeStreamChunk,
    Check,
    Health,
    Hold,
    ModelInfo,
    Receipt,
    Summary,
    UnresolvedHold,
)
from cascaded.client.transport import Transport
from cascaded.types.places import socket_path
from cascaded.wire.sse import DONE, SseError, SseReader

DEFAULT_TIMEOUT_S = 600.0
_ERROR_STATUS = 400
_READ_BYTES = 65_536
MAX_QUOTED_BYTES = 200

T = TypeVar("T")
_ERRORS: dict[str, type[APIError]] = {
    "insufficient_quota": BudgetExceededError,
    "rate_limited": RateLimitedError,
}
Amount = Decimal | str | int
Query = str | Sequence[Mapping[str, object]]
StreamMode = Literal["auto", "stream", "buffer"]


class _Error(msgspec.Struct):
    message: str = "the daemon gave no reason"
    code: str = "unknown"
    type: str = ""
    param: str | None = None


class _ErrorBody(msgspec.Struct):
    error: msgspec.Raw


class _Amounts(msgspec.Struct, omit_defaults=True):
    """The members of an error that are money, and so must not pass through a float."""

    budget_limit: Decimal | None = None
    current_spend: Decimal | None = None
    next_tier_budget: Decimal | None = None


class _Models(msgspec.Struct):
    data: list[ModelInfo]


class _Held(msgspec.Struct):
    hold: int
    cost: Decimal


class _Budgets(msgspec.Struct):
    budgets: list[Budget]


class _Unknowns(msgspec.Struct):
    holds: list[UnresolvedHold]


class Asked(TypedDict, total=False):
    """What may be asked for beside the query."""

    model: str
    """A ladder, an alias or a model; `auto` by default."""
    user_id: str
    user_tier: str
    context: Mapping[str, str]
    """`user_id`, `tier`, `organization` in one."""
    metadata: Mapping[str, str]
    """Tags of this call."""
    quality_mode: str
    domain: str
    max_tokens: int
    max_cost: Decimal | str | int
    """The most that this call may cost over all attempts, in US dollars. Never a float."""
    options: Mapping[str, object]
    """Further chat-completions members: `temperature`, `tools`, `response_format` …"""


class Client:
    """The daemon of this host. Safe to share between threads: each has its own connection."""

    def __init__(self, socket: str | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """`socket`: the daemon's Unix socket; by default `$CASCADED_SOCKET`, else where a daemon
        without configuration listens."""
        path = socket or os.environ.get("CASCADED_SOCKET") or socket_path(os.environ, os.getuid())
        self._transport = Transport(path, timeout_s)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close this thread's connection."""
        self._transport.close()

    def run(self, query: Query, **asked: Unpack[Asked]) -> CascadeResult:
        """Ask, and wait for the whole answer.

        `query` is a text or a list of messages. Raises `APIError` and `DaemonUnreachableError`.
        """
        return self._call("POST", "/infer", _body(query, asked), CascadeResult)

    def stream(
        self, query: Query, *, mode: StreamMode = "auto", **asked: Unpack[Asked]
    ) -> Iterator[CascadeStreamChunk]:
        """Ask, and get the answer as it comes; the last chunk `is_final` and has the metadata.

        Closing the iterator hangs up. Raises `StreamBrokenError` when the answer breaks off.
        """
        return self._stream(_body(query, asked, stream=True, stream_mode=mode))

    def check(
        self, query: Query | None = None, *, cost: Amount | None = None, **asked: Unpack[Asked]
    ) -> Check:
        """What would happen to this call, and why, for every limit. Takes nothing.

        Give a query as for `run`, or just the `cost` that you have in mind.
        """
        if (query is None) == (cost is None):
            raise TypeError("give either a query or a cost")
        body = _amount_body(cost, asked) if query is None else _body(query, asked)
        return self._call("POST", "/check", body, Check)

    @contextmanager
    def reserve(
        self,
        cost: Amount,
        *,
        tokens: int = 0,
        expires_in_s: float | None = None,
        idempotency_key: str | None = None,
        **asked: Unpack[Asked],
    ) -> Iterator[Hold]:
        """Hold the most that a call of your own can cost, and settle it when the block ends.

        In the block call `hold.settle(real_cost)` once the provider has told it, or
        `hold.release()` if nothing was sent. A block that does neither is charged in full, also
        when it raises: nobody knows what it cost.
        """
        body = _amount_body(cost, asked, tokens=tokens, expires_in_s=expires_in_s)
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        held = self._call("POST", "/reserve", body, _Held, headers)
        hold = Hold(held.hold, held.cost, self._resolve_hold)
        try:
            yield hold
        finally:
            if hold.receipt is None:
                hold.settle(None)

    def budgets(self, scope: str | None = None, id: str | None = None) -> list[Budget]:
        """How budgets stand: your own, or as an administrator anybody's."""
        return self._call("GET", _path("/budgets", scope=scope, id=id), None, _Budgets).budgets

    def summary(self, user_id: str | None = None) -> Summary:
        """What a user spent today, this week and this month: you, or as an administrator anybody,
        and everybody together when none is named. A call is in it a moment after its end."""
        return self._call("GET", _path("/summary", user_id=user_id), None, Summary)

    def audit(self, *, limit: int | None = None, after: str | None = None) -> AuditPage:
        """Decisions about money and access, the newest first. Administrators.

        At most `limit` of them; `after` is the page's before, to read on.
        """
        return self._call("GET", _path("/audit", limit=limit, after=after), None, AuditPage)

    def backup(self, folder: str) -> Backup:
        """Copy the daemon's state into a folder of its host that is not there yet; an absolute
        path. Administrators. Returns once the copy is on the disk."""
        return self._call("POST", "/state/backup", msgspec.json.encode({"dir": folder}), Backup)

    def unknowns(self) -> list[UnresolvedHold]:
        """Holds that are open, and those charged although nobody knows the bill. Administrators."""
        return self._call("GET", "/unknowns", None, _Unknowns).holds

    def resolve(self, hold: int, cost: Amount) -> Receipt:
        """What the provider's bill says of an unknown. Administrators."""
        body = msgspec.json.encode({"cost": _exact(cost)})
        return self._call("POST", f"/unknowns/{hold}", body, Receipt)

    def health(self) -> Health:
        """Whether the daemon answers, and its version."""
        return self._call("GET", "/health", None, Health)

    def models(self) -> list[ModelInfo]:
        """Every name that may be asked for."""
        return self._call("GET", "/v1/models", None, _Models).data

    def _resolve_hold(self, hold: int, cost: Amount | None, *, release: bool) -> Receipt:
        if release:
            return self._call("POST", "/release", msgspec.json.encode({"hold": hold}), Receipt)
        said = {"hold": hold} if cost is None else {"hold": hold, "cost": _exact(cost)}
        return self._call("POST", "/settle", msgspec.json.encode(said), Receipt)

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None,
        shape: type[T],
        headers: Mapping[str, str] | None = None,
    ) -> T:
        with self._transport.exchange(method, path, body, headers) as response:
            content = _rest(response)
        if response.status >= _ERROR_STATUS:
            raise _api_error(response, content)
        try:
            return msgspec.json.decode(content, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolError(f"{path} answered in an unknown shape: {error}") from None

    def _stream(self, body: bytes) -> Iterator[CascadeStreamChunk]:
        with self._transport.exchange("POST", "/infer", body) as response:
            if response.status >= _ERROR_STATUS:
                raise _api_error(response, _rest(response))
            for data in _events(response):
                yield _chunk(data)


def _path(route: str, **wanted: str | int | None) -> str:
    """A route and what is asked of it."""
    said = {name: value for name, value in wanted.items() if value is not None}
    return f"{route}?{urlencode(said)}" if said else route


def _body(query: Query, asked: Asked, **ours: object) -> bytes:
    """The body of `/infer`. Raises `TypeError` for a cost that is a float: it is not exact."""
    said = {name: value for name, value in asked.items() if value is not None}
    if "max_cost" in said:
        said["max_cost"] = _exact(said["max_cost"])
    words = {"query": query} if isinstance(query, str) else {"messages": query}
    return msgspec.json.encode({**words, **said, **ours})


def _amount_body(cost: Amount | None, asked: Asked, **ours: object) -> bytes:
    """The body of `/reserve`, and of a `/check` of an amount."""
    said = {**asked, **ours, "cost": _exact(cost)}
    return msgspec.json.encode({name: value for name, value in said.items() if value is not None})


def _exact(cost: object) -> str:
    """An amount as text. Raises `TypeError` for floats: they are not exact."""
    if isinstance(cost, float):
        raise TypeError("money must be exact: give a Decimal, a string or an int of US dollars")
    return str(cost)


def _rest(response: HTTPResponse) -> bytes:
    try:
        return response.read()
    except (OSError, HTTPException) as error:
        raise DaemonUnreachableError(f"the daemon went away as it answered: {error!r}") from error


def _events(response: HTTPResponse) -> Iterator[bytes]:
    """The data of each event before the end mark. Raises `StreamBrokenError` when there is none."""
    reader = SseReader()
    try:
        while piece := response.read1(_READ_BYTES):
            for data in reader.feed(piece):
                if data == DONE:
                    response.read()
                    return
                yield data
    except (OSError, HTTPException) as error:
        raise StreamBrokenError(f"the connection broke: {error!r}") from error
    except SseError as error:
        raise ProtocolError(f"the stream is not one of this daemon's: {error}") from None
    raise StreamBrokenError("the stream ended before its last chunk")


def _chunk(data: bytes) -> CascadeStreamChunk:
    try:
        if b'"error"' in data[:10]:
            error = msgspec.json.decode(data, type=_ErrorBody).error
            raise StreamBrokenError(msgspec.json.decode(error, type=_Error).message)
        return msgspec.json.decode(data, type=CascadeStreamChunk)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the stream has a chunk of unknown shape: {error}") from None


def _api_error(response: HTTPResponse, content: bytes) -> APIError:
    try:
        raw = msgspec.json.decode(content, type=_ErrorBody).error
        error = msgspec.json.decode(raw, type=_Error)
        details = msgspec.json.decode(raw, type=dict[str, object])
        details |= msgspec.structs.asdict(msgspec.json.decode(raw, type=_Amounts))
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = content[:MAX_QUOTED_BYTES].decode(errors="replace")
        raise ProtocolError(f"status {response.status}, not from this daemon: {text}") from None
    retry_ms = response.getheader("retry-after-ms")
    raised = _ERRORS.get(error.code, APIError)
    return raised(
        error.message,
        status=response.status,
        code=error.code,
        type=error.type,
        param=error.param,
        request_id=response.getheader("x-request-id"),
        retry_after_s=float(retry_ms) / 1000 if retry_ms else None,
        details=details,
    )
