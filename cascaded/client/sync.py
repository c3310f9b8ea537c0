"""The synchronous client: nothing but the standard library, msgspec and h11."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, Unpack, overload

from cascaded.client import calls, sdk
from cascaded.client.answers import Chunks, Head, api_error, refused, result
from cascaded.client.calls import Amount, Asked, BatchQuery, Call, ExportForm, Query, Records
from cascaded.client.connection import (
    DEFAULT_TIMEOUT_S,
    DIAL_AGAIN_S,
    KEY_BYTES,
    LOOK_AGAIN_S,
    MAX_ANSWER_BYTES,
    READ_BYTES,
    Connection,
    Idle,
    answering,
    asking,
    dial,
    streaming,
    where,
)
from cascaded.client.errors import DaemonUnreachableError, ProtocolError, StreamBrokenError
from cascaded.client.exports import Export
from cascaded.client.results import (
    BatchInfo,
    BatchResult,
    CascadeStreamChunk,
    Held,
    Receipt,
    StreamConfig,
)

if TYPE_CHECKING:
    from pathlib import Path

    from anthropic import Anthropic, AsyncAnthropic
    from openai import AsyncOpenAI, OpenAI

    from cascaded.client.insight import ImportedInfo
    from cascaded.types.batch import BatchConfig

P = ParamSpec("P")
T = TypeVar("T")


class Method(Generic[P, T]):
    """A method of `Client` that makes the call which a function of `calls` describes."""

    def __init__(self, describe: Callable[P, Call[T]]) -> None:
        self._describe = describe
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[P, T]: ...
    def __get__(self, client: "Client | None", owner: type) -> Self | Callable[P, T]:
        if client is None:
            return self
        describe = self._describe

        @wraps(describe)
        def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return client.ask(describe(*args, **kwargs))

        return method


class Hold:
    """Money held for a call that you make yourself."""

    def __init__(self, client: "Client", held: Held) -> None:
        self.id = held.hold
        self.cost = held.cost
        """What is held."""
        self.receipt: Receipt | None = None
        """How it was resolved, once it is."""
        self._client = client

    def settle(self, cost: Amount | None) -> Receipt:
        """What it really cost; `None`: nobody knows, so it is charged in full."""
        self.receipt = self._client.settle(self.id, cost)
        return self.receipt

    def release(self) -> Receipt:
        """Nothing was sent."""
        self.receipt = self._client.release(self.id)
        return self.receipt


class Client:
    """The daemon of this host. Threads may share one, and a child keeps off its parent's
    connections after a fork. Methods raise what `cascaded.client.errors` lists."""

    def __init__(self, socket: str | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """`socket`: the daemon's Unix socket; by default `$CASCADED_SOCKET`, else where a daemon
        without configuration listens. `timeout_s`: how long to wait for the next bytes."""
        self.socket = where(socket)
        self.timeout_s = timeout_s
        self._idle = Idle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept. The next call dials anew."""
        self._idle.close()

    run = Method(calls.run)
    start_batch = Method(calls.start_batch)
    batch_info = Method(calls.batch_info)
    batches = Method(calls.batches)
    cancel_batch = Method(calls.cancel_batch)
    delete_batch = Method(calls.delete_batch)
    check = Method(calls.check)
    route = Method(calls.route)
    settle = Method(calls.settle)
    release = Method(calls.release)
    budgets = Method(calls.budgets)
    summary = Method(calls.summary)
    forecast = Method(calls.forecast)
    anomalies = Method(calls.anomalies)
    recommendations = Method(calls.recommendations)
    breakdown = Method(calls.breakdown)
    audit = Method(calls.audit)
    import_records = Method(calls.import_records)
    backup = Method(calls.backup)
    cache = Method(calls.cache)
    clear_cache = Method(calls.clear_cache)
    verify_cache = Method(calls.verify_cache)
    reload = Method(calls.reload)
    limits = Method(calls.limits)
    limits_of = Method(calls.limits_of)
    set_limits = Method(calls.set_limits)
    unset_limits = Method(calls.unset_limits)
    tiers = Method(calls.tiers)
    tier = Method(calls.tier)
    put_tier = Method(calls.put_tier)
    delete_tier = Method(calls.delete_tier)
    issue_key = Method(calls.issue_key)
    keys = Method(calls.keys)
    revoke_key = Method(calls.revoke_key)
    unknowns = Method(calls.unknowns)
    resolve = Method(calls.resolve)
    users = Method(calls.users)
    user = Method(calls.user)
    create_users = Method(calls.create_users)
    put_user = Method(calls.put_user)
    change_user = Method(calls.change_user)
    set_tier = Method(calls.set_tier)
    delete_user = Method(calls.delete_user)
    organizations = Method(calls.organizations)
    put_organization = Method(calls.put_organization)
    delete_organization = Method(calls.delete_organization)
    workspaces = Method(calls.workspaces)
    put_workspace = Method(calls.put_workspace)
    delete_workspace = Method(calls.delete_workspace)
    health = Method(calls.health)
    ready = Method(calls.ready)
    metrics = Method(calls.metrics)
    models = Method(calls.models)

    def stream(
        self, query: Query, config: StreamConfig = calls.AS_USUAL, **asked: Unpack[Asked]
    ) -> Generator[CascadeStreamChunk]:
        """Ask, and get the answer as it comes; the last chunk `is_final` and has the metadata.

        Closing the generator hangs up. Raises `StreamBrokenError` when the answer breaks off.
        """
        return self.ask_stream(calls.stream(query, config, **asked))

    def batch(
        self,
        queries: Sequence[BatchQuery],
        config: "BatchConfig | None" = None,
        *,
        on_progress: Callable[[BatchInfo], object] | None = None,
        idempotency_key: str | None = None,
        **asked: Unpack[Asked],
    ) -> BatchResult:
        """Ask many queries, and wait until each has an answer or an error.

        A query is a text, a list of messages, or a whole body of `/infer`; `asked` holds for those
        that say nothing else. `on_progress` is told whenever the batch stands otherwise. The batch
        outlives the daemon: where that is restarted, this waits for it, `timeout_s` at most.
        """
        key = idempotency_key or os.urandom(KEY_BYTES).hex()
        batch = self.start_batch(queries, config, idempotency_key=key, **asked)
        for now in self.watch_batch(batch.id):
            if on_progress is not None:
                on_progress(now)
        result = self.batch_info(batch.id).result
        assert result is not None  # it has ended
        return result

    def watch_batch(self, id: str) -> Generator[BatchInfo]:
        """How a batch stands, now and whenever that changes, up to its end; also over a restart of
        the daemon. Closing the generator stops nothing."""
        heard = time.monotonic()
        while True:
            try:
                for now in self.ask_stream(calls.watch_batch(id)):
                    heard = time.monotonic()
                    yield now
                return
            except (DaemonUnreachableError, StreamBrokenError):
                if time.monotonic() - heard > self.timeout_s:
                    raise
            time.sleep(LOOK_AGAIN_S)

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
        held = calls.reserve(
            cost,
            tokens=tokens,
            expires_in_s=expires_in_s,
            idempotency_key=idempotency_key,
            **asked,
        )
        hold = Hold(self, self.ask(held))
        try:
            yield hold
        finally:
            if hold.receipt is None:
                hold.settle(None)

    @contextmanager
    def export(self, form: ExportForm = "jsonl", **records: Unpack[Records]) -> Iterator[Export]:
        """Usage records, the oldest first; leaving the block early hangs up. Administrators.

        `with client.export("csv", since="2026-11-01") as export: file.writelines(export)`, or
        `for row in export.rows()` of JSON lines.
        """
        call = calls.export(form, **records)
        with self._exchange(call) as (connection, head):
            if refused(call, head):
                with answering():
                    body = _whole(connection)
                raise api_error(head, body)
            yield Export(head, _pieces(connection))

    def load_from_file(self, path: "str | Path", *, form: str | None = None) -> "ImportedInfo":
        """Bring in a file that `cascaded export` wrote, in any of its formats but FOCUS; by its
        ending, unless `form` says which. Twice does no more than once. Administrators.

        Raises `ValueError` for a file that is none.
        """
        from cascaded.client.history import NOTHING, added_up, batches

        done = NOTHING
        for rows in batches(path, form):
            done = added_up(done, self.import_records(rows))
        return done

    def openai(self, **options: Any) -> "OpenAI":
        """The official OpenAI SDK's client, over this socket. `options` are its own.

        Raises `ImportError` with what to install.
        """
        return sdk.openai_client(self.socket, {"timeout": self.timeout_s, **options})

    def async_openai(self, **options: Any) -> "AsyncOpenAI":
        """The same for asyncio."""
        return sdk.async_openai_client(self.socket, {"timeout": self.timeout_s, **options})

    def anthropic(self, **options: Any) -> "Anthropic":
        """The official Anthropic SDK's client, over this socket. `options` are its own.

        Raises `ImportError` with what to install.
        """
        return sdk.anthropic_client(self.socket, {"timeout": self.timeout_s, **options})

    def async_anthropic(self, **options: Any) -> "AsyncAnthropic":
        """The same for asyncio."""
        return sdk.async_anthropic_client(self.socket, {"timeout": self.timeout_s, **options})

    def ask(self, call: Call[T]) -> T:
        """Make a call that `cascaded.client.calls` describes."""
        with self._exchange(call) as (connection, head), answering():
            body = _whole(connection)
        return result(call, head, body)

    def ask_stream(self, call: Call[T]) -> Generator[T]:
        """Make a call whose answer comes in pieces."""
        with self._exchange(call) as (connection, head):
            if not refused(call, head):
                yield from _chunks(connection, call)
                return
            with answering():
                body = _whole(connection)
        raise api_error(head, body)

    @contextmanager
    def _exchange(self, call: Call[T]) -> Iterator[tuple[Connection, Head]]:
        """One call and the head of its answer, on a connection that nobody else uses meanwhile.
        What is left unread closes it."""
        with asking(self.socket, self.timeout_s):
            connection, head = self._begin(call)
        try:
            yield connection, head
        except BaseException:
            connection.close()
            raise
        self._idle.give(connection)

    def _begin(self, call: Call[T]) -> tuple[Connection, Head]:
        """Send it; once again where a connection that was kept turns out dead and that is safe."""
        kept = self._idle.take()
        if kept is not None:
            try:
                return kept, _head(kept, call)
            except ConnectionError:
                if not kept.may_repeat(call):
                    raise
        fresh = self._dial()
        return fresh, _head(fresh, call)

    def _dial(self) -> Connection:
        late = time.monotonic() + self.timeout_s
        while (connection := dial(self.socket)) is None:
            if time.monotonic() > late:
                raise TimeoutError
            time.sleep(DIAL_AGAIN_S)
        connection.sock.settimeout(self.timeout_s)
        return connection


def _head(connection: Connection, call: Call[T]) -> Head:
    """Send a call, and wait until its answer begins. Hangs up when that fails."""
    try:
        _send(connection, connection.http.say(call))
        while (head := connection.http.head()) is None:
            connection.http.hear(connection.sock.recv(READ_BYTES))
    except BaseException:
        connection.close()
        raise
    return head


def _send(connection: Connection, data: bytes) -> None:
    """All of it, unless the daemon has heard enough: then its answer says why."""
    connection.sent, rest = 0, memoryview(data)
    try:
        while rest:
            sent = connection.sock.send(rest)
            connection.sent += sent
            rest = rest[sent:]
    except ConnectionError:
        if not connection.sent:
            raise


def _chunks(connection: Connection, call: Call[T]) -> Iterator[T]:
    chunks = Chunks(call)
    with streaming():
        for piece in _pieces(connection):
            yield from chunks.feed(piece)
    chunks.end()


def _pieces(connection: Connection) -> Iterator[bytes]:
    while piece := _piece(connection):
        yield piece


def _piece(connection: Connection) -> bytes:
    while (piece := connection.http.piece()) is None:
        connection.http.hear(connection.sock.recv(READ_BYTES))
    return piece


def _whole(connection: Connection) -> bytes:
    body = bytearray()
    for piece in _pieces(connection):
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise ProtocolError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)
