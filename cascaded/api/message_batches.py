"""Anthropic's batches, served by this daemon: `/v1/messages/batches`."""

from aiohttp import web

from cascaded.api.batches import Bench, missing, page_of, send_pieces
from cascaded.api.dialects.base import Incoming
from cascaded.api.errors import anthropic_response
from cascaded.api.replies import json_response
from cascaded.types.batch import Batch, BatchConfig
from cascaded.types.decision import Refusal
from cascaded.wire.batches import listed
from cascaded.wire.message_batches import WINDOW_S, batch_object, read_requests, result_line
from cascaded.wire.records import page_limit

PREFIX = "msgbatch_"
PAGE = "20"


class MessageBatches:
    """As the official SDKs know them."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def create(self, incoming: Incoming) -> web.Response:
        """`POST /v1/messages/batches`. Answered once it is on the disk."""
        bench = self._bench
        lines = read_requests(incoming.body, bench.stored.bounds.max_lines)
        whose = await bench.whose(incoming)
        if isinstance(whose, Refusal):
            return anthropic_response(whose, incoming.request_id)
        config = BatchConfig(
            max_parallel=bench.stored.bounds.max_parallel,
            timeout_per_query=bench.query_timeout_s,
            total_timeout=WINDOW_S,
        )
        batch = bench.made(
            incoming,
            whose.user_id,
            config,
            prefix=PREFIX,
            house="anthropic",
            endpoint="/v1/messages",
            state="in_progress",
            lines=len(lines),
            input_bytes=sum(len(line.body) for line in lines),
        )
        async with bench.batches.turn:
            refusal = await bench.store(batch, lines)
        return self._told(incoming, refusal or bench.stored.batches[batch.id])

    async def list(self, incoming: Incoming) -> web.Response:
        """`GET /v1/messages/batches`: the caller's, the newest first."""
        query, whose = incoming.http.query, await self._bench.whose(incoming)
        if isinstance(whose, Refusal):
            return anthropic_response(whose, incoming.request_id)
        mine = [
            batch
            for batch in self._bench.stored.batches.values()
            if whose.has(batch) and batch.house == "anthropic"
        ]
        limit = page_limit({"limit": query.get("limit", PAGE)})
        shown, more = page_of(mine, query.get("after_id"), limit)
        return json_response(listed([batch_object(one) for one in shown], more=more))

    async def get(self, incoming: Incoming) -> web.Response:
        """`GET /v1/messages/batches/{id}`."""
        return self._told(incoming, await self._found(incoming))

    async def results(self, incoming: Incoming) -> web.StreamResponse:
        """`GET /v1/messages/batches/{id}/results`: how every query ended, a line each."""
        batch, stored = await self._found(incoming), self._bench.stored
        if isinstance(batch, Batch) and not batch.ended:
            batch = Refusal(
                code="not_found", message="The batch has not ended: there are no results."
            )
        if isinstance(batch, Refusal):
            return anthropic_response(batch, incoming.request_id)
        lines = (
            result_line(one)
            for errors in (False, True)
            for one in stored.results(batch.id, errors=errors)
        )
        response = web.StreamResponse(headers={"Content-Type": "application/x-jsonl"})
        await send_pieces(incoming, response, lines, self._bench.offload)
        return response

    async def cancel(self, incoming: Incoming) -> web.Response:
        """`POST /v1/messages/batches/{id}/cancel`: no further query is asked."""
        batch = await self._found(incoming)
        if isinstance(batch, Batch):
            batch = await self._bench.cancel(batch)
        return self._told(incoming, batch)

    async def delete(self, incoming: Incoming) -> web.Response:
        """`DELETE /v1/messages/batches/{id}`: forget one that has ended."""
        batch = await self._found(incoming)
        refusal = batch if isinstance(batch, Refusal) else await self._bench.delete(batch)
        if isinstance(refusal, Refusal):
            return anthropic_response(refusal, incoming.request_id)
        id = incoming.http.match_info["id"]
        return json_response({"id": id, "type": "message_batch_deleted"})

    async def _found(self, incoming: Incoming) -> Batch | Refusal:
        batch = await self._bench.batch(incoming)
        if isinstance(batch, Batch) and batch.house != "anthropic":
            return missing("batch", batch.id)
        return batch

    def _told(self, incoming: Incoming, batch: Batch | Refusal) -> web.Response:
        if isinstance(batch, Refusal):
            return anthropic_response(batch, incoming.request_id)
        return json_response(batch_object(batch))
