"""Of Anthropic's Messages."""

from collections.abc import Iterator
from typing import Any

import msgspec

from cascaded.wire.openai_chat import WireError

JSON = dict[str, Any]
_EMPTY: dict[str, JSON] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
    "server_tool_use": {"input": {}},
}
"""How a block begins that grows."""
_GROWS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
"""Deltas that are a piece of the block's member of that name."""
_read = msgspec.json.Decoder(JSON)


class Gathered:
    """Events as they come, or a whole answer, and what they make."""

    def __init__(self) -> None:
        self._message: JSON = {}
        self._blocks: dict[int, JSON] = {}
        self._inputs: dict[int, list[str]] = {}
        self._whole: bytes | None = None

    def add(self, raw: bytes, *, whole: bool = False) -> None:
        """One more. Raises `WireError` for what is not of Messages, or grows in a way that is not
        known."""
        if whole:
            self._whole = raw
            return
        try:
            self._take(_read.decode(raw))
        except (msgspec.DecodeError, AttributeError, TypeError, KeyError, RecursionError) as error:
            raise WireError(f"not of the Messages API: {error!r}") from None

    def whole(self) -> bytes | None:
        """The message; `None` of one that did not end."""
        if self._whole is not None or not self._message.get("stop_reason"):
            return self._whole
        try:
            for at, pieces in self._inputs.items():
                self._blocks[at]["input"] = msgspec.json.decode("".join(pieces) or "{}")
        except msgspec.DecodeError:
            return None  # its caller makes of it what he can; nobody else needs to
        blocks = [self._blocks[at] for at in sorted(self._blocks)]
        return msgspec.json.encode({**self._message, "content": blocks})

    def _take(self, said: JSON) -> None:
        match said["type"]:
            case "message_start":
                self._message = said["message"]
            case "content_block_start":
                self._blocks[said["index"]] = said["content_block"]
            case "content_block_delta":
                self._grow(said["index"], said["delta"])
            case "message_delta":
                usage = {**self._message.get("usage", {}), **(said.get("usage") or {})}
                self._message |= {**said["delta"], "usage": usage}

    def _grow(self, at: int, delta: JSON) -> None:
        block, kind = self._blocks[at], delta["type"]
        if kind == "input_json_delta":
            self._inputs.setdefault(at, []).append(delta["partial_json"])
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
        elif kind in _GROWS:
            block[_GROWS[kind]] = block.get(_GROWS[kind], "") + delta[_GROWS[kind]]
        else:
            raise WireError(f"a block grows by a {kind}, which is not known")


def events_of(whole: bytes) -> Iterator[bytes]:
    """The answer as a stream."""
    return map(msgspec.json.encode, _events(_read.decode(whole)))


def _events(message: JSON) -> Iterator[JSON]:
    usage = message.get("usage") or {}
    begun: JSON = {"content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": {**message, **begun}}
    for index, block in enumerate(message["content"]):
        empty = {**block, **_EMPTY.get(block["type"], {})}
        empty.pop("citations", None)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
    yield {"type": "message_delta", "delta": ended, "usage": usage}
    yield {"type": "message_stop"}


def _deltas(block: JSON) -> Iterator[JSON]:
    match block["type"]:
        case "text":
            yield {"type": "text_delta", "text": block["text"]}
            for citation in block.get("citations") or ():
                yield {"type": "citations_delta", "citation": citation}
        case "thinking":
            yield {"type": "thinking_delta", "thinking": block["thinking"]}
            yield {"type": "signature_delta", "signature": block.get("signature", "")}
        case "tool_use" | "server_tool_use":
            said = msgspec.json.encode(block["input"]).decode()
            yield {"type": "input_json_delta", "partial_json": said}
