"""Answers between chat completions and Messages, whole and as they stream.

Chat completions tell thoughts as `reasoning_content`, with Anthropic's signed blocks beside it as
`thinking_blocks` (what goes back there must be these); why an answer really ended as
`native_finish_reason`, and the stop sequence that ended it as `stop_reason`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from cascaded.types.event import Event
from cascaded.types.usage import Usage
from cascaded.wire.anthropic import (
    STOP,
    STOP_REASONS,
    told_usage,
    with_cost,
)
from cascaded.wire.openai_chat import chat_usage, parse_event
from cascaded.wire.sse import named

JSON = dict[str, Any]
ENDED: dict[str, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
UNREADABLE_ARGUMENTS = "unreadable_arguments"
"""Under this name a tool's input has what a model wrote that is no JSON object."""
_THOUGHTS = ("thinking", "redacted_thinking")


# --- Messages, said in chat completions -------------------------------------------------------


def chat_answer(event: Event, created_s: int) -> bytes:
    """A whole answer of Messages as a chat completion."""
    said = msgspec.json.decode(event.raw)
    blocks = said["content"]
    message: JSON = {"role": "assistant", "content": event.text or None, "refusal": None}
    calls = [_call(block) for block in blocks if block["type"] == "tool_use"]
    if calls:
        message["tool_calls"] = calls
    elif not event.text:
        message["content"] = ""
    if event.reasoning:
        message["reasoning_content"] = event.reasoning
    thoughts = [block for block in blocks if block["type"] in _THOUGHTS]
    if thoughts:
        message["thinking_blocks"] = thoughts
    choice = {"index": 0, "message": message, "logprobs": None, **_ended(event, said)}
    usage = {"usage": chat_usage(event.usage)} if event.usage else {}
    answer = {
        "id": said.get("id", ""),
        "object": "chat.completion",
        "created": created_s,
        "model": said.get("model", ""),
        "choices": [choice],
    }
    return msgspec.json.encode(answer | usage)


def _call(block: JSON) -> JSON:
    arguments = msgspec.json.encode(block["input"]).decode()
    function = {"name": block["name"], "arguments": arguments}
    return {"id": block["id"], "type": "function", "function": function}


def _ended(event: Event, said: JSON) -> JSON:
    ended = {
        "finish_reason": event.finish_reason,
        "native_finish_reason": said.get("stop_reason"),
    }
    return ended | ({"stop_reason": said["stop_sequence"]} if said.get("stop_sequence") else {})


class ChatChunks:
    """The chunks of one streamed answer of Messages."""

    def __init__(self, created_s: int) -> None:
        self._base: JSON = {"id": "", "object": "chat.completion.chunk", "created": created_s}
        self._calls: dict[int, int] = {}
        """Of each content block that is a tool call, which of the calls it is."""
        self._thought: JSON | None = None
        """The thinking block under way: its signature comes at its end."""

    def chunk(self, event: Event) -> Event | None:
        """The event as a chunk, if it says anything in chat completions."""
        said = msgspec.json.decode(event.raw)
        match event.kind:
            case "message_start":
                message = said["message"]
                self._base |= {"id": message.get("id", ""), "model": message.get("model", "")}
                return self._event({"role": "assistant", "content": ""})
            case "content_block_start":
                delta = self._began(said["index"], said["content_block"])
            case "content_block_delta":
                delta = self._went_on(said["index"], said["delta"])
            case "content_block_stop":
                delta = self._stopped()
            case "message_delta":
                usage = {"usage": chat_usage(event.usage)} if event.usage else {}
                return self._event({}, _ended(event, said["delta"]), usage)
            case _:
                return None
        return self._event(delta) if delta else None

    def _event(self, delta: JSON, ended: JSON | None = None, more: JSON | None = None) -> Event:
        choice = {"index": 0, "delta": delta, "finish_reason": None, **(ended or {})}
        raw = msgspec.json.encode({**self._base, "choices": [choice], **(more or {})})
        return parse_event(raw, whole=False)

    def _began(self, index: int, block: JSON) -> JSON:
        match block["type"]:
            case "text":
                return {"content": block["text"]} if block.get("text") else {}
            case "tool_use":
                call = self._calls[index] = len(self._calls)
                function = {"name": block["name"], "arguments": ""}
                head = {"index": call, "id": block["id"], "type": "function"}
                return {"tool_calls": [{**head, "function": function}]}
            case "thinking":
                self._thought = {"type": "thinking", "thinking": "", "signature": ""}
                return self._think(block.get("thinking") or "")
            case "redacted_thinking":
                return {"thinking_blocks": [block]}
        return {}

    def _went_on(self, index: int, delta: JSON) -> JSON:
        match delta["type"]:
            case "text_delta":
                return {"content": delta["text"]}
            case "input_json_delta" if index in self._calls:
                piece = {"arguments": delta["partial_json"]}
                return {"tool_calls": [{"index": self._calls[index], "function": piece}]}
            case "thinking_delta":
                return self._think(delta["thinking"])
            case "signature_delta" if self._thought is not None:
                self._thought["signature"] += delta["signature"]
        return {}

    def _think(self, text: str) -> JSON:
        if self._thought is not None:
            self._thought["thinking"] += text
        return {"reasoning_content": text} if text else {}

    def _stopped(self) -> JSON:
        thought, self._thought = self._thought, None
        return {"thinking_blocks": [thought]} if thought else {}


# --- chat completions, said in Messages -------------------------------------------------------


def messages_answer(event: Event) -> bytes:
    """A whole chat completion as an answer of Messages."""
    said = msgspec.json.decode(event.raw)
    choice = next(one for one in said["choices"] if one.get("index", 0) == 0)
    message = choice["message"]
    content = [*(message.get("thinking_blocks") or ())]
    if event.reasoning and not content:
        content.append({"type": "thinking", "thinking": event.reasoning, "signature": ""})
    content += [{"type": "text", "text": text} for text in (event.text, event.refusal) if text]
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        name, given = function.get("name", ""), _input(function.get("arguments") or "")
        content.append({"type": "tool_use", "id": call["id"], "name": name, "input": given})
    answer = {
        **_message(said),
        "content": content,
        **_stopped(choice, refused=bool(event.refusal)),
        "usage": told_usage(event.usage or Usage()),
    }
    return msgspec.json.encode(answer)


def _message(said: JSON) -> JSON:
    head = {"id": said.get("id", ""), "type": "message", "role": "assistant"}
    return {**head, "model": said.get("model", "")}


def _stopped(choice: JSON, *, refused: bool) -> JSON:
    """Why it ended: in Anthropic's own word where that came along."""
    native, sequence = choice.get("native_finish_reason"), choice.get("stop_reason")
    ended = choice.get("finish_reason")
    if native in STOP_REASONS:
        reason = native
    elif refused:
        reason = "refusal"
    elif ended == "stop" and isinstance(sequence, str):
        reason = "stop_sequence"
    else:
        reason = ENDED.get(ended or "", "end_turn")
    told = sequence if reason == "stop_sequence" and isinstance(sequence, str) else None
    return {"stop_reason": reason, "stop_sequence": told}


def _input(arguments: str) -> Any:
    try:
        given = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        given = None
    return given if isinstance(given, dict) else {UNREADABLE_ARGUMENTS: arguments}


class MessagesEvents:
    """The events of one streamed chat completion, framed.

    Blocks follow one another in Messages. The first tool call streams; the pieces of those beside
    it wait until it is whole, since chat completions may mix them.
    """

    def __init__(self) -> None:
        self._index = -1
        self._open = ""
        """The kind of the block under way."""
        self._first: int | None = None
        self._waiting: dict[int, list[JSON]] = {}
        self._refused = False
        self._ended: JSON = {}
        self._started = False

    def frames(self, event: Event) -> bytes:
        """What the chunk is in Messages; empty where it says nothing."""
        return b"".join(named(one["type"], msgspec.json.encode(one)) for one in self._events(event))

    def end(self, usage: Usage, cost: msgspec.Raw, details: msgspec.Raw) -> bytes:
        """The end of the message: why, what it used and what it cost."""
        last = [*self._close(), *self._others()]
        stopped = _stopped(self._ended, refused=self._refused)
        delta = {"type": "message_delta", "delta": stopped, "usage": told_usage(usage)}
        told = with_cost(msgspec.json.encode(delta), usage, cost, details)
        framed = [named(one["type"], msgspec.json.encode(one)) for one in last]
        return b"".join([*framed, named("message_delta", told), STOP])

    def _events(self, event: Event) -> Iterator[JSON]:
        said = msgspec.json.decode(event.raw)
        if not self._started:
            self._started = True
            yield {"type": "message_start", "message": _begun(said)}
        choices = (one for one in said.get("choices") or () if one.get("index", 0) == 0)
        choice: JSON = next(choices, {})
        delta = choice.get("delta") or {}
        if event.reasoning:
            yield from self._say("thinking", "thinking", event.reasoning)
        for block in delta.get("thinking_blocks") or ():
            yield from self._thought(block)
        self._refused = self._refused or bool(event.refusal)
        for text in (event.text, event.refusal):
            if text:
                yield from self._say("text", "text", text)
        for number, call in enumerate(delta.get("tool_calls") or ()):
            yield from self._called(call.get("index", number), call)
        if choice.get("finish_reason"):
            self._ended = choice

    def _say(self, kind: str, member: str, text: str) -> Iterator[JSON]:
        if self._open != kind:
            empty = {"type": kind, member: ""}
            signed = {"signature": ""} if kind == "thinking" else {}
            yield from self._begin(kind, empty | signed)
        yield self._delta({"type": f"{member}_delta", member: text})

    def _thought(self, block: JSON) -> Iterator[JSON]:
        """A thinking block that came whole: its words may have been said already."""
        if block.get("type") != "thinking":
            yield from self._begin("redacted", block)
            return
        if self._open != "thinking":
            yield from self._say("thinking", "thinking", block.get("thinking") or "")
        if block.get("signature"):
            yield self._delta({"type": "signature_delta", "signature": block["signature"]})
        yield from self._close()

    def _called(self, index: int, call: JSON) -> Iterator[JSON]:
        if self._first is None:
            self._first = index
            yield from self._begin_call(call)
        if index == self._first and self._open == "tool_use":
            yield from self._arguments(call)
        else:
            self._waiting.setdefault(index, []).append(call)

    def _others(self) -> Iterator[JSON]:
        for _, pieces in sorted(self._waiting.items()):
            if pieces[0].get("id"):
                yield from self._begin_call(pieces[0])
            for piece in pieces:
                yield from self._arguments(piece)
            yield from self._close()

    def _begin_call(self, call: JSON) -> Iterator[JSON]:
        name = (call.get("function") or {}).get("name") or ""
        block: JSON = {"type": "tool_use", "id": call.get("id") or "", "name": name, "input": {}}
        yield from self._begin("tool_use", block)

    def _arguments(self, call: JSON) -> Iterator[JSON]:
        piece = (call.get("function") or {}).get("arguments")
        if piece:
            yield self._delta({"type": "input_json_delta", "partial_json": piece})

    def _begin(self, kind: str, block: JSON) -> Iterator[JSON]:
        yield from self._close()
        self._index += 1
        self._open = kind
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _delta(self, delta: JSON) -> JSON:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _close(self) -> Iterator[JSON]:
        if self._open:
            self._open = ""
            yield {"type": "content_block_stop", "index": self._index}


def _begun(said: JSON) -> JSON:
    open_ended: JSON = {"content": [], "stop_reason": None, "stop_sequence": None}
    return {**_message(said), **open_ended, "usage": told_usage(Usage())}
