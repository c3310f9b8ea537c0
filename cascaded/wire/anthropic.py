"""Anthropic's Messages: bodies, answers and errors as the official SDKs speak them.

What we do not touch goes upstream, and back, byte for byte.
Source: https://docs.anthropic.com/en/api/messages
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cascaded.types.event import Event, ToolDelta
from cascaded.types.model import Model
from cascaded.types.usage import Usage
from cascaded.wire.openai_chat import (
    ABSENT,
    MAX_OUTPUT_TOKENS,
    MAX_USAGE_TOKENS,
    Fields,
    UpstreamSaidError,
    WireError,
    decoded,
    error_message,
    is_absent,
)
from cascaded.wire.sse import named

PASSED_HEADERS = ("anthropic-version", "anthropic-beta")
"""A caller's headers that go upstream as they are."""
VERSION_HEADER = "anthropic-version"
STOP_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Why an answer ended, in the words of chat completions, which are those used inside."""
ERROR_CODES = {
    "overloaded_error": "upstream_overloaded",
    "rate_limit_error": "upstream_rate_limited",
    "timeout_error": "upstream_timeout",
}
"""What an error in the middle of a stream is to our callers; any other is a server's error."""
CLIENT_TOOLS = ("bash_", "text_editor_", "computer_2", "memory_")
"""Tools of Anthropic's own making that run at the caller's; no more tokens each than these."""
TOKENS_PER_CLIENT_TOOL = 2_000
"""Documented are 245 (bash) to 735 (computer) each, and up to 500 for the system's words."""
STANDARD_SPEED = (b"", b"null", b'"standard"')
STANDARD_PLACE = (b"", b"null", b'"global"')


class _Tool(msgspec.Struct):
    type: str | None = None
    name: str = ""


class MessagesRequest(msgspec.Struct, kw_only=True):
    """The members that the daemon itself reads. Everything else is forwarded unseen."""

    model: str
    messages: list[msgspec.Raw]
    max_tokens: int | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None


_read_request = msgspec.json.Decoder(MessagesRequest)
_read_fields = msgspec.json.Decoder(Fields)


def parse_messages(body: bytes) -> tuple[MessagesRequest, Fields]:
    """A body as what we read of it and as its raw members.

    Raises `WireError` naming the member that is wrong.
    """
    asked, fields = decoded(_read_request, body)
    if not asked.messages:
        raise WireError("messages must not be empty", "messages")
    if asked.max_tokens is not None and not 1 <= asked.max_tokens <= MAX_OUTPUT_TOKENS:
        raise WireError(f"max_tokens must be from 1 to {MAX_OUTPUT_TOKENS}", "max_tokens")
    return asked, fields


def unpriced(asked: MessagesRequest, fields: Mapping[str, msgspec.Raw]) -> tuple[str, ...]:
    """Members that make a call dearer than the price list says, or by tokens that nothing bounds:
    tools that run at Anthropic's (they are billed apart, and feed the model what they find),
    faster service, a place of one's choice."""
    found = [
        f"tools[{number}] ({tool.type})"
        for number, tool in enumerate(asked.tools or ())
        if tool.type not in (None, "custom") and not tool.type.startswith(CLIENT_TOOLS)
    ]
    for name, cheap in (("speed", STANDARD_SPEED), ("inference_geo", STANDARD_PLACE)):
        if bytes(fields.get(name, b"")) not in cheap:
            found.append(name)
    found += [name for name in ("mcp_servers", "container") if name in fields]
    return tuple(found)


def upstream_messages(
    fields: Mapping[str, msgspec.Raw], model: Model, *, output_bound: int, stream: bool
) -> Fields:
    """The members to send to this model's provider: the caller's own but for the model, the bound
    on the answer, and whether it is streamed."""
    sent = dict(fields)
    sent["model"] = _raw(model.upstream_name)
    sent["max_tokens"] = _raw(output_bound)
    if stream:
        sent["stream"] = _raw(True)
    return sent


def countable(fields: Mapping[str, msgspec.Raw], model: Model) -> Fields:
    """The members that `count_tokens` takes."""
    names = ("messages", "system", "tools", "tool_choice", "thinking", "output_config")
    sent = {name: fields[name] for name in names if name in fields}
    return {"model": _raw(model.upstream_name), **sent}


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


# --- answers --------------------------------------------------------------------------------


class _CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class MessagesUsage(msgspec.Struct):
    """Tokens as Anthropic tells them: `input_tokens` is without what the cache read or wrote."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None

    def then(self, later: "MessagesUsage") -> "MessagesUsage":
        """What holds after a later word. Counts are cumulative: the last one is the count."""
        merged = {
            name: mine if told is None else told
            for name in self.__struct_fields__
            for mine, told in [(getattr(self, name), getattr(later, name))]
        }
        return MessagesUsage(**merged)

    def normalised(self) -> Usage | None:
        """In our classes; `None` where a total is missing or a count is absurd."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        written, read = self.cache_creation_input_tokens or 0, self.cache_read_input_tokens or 0
        hour = self.cache_creation.ephemeral_1h_input_tokens if self.cache_creation else None
        thought = self.output_tokens_details and self.output_tokens_details.thinking_tokens
        counts = (self.input_tokens, self.output_tokens, written, read, hour or 0, thought or 0)
        if any(not 0 <= count <= MAX_USAGE_TOKENS for count in counts):
            return None
        return Usage(
            input_tokens=self.input_tokens + written + read,
            output_tokens=self.output_tokens,
            cache_read_tokens=read,
            cache_write_tokens=written,
            cache_write_1h_tokens=hour,
            reasoning_tokens=thought or 0,
        )


class Block(msgspec.Struct):
    """A content block of an answer, as far as it is read."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    input: msgspec.Raw = ABSENT


class _Delta(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Told(msgspec.Struct):
    """A message, or the beginning of one."""

    content: list[Block] | None = None
    stop_reason: str | None = None
    usage: MessagesUsage | None = None


class _Error(msgspec.Struct):
    type: str = ""


class _Spoken(_Told):
    """Any of them: a whole message, or an event of a stream."""

    type: str = ""
    index: int = 0
    message: _Told | None = None
    content_block: Block | None = None
    delta: _Delta | None = None
    error: msgspec.Raw = ABSENT


_read_spoken = msgspec.json.Decoder(_Spoken)


def _read(raw: bytes) -> _Spoken:
    try:
        spoken = _read_spoken.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not of the Messages API: {error}") from None
    if not is_absent(spoken.error):
        raise UpstreamSaidError(error_message(spoken.error), _error_code(spoken.error))
    return spoken


def _error_code(error: msgspec.Raw) -> str:
    try:
        kind = msgspec.json.decode(error, type=_Error).type
    except (msgspec.DecodeError, UnicodeDecodeError):
        kind = ""
    return ERROR_CODES.get(kind, "upstream_server_error")


def finish_reason(stop_reason: str | None) -> str | None:
    """In the words used inside; a reason that is not known yet stays as it is."""
    return STOP_REASONS.get(stop_reason, stop_reason) if stop_reason else None


def parse_message(raw: bytes) -> Event:
    """A whole answer. Raises `UpstreamSaidError` for an error, `WireError` for anything else."""
    spoken = _read(raw)
    if spoken.type != "message" or spoken.content is None:
        raise WireError("not a message: it has no content")
    blocks = spoken.content
    return Event(
        raw=raw,
        form="messages",
        kind="message",
        whole=True,
        text=_joined(block.text for block in blocks if block.type == "text"),
        reasoning=_joined(block.thinking for block in blocks),
        tool_deltas=_tool_calls(blocks),
        finish_reason=finish_reason(spoken.stop_reason),
        usage=spoken.usage.normalised() if spoken.usage else None,
    )


def _joined(texts: Iterable[str | None]) -> str:
    return "".join(text for text in texts if text)


def _tool_calls(blocks: Sequence[Block]) -> tuple[ToolDelta, ...]:
    return tuple(
        ToolDelta(number, block.name or "", bytes(block.input).decode() or "{}")
        for number, block in enumerate(blocks)
        if block.type == "tool_use"
    )


class MessagesEar:
    """Hears one streamed answer: an event for each of its own, told in the terms used inside."""

    def __init__(self) -> None:
        self._usage = MessagesUsage()

    def hear(self, data: bytes) -> Event | None:
        """The next event; `None` for `message_stop`. Raises `WireError`."""
        spoken = _read(data)
        match spoken.type:
            case "message_stop":
                return None
            case "message_start" if spoken.message is not None:
                self._usage = self._usage.then(spoken.message.usage or MessagesUsage())
            case "content_block_start" if spoken.content_block is not None:
                return self._block(data, spoken.index, spoken.content_block)
            case "content_block_delta" if spoken.delta is not None:
                return self._delta(data, spoken.index, spoken.delta)
            case "message_delta" if spoken.delta is not None:
                self._usage = self._usage.then(spoken.usage or MessagesUsage())
                return Event(
                    raw=data,
                    form="messages",
                    kind=spoken.type,
                    finish_reason=finish_reason(spoken.delta.stop_reason),
                    usage=self._usage.normalised(),
                )
            case "" | "message_start" | "content_block_start" | "content_block_delta":
                raise WireError(f"not an event of the Messages API: {data[:80]!r}")
        return Event(raw=data, form="messages", kind=spoken.type)

    def _block(self, data: bytes, index: int, block: Block) -> Event:
        calls = block.type == "tool_use"
        return Event(
            raw=data,
            form="messages",
            kind="content_block_start",
            text=(block.text or "") if block.type == "text" else "",
            reasoning=block.thinking or "",
            tool_deltas=(ToolDelta(index, block.name or "", ""),) if calls else (),
        )

    def _delta(self, data: bytes, index: int, delta: _Delta) -> Event:
        calls = delta.partial_json is not None
        return Event(
            raw=data,
            form="messages",
            kind="content_block_delta",
            text=delta.text or "",
            reasoning=delta.thinking or "",
            tool_deltas=(ToolDelta(index, "", delta.partial_json or ""),) if calls else (),
        )


def parse_count(body: bytes) -> int:
    """What `count_tokens` answers. Raises `WireError`."""
    try:
        return msgspec.json.decode(body, type=_Count).input_tokens
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a count of tokens: {error}") from None


class _Count(msgspec.Struct):
    input_tokens: int


# --- what callers are told --------------------------------------------------------------------


def with_cost(raw: bytes, usage: Usage, cost: msgspec.Raw, details: msgspec.Raw) -> bytes:
    """A `message_delta` with what the call cost in its usage; with our own count where the
    provider gave none."""
    fields = _read_fields.decode(raw)
    sent = fields.get("usage", _raw(None))
    told = told_usage(usage) if is_absent(sent) else msgspec.json.decode(sent, type=Fields)
    fields["usage"] = _raw({**told, "cost": cost, "cost_details": details})
    return msgspec.json.encode(fields)


def told_usage(usage: Usage) -> dict[str, object]:
    """Our classes as Anthropic tells them."""
    written, read = usage.cache_write_tokens, usage.cache_read_tokens
    told: dict[str, object] = {
        "input_tokens": max(0, usage.input_tokens - written - read),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.output_tokens,
    }
    if usage.cache_write_1h_tokens is not None:
        told["cache_creation"] = {
            "ephemeral_5m_input_tokens": max(0, written - usage.cache_write_1h_tokens),
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        }
    if usage.reasoning_tokens:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return told


STOP = named("message_stop", b'{"type":"message_stop"}')
"""The end of every streamed message."""
