"""Of chat completions, legacy ones too."""

from typing import Any

import msgspec

from cascaded.wire.openai_chat import WireError

JSON = dict[str, Any]
SAID_ONCE = frozenset({"role", "id", "type"})
"""Texts of a delta that are not pieces of a longer one."""

TEXT = "text_completion"
"""A legacy completion, whole or a chunk."""

_read = msgspec.json.Decoder(JSON)


class _Pieces(list[str]):
    """A text that comes in pieces: joined once, at the end."""


class Gathered:
    """Chunks as they come, or a whole answer, and what they make."""

    def __init__(self) -> None:
        self._answer: JSON = {}
        self._choices: dict[int, JSON] = {}
        self._whole: bytes | None = None

    def add(self, raw: bytes, *, whole: bool = False) -> None:
        """One more. Raises `WireError` for what is not of chat completions."""
        if whole:
            self._whole = raw
            return
        try:
            chunk = _read.decode(raw)
            choices, usage = chunk.pop("choices", None), chunk.pop("usage", None)
            if choices is None and usage is None:
                raise WireError("not a chat completion: it has neither choices nor usage")
            for choice in choices or ():
                _add_choice(self._choices.setdefault(choice.get("index", 0), {}), choice)
            self._answer.update(chunk if usage is None else {**chunk, "usage": usage})
        except (msgspec.DecodeError, AttributeError, TypeError, RecursionError) as error:
            raise WireError(f"not a chat completion: {error}") from None

    def whole(self) -> bytes | None:
        """The completion, members that we do not know included; `None` of nothing."""
        if self._whole is not None or not self._choices:
            return self._whole
        made = [_joined(self._choices[index]) for index in sorted(self._choices)]
        kind = TEXT if self._answer.get("object") == TEXT else "chat.completion"
        return msgspec.json.encode({**self._answer, "object": kind, "choices": made})


def chunks_of(whole: bytes) -> list[bytes]:
    """The answer as a stream: its words, its end, and its usage where it has some."""
    answer = _read.decode(whole)
    choices: list[JSON] = answer.pop("choices")
    usage = answer.pop("usage", None)
    legacy = answer.get("object") == TEXT
    head = answer if legacy else {**answer, "object": "chat.completion.chunk"}
    words = [
        {**choice, "finish_reason": None} if legacy else _first_half(choice) for choice in choices
    ]
    nothing: JSON = {"text": ""} if legacy else {"delta": {}}
    ends = [
        {"index": one.get("index", 0), **nothing, "finish_reason": one.get("finish_reason")}
        for one in choices
    ]
    stream: list[JSON] = [{**head, "choices": words}, {**head, "choices": ends}]
    if usage is not None:
        stream.append({**head, "choices": [], "usage": usage})
    return [msgspec.json.encode(chunk) for chunk in stream]


def _first_half(choice: JSON) -> JSON:
    delta = dict(choice.get("message") or {})
    if isinstance(calls := delta.get("tool_calls"), list):
        delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(calls)]
    rest = {name: value for name, value in choice.items() if name != "message"}
    return {**rest, "delta": delta, "finish_reason": None}


def _add_choice(into: JSON, choice: JSON) -> None:
    """One more piece of a choice."""
    for name, value in choice.items():
        if name == "delta":
            _merge(into.setdefault("message", {}), value or {})
        elif name == "text":
            _merge(into, {name: value})
        elif name == "logprobs" and value is not None:
            into["logprobs"] = into.get("logprobs") or {}
            _merge(into["logprobs"], value)
        elif value is not None or name not in into:
            into[name] = value


def _merge(into: JSON, delta: JSON) -> None:
    """Texts are pieces of one text, lists go on, tool calls go on by their index."""
    for name, value in delta.items():
        if value is None:
            into.setdefault(name, None)
        elif isinstance(value, str) and name not in SAID_ONCE:
            if not isinstance(into.get(name), _Pieces):
                into[name] = _Pieces()
            into[name].append(value)
        elif name == "tool_calls":
            calls = into.get(name) or {}
            into[name] = calls
            for at, call in enumerate(value):
                _merge(calls.setdefault(call.get("index", at), {}), call)
        elif isinstance(value, list):
            into[name] = into.get(name) or []
            into[name].extend(value)
        elif isinstance(value, dict):
            into[name] = into.get(name) or {}
            _merge(into[name], value)
        else:
            into[name] = value


def _joined(choice: JSON) -> JSON:
    """The choice with its texts in one."""
    if "text" in choice:
        legacy: JSON = _texts(choice)
        return legacy
    message = choice.get("message", {})
    if isinstance(calls := message.get("tool_calls"), dict):
        ordered = [calls[index] for index in sorted(calls)]
        message["tool_calls"] = [
            {name: value for name, value in call.items() if name != "index"} for call in ordered
        ]
    joined: JSON = _texts({**choice, "message": {"role": "assistant", "content": None, **message}})
    return joined


def _texts(value: Any) -> Any:
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, list):
        return [_texts(one) for one in value]
    if isinstance(value, dict):
        return {name: _texts(one) for name, one in value.items()}
    return value
