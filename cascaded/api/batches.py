"""The routes of our own batches: `/infer/batch`."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from aiohttp import web
from msgspec.structs import replace

from cascaded.api.claims import NAMES, from_headers, with_body
from cascaded.api.dialects.base import Incoming
from cascaded.api.errors import error_response
from cascaded.api.replies import json_response
from cascaded.jobs.batches import Batches
from cascaded.pipeline.stages.resolve import Standing
from cascaded.policy.limits.access import feature_refusal
from cascaded.ports import Clock, Offload
from cascaded.state.batches import StoredBatches
from cascaded.types.batch import DAY_S, Batch, BatchConfig, Line, StoredFile
from cascaded.types.decision import Refusal
from cascaded.types.errors import StoreError, StoreFullError
from cascaded.types.request import Claims, Principal
from cascaded.types.times import NS_PER_S
from cascaded.wire import protocol
from cascaded.wire.anthropic import PASSED_HEADERS
from cascaded.wire.batches import batch_info, batch_result, claimed, read_batch
from cascaded.wire.caching import CACHE_HEADER
from cascaded.wire.openai_chat import WireError
from cascaded.wire.records import page_limit
from cascaded.wire.sse import DONE, sse

HEARTBEAT_S = 10.0
MAX_KEY_CHARS = 256
MAX_PAGE = 100
PIECES_AT_ONCE = 100
"""Lines, or pieces of a file, that are read and sent in one go."""
KEPT_HEADERS = NAMES | {CACHE_HEADER.lower(), *(name.lower() for name in PASSED_HEADERS)}
"""What is kept of the headers that a batch is made with: for whom it is, and how. No keys."""
LATER = Refusal(
    code="draining",
    message="The daemon is being stopped. The batch goes on when it is back: ask again then.",
)
OF_STORE: Mapping[type[StoreError], str] = {StoreFullError: "batches_full"}
"""Codes of what a store says; any other is `state_unavailable`."""


class Whose(NamedTuple):
    """What a caller may see: what is its user's, and what it made itself for others, unless it
    speaks for somebody now."""

    principal: Principal
    user_id: str

    def has(self, one: Batch | StoredFile) -> bool:
        """Whether this is the caller's."""
        maker = one.principal.id if isinstance(one, Batch) else one.maker
        itself = self.user_id == self.principal.user_id and maker == self.principal.id
        return itself or one.owner == self.user_id


class Bench:
    """What the routes of batches have in common: whose they are, and what is refused."""

    def __init__(
        self,
        *,
        batches: Batches,
        stand: Standing,
        clock: Clock,
        offload: Offload,
        new_id: Callable[[str], str],
        query_timeout_s: float,
    ) -> None:
        """`new_id` makes an id that begins so; `query_timeout_s` is what any call may take."""
        self.batches = batches
        self.clock = clock
        self.offload = offload
        self.new_id = new_id
        self.query_timeout_s = query_timeout_s
        self._stand = stand

    @property
    def stored(self) -> StoredBatches:
        """What there is."""
        return self.batches.stored

    async def whose(self, incoming: Incoming, claims: Claims | None = None) -> Whose | Refusal:
        """What batches the caller may make and see."""
        found = await self._stand(incoming.principal, claims or from_headers(incoming.http.headers))
        if isinstance(found, Refusal):
            return found
        refusal = feature_refusal(found.tier, "batch")
        assert found.caller is not None
        return refusal or Whose(incoming.principal, found.caller.user_id)

    async def batch(self, incoming: Incoming) -> Batch | Refusal:
        """The batch that the path names, if it is the caller's."""
        id, whose = incoming.http.match_info["id"], await self.whose(incoming)
        if isinstance(whose, Refusal):
            return whose
        batch = self.stored.batches.get(id)
        return batch if batch is not None and whose.has(batch) else missing("batch", id)

    def made(
        self,
        incoming: Incoming,
        owner: str,
        config: BatchConfig,
        *,
        prefix: str = "batch_",
        **more: Any,
    ) -> Batch:
        """A new batch of this owner's; not stored yet."""
        now_ns, sent = self.clock.wall_ns(), incoming.http.headers
        batch = Batch(
            id=self.new_id(prefix),
            owner=owner,
            principal=incoming.principal,
            headers={name: sent[name] for name in sent if name.lower() in KEPT_HEADERS},
            config=config,
            created_ns=now_ns,
            deadline_ns=now_ns + round(config.seconds * NS_PER_S),
            **more,
        )
        return replace(batch, since_ns={batch.state: now_ns})

    async def store(self, batch: Batch, lines: list[Line]) -> Refusal | None:
        """Keep a new batch and begin it; why not."""
        try:
            self.stored.check_open(batch.owner)
            self.stored.check_room(batch.owner, batch.input_bytes)
            await self.batches.create(batch, lines)
        except StoreError as error:
            return unkept(error)
        return None

    async def cancel(self, batch: Batch) -> Batch | Refusal:
        """Have it end early; how it stands then."""
        try:
            await self.batches.cancel(batch)
        except StoreError as error:
            return unkept(error)
        return self.stored.batches[batch.id]

    async def delete(self, batch: Batch) -> Refusal | None:
        """Forget it and its results; why not."""
        if not batch.ended:
            return Refusal(code="conflict", message="It has not ended: cancel it first.")
        try:
            await self.batches.delete_batch(batch)
        except StoreError as error:
            return unkept(error)
        return None


def missing(what: str, id: str) -> Refusal:
    """There is none, or it is somebody else's: nobody is told which."""
    return Refusal(code="not_found", message=f"There is no {what} {id[:64]!r}.", param="id")


def unkept(error: StoreError) -> Refusal:
    """What the store says, to a caller."""
    return Refusal(code=OF_STORE.get(type(error), "state_unavailable"), message=str(error))


class BatchDesk:
    """Batches in our own words."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def create(self, incoming: Incoming) -> web.StreamResponse:
        """`POST /infer/batch`: a new one, or the one that was made with the same key before.
        Answered once it has ended, or in the background once it is on the disk."""
        bench = self._bench
        asked, lines = read_batch(incoming.body, bench.stored.bounds.max_lines)
        claims = with_body(from_headers(incoming.http.headers), claimed(asked.defaults))
        whose = await bench.whose(incoming, claims)
        if isinstance(whose, Refusal):
            return self._no(incoming, whose)
        owner = whose.user_id
        if asked.config.strategy == "native" and asked.config.seconds < DAY_S:
            raise WireError(
                f"strategy native needs a total_timeout of at least {DAY_S}", "config.total_timeout"
            )
        digest = hashlib.sha256(incoming.body).digest()
        key = incoming.http.headers.get("Idempotency-Key")
        async with bench.batches.turn:
            batch = self._same(owner, key, digest)
            if batch is None:
                made = bench.made(
                    incoming,
                    owner,
                    asked.config,
                    house="native",
                    endpoint="/infer",
                    state="in_progress",
                    lines=len(lines),
                    input_bytes=sum(len(line.body) for line in lines),
                    key=key,
                    digest=digest,
                )
                batch = await bench.store(made, lines) or made
        if isinstance(batch, Refusal):
            return self._no(incoming, batch)
        if asked.background:
            return await self._told(bench.stored.batches[batch.id])
        ended = await bench.batches.ended(batch.id)
        return self._no(incoming, LATER) if ended is None else await self._told(ended)

    async def list(self, incoming: Incoming) -> web.StreamResponse:
        """`GET /infer/batch`: the caller's, the newest first; without their results."""
        query = incoming.http.query
        whose = await self._bench.whose(incoming)
        if isinstance(whose, Refusal):
            return self._no(incoming, whose)
        mine = [one for one in self._bench.stored.batches.values() if whose.has(one)]
        shown, more = page_of(mine, query.get("after"), page_limit(query))
        rows = [batch_info(batch, batch.totals) for batch in shown]
        return json_response({"batches": rows, "after": shown[-1].id if more else None})

    async def get(self, incoming: Incoming) -> web.StreamResponse:
        """`GET /infer/batch/{id}`: how it stands, and once it has ended what became of it."""
        batch = await self._bench.batch(incoming)
        if isinstance(batch, Refusal):
            return self._no(incoming, batch)
        return await self._told(batch)

    async def events(self, incoming: Incoming) -> web.StreamResponse:
        """`GET /infer/batch/{id}/events`: how it stands, whenever that changes."""
        batch = await self._bench.batch(incoming)
        if isinstance(batch, Refusal):
            return self._no(incoming, batch)
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-cache",
                protocol.HEADER: str(protocol.CURRENT),
            }
        )
        await response.prepare(incoming.http)
        changes = self._bench.batches.changes(batch.id, every_s=HEARTBEAT_S)
        async for now in changes:
            await response.write(sse(msgspec.json.encode(batch_info(now, now.totals))))
            if now.ended:
                await response.write(sse(DONE))
        await response.write_eof()
        return response

    async def cancel(self, incoming: Incoming) -> web.StreamResponse:
        """`POST /infer/batch/{id}/cancel`: no further query is asked."""
        batch = await self._bench.batch(incoming)
        if not isinstance(batch, Refusal):
            batch = await self._bench.cancel(batch)
        if isinstance(batch, Refusal):
            return self._no(incoming, batch)
        return json_response(batch_info(batch, batch.totals))

    async def delete(self, incoming: Incoming) -> web.StreamResponse:
        """`DELETE /infer/batch/{id}`: forget one that has ended, and its results."""
        batch = await self._bench.batch(incoming)
        refusal = batch if isinstance(batch, Refusal) else await self._bench.delete(batch)
        if isinstance(refusal, Refusal):
            return self._no(incoming, refusal)
        return json_response({"name": incoming.http.match_info["id"], "deleted": True})

    def _same(self, owner: str, key: str | None, digest: bytes) -> Batch | Refusal | None:
        """The batch that was made with this key."""
        if key is None:
            return None
        if not key.isprintable() or len(key) > MAX_KEY_CHARS:
            raise WireError(f"Idempotency-Key must be text of at most {MAX_KEY_CHARS} characters")
        for batch in self._bench.stored.batches.values():
            if batch.key == key and batch.owner == owner:
                same = batch.digest == digest
                return batch if same else Refusal(code="idempotency_conflict", message=OTHER)
        return None

    async def _told(self, batch: Batch) -> web.Response:
        """How it stands; read and put together off the event loop."""
        stored = self._bench.stored

        def told() -> bytes:
            result = None
            if batch.ended and batch.house == "native":
                answers = stored.results(batch.id, errors=False)
                result = batch_result(batch, answers, stored.results(batch.id, errors=True))
            return msgspec.json.encode(batch_info(batch, batch.totals, result))

        body = await self._bench.offload(told)
        return web.Response(body=body, content_type="application/json")

    def _no(self, incoming: Incoming, refusal: Refusal) -> web.Response:
        return error_response(refusal, incoming.request_id)


async def send_pieces(
    incoming: Incoming, response: web.StreamResponse, pieces: Iterator[bytes], offload: Offload
) -> None:
    """An answer that is read from the disk, off the event loop, as it is sent."""
    await response.prepare(incoming.http)

    def some() -> bytes:
        return b"".join(islice(pieces, PIECES_AT_ONCE))

    while piece := await offload(some):
        await response.write(piece)
    await response.write_eof()


OTHER = "This Idempotency-Key was used for another batch: take a new key for a new one."


def page_of(mine: list[Batch], after: str | None, limit: int) -> tuple[list[Batch], bool]:
    """The newest of these after one of them, and whether there are more. Raises `WireError`."""
    if not 1 <= limit <= MAX_PAGE:
        raise WireError(f"limit must be 1 to {MAX_PAGE}", "limit")
    ordered = sorted(mine, key=lambda one: (one.created_ns, one.id), reverse=True)
    if after is not None:
        place = next((at for at, one in enumerate(ordered) if one.id == after), None)
        if place is None:
            raise WireError("after must be an id of the page before", "after")
        ordered = ordered[place + 1 :]
    return ordered[:limit], len(ordered) > limit
