"""The routes of OpenAI's Responses: calls, with what came before them, and those that are kept."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

import msgspec
from aiohttp import web
from msgspec.structs import replace

from cascaded.api.claims import from_headers
from cascaded.api.dialects.base import Incoming
from cascaded.api.dialects.responses import UNKEPT, Responses, Thread
from cascaded.api.errors import error_response
from cascaded.api.replies import json_response
from cascaded.pipeline.stages.resolve import Standing
from cascaded.policy.caching import tenant_of
from cascaded.ports import Clock
from cascaded.state.responses import MAX_TURNS, KeptResponses
from cascaded.types.decision import Refusal
from cascaded.types.errors import StoreError
from cascaded.types.kept import KeptResponse
from cascaded.types.request import Request
from cascaded.wire.openai_chat import WireError
from cascaded.wire.responses import ResponsesRequest, input_items, parse_responses, with_members

JSON = dict[str, Any]
Converse = Callable[[Responses, Incoming], Awaitable[web.StreamResponse]]
ID = "resp_"
MAX_PAGE, PAGE = 100, 20
_read_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Output(msgspec.Struct):
    output: list[msgspec.Raw] = []


class Threads:
    """Who puts a call together with what it goes on from, and keeps what is to be kept."""

    def __init__(
        self,
        kept: KeptResponses,
        *,
        keep: Literal["asked", "always", "never"],
        stand: Standing,
        count: Callable[[Request], Awaitable[int | Refusal]],
        clock: Clock,
        new_id: Callable[[], str],
        max_bytes: int,
        log_fault: Callable[[str, BaseException], None],
    ) -> None:
        """`max_bytes`: of a whole thread."""
        self._kept = kept
        self._keep_mode = keep
        self._stand = stand
        self._count = count
        self._clock = clock
        self._new_id = new_id
        self._max_bytes = max_bytes
        self._log_fault = log_fault

    async def create(self, converse: Converse, incoming: Incoming) -> web.StreamResponse:
        """`POST /responses`. Raises `WireError`."""
        dialect = await self._dialect(incoming, keeps=True)
        if isinstance(dialect, Refusal):
            return error_response(dialect, incoming.request_id)
        thread = dialect.thread
        response = await converse(dialect, incoming)
        if dialect.given is None or thread.keep is None or await thread.keep(dialect.given):
            return response
        assert isinstance(response, web.Response)  # a stream keeps its own
        response.body = with_members(dialect.given, UNKEPT)
        return response

    async def count(self, incoming: Incoming) -> web.Response:
        """`POST /responses/input_tokens`: how long the prompt of a call would be. Raises
        `WireError`."""
        dialect = await self._dialect(incoming, keeps=False)
        if isinstance(dialect, Refusal):
            return error_response(dialect, incoming.request_id)
        counted = await self._count(dialect.read(incoming))
        if isinstance(counted, Refusal):
            return error_response(counted, incoming.request_id)
        return _told(incoming, {"object": "response.input_tokens", "input_tokens": counted})

    async def get(self, incoming: Incoming) -> web.Response:
        """`GET /responses/{id}`."""
        if incoming.http.query.get("stream") == "true":
            raise WireError("a response that is kept has ended: get it without stream", "stream")
        found = await self._found(incoming)
        if isinstance(found, Refusal):
            return error_response(found, incoming.request_id)
        return web.Response(
            body=found.response,
            headers={"x-request-id": incoming.request_id},
            content_type="application/json",
        )

    async def delete(self, incoming: Incoming) -> web.Response:
        """`DELETE /responses/{id}`."""
        found = await self._found(incoming)
        if isinstance(found, Refusal):
            return error_response(found, incoming.request_id)
        id = incoming.http.match_info["id"]
        try:
            await self._kept.delete(found.tenant, id)
        except StoreError as error:
            return error_response(_unavailable(error), incoming.request_id)
        return _told(incoming, {"id": id, "object": "response", "deleted": True})

    async def cancel(self, incoming: Incoming) -> web.Response:
        """`POST /responses/{id}/cancel`: what is kept has ended."""
        found = await self._found(incoming)
        if not isinstance(found, Refusal):
            found = Refusal(
                code="invalid_request",
                message="This response has ended. To stop one that streams, hang up.",
                param="response_id",
            )
        return error_response(found, incoming.request_id)

    async def items(self, incoming: Incoming) -> web.Response:
        """`GET /responses/{id}/input_items`: those of its own call. Raises `WireError`."""
        query = incoming.http.query
        size = _size(query.get("limit", str(PAGE)))
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise WireError("order must be asc or desc", "order")
        found = await self._found(incoming)
        if isinstance(found, Refusal):
            return error_response(found, incoming.request_id)
        stem = incoming.http.match_info["id"].removeprefix(ID)
        items = list(_listed(found.input, stem))
        if order == "desc":
            items.reverse()
        after = query.get("after")
        if after is not None:
            places = [place for place, item in enumerate(items) if item["id"] == after]
            if not places:
                raise WireError(f"there is no item {after!r}", "after")
            items = items[places[0] + 1 :]
        page = items[:size]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
        told = {"object": "list", "data": page, "first_id": None, "last_id": None, **ends}
        return _told(incoming, {**told, "has_more": len(items) > size})

    async def _dialect(self, incoming: Incoming, *, keeps: bool) -> Responses | Refusal:
        """Who reads and answers a call, with what it goes on from. `keeps`: where it says so."""
        asked, fields = parse_responses(incoming.body)
        thread = Thread(id=ID + self._new_id())
        keeps = keeps and self._keeps(asked)
        if keeps or asked.previous_response_id is not None:
            found = await self._thread(incoming, asked, thread, keeps=keeps)
            if isinstance(found, Refusal):
                return found
            thread = found
        return Responses(asked, fields, thread)

    def _keeps(self, asked: ResponsesRequest) -> bool:
        if self._keep_mode == "never" and asked.store:
            raise WireError("responses are not kept here (responses.keep is never)", "store")
        return self._keep_mode == "always" if asked.store is None else asked.store

    async def _tenant(self, incoming: Incoming, user: str | None) -> str | Refusal:
        claims = from_headers(incoming.http.headers, user)
        standing = await self._stand(incoming.principal, claims)
        if isinstance(standing, Refusal):
            return standing
        assert standing.caller is not None
        return tenant_of(standing.caller)

    async def _thread(
        self, incoming: Incoming, asked: ResponsesRequest, thread: Thread, *, keeps: bool
    ) -> Thread | Refusal:
        tenant = await self._tenant(incoming, asked.safety_identifier or asked.user)
        if isinstance(tenant, Refusal):
            return tenant
        previous = asked.previous_response_id
        if previous is not None:
            try:
                turns = await self._kept.thread(tenant, previous, self._max_bytes)
            except StoreError as error:
                return _unavailable(error)
            if turns is None:
                return _no_previous(previous)
            earlier = [item for turn in turns for item in _of_turn(turn)]
            thread = replace(thread, previous=previous, earlier=earlier)
        if not keeps:
            return thread
        given = msgspec.json.encode(input_items(asked))
        row = KeptResponse(tenant=tenant, previous=previous, input=given, response=b"", at_ns=0)
        return replace(thread, keep=partial(self._keep, incoming.request_id, thread.id, row))

    async def _keep(self, request_id: str, id: str, row: KeptResponse, response: bytes) -> bool:
        """See `Keep`. An answer that cannot be kept is given all the same."""
        row = replace(row, response=response, at_ns=self._clock.wall_ns())
        try:
            return await self._kept.put(id, row)
        except StoreError as error:
            self._log_fault(request_id, error)
            return False

    async def _found(self, incoming: Incoming) -> KeptResponse | Refusal:
        """The response that a path names, of who asks."""
        tenant = await self._tenant(incoming, None)
        if isinstance(tenant, Refusal):
            return tenant
        id = incoming.http.match_info["id"]
        try:
            found = await self._kept.get(tenant, id)
        except StoreError as error:
            return _unavailable(error)
        return found or Refusal(
            code="not_found", message=f"Response with id '{id}' not found.", param="response_id"
        )


def _of_turn(turn: KeptResponse) -> Iterator[msgspec.Raw]:
    """What was said in one turn."""
    yield from _read_items(turn.input)
    yield from msgspec.json.decode(turn.response, type=_Output).output


def _listed(given: bytes, stem: str) -> Iterator[JSON]:
    """Items of an input, in the long form and each with an id."""
    prefixes = {"message": "msg", "reasoning": "rs"}
    for number, raw in enumerate(_read_items(given)):
        item: JSON = msgspec.json.decode(raw)
        kind = item.setdefault("type", "message")
        item.setdefault("id", f"{prefixes.get(kind, 'fc')}_{stem}_{number}")
        if kind == "message" and isinstance(item.get("content"), str):
            part = "output_text" if item.get("role") == "assistant" else "input_text"
            more: JSON = {"annotations": []} if part == "output_text" else {}
            item["content"] = [{"type": part, "text": item["content"], **more}]
        yield item


def _size(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:4]) <= MAX_PAGE:
        raise WireError(f"limit must be from 1 to {MAX_PAGE}", "limit")
    return int(text)


def _told(incoming: Incoming, body: Mapping[str, object]) -> web.Response:
    return json_response(body, headers={"x-request-id": incoming.request_id})


def _no_previous(id: str) -> Refusal:
    return Refusal(
        code="previous_response_not_found",
        message=f"Previous response with id '{id}' not found. Responses are kept here only where"
        " their call says `store: true` or the operator sets responses.keep, for a while, for who"
        f" asked; and threads of at most {MAX_TURNS} turns that fit into a prompt are gone on"
        " from. Send the items as input instead.",
        param="previous_response_id",
    )


def _unavailable(error: StoreError) -> Refusal:
    return Refusal(
        code="state_unavailable", message=f"The disk of responses that are kept says no: {error}"
    )
