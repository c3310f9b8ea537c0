"""OpenAI's files and batches, served by this daemon: `/v1/files` and `/v1/batches`."""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from aiohttp.base_protocol import BaseProtocol

from cascaded.api.batches import Bench, missing, page_of, send_pieces, unkept
from cascaded.api.dialects.base import Incoming
from cascaded.api.errors import error_response
from cascaded.api.replies import json_response
from cascaded.types.batch import Batch, BatchConfig, StoredFile
from cascaded.types.decision import Refusal
from cascaded.types.errors import StoreError
from cascaded.types.times import NS_PER_S
from cascaded.wire.batches import (
    MIN_KEPT_S,
    batch_object,
    file_object,
    listed,
    read_create,
    result_line,
    window_s,
)
from cascaded.wire.openai_chat import WireError

PURPOSE = "batch"
ENDPOINTS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
)
"""What lines may be for."""
MAX_FIELDS = 8
MAX_FIELD_BYTES = 1_024
"""Of a form's member that is no file."""
PAGE = 20
MAX_FILES_LISTED = 10_000
MAX_NAME_CHARS = 256


class Upload(NamedTuple):
    """A form with a file."""

    name: str
    data: bytes
    fields: dict[str, str]


class OpenAIBatches:
    """Both, as the official SDKs know them."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    # Files.

    async def upload(self, incoming: Incoming) -> web.Response:
        """`POST /v1/files`: keep a file of queries. Answered once it is on the disk."""
        bench, whose = self._bench, await self._bench.whose(incoming)
        if isinstance(whose, Refusal):
            return self._no(incoming, whose)
        form = await read_form(incoming)
        if form.fields.get("purpose") != PURPOSE:
            raise WireError(f"files are kept for batches: purpose must be {PURPOSE}", "purpose")
        now_ns, keep_ns = bench.clock.wall_ns(), bench.stored.bounds.keep_ns
        file = StoredFile(
            id=bench.new_id("file-"),
            owner=whose.user_id,
            maker=incoming.principal.id,
            name=form.name[:MAX_NAME_CHARS],
            bytes=len(form.data),
            created_ns=now_ns,
            expires_ns=now_ns + min(keep_ns, _kept_ns(form.fields) or keep_ns),
        )
        try:
            bench.stored.check_room(file.owner, file.bytes)
            await bench.batches.create_file(file, form.data)
        except StoreError as error:
            return self._no(incoming, unkept(error))
        return json_response(file_object(file))

    async def files(self, incoming: Incoming) -> web.Response:
        """`GET /v1/files`: the caller's, the newest first."""
        query, whose = incoming.http.query, await self._bench.whose(incoming)
        if isinstance(whose, Refusal):
            return self._no(incoming, whose)
        rows = [
            row
            for file in self._bench.stored.files.values()
            if whose.has(file)
            and query.get("purpose") in (None, (row := file_object(file))["purpose"])
        ]
        rows.sort(
            key=lambda row: (row["created_at"], row["id"]), reverse=query.get("order") != "asc"
        )
        ids = [row["id"] for row in rows]
        first = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
        limit = _limit(query.get("limit"), MAX_FILES_LISTED)
        shown = rows[first : first + limit]
        return json_response(listed(shown, more=first + limit < len(rows)))

    async def file(self, incoming: Incoming) -> web.Response:
        """`GET /v1/files/{id}`: what is known of one."""
        file = await self._file(incoming)
        if isinstance(file, Refusal):
            return self._no(incoming, file)
        return json_response(file_object(file))

    async def content(self, incoming: Incoming) -> web.StreamResponse:
        """`GET /v1/files/{id}/content`: what is in it."""
        file = await self._file(incoming)
        if isinstance(file, Refusal):
            return self._no(incoming, file)
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = file.bytes
        await send_pieces(incoming, response, self._pieces(file), self._bench.offload)
        return response

    def _pieces(self, file: StoredFile) -> Iterator[bytes]:
        """What a file has or shows, a piece or a line at a time. Reads the disk."""
        stored = self._bench.stored
        if file.batch is None:
            return stored.pieces(file.id)
        return map(result_line, stored.results(file.batch, errors=file.errors))

    async def delete_file(self, incoming: Incoming) -> web.Response:
        """`DELETE /v1/files/{id}`: forget one. Answered once it is gone from the disk."""
        file = await self._file(incoming)
        if isinstance(file, Refusal):
            return self._no(incoming, file)
        batches = self._bench.stored.batches.values()
        if any(one.input_file == file.id and one.state == "validating" for one in batches):
            busy = Refusal(code="conflict", message="A batch is being made of it: wait a moment.")
            return self._no(incoming, busy)
        try:
            await self._bench.batches.delete_file(file)
        except StoreError as error:
            return self._no(incoming, unkept(error))
        return json_response({"id": file.id, "object": "file", "deleted": True})

    # Batches.

    async def create(self, incoming: Incoming) -> web.Response:
        """`POST /v1/batches`: make one of a file. Answered once it is on the disk."""
        bench, asked = self._bench, read_create(incoming.body)
        seconds = window_s(asked.completion_window)
        whose = await bench.whose(incoming)
        if isinstance(whose, Refusal):
            return self._no(incoming, whose)
        if asked.endpoint not in ENDPOINTS:
            raise WireError(f"endpoint must be one of {', '.join(ENDPOINTS)}", "endpoint")
        file = bench.stored.files.get(asked.input_file_id)
        if file is None or not whose.has(file) or file.batch is not None:
            return self._no(incoming, missing("file", asked.input_file_id))
        config = BatchConfig(
            max_parallel=bench.stored.bounds.max_parallel,
            timeout_per_query=bench.query_timeout_s,
            total_timeout=seconds,
            metadata=asked.metadata or {},
        )
        batch = bench.made(
            incoming,
            whose.user_id,
            config,
            house="openai",
            endpoint=asked.endpoint,
            input_file=file.id,
            input_bytes=file.bytes,
            window=asked.completion_window,
        )
        async with bench.batches.turn:
            refusal = await bench.store(batch, [])
        return self._told(incoming, refusal or batch)

    async def batches(self, incoming: Incoming) -> web.Response:
        """`GET /v1/batches`: the caller's, the newest first."""
        query, whose = incoming.http.query, await self._bench.whose(incoming)
        if isinstance(whose, Refusal):
            return self._no(incoming, whose)
        mine = [
            batch
            for batch in self._bench.stored.batches.values()
            if whose.has(batch) and batch.house == "openai"
        ]
        shown, more = page_of(mine, query.get("after"), _limit(query.get("limit"), PAGE))
        return json_response(listed([batch_object(one, one.totals) for one in shown], more=more))

    async def batch(self, incoming: Incoming) -> web.Response:
        """`GET /v1/batches/{id}`: how one stands."""
        return self._told(incoming, await self._found(incoming))

    async def cancel(self, incoming: Incoming) -> web.Response:
        """`POST /v1/batches/{id}/cancel`: no further query is asked."""
        batch = await self._found(incoming)
        if isinstance(batch, Refusal):
            return self._no(incoming, batch)
        return self._told(incoming, await self._bench.cancel(batch))

    async def _found(self, incoming: Incoming) -> Batch | Refusal:
        batch = await self._bench.batch(incoming)
        if isinstance(batch, Batch) and batch.house != "openai":
            return missing("batch", batch.id)
        return batch

    async def _file(self, incoming: Incoming) -> StoredFile | Refusal:
        """The file that the path names, if it is the caller's."""
        id, whose = incoming.http.match_info["id"], await self._bench.whose(incoming)
        if isinstance(whose, Refusal):
            return whose
        file = self._bench.stored.files.get(id)
        return file if file is not None and whose.has(file) else missing("file", id)

    def _told(self, incoming: Incoming, batch: Batch | Refusal) -> web.Response:
        if isinstance(batch, Refusal):
            return self._no(incoming, batch)
        batch = self._bench.stored.batches[batch.id]
        return json_response(batch_object(batch, batch.totals))

    def _no(self, incoming: Incoming, refusal: Refusal) -> web.Response:
        return error_response(refusal, incoming.request_id)


async def read_form(incoming: Incoming) -> Upload:
    """The file of a form, and its other members. Raises `WireError`."""
    if incoming.http.content_type != "multipart/form-data":
        raise WireError("send the file as multipart/form-data, as SDKs do")
    loop = asyncio.get_running_loop()
    # All of it is here already: with a limit above its size nobody is asked to pause.
    stream = StreamReader(BaseProtocol(loop), len(incoming.body) + 1, loop=loop)
    stream.feed_data(incoming.body)
    stream.feed_eof()
    name, data, fields = "", None, dict[str, str]()
    try:
        reader = MultipartReader(incoming.http.headers, stream)
        while (part := await reader.next()) is not None:
            if not isinstance(part, BodyPartReader) or len(fields) > MAX_FIELDS:
                raise WireError(f"the form has more than {MAX_FIELDS} members, or forms in it")
            content = bytes(await part.read())
            if part.name == "file":
                name, data = part.filename or "", content
            elif len(content) > MAX_FIELD_BYTES:
                raise WireError(f"it is longer than {MAX_FIELD_BYTES} bytes", part.name)
            else:
                fields[part.name or ""] = content.decode()
    except WireError:
        raise
    except Exception as error:  # the parser's own errors are of many kinds
        raise WireError(f"the form cannot be read: {error}") from None
    if not data:
        raise WireError("the form has no file, or an empty one", "file")
    return Upload(name, data, fields)


def _kept_ns(fields: dict[str, str]) -> int | None:
    """How long the caller wants a file kept. Raises `WireError`."""
    text = fields.get("expires_after[seconds]")
    if text is None:
        return None
    if not text.isdecimal() or len(text) > len("2592000") or int(text) < MIN_KEPT_S:
        raise WireError(f"a file is kept for {MIN_KEPT_S} seconds at least", "expires_after")
    return int(text) * NS_PER_S


def _limit(text: str | None, usual: int) -> int:
    """How many rows a page is to have. Raises `WireError`."""
    if text is None:
        return usual
    if not text.isdecimal() or not 1 <= int(text[:6]) <= MAX_FILES_LISTED:
        raise WireError(f"limit must be 1 to {MAX_FILES_LISTED}", "limit")
    return int(text[:6])
