"""A call of chat completions, said in Anthropic's Messages.

What Messages cannot say is refused by name. Members that change nothing about the answer are left
out: who asked, what is stored, hints to a cache, a seed (which promises nothing).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from cascaded.wire.between.said import NEUTRAL_IN_CHAT, Sayable, legible, raw_members
from cascaded.wire.openai_chat import Fields, WireError

JSON = dict[str, Any]
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
_TIERS = {"auto": "auto", "default": "standard_only"}
_NO_THINKING = ("none", "minimal")
MAX_TEMPERATURE = 1
_SAYABLE = Sayable(
    same=("model", "stream", "temperature", "top_p", "top_k", "thinking"),
    read={
        *("messages", "tools", "tool_choice", "parallel_tool_calls", "stop", "response_format"),
        *("reasoning_effort", "user", "safety_identifier", "service_tier"),
    },
    left_out={
        *("metadata", "store", "stream_options", "prompt_cache_key", "prompt_cache_retention"),
        *("seed", "prediction", "max_tokens", "max_completion_tokens"),
    },
    neutral={
        **NEUTRAL_IN_CHAT,
        "logprobs": (b"false",),
        "top_logprobs": (b"0",),
    },
    api="Anthropic's Messages API",
)


def to_messages(fields: Mapping[str, msgspec.Raw]) -> Fields:
    """The body in Messages form, without a bound on the answer.

    Raises `WireError` naming what Messages cannot say.
    """
    with legible("chat completions"):
        return raw_members(_said(fields))


def _said(fields: Mapping[str, msgspec.Raw]) -> JSON:
    sent, asked = _SAYABLE.sort(fields)
    if "temperature" in sent and msgspec.json.decode(sent["temperature"]) > MAX_TEMPERATURE:
        raise WireError(
            f"temperature may be at most {MAX_TEMPERATURE} for a model that is asked by"
            " Anthropic's Messages API",
            "temperature",
        )
    return sent | _conversation(asked["messages"]) | _tools(asked) | _settings(asked)


# --- the conversation


def _conversation(messages: list[JSON]) -> JSON:
    system: list[JSON] = []
    turns: list[JSON] = []
    for number, message in enumerate(messages):
        at = f"messages[{number}]"
        match message["role"]:
            case "system" | "developer":
                system += _texts(message["content"], at)
                continue
            case "user":
                _SAYABLE.only(message, at, ("role", "content"))
                blocks = _user(message["content"], at)
            case "tool":
                blocks = [_result(message, at)]
            case "assistant":
                blocks = list(_assistant(message, at))
            case other:
                raise _SAYABLE.cannot(f"{at} (role {other})")
        role = "assistant" if message["role"] == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return {"messages": turns} | ({"system": system} if system else {})


def _texts(content: str | list[JSON], at: str) -> list[JSON]:
    if isinstance(content, str):
        return [_text(content)] if content else []
    blocks = []
    for part in content:
        if part["type"] not in ("text", "refusal"):
            raise _SAYABLE.cannot(f"{at} ({part['type']})")
        said = part[part["type"]]
        if said:
            blocks.append(_text(said))
    return blocks


def _text(text: str) -> JSON:
    return {"type": "text", "text": text}


def _user(content: str | list[JSON], at: str) -> list[JSON]:
    if isinstance(content, str):
        return _texts(content, at)
    return [_block(part, f"{at}.content[{number}]") for number, part in enumerate(content)]


def _block(part: JSON, at: str) -> JSON:
    match part["type"]:
        case "text":
            return _text(part["text"])
        case "image_url":
            url = part["image_url"]["url"]
            return {"type": "image", "source": _inline(url) or {"type": "url", "url": url}}
        case "file" if source := _inline(part["file"].get("file_data") or ""):
            title = part["file"].get("filename")
            return {"type": "document", "source": source} | ({"title": title} if title else {})
        case other:
            raise _SAYABLE.cannot(f"{at} ({other})")


def _inline(url: str) -> JSON | None:
    """The source of a `data:` URL."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return None
    kind = head.removeprefix("data:").removesuffix(";base64")
    return {"type": "base64", "media_type": kind, "data": data}


def _result(message: JSON, at: str) -> JSON:
    content = message["content"]
    said = content if isinstance(content, str) else _user(content, at)
    return {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": said}


def _assistant(message: JSON, at: str) -> Iterator[JSON]:
    known = ("role", "content", "tool_calls", "refusal", "thinking_blocks", "annotations")
    # A thought without Anthropic's signature would be refused there.
    _SAYABLE.only(message, at, (*known, "reasoning_content", "reasoning"))
    yield from message.get("thinking_blocks") or ()
    yield from _texts(message.get("content") or "", at)
    if message.get("refusal"):
        yield _text(message["refusal"])
    for number, call in enumerate(message.get("tool_calls") or ()):
        where = f"{at}.tool_calls[{number}]"
        if call.get("type", "function") != "function":
            raise _SAYABLE.cannot(f"{where} ({call['type']})")
        arguments = _arguments(call["function"]["arguments"])
        if arguments is None:
            raise WireError(f"{where}.function.arguments is not a JSON object", where)
        name = call["function"]["name"]
        yield {"type": "tool_use", "id": call["id"], "name": name, "input": arguments}


def _arguments(text: str) -> msgspec.Raw | None:
    """The arguments of a call, if they are the JSON object that they should be."""
    try:
        msgspec.json.decode(text or "{}", type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return None
    return msgspec.Raw((text or "{}").encode())


# --- tools and settings


def _tools(asked: JSON) -> JSON:
    sent: JSON = {}
    tools = []
    for number, tool in enumerate(asked.get("tools") or ()):
        if tool["type"] != "function":
            raise _SAYABLE.cannot(f"tools[{number}] ({tool['type']})")
        function = tool["function"]
        kept = ("description", "strict")
        tools.append(
            {"name": function["name"]}
            | {name: function[name] for name in kept if function.get(name) is not None}
            | {"input_schema": function.get("parameters") or {"type": "object"}}
        )
    if tools:
        sent["tools"] = tools
    choice = asked.get("tool_choice")
    if isinstance(choice, str):
        sent["tool_choice"] = {"type": _CHOICES[choice]}
    elif choice is not None:
        if choice["type"] != "function":
            raise _SAYABLE.cannot(f"tool_choice ({choice['type']})")
        sent["tool_choice"] = {"type": "tool", "name": choice["function"]["name"]}
    if asked.get("parallel_tool_calls") is False and tools:
        chosen = sent.setdefault("tool_choice", {"type": "auto"})
        if chosen["type"] != "none":
            chosen["disable_parallel_tool_use"] = True
    return sent


def _settings(asked: JSON) -> JSON:
    sent: JSON = {}
    if stop := asked.get("stop"):
        sent["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if user := asked.get("safety_identifier") or asked.get("user"):
        sent["metadata"] = {"user_id": user}
    if tier := asked.get("service_tier"):
        if tier not in _TIERS:
            raise _SAYABLE.cannot(f"service_tier ({tier})")
        sent["service_tier"] = _TIERS[tier]
    output: JSON = {}
    effort = asked.get("reasoning_effort")
    if effort and effort not in _NO_THINKING:
        sent["thinking"] = {"type": "adaptive"}
        output["effort"] = effort
    form = asked.get("response_format") or {"type": "text"}
    if form["type"] == "json_schema":
        output["format"] = {"type": "json_schema", "schema": form["json_schema"]["schema"]}
    elif form["type"] != "text":
        raise _SAYABLE.cannot(f"response_format ({form['type']})")
    return sent | ({"output_config": output} if output else {})
