"""The asynchronous client, for asyncio's loop and uvloop.

It waits with the loop's socket calls and not with streams: a socket between two calls then belongs
to no loop, so that several loops can share a client, and nothing is read before somebody asks.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
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
from cascaded.client.exports import AsyncExport
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

    from anthropic import AsyncAnthropic
    from openai import AsyncOpenAI

    from cascaded.client.insight import ImportedInfo
    from cascaded.types.batch import BatchConfig

MAX_CONNECTIONS = 100

P = ParamSpec("P")
T = TypeVar("T")


class Method(Generic[P, T]):
    """A method of `AsyncClient` that makes the call which a function of `calls` describes."""

    def __init__(self, describe: Callable[P, Call[T]]) -> None:
        self._describe = describe
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self, client: "AsyncClient", owner: type
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(
        self, client: "AsyncClient | None", owner: type
    ) -> Self | Callable[P, Coroutine[Any, Any, T]]:
        if client is None:
            return self
        describe = self._describe

        @wraps(describe)
        async def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return await client.ask(describe(*args, **kwargs))

        return method


class AsyncHold:
    """Money held for a call that you make yourself."""

    def __init__(self, client: "AsyncClient", held: Held) -> None:
        self.id = held.hold
        self.cost = held.cost
        """What is held."""
        self.receipt: Receipt | None = None
        """How it was resolved, once it is."""
        self._client = client

    async def settle(self, cost: Amount | None) -> Receipt:
        """What it really cost; `None`: nobody knows, so it is charged in full."""
        self.receipt = await self._client.settle(self.id, cost)
        return self.receipt

    async def release(self) -> Receipt:
        """Nothing was sent."""
        self.receipt = await self._client.release(self.id)
        return self.receipt


class AsyncClient:
    """The daemon of this host, for asyncio: what `Client` does, awaited. Cancelling a call hangs
    up. Methods raise what `cascaded.client.errors` lists."""

    def __init__(
        self,
        socket: str | None = None,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """`socket` and `timeout_s` as for `Client`. `max_connections`: how many calls of one loop
        may be under way at once; further ones wait their turn."""
        self.socket = where(socket)
        self.timeout_s = timeout_s
        self.max_connections = max_connections
        self._idle = Idle()
        self._turns: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
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
    ) -> AsyncGenerator[CascadeStreamChunk]:
        """Ask, and get the answer as it comes; the last chunk `is_final` and has the metadata.

        Closing the generator (`contextlib.aclosing`) hangs up. Raises `StreamBrokenError` when the
        answer breaks off.
        """
        return self.ask_stream(calls.stream(query, config, **asked))

    async def batch(
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
        batch = await self.start_batch(queries, config, idempotency_key=key, **asked)
        async with aclosing(self.watch_batch(batch.id)) as states:
            async for now in states:
                if on_progress is not None:
                    on_progress(now)
        result = (await self.batch_info(batch.id)).result
        assert result is not None  # it has ended
        return result

    async def watch_batch(self, id: str) -> AsyncGenerator[BatchInfo]:
        """How a batch stands, now and whenever that changes, up to its end; also over a restart of
        the daemon. Closing the generator stops nothing."""
        clock = asyncio.get_running_loop().time
        heard = clock()
        while True:
            try:
                async with aclosing(self.ask_stream(calls.watch_batch(id))) as states:
                    async for now in states:
                        heard = clock()
                        yield now
                return
            except (DaemonUnreachableError, StreamBrokenError):
                if clock() - heard > self.timeout_s:
                    raise
            await asyncio.sleep(LOOK_AGAIN_S)

    @asynccontextmanager
    async def reserve(
        self,
        cost: Amount,
        *,
        tokens: int = 0,
        expires_in_s: float | None = None,
        idempotency_key: str | None = None,
        **asked: Unpack[Asked],
    ) -> AsyncIterator[AsyncHold]:
        """Hold the most that a call of your own can cost, and settle it when the block ends.

        In the block `await hold.settle(real_cost)` once the provider has told it, or
        `await hold.release()` if nothing was sent. A block that does neither is charged in full,
        also when it raises or is cancelled: nobody knows what it cost.
        """
        held = calls.reserve(
            cost,
            tokens=tokens,
            expires_in_s=expires_in_s,
            idempotency_key=idempotency_key,
            **asked,
        )
        hold = AsyncHold(self, await self.ask(held))
        try:
            yield hold
        finally:
            if hold.receipt is None:
                await hold.settle(None)

    @asynccontextmanager
    async def export(
        self, form: ExportForm = "jsonl", **records: Unpack[Records]
    ) -> AsyncIterator[AsyncExport]:
        """Usage records, the oldest first; leaving the block early hangs up. Administrators.

        `async with client.export("csv") as export: async for piece in export: …`, or
        `async for row in export.rows()` of JSON lines.
        """
        call = calls.export(form, **records)
        async with self._exchange(call) as (connection, head):
            if refused(call, head):
                with answering():
                    body = await self._whole(connection)
                raise api_error(head, body)
            yield AsyncExport(head, self._pieces(connection))

    async def load_from_file(
        self, path: "str | Path", *, form: str | None = None
    ) -> "ImportedInfo":
        """Bring in a file that `cascaded export` wrote, in any of its formats but FOCUS; by its
        ending, unless `form` says which. Twice does no more than once. Administrators.

        Raises `ValueError` for a file that is none. Reads it here, a thousand rows at a time.
        """
        from cascaded.client.history import NOTHING, added_up, batches

        done = NOTHING
        for rows in batches(path, form):
            done = added_up(done, await self.import_records(rows))
        return done

    def openai(self, **options: Any) -> "AsyncOpenAI":
        """The official OpenAI SDK's client for asyncio, over this socket. `options` are its own.

        Raises `ImportError` with what to install.
        """
        return sdk.async_openai_client(self.socket, {"timeout": self.timeout_s, **options})

    def anthropic(self, **options: Any) -> "AsyncAnthropic":
        """The official Anthropic SDK's client for asyncio, likewise."""
        return sdk.async_anthropic_client(self.socket, {"timeout": self.timeout_s, **options})

    async def ask(self, call: Call[T]) -> T:
        """Make a call that `cascaded.client.calls` describes."""
        async with self._exchange(call) as (connection, head):
            with answering():
                body = await self._whole(connection)
        return result(call, head, body)

    async def ask_stream(self, call: Call[T]) -> AsyncGenerator[T]:
        """Make a call whose answer comes in pieces."""
        async with self._exchange(call) as (connection, head):
            if not refused(call, head):
                chunks = Chunks(call)
                with streaming():
                    while piece := await self._piece(connection):
                        for chunk in chunks.feed(piece):
                            yield chunk
                chunks.end()
                return
            with answering():
                body = await self._whole(connection)
        raise api_error(head, body)

    @asynccontextmanager
    async def _exchange(self, call: Call[T]) -> AsyncIterator[tuple[Connection, Head]]:
        """One call and the head of its answer, on a connection that nobody else uses meanwhile.
        What is left unread closes it."""
        async with self._turn():
            with asking(self.socket, self.timeout_s):
                connection, head = await self._begin(call)
            try:
                yield connection, head
            except BaseException:
                connection.close()
                raise
            self._idle.give(connection)

    async def _begin(self, call: Call[T]) -> tuple[Connection, Head]:
        """Send it; once again where a connection that was kept turns out dead and that is safe."""
        kept = self._idle.take()
        if kept is not None:
            try:
                return kept, await self._head(kept, call)
            except ConnectionError:
                if not kept.may_repeat(call):
                    raise
        fresh = await self._dial()
        return fresh, await self._head(fresh, call)

    async def _dial(self) -> Connection:
        async with asyncio.timeout(self.timeout_s):
            while (connection := dial(self.socket)) is None:  # noqa: ASYNC110
                await asyncio.sleep(DIAL_AGAIN_S)
        return connection

    async def _head(self, connection: Connection, call: Call[T]) -> Head:
        """Send a call, and wait until its answer begins. Hangs up when that fails."""
        try:
            await self._send(connection, connection.http.say(call))
            while (head := connection.http.head()) is None:
                await self._hear(connection)
        except BaseException:
            connection.close()
            raise
        return head

    async def _send(self, connection: Connection, data: bytes) -> None:
        """All of it, unless the daemon has heard enough: then its answer says why."""
        connection.sent = 0
        with suppress(BlockingIOError):
            connection.sent = connection.sock.send(data)  # as a rule it takes all at once
        rest = memoryview(data)[connection.sent :]
        if rest:
            connection.sent = len(data)
            with suppress(ConnectionError):
                async with asyncio.timeout(self.timeout_s):
                    await asyncio.get_running_loop().sock_sendall(connection.sock, rest)

    async def _hear(self, connection: Connection) -> None:
        async with asyncio.timeout(self.timeout_s):
            loop = asyncio.get_running_loop()
            connection.http.hear(await loop.sock_recv(connection.sock, READ_BYTES))

    async def _piece(self, connection: Connection) -> bytes:
        while (piece := connection.http.piece()) is None:
            await self._hear(connection)
        return piece

    async def _pieces(self, connection: Connection) -> AsyncIterator[bytes]:
        while piece := await self._piece(connection):
            yield piece

    async def _whole(self, connection: Connection) -> bytes:
        body = bytearray()
        while piece := await self._piece(connection):
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise ProtocolError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        return bytes(body)

    def _turn(self) -> asyncio.Semaphore:
        """Of this loop: a semaphore serves only one."""
        loop = asyncio.get_running_loop()
        if loop not in self._turns:
            self._turns = {
                known: turn for known, turn in self._turns.items() if not known.is_closed()
            }
            self._turns[loop] = asyncio.Semaphore(self.max_connections)
        return self._turns[loop]
