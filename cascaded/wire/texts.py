"""The texts of a call and of its answer, wherever they stand in it: to be read, and said anew.

Pure, and blind to what is looked for. A text is what somebody wrote: names, types, ids, addresses
of pictures and what is encoded are none.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from cascaded.wire.openai_chat import Fields, WireError

JSON = dict[str, Any]
Voice = Literal["user", "tool", "system", "assistant"]
"""Who says it. `tool`: also documents and what a search found, whoever sends them."""
Say = Callable[[str, Voice], str]
"""What is said in place of a text."""

MAX_DEPTH = 100
CONVERSATION = ("system", "messages", "instructions", "input", "prompt", "suffix", "prediction")
"""Members that have texts of people, tools and models."""
NOT_TEXT = frozenset(
    {
        *("type", "role", "id", "name", "tool_call_id", "tool_use_id", "call_id", "status"),
        *("media_type", "format", "detail", "cache_control", "citations", "signature"),
        *("image_url", "input_audio", "file", "file_id", "file_data", "encrypted_content"),
    }
)
ENCODED = frozenset({"base64", "url", "file"})
"""Sources that are no text."""
VOICES: Mapping[str, Voice] = {
    "user": "user",
    "system": "system",
    "developer": "system",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
FOREIGN = frozenset(
    {"tool_result", "document", "search_result", "function_call_output", "web_fetch_tool_result"}
)
"""Blocks whose words are nobody's who asks."""
SPOKEN_FIRST: Mapping[str, Voice] = {"system": "system", "instructions": "system"}


class Heard(NamedTuple):
    """One text."""

    text: str
    voice: Voice


def heard(fields: Mapping[str, msgspec.Raw]) -> list[Heard]:
    """Every text of a call, in order. Raises `WireError` for one that is nested too deeply."""
    found: list[Heard] = []

    def note(text: str, voice: Voice) -> str:
        found.append(Heard(text, voice))
        return text

    for name in CONVERSATION:
        if name in fields:
            _member(name, fields[name], note)
    return found


def said_anew(fields: Mapping[str, msgspec.Raw], texts: Iterator[str]) -> Fields:
    """The call with these texts in place of its own, in the order of `heard`."""
    new = dict(fields)
    for name in CONVERSATION:
        if name in fields:
            value = _member(name, fields[name], lambda _text, _voice: next(texts))
            new[name] = msgspec.Raw(msgspec.json.encode(value))
    return new


def _member(name: str, raw: msgspec.Raw, say: Say) -> Any:
    try:
        return _walked(msgspec.json.decode(raw), SPOKEN_FIRST.get(name, "user"), say, 0)
    except RecursionError:
        raise WireError("the body is nested too deeply", name) from None


def _walked(value: Any, voice: Voice, say: Say, depth: int) -> Any:
    """The value, its texts said anew."""
    if depth > MAX_DEPTH:
        raise WireError("the conversation is nested too deeply")
    if isinstance(value, str):
        return say(value, voice) if value else value
    if isinstance(value, list):
        return [_walked(one, voice, say, depth + 1) for one in value]
    if not isinstance(value, dict):
        return value
    voice = _voice_of(value, voice)
    encoded = value.get("type") in ENCODED
    return {
        name: one
        if name in NOT_TEXT or (encoded and name in ("data", "url"))
        else _walked_member(name, one, voice, say, depth + 1)
        for name, one in value.items()
    }


def _walked_member(name: str, value: Any, voice: Voice, say: Say, depth: int) -> Any:
    """A member's value. What was given to a tool is JSON in a text, and stays JSON."""
    if name == "arguments" and isinstance(value, str):
        try:
            given = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return _walked(value, voice, say, depth)
        return msgspec.json.encode(_walked(given, voice, say, depth)).decode()
    return _walked(value, voice, say, depth)


def _voice_of(value: JSON, voice: Voice) -> Voice:
    if value.get("type") in FOREIGN:
        return "tool"
    role = value.get("role")
    return VOICES.get(role, voice) if isinstance(role, str) and voice != "tool" else voice


# --- answers ----------------------------------------------------------------------------------

Part = Literal["text", "thought", "arguments"]
"""What is said, what is thought, and the JSON of what is given to a tool."""


class Channel(NamedTuple):
    """One of several texts that an answer may say side by side."""

    at: int
    """Of the choice, or of the content block."""
    part: Part
    call: int = 0
    """Which tool call."""
    member: str = ""
    """Where it stands in its choice."""


class Slot(NamedTuple):
    """Where a piece of a channel stands in an event."""

    channel: Channel
    owner: JSON
    name: str

    @property
    def text(self) -> str:
        """The piece."""
        text: str = self.owner[self.name]
        return text

    def put(self, text: str) -> None:
        """Another piece in its place."""
        self.owner[self.name] = text


_WORDS: Mapping[str, Part] = {
    "content": "text",
    "refusal": "text",
    "reasoning_content": "thought",
    "reasoning": "thought",
}


def slots(said: JSON, kind: str) -> Iterator[Slot]:
    """Every piece of text of one event of an answer, or of a whole one."""
    if not kind:
        for choice in said.get("choices") or ():
            yield from _of_choice(choice)
    elif kind == "message":
        for index, block in enumerate(said["content"]):
            yield from _of_block(block, index)
    elif kind == "content_block_start":
        yield from _of_block(said["content_block"], said["index"])
    elif kind == "content_block_delta":
        yield from _of_block(said["delta"], said["index"])


def _of_choice(choice: JSON) -> Iterator[Slot]:
    index = choice.get("index", 0)
    if isinstance(choice.get("text"), str):
        yield Slot(Channel(index, "text", 0, "text"), choice, "text")
    words = choice.get("delta") or choice.get("message") or {}
    for name, part in _WORDS.items():
        if isinstance(words.get(name), str):
            yield Slot(Channel(index, part, 0, name), words, name)
    yield from _thoughts(words, index)
    for place, call in enumerate(words.get("tool_calls") or ()):
        function = call.get("function") or {}
        if isinstance(function.get("arguments"), str):
            channel = Channel(index, "arguments", call.get("index", place), "arguments")
            yield Slot(channel, function, "arguments")


def _thoughts(words: JSON, index: int) -> Iterator[Slot]:
    """Those that are whole, in the form of whoever thought them."""
    for number, block in enumerate(words.get("thinking_blocks") or ()):
        if isinstance(block.get("thinking"), str):
            yield Slot(Channel(index, "thought", number, "thinking"), block, "thinking")
    for number, item in enumerate(words.get("reasoning_items") or ()):
        for part in (*(item.get("summary") or ()), *(item.get("content") or ())):
            if isinstance(part.get("text"), str):
                yield Slot(Channel(index, "thought", number, "thinking"), part, "text")


_BLOCKS: Mapping[str, Part] = {"text": "text", "thinking": "thought", "partial_json": "arguments"}


def _of_block(block: JSON, index: int) -> Iterator[Slot]:
    for name, part in _BLOCKS.items():
        if isinstance(block.get(name), str):
            yield Slot(Channel(index, part, 0, name), block, name)


def tool_inputs(said: JSON, kind: str) -> Iterator[JSON]:
    """Whole inputs of tool calls that an event of Messages has as JSON itself."""
    if kind == "message":
        yield from (block for block in said["content"] if block.get("type") == "tool_use")
    elif kind == "content_block_start" and said["content_block"].get("type") == "tool_use":
        yield said["content_block"]


def mapped(value: Any, say: Callable[[str], str]) -> Any:
    """A JSON value with its texts said anew, names of members included in none."""
    return _walked_all(value, say, 0)


def _walked_all(value: Any, say: Callable[[str], str], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise WireError("the answer is nested too deeply")
    if isinstance(value, str):
        return say(value)
    if isinstance(value, list):
        return [_walked_all(one, say, depth + 1) for one in value]
    if isinstance(value, dict):
        return {name: _walked_all(one, say, depth + 1) for name, one in value.items()}
    return value


def ended(said: JSON, kind: str) -> Iterator[int | None]:
    """Which choices or blocks an event ends; `None`: all of them."""
    if not kind:
        for choice in said.get("choices") or ():
            if choice.get("finish_reason"):
                yield choice.get("index", 0)
    elif kind == "content_block_stop":
        yield said["index"]
    elif kind in ("message_delta", "message_stop"):
        yield None


def rest(said: JSON, kind: str, channel: Channel, text: str) -> tuple[JSON, str]:
    """An event like this one that says nothing but the rest of a channel, and its kind."""
    if kind:
        types = {"text": "text_delta", "thinking": "thinking_delta"}
        delta = {"type": types.get(channel.member, "input_json_delta"), channel.member: text}
        event = {"type": "content_block_delta", "index": channel.at, "delta": delta}
        return event, "content_block_delta"
    head = {name: value for name, value in said.items() if name != "usage"}
    if channel.member == "text":
        words: JSON = {"text": text}
    elif channel.part == "arguments":
        call = {"index": channel.call, "function": {"arguments": text}}
        words = {"delta": {"tool_calls": [call]}}
    else:
        words = {"delta": {channel.member: text}}
    choice = {"index": channel.at, **words, "finish_reason": None}
    return {**head, "choices": [choice]}, ""


def without_chances(said: JSON) -> None:
    """Take out log-probabilities: they spell what was said."""
    for choice in said.get("choices") or ():
        choice.pop("logprobs", None)
