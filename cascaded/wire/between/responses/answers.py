"""Answers between chat completions and OpenAI's Responses, whole and as they stream.

Chat completions tell thoughts as `reasoning_content`, with the items they came in beside it as
`reasoning_items` (what goes back there must be these). Responses tell other models' thoughts as the
text of reasoning items; of those that Anthropic has signed the block is in `encrypted_content`.
"""

import base64
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cascaded.types.event import Event
from cascaded.types.usage import Usage
from cascaded.wire.between.responses.from_chat import REASONING_ITEMS
from cascaded.wire.between.responses.to_chat import THOUGHTS
from cascaded.wire.openai_chat import chat_usage, parse_event
from cascaded.wire.responses import ENDS, OWN_THOUGHTS, response_of, told_usage
from cascaded.wire.sse import named

JSON = dict[str, Any]
ID = "resp_"
_ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of its call, and what it says where the call says nothing."""


# --- Responses, said in chat completions ------------------------------------------------------


def chat_answer(event: Event, created_s: int) -> bytes:
    """A whole answer of Responses as a chat completion."""
    said = msgspec.json.decode(event.raw)
    output: list[JSON] = said["output"]
    message: JSON = {"role": "assistant", "content": event.text or None}
    message["refusal"] = event.refusal or None
    calls = [_call(item) for item in output if item["type"] in _CALLS]
    if calls:
        message["tool_calls"] = calls
    elif not event.text and not event.refusal:
        message["content"] = ""
    if event.reasoning:
        message["reasoning_content"] = event.reasoning
    if thoughts := [item for item in output if item["type"] == "reasoning"]:
        message[REASONING_ITEMS] = thoughts
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    if cited := [_cited(one) for part in parts for one in part.get("annotations") or ()]:
        message["annotations"] = cited
    tokens = [token for part in parts for token in part.get("logprobs") or ()]
    choice = {"index": 0, "message": message, "logprobs": {"content": tokens} if tokens else None}
    usage = {"usage": chat_usage(event.usage)} if event.usage else {}
    answer = {
        **_base(said, "chat.completion", created_s),
        "choices": [{**choice, **_ended(event, said)}],
    }
    return msgspec.json.encode(answer | usage)


_CALLS = ("function_call", "custom_tool_call")


def _base(said: JSON, kind: str, created_s: int) -> JSON:
    base = {"id": said.get("id", ""), "object": kind, "created": created_s}
    base["model"] = said.get("model", "")
    return base | ({"service_tier": said["service_tier"]} if said.get("service_tier") else {})


def _call(item: JSON) -> JSON:
    if item["type"] == "custom_tool_call":
        custom = {"name": item["name"], "input": item.get("input") or ""}
        return {"id": item["call_id"], "type": "custom", "custom": custom}
    function = {"name": item["name"], "arguments": item.get("arguments") or ""}
    return {"id": item["call_id"], "type": "function", "function": function}


def _ended(event: Event, said: JSON) -> JSON:
    why = (said.get("incomplete_details") or {}).get("reason")
    return {"finish_reason": event.finish_reason, "native_finish_reason": why or said.get("status")}


def _cited(annotation: JSON) -> JSON:
    """An annotation, in the nested form that chat completions have."""
    kind = annotation["type"]
    return {"type": kind, kind: {name: one for name, one in annotation.items() if name != "type"}}


class ChatChunks:
    """The chunks of one streamed answer of Responses."""

    def __init__(self, created_s: int) -> None:
        self._created_s = created_s
        self._base: JSON = _base({}, "chat.completion.chunk", created_s)
        self._calls: dict[int, int] = {}
        """Of each item that is a tool call, which of the calls it is."""

    def chunk(self, event: Event) -> Event | None:
        """The event as a chunk, if it says anything in chat completions."""
        said = msgspec.json.decode(event.raw)
        if event.kind == "response.created":
            self._base = _base(said["response"], "chat.completion.chunk", self._created_s)
            return self._event({"role": "assistant", "content": ""})
        if event.kind in ENDS:
            usage = {"usage": chat_usage(event.usage)} if event.usage else {}
            return self._event({}, _ended(event, said["response"]), usage)
        delta = self._delta(event, said)
        if not delta:
            return None
        tokens = {"logprobs": {"content": said["logprobs"]}} if event.logprob_count else {}
        return self._event(delta, tokens)

    def _event(self, delta: JSON, choice: JSON | None = None, more: JSON | None = None) -> Event:
        said = {"index": 0, "delta": delta, "finish_reason": None, **(choice or {})}
        raw = msgspec.json.encode({**self._base, "choices": [said], **(more or {})})
        return parse_event(raw, whole=False)

    def _delta(self, event: Event, said: JSON) -> JSON:
        if event.text:
            return {"content": event.text}
        if event.refusal:
            return {"refusal": event.refusal}
        if event.reasoning:
            return {"reasoning_content": event.reasoning}
        match event.kind:
            case "response.output_item.added" if event.tool_deltas:
                return self._called(said["output_index"], said["item"])
            case "response.output_item.done" if said["item"]["type"] == "reasoning":
                return {REASONING_ITEMS: [said["item"]]}
            case "response.output_text.annotation.added":
                return {"annotations": [_cited(said["annotation"])]}
        if event.tool_deltas and said["output_index"] in self._calls:
            return self._arguments(said["output_index"], event.kind, said["delta"])
        return {}

    def _called(self, index: int, item: JSON) -> JSON:
        call = self._calls[index] = len(self._calls)
        return {"tool_calls": [{"index": call, **_call(item)}]}

    def _arguments(self, index: int, kind: str, piece: str) -> JSON:
        custom = kind == "response.custom_tool_call_input.delta"
        said = {"custom": {"input": piece}} if custom else {"function": {"arguments": piece}}
        return {"tool_calls": [{"index": self._calls[index], **said}]}


# --- chat completions, said in Responses ------------------------------------------------------


def response_head(
    fields: Mapping[str, msgspec.Raw],
    *,
    id: str,
    previous: str | None,
    created_s: int,
    kept: bool,
) -> JSON:
    """What every word of a response begins with: what it is, and what its call said."""
    given = {name: fields[name] for name in _ECHOED if bytes(fields.get(name, b"null")) != b"null"}
    told = {
        "id": id,
        "object": "response",
        "created_at": created_s,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "previous_response_id": previous,
        "store": kept,
    }
    return {**told, **_ECHOED, **given}


class _Part:
    """A part of an item, as it grows."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.logprobs: list[JSON] = []
        self.annotations: list[JSON] = []

    def told(self) -> JSON:
        text = "".join(self.pieces)
        if self.kind == "refusal":
            return {"type": self.kind, "refusal": text}
        said: JSON = {"type": self.kind, "text": text}
        if self.kind == "output_text":
            said |= {"annotations": self.annotations, "logprobs": self.logprobs}
        return said


class _Item:
    """An item of the output, as it grows."""

    def __init__(self, kind: str, index: int, id: str, more: JSON) -> None:
        self.kind = kind
        self.at: JSON = {"item_id": id, "output_index": index}
        self.parts: list[_Part] = []
        self.arguments: list[str] = []
        self.status = "in_progress"
        self._more = more

    @property
    def place(self) -> JSON:
        """Where the part under way is."""
        return {**self.at, "content_index": len(self.parts) - 1}

    def told(self) -> JSON:
        said = {"id": self.at["item_id"], "type": self.kind, "status": self.status, **self._more}
        if self.kind == "function_call":
            return {**said, "arguments": "".join(self.arguments)}
        return {**said, "content": [part.told() for part in self.parts]}

    def seal(self, block: JSON) -> None:
        """Keep a block that Anthropic has signed."""
        sealed = base64.b64encode(msgspec.json.encode(block)).decode()
        self._more["encrypted_content"] = THOUGHTS + sealed


_IDS = {"message": "msg_", "function_call": "fc_", "reasoning": OWN_THOUGHTS}
_ITEM_OF = {"output_text": "message", "refusal": "message", "reasoning_text": "reasoning"}
_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""How an answer ends that is not complete, and what Responses call the reason."""


class ResponsesEvents:
    """The events of one streamed chat completion, framed and numbered."""

    def __init__(self, head: JSON, *, logprobs: bool = False) -> None:
        """`logprobs`: whether the caller asked for them."""
        self.number = 0
        """Of the next event."""
        self._head = head
        self._logprobs = logprobs
        self._stem = head["id"].removeprefix(ID)
        self._items: list[_Item] = []
        self._open: _Item | None = None
        """The message or thought under way. Calls stay open to the end: they may be mixed."""
        self._calls: dict[int, _Item] = {}
        self._finish_reason: str | None = None

    def whole(self, event: Event, usage: Usage | None) -> bytes:
        """A whole chat completion as a response."""
        for _ in (*self._events(event), *self._ends()):
            pass  # nobody hears of it word by word
        return msgspec.json.encode(self.response(told_usage(usage) if usage else None))

    def frames(self, event: Event) -> bytes:
        """What the chunk is in Responses; empty where it says nothing."""
        return b"".join(map(self._framed, self._events(event)))

    def ends(self) -> bytes:
        """The ends of all that is open."""
        return b"".join(map(self._framed, self._ends()))

    def last(self, response: JSON) -> bytes:
        """The end of the answer, which is this response."""
        return self._framed({"type": f"response.{response['status']}", "response": response})

    def response(self, usage: JSON | None) -> JSON:
        """The whole response."""
        cut = _CUT.get(self._finish_reason or "")
        if cut and self._items:
            self._items[-1].status = "incomplete"
        return {
            **self._told("incomplete" if cut else "completed"),
            "incomplete_details": {"reason": cut} if cut else None,
            "usage": usage,
        }

    def broken(self, error: Mapping[str, object], begun: bytes | None) -> bytes:
        """The end of an answer that broke off: the error, and what it makes of the response.
        `begun`: the first event of one that was told as it came."""
        if begun is not None:
            self._head = msgspec.json.decode(response_of(begun))
        self._head.setdefault("model", "")
        flat = {name: error.get(name) for name in ("code", "message", "param")}
        told = {"code": "server_error", "message": error["message"]}
        return self._framed({"type": "error", **flat, "error": error}) + self._framed(
            {"type": "response.failed", "response": {**self._told("failed"), "error": told}}
        )

    def _framed(self, said: JSON) -> bytes:
        numbered = {**said, "sequence_number": self.number}
        self.number += 1
        return named(said["type"], msgspec.json.encode(numbered))

    def _told(self, status: str) -> JSON:
        output = [item.told() for item in self._items]
        return {**self._head, "status": status, "output": output}

    def _events(self, event: Event) -> Iterator[JSON]:
        said = msgspec.json.decode(event.raw)
        if "model" not in self._head:
            self._head["model"] = said.get("model", "")
            if tier := said.get("service_tier"):
                self._head["service_tier"] = tier
            begun = {**self._told("in_progress"), "usage": None}
            yield {"type": "response.created", "response": begun}
            yield {"type": "response.in_progress", "response": begun}
        choices = (one for one in said.get("choices") or () if one.get("index", 0) == 0)
        choice: JSON = next(choices, {})
        delta = choice.get("delta") or choice.get("message") or {}
        yield from self._thought(event.reasoning, delta.get("thinking_blocks") or ())
        for item in delta.get(REASONING_ITEMS) or ():
            yield from self._encrypted(item)
        tokens = (choice.get("logprobs") or {}).get("content") if self._logprobs else None
        if event.text:
            yield from self._say("output_text", event.text, tokens or ())
        if event.refusal:
            yield from self._say("refusal", event.refusal)
        for annotation in delta.get("annotations") or ():
            yield from self._cite(annotation)
        for number, call in enumerate(delta.get("tool_calls") or ()):
            yield from self._call(call.get("index", number), call.get("id"), call.get("function"))
        self._finish_reason = choice.get("finish_reason") or self._finish_reason

    # --- words

    def _thought(self, text: str, blocks: Sequence[JSON]) -> Iterator[JSON]:
        """Thoughts in words; and blocks that Anthropic has signed, whose words may have been said
        already."""
        if text and not (blocks and self._open_thought is None):
            yield from self._say("reasoning_text", text)
        for block in blocks:
            if self._open_thought is None:
                yield from self._begin("reasoning", {"summary": []})
                if words := block.get("thinking"):
                    yield from self._say("reasoning_text", words)
            assert self._open is not None
            self._open.seal(block)
            yield from self._close(self._open)

    def _encrypted(self, item: JSON) -> Iterator[JSON]:
        """A thought of Responses that came by way of chat completions: its words were said."""
        if sealed := item.get("encrypted_content"):
            yield from self._begin("reasoning", {"summary": [], "encrypted_content": sealed}, item)
            assert self._open is not None
            yield from self._close(self._open)

    @property
    def _open_thought(self) -> _Item | None:
        return self._open if self._open and self._open.kind == "reasoning" else None

    def _say(self, kind: str, text: str, logprobs: Sequence[JSON] = ()) -> Iterator[JSON]:
        """Words of a part; what is open is ended where it is of another kind."""
        if self._open is None or self._open.kind != _ITEM_OF[kind]:
            more: JSON = {"summary": []} if kind == "reasoning_text" else {"role": "assistant"}
            yield from self._begin(_ITEM_OF[kind], more)
        item = self._open
        assert item is not None
        if not item.parts or item.parts[-1].kind != kind:
            yield from self._end_part(item)
            item.parts.append(_Part(kind))
            empty = item.parts[-1].told()
            yield {"type": "response.content_part.added", **item.place, "part": empty}
        part = item.parts[-1]
        part.pieces.append(text)
        part.logprobs += logprobs
        delta = {"type": f"response.{kind}.delta", **item.place, "delta": text}
        yield delta | ({"logprobs": logprobs} if kind == "output_text" else {})

    def _cite(self, annotation: JSON) -> Iterator[JSON]:
        """An annotation of the words before it."""
        item = self._open
        if item is None or not item.parts or item.parts[-1].kind != "output_text":
            return
        flat = {"type": annotation["type"], **annotation.get(annotation["type"], {})}
        known = item.parts[-1].annotations
        at = {**item.place, "annotation_index": len(known)}
        known.append(flat)
        yield {"type": "response.output_text.annotation.added", **at, "annotation": flat}

    def _begin(self, kind: str, more: JSON, given: JSON | None = None) -> Iterator[JSON]:
        """`given`: the item that it was."""
        if self._open is not None:
            yield from self._close(self._open)
        self._open = yield from self._added(kind, more, (given or {}).get("id"))

    def _added(self, kind: str, more: JSON, id: str | None = None) -> Generator[JSON, None, _Item]:
        index = len(self._items)
        item = _Item(kind, index, id or f"{_IDS[kind]}{self._stem}_{index}", more)
        self._items.append(item)
        yield {"type": "response.output_item.added", "output_index": index, "item": item.told()}
        return item

    # --- calls

    def _call(self, index: int, id: str | None, function: JSON | None) -> Iterator[JSON]:
        function = function or {}
        if index not in self._calls:
            if self._open is not None:
                yield from self._close(self._open)
            named = {"call_id": id or "", "name": function.get("name") or ""}
            self._calls[index] = yield from self._added("function_call", named)
        item, piece = self._calls[index], function.get("arguments")
        if piece:
            item.arguments.append(piece)
            kind = "response.function_call_arguments.delta"
            yield {"type": kind, **item.at, "delta": piece}

    # --- ends

    def _ends(self) -> Iterator[JSON]:
        for item in (*([self._open] if self._open else ()), *self._calls.values()):
            yield from self._close(item)

    def _close(self, item: _Item) -> Iterator[JSON]:
        if item is self._open:
            self._open = None
        item.status = "completed"
        yield from self._end_part(item)
        told = item.told()
        if item.kind == "function_call":
            kind = "response.function_call_arguments.done"
            said = {"name": told["name"], "arguments": told["arguments"]}
            yield {"type": kind, **item.at, **said}
        at = item.at["output_index"]
        yield {"type": "response.output_item.done", "output_index": at, "item": told}

    def _end_part(self, item: _Item) -> Iterator[JSON]:
        if not item.parts:
            return
        part = item.parts[-1]
        told = part.told()
        name = "refusal" if part.kind == "refusal" else "text"
        done = {"type": f"response.{part.kind}.done", **item.place, name: told[name]}
        yield done | ({"logprobs": part.logprobs} if part.kind == "output_text" else {})
        yield {"type": "response.content_part.done", **item.place, "part": told}
