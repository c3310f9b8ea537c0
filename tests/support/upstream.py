"""A scripted upstream that speaks chat completions, Anthropic's Messages under `/messages` and
OpenAI's Responses under `/responses`, over real HTTP, and keeps its own bill."""

import asyncio
import base64
import json
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

JSON = dict[str, Any]


@dataclass
class Says:
    """An answer in this many pieces (for streams), with usage."""

    text: str = "Paris."
    chunks: int = 3
    input_tokens: int = 10
    output_tokens: int = 5
    finish_reason: str = "stop"
    tool_calls: list[JSON] = field(default_factory=list)
    logprob: float | None = None
    usage_on: str = "own"  # own chunk | last chunk | every chunk | none
    delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    extra_usage: JSON = field(default_factory=dict)
    blocks: list[JSON] = field(default_factory=list)
    """In Messages: the content, instead of the text."""
    items: list[JSON] = field(default_factory=list)
    """In Responses: the output, instead of the text."""
    status: str = "completed"
    """In Responses: how it ends."""


@dataclass
class Fails:
    """An error status."""

    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: str = '{"error": {"message": "the upstream is unwell", "type": "server_error"}}'


@dataclass
class Hangs:
    """Silence before the head, or after some chunks."""

    after_chunks: int | None = None


@dataclass
class Resets:
    """The connection is cut: before the head, or after some chunks."""

    after_chunks: int | None = None


@dataclass
class Garbage:
    """Status 200 and these bytes."""

    body: bytes = b"<html>surprise</html>"
    content_type: str = "application/json"


@dataclass
class SaysError:
    """A stream with an error object after some chunks."""

    after_chunks: int = 1


Behaviour = Says | Fails | Hangs | Resets | Garbage | SaysError


@dataclass
class Received:
    """One call as it arrived."""

    headers: dict[str, str]
    body: JSON
    raw: bytes
    path: str


class Upstream:
    """Behaviours by model name: a list is used up from the front, its last one stays."""

    def __init__(self) -> None:
        self.script: dict[str, list[Behaviour]] = {}
        self.received: list[Received] = []
        self.hung_up = 0
        self.url = ""
        self.billed_output_tokens = 0

    def on(self, model: str, *behaviours: Behaviour) -> None:
        self.script[model] = list(behaviours)

    def calls(self, model: str) -> list[Received]:
        return [call for call in self.received if call.body.get("model") == model]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw)
        body["model"] = body.get("model", "")
        self.received.append(Received(dict(request.headers), body, raw, request.path))
        behaviours = self.script.get(body["model"], [Says()])
        behaviour = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        if request.path.endswith("/count_tokens") and isinstance(behaviour, Says):
            return web.json_response({"input_tokens": behaviour.input_tokens})
        try:
            return await self._behave(behaviour, request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.hung_up += 1
            raise

    async def _behave(
        self, behaviour: Behaviour, request: web.Request, body: JSON
    ) -> web.StreamResponse:
        stream = bool(body.get("stream"))
        named = request.path.endswith(NAMED)
        match behaviour:
            case Says():
                await asyncio.sleep(behaviour.delay_s)
                self.billed_output_tokens += behaviour.output_tokens
                if stream:
                    return await self._stream(request, body, behaviour)
                return web.json_response(_WHOLE.get(request.path, whole)(body, behaviour))
            case Fails():
                return web.Response(
                    status=behaviour.status,
                    headers=behaviour.headers,
                    text=behaviour.body,
                    content_type="application/json",
                )
            case Garbage():
                return web.Response(body=behaviour.body, content_type=behaviour.content_type)
            case SaysError():
                error: JSON = {"error": {"message": "it fell over", "type": "server_error"}}
                error |= {"type": "error"} if named else {}
                return await self._stream(request, body, Says(), behaviour.after_chunks, error)
            case Hangs():
                if behaviour.after_chunks is None:
                    await asyncio.sleep(3600)
                return await self._stream(request, body, Says(), behaviour.after_chunks, "hang")
            case Resets():
                if behaviour.after_chunks is not None:
                    return await self._stream(request, body, Says(), behaviour.after_chunks, "cut")
                assert request.transport is not None
                request.transport.abort()
                return web.Response()

    async def _stream(
        self,
        request: web.Request,
        body: JSON,
        says: Says,
        stop_after: int | None = None,
        ending: JSON | str | None = None,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        spoken = _STREAMED.get(request.path, chunks)
        begun = _BEGUN.get(request.path, 1)  # those before the first words
        for index, chunk in enumerate(spoken(body, says)):
            if stop_after is not None and index == stop_after + begun:
                if ending == "hang":
                    await asyncio.sleep(3600)
                if ending == "cut":
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                await response.write(sse(ending or {}))
                return response
            await response.write(sse(chunk))
            await asyncio.sleep(says.chunk_delay_s)
        if not request.path.endswith(NAMED):
            await response.write(b"data: [DONE]\n\n")
        return response


def sse(data: JSON | str) -> bytes:
    name = f"event: {data['type']}\n" if isinstance(data, dict) and "type" in data else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


def usage(says: Says) -> JSON:
    return {
        "prompt_tokens": says.input_tokens,
        "completion_tokens": says.output_tokens,
        "total_tokens": says.input_tokens + says.output_tokens,
        **says.extra_usage,
    }


def _logprobs(says: Says, body: JSON, text: str) -> JSON | None:
    if says.logprob is None or not body.get("logprobs"):
        return None
    return {"content": [{"token": text, "logprob": says.logprob, "top_logprobs": []}]}


def whole(body: JSON, says: Says) -> JSON:
    message: JSON = {"role": "assistant", "content": says.text}
    if says.tool_calls:
        message |= {"content": None, "tool_calls": says.tool_calls}
    choice = {
        "message": message,
        "finish_reason": says.finish_reason,
        "logprobs": _logprobs(says, body, says.text),
    }
    answer: JSON = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": index, **choice} for index in range(body.get("n") or 1)],
        "system_fingerprint": "fp_unknown_to_us",
    }
    return answer if says.usage_on == "none" else {**answer, "usage": usage(says)}


def pieces(text: str, count: int) -> list[str]:
    size = max(1, -(-len(text) // max(1, count)))
    return [text[start : start + size] for start in range(0, len(text), size)]


def chunks(body: JSON, says: Says) -> Iterator[JSON]:
    base = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body["model"],
    }

    def chunk(delta: JSON, finish: str | None = None, **more: Any) -> JSON:
        return {
            **base,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}],
        }

    yield chunk({"role": "assistant", "content": ""})
    for call_index, call in enumerate(says.tool_calls):
        function = call["function"]
        head = {"index": call_index, "id": call["id"], "type": "function"}
        yield chunk({"tool_calls": [{**head, "function": {"name": function["name"]}}]})
        for piece in pieces(function["arguments"], says.chunks):
            yield chunk({"tool_calls": [{"index": call_index, "function": {"arguments": piece}}]})
    for piece in pieces(says.text, says.chunks) if not says.tool_calls else []:
        spoken = chunk({"content": piece}, logprobs=_logprobs(says, body, piece))
        yield {**spoken, "usage": usage(says)} if says.usage_on == "every" else spoken
    last = chunk({}, says.finish_reason)
    if says.usage_on in ("last", "every"):
        last["usage"] = usage(says)
    yield last
    asked = (body.get("stream_options") or {}).get("include_usage")
    if says.usage_on == "own" and asked:
        yield {**base, "choices": [], "usage": usage(says)}


def whole_text(body: JSON, says: Says) -> JSON:
    """A legacy completion: `n` answers for each prompt; all of `best_of` are billed."""
    count = (body.get("n") or 1) * _texts(body["prompt"])
    answer: JSON = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": body["model"],
        "choices": [
            {"index": index, "text": says.text, "finish_reason": says.finish_reason}
            for index in range(count)
        ],
    }
    return answer if says.usage_on == "none" else {**answer, "usage": usage(says)}


def text_chunks(body: JSON, says: Says) -> Iterator[JSON]:
    base = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
    for piece in pieces(says.text, says.chunks):
        yield {**base, "choices": [{"index": 0, "text": piece, "finish_reason": None}]}
    yield {**base, "choices": [{"index": 0, "text": "", "finish_reason": says.finish_reason}]}
    if says.usage_on == "own" and (body.get("stream_options") or {}).get("include_usage"):
        yield {**base, "choices": [], "usage": usage(says)}


def embeddings(body: JSON, says: Says) -> JSON:
    """A vector for each text, in the encoding that was asked for."""
    vector: Any = [0.25, -0.5, 1.0][: body.get("dimensions") or 3]
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    answer: JSON = {
        "object": "list",
        "model": body["model"],
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index in range(_texts(body["input"]))
        ],
    }
    told = {"prompt_tokens": says.input_tokens, "total_tokens": says.input_tokens}
    return answer if says.usage_on == "none" else {**answer, "usage": told}


def _texts(given: Any) -> int:
    return 1 if isinstance(given, str) or isinstance(given[0], int) else len(given)


STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def message(body: JSON, says: Says) -> JSON:
    """A whole answer of Messages."""
    content = says.blocks or [{"type": "text", "text": says.text}]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": STOPS.get(says.finish_reason, says.finish_reason),
        "stop_sequence": None,
        "usage": {
            "input_tokens": says.input_tokens,
            "output_tokens": says.output_tokens,
            **says.extra_usage,
        },
        "unknown_to_us": "m_1",
    }


EMPTY: JSON = {
    "text": {"text": ""},
    "tool_use": {"input": {}},
    "thinking": {"thinking": "", "signature": ""},
}


def events(body: JSON, says: Says) -> Iterator[JSON]:
    """A streamed answer of Messages: the first usage has one token of output, the last all."""
    answer = message(body, says)
    usage = answer["usage"]
    begun: JSON = {"content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": {**answer, **begun}}
    for index, block in enumerate(answer["content"]):
        empty = {**block, **EMPTY.get(block["type"], {})}
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas(block, says.chunks):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
        yield {"type": "ping"}
    ended = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    yield {
        "type": "message_delta",
        "delta": ended,
        "usage": {"output_tokens": usage["output_tokens"]},
    }
    yield {"type": "message_stop"}


def deltas(block: JSON, count: int) -> Iterator[JSON]:
    match block["type"]:
        case "text":
            for piece in pieces(block["text"], count):
                yield {"type": "text_delta", "text": piece}
        case "tool_use":
            for piece in pieces(json.dumps(block["input"]), count):
                yield {"type": "input_json_delta", "partial_json": piece}
        case "thinking":
            for piece in pieces(block["thinking"], count):
                yield {"type": "thinking_delta", "thinking": piece}
            yield {"type": "signature_delta", "signature": block["signature"]}


def response(body: JSON, says: Says) -> JSON:
    """A whole answer of Responses."""
    words = {"type": "output_text", "text": says.text, "annotations": [], "logprobs": []}
    said = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
    reason = {"incomplete": {"reason": "max_output_tokens"}}.get(says.status)
    return {
        "id": "resp_upstream_1",
        "object": "response",
        "created_at": 1,
        "status": says.status,
        "error": None,
        "incomplete_details": reason,
        "model": body["model"],
        "output": says.items or [{**said, "content": [words]}],
        "store": body.get("store", True),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "usage": {
            "input_tokens": says.input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": says.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": says.input_tokens + says.output_tokens,
            **says.extra_usage,
        },
        "unknown_to_us": "r_1",
    }


def response_events(body: JSON, says: Says) -> Iterator[JSON]:
    """A streamed answer of Responses."""
    for number, event in enumerate(_response_events(response(body, says), says)):
        yield {**event, "sequence_number": number}


def _response_events(answer: JSON, says: Says) -> Iterator[JSON]:
    begun = {**answer, "status": "in_progress", "output": [], "usage": None}
    begun["incomplete_details"] = None
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(answer["output"]):
        empty = {name: [] if name in ("content", "summary") else one for name, one in item.items()}
        empty |= {"arguments": ""} if "arguments" in item else {}
        yield {"type": "response.output_item.added", "output_index": index, "item": empty}
        at = {"item_id": item.get("id"), "output_index": index}
        for kind in ("summary", "content"):
            for number, part in enumerate(item.get(kind) or ()):
                yield from _part_events(part, {**at, _INDICES[kind]: number}, says.chunks)
        if "arguments" in item:
            kind = "response.function_call_arguments"
            for piece in pieces(item["arguments"], says.chunks):
                yield {"type": f"{kind}.delta", **at, "delta": piece}
            yield {"type": f"{kind}.done", **at, "arguments": item["arguments"]}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{answer['status']}", "response": answer}


_INDICES = {"summary": "summary_index", "content": "content_index"}
_SUMMARY = "reasoning_summary"


def _part_events(part: JSON, at: JSON, count: int) -> Iterator[JSON]:
    kind = part["type"].replace("summary_text", f"{_SUMMARY}_text")
    whole = f"{_SUMMARY}_part" if _SUMMARY in kind else "content_part"
    name = "refusal" if kind == "refusal" else "text"
    logprobs = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
    yield {"type": f"response.{whole}.added", **at, "part": {**part, name: "", **logprobs}}
    for piece in pieces(part[name], count):
        yield {"type": f"response.{kind}.delta", **at, "delta": piece, **logprobs}
    yield {"type": f"response.{kind}.done", **at, name: part[name], **logprobs}
    yield {"type": f"response.{whole}.done", **at, "part": part}


MESSAGES_PATHS = ("/messages", "/messages/count_tokens")
PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses", *MESSAGES_PATHS)
NAMED = ("/messages", "/responses")
"""Where events have names, and there is no mark at the end."""
_WHOLE = {
    "/v1/completions": whole_text,
    "/v1/embeddings": embeddings,
    "/v1/messages": message,
    "/v1/responses": response,
}
_STREAMED = {
    "/v1/completions": text_chunks,
    "/v1/messages": events,
    "/v1/responses": response_events,
}
_BEGUN = {"/v1/messages": 2, "/v1/responses": 4}


@contextmanager
def in_thread(start: Callable[[asyncio.Event], Any]) -> Iterator[Any]:
    """Run an async context in a thread with its own loop; yields what it announces."""
    ready: threading.Event = threading.Event()
    box: dict[str, Any] = {}

    async def main() -> None:
        box["loop"] = asyncio.get_running_loop()
        box["stop"] = asyncio.Event()
        try:
            async with start(box["stop"]) as announced:
                box["value"] = announced
                ready.set()
                await box["stop"].wait()
        except BaseException as error:
            box["error"] = error
            raise
        finally:
            ready.set()

    def target() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            box.setdefault("error", error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    assert ready.wait(30), "it did not start"
    if "value" not in box:
        thread.join(5)
        raise box["error"]
    try:
        yield box["value"]
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(30)
        assert not thread.is_alive(), "it did not stop"
    if "error" in box:
        raise box["error"]
