"""A call of chat completions, said in OpenAI's Responses.

What Responses cannot say is refused by name. Members that change nothing about the answer are left
out: what is stored, a seed (which promises nothing), a prediction. Thoughts go back only as the
items that they came in (`reasoning_items`): of others, nobody there makes anything.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from cascaded.wire.between.said import NEUTRAL_IN_CHAT, Sayable, legible, raw_members
from cascaded.wire.openai_chat import Fields
from cascaded.wire.responses import LOGPROBS

JSON = dict[str, Any]
REASONING_ITEMS = "reasoning_items"
"""A member of an assistant's message in chat completions: its thoughts, as Responses told them."""
_THOUGHTS = ("thinking_blocks", "reasoning_content", "reasoning")
_SAYABLE = Sayable(
    same=(
        *("model", "stream", "temperature", "top_p", "user", "safety_identifier", "service_tier"),
        *("parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention"),
    ),
    read={
        *("messages", "tools", "tool_choice", "response_format", "reasoning_effort", "verbosity"),
        *("logprobs", "top_logprobs"),
    },
    left_out={
        *("metadata", "store", "stream_options", "seed", "prediction"),
        *("max_tokens", "max_completion_tokens"),
    },
    neutral={
        **NEUTRAL_IN_CHAT,
        "stop": (b"[]",),
    },
    api="OpenAI's Responses API",
)


def to_responses(fields: Mapping[str, msgspec.Raw]) -> Fields:
    """The body in Responses form, without a bound on the answer.

    Raises `WireError` naming what Responses cannot say.
    """
    with legible("chat completions"):
        return raw_members(_said(fields))


def _said(fields: Mapping[str, msgspec.Raw]) -> JSON:
    sent, asked = _SAYABLE.sort(fields)
    items = [
        item
        for number, message in enumerate(asked["messages"])
        for item in _items(message, f"messages[{number}]")
    ]
    return sent | {"input": items} | _tools(asked) | _settings(asked)


# --- the conversation


def _items(message: JSON, at: str) -> Iterator[JSON]:
    match message["role"]:
        case "system" | "developer" | "user" as role:
            _SAYABLE.only(message, at, ("role", "content"))
            yield {"role": role, "content": _content(message["content"], at)}
        case "tool":
            said = _content(message["content"], at)
            output = {"type": "function_call_output", "call_id": message["tool_call_id"]}
            yield {**output, "output": said}
        case "assistant":
            yield from _assistant(message, at)
        case other:
            raise _SAYABLE.cannot(f"{at} (role {other})")


def _content(content: str | list[JSON], at: str) -> str | list[JSON]:
    if isinstance(content, str):
        return content
    return [_part(part, f"{at}.content[{number}]") for number, part in enumerate(content)]


def _part(part: JSON, at: str) -> JSON:
    match part["type"]:
        case "text":
            return {"type": "input_text", "text": part["text"]}
        case "image_url":
            detail = {"detail": part["image_url"].get("detail") or "auto"}
            return {"type": "input_image", "image_url": part["image_url"]["url"], **detail}
        case "file":
            kept = ("filename", "file_data", "file_id")
            file = part["file"]
            return {"type": "input_file"} | {name: file[name] for name in kept if name in file}
        case other:
            raise _SAYABLE.cannot(f"{at} ({other})")


def _assistant(message: JSON, at: str) -> Iterator[JSON]:
    known = ("role", "content", "tool_calls", "refusal", "annotations", REASONING_ITEMS)
    _SAYABLE.only(message, at, (*known, *_THOUGHTS))
    for number, item in enumerate(message.get(REASONING_ITEMS) or ()):
        if item["type"] != "reasoning":
            raise _SAYABLE.cannot(f"{at}.{REASONING_ITEMS}[{number}] ({item['type']})")
        yield item
    parts = list(_spoken(message, at))
    if parts:
        yield {"type": "message", "role": "assistant", "content": parts}
    for number, call in enumerate(message.get("tool_calls") or ()):
        if call.get("type", "function") != "function":
            raise _SAYABLE.cannot(f"{at}.tool_calls[{number}] ({call['type']})")
        said = call["function"]
        named = {"call_id": call["id"], "name": said["name"], "arguments": said["arguments"]}
        yield {"type": "function_call", **named}


def _spoken(message: JSON, at: str) -> Iterator[JSON]:
    content = message.get("content") or []
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    for part in content:
        match part["type"]:
            case "text":
                yield {"type": "output_text", "text": part["text"]}
            case "refusal":
                yield {"type": "refusal", "refusal": part["refusal"]}
            case other:
                raise _SAYABLE.cannot(f"{at} ({other})")
    if message.get("refusal"):
        yield {"type": "refusal", "refusal": message["refusal"]}


# --- tools and settings


def _tools(asked: JSON) -> JSON:
    sent: JSON = {}
    tools = []
    for number, tool in enumerate(asked.get("tools") or ()):
        if tool["type"] != "function":
            raise _SAYABLE.cannot(f"tools[{number}] ({tool['type']})")
        function = tool["function"]
        # Responses are strict where nothing is said, chat completions are not.
        strict = bool(function.get("strict"))
        tools.append({"type": "function", "parameters": None, **function, "strict": strict})
    if tools:
        sent["tools"] = tools
    choice = asked.get("tool_choice")
    if isinstance(choice, str):
        sent["tool_choice"] = choice
    elif choice is not None:
        if choice["type"] != "function":
            raise _SAYABLE.cannot(f"tool_choice ({choice['type']})")
        sent["tool_choice"] = {"type": "function", "name": choice["function"]["name"]}
    return sent


def _settings(asked: JSON) -> JSON:
    sent: JSON = {}
    text: JSON = {}
    form = asked.get("response_format") or {"type": "text"}
    if form["type"] == "json_schema":
        text["format"] = {"type": "json_schema", **form["json_schema"]}
    elif form["type"] != "text":
        text["format"] = form
    if verbosity := asked.get("verbosity"):
        text["verbosity"] = verbosity
    if text:
        sent["text"] = text
    if effort := asked.get("reasoning_effort"):
        sent["reasoning"] = {"effort": effort}
    if asked.get("logprobs"):
        sent["include"] = [LOGPROBS]
        if top := asked.get("top_logprobs"):
            sent["top_logprobs"] = top
    return sent
