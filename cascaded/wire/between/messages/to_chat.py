"""A call of Anthropic's Messages, said in chat completions.

What it cannot say is named. Hints that change nothing about the answer (`cache_control`) are left
out; so are thoughts that Anthropic has signed: nobody else can read them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from cascaded.wire.anthropic import CLIENT_TOOLS, TOKENS_PER_CLIENT_TOOL
from cascaded.wire.between.said import Said, Saying, legible
from cascaded.wire.openai_chat import WireError

JSON = dict[str, Any]
MAX_LOW_EFFORT_TOKENS = 4_096
MAX_MEDIUM_EFFORT_TOKENS = 16_384
FAILED = "The tool failed: "
"""Stands before what a failed tool said: chat completions have no mark for it."""
SCHEMA_NAME = "answer"
"""Chat completions want a name for a schema."""
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_TIERS = {"auto": "auto", "standard_only": "default"}
_SAME = ("model", "max_tokens", "temperature", "top_p", "stream")
_HINTS = frozenset({"cache_control", "context_management", "diagnostics"})
_READ = frozenset(
    {"system", "messages", "tools", "tool_choice", "stop_sequences", "metadata", "thinking"}
) | {"output_config", "service_tier"}


def to_chat(fields: Mapping[str, msgspec.Raw]) -> Said:
    """The body in chat-completions form. Raises `WireError` for what is no Messages body."""
    with legible("Messages"):
        return _Sayer(fields).said()


class _Sayer(Saying):
    def said(self) -> Said:
        """All of it."""
        self._sent["messages"] = [*self._system(), *self._messages()]
        self._members(_SAME, _READ | _HINTS)
        self._tools()
        self._settings()
        return self._all()

    # --- the conversation

    def _system(self) -> Iterator[JSON]:
        system = self._get("system")
        if system:
            parts = system if isinstance(system, str) else _texts(system, "system")
            yield {"role": "system", "content": parts}

    def _messages(self) -> Iterator[JSON]:
        for number, message in enumerate(self._get("messages")):
            role, content, at = message["role"], message["content"], f"messages[{number}]"
            if isinstance(content, str):
                yield {"role": role, "content": content}
            elif role == "assistant":
                yield self._assistant(content, at)
            else:
                yield from self._user(role, content, at)

    def _assistant(self, blocks: list[JSON], at: str) -> JSON:
        texts, calls, thoughts = [], [], []
        for number, block in enumerate(blocks):
            match block["type"]:
                case "text":
                    texts.append(block["text"])
                case "tool_use":
                    arguments = msgspec.json.encode(block["input"]).decode()
                    function = {"name": block["name"], "arguments": arguments}
                    calls.append({"id": block["id"], "type": "function", "function": function})
                case "thinking" if not block.get("signature"):
                    thoughts.append(block["thinking"])
                case "thinking" | "redacted_thinking":
                    self._unseen += len(msgspec.json.encode(block))
                case other:
                    self._cannot(f"{at}.content[{number}] ({other})", block)
        message: JSON = {"role": "assistant", "content": "".join(texts) if texts else None}
        if calls:
            message["tool_calls"] = calls
        elif not texts:
            message["content"] = ""
        if thoughts:
            message["reasoning_content"] = "".join(thoughts)
        return message

    def _user(self, role: str, blocks: list[JSON], at: str) -> Iterator[JSON]:
        """A user's message; what tools said goes before it, as messages of their own."""
        parts: list[JSON] = []
        for number, block in enumerate(blocks):
            where = f"{at}.content[{number}]"
            if block["type"] == "tool_result":
                said, shown = self._result(block, where)
                yield said
                parts += shown
            else:
                parts += self._parts(block, where)
        if parts or not blocks:
            yield {"role": role, "content": parts}

    def _result(self, block: JSON, at: str) -> tuple[JSON, list[JSON]]:
        """What a tool said, and the pictures in it, which only a user's message may show."""
        content = block.get("content") or ""
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        texts: list[str] = []
        shown: list[JSON] = []
        for number, inner in enumerate(content):
            for part in self._parts(inner, f"{at}.content[{number}]"):
                if part["type"] == "text":
                    texts.append(part["text"])
                else:
                    shown.append(part)
        failed = FAILED if block.get("is_error") else ""
        said = failed + "\n".join(texts)
        if shown:
            told = {"type": "text", "text": f"What the tool call {block['tool_use_id']} showed:"}
            shown.insert(0, told)
        return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": said}, shown

    def _parts(self, block: JSON, at: str) -> list[JSON]:
        reader = _PARTS.get(block["type"])
        parts = reader(block) if reader else None
        if parts is None:
            source = (block.get("source") or {}).get("type")
            self._cannot(f"{at} ({block['type']}{f', {source}' if source else ''})", block)
        return parts or []

    # --- tools and settings

    def _tools(self) -> None:
        tools = []
        for number, tool in enumerate(self._get("tools") or ()):
            kind = tool.get("type") or "custom"
            if kind == "custom":
                tools.append(_tool(tool))
                continue
            self._cannot(f"tools[{number}] ({kind})", tool)
            if kind.startswith(CLIENT_TOOLS):
                self._unseen += TOKENS_PER_CLIENT_TOOL
        if tools:
            self._sent["tools"] = tools
        choice = self._get("tool_choice")
        if choice:
            named = {"type": "function", "function": {"name": choice.get("name")}}
            self._sent["tool_choice"] = _CHOICES.get(choice["type"], named)
            if choice.get("disable_parallel_tool_use"):
                self._sent["parallel_tool_calls"] = False

    def _settings(self) -> None:
        sent = self._sent
        if stops := self._get("stop_sequences"):
            sent["stop"] = stops
        if user := (self._get("metadata") or {}).get("user_id"):
            sent["user"] = user
        if tier := self._get("service_tier"):
            sent["service_tier"] = _TIERS.get(tier, tier)
        config = self._get("output_config") or {}
        effort = _effort(self._get("thinking") or {}, config.get("effort"))
        if effort:
            sent["reasoning_effort"] = effort
        if form := config.get("format"):
            schema = {"name": SCHEMA_NAME, "schema": form.get("schema"), "strict": True}
            sent["response_format"] = {"type": "json_schema", "json_schema": schema}


def _effort(thinking: JSON, effort: str | None) -> str | None:
    """How hard to think, where the caller says that there is to be thinking."""
    match thinking.get("type"):
        case "enabled":
            budget = thinking["budget_tokens"]
            if budget <= MAX_LOW_EFFORT_TOKENS:
                return "low"
            return "medium" if budget <= MAX_MEDIUM_EFFORT_TOKENS else "high"
        case None | "disabled":
            return None
        case _:
            return effort or "high"


def _tool(tool: JSON) -> JSON:
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    function |= {name: tool[name] for name in ("description", "strict") if name in tool}
    return {"type": "function", "function": function}


def _texts(blocks: list[JSON], at: str) -> list[JSON]:
    if any(block["type"] != "text" for block in blocks):
        raise WireError(f"{at} may hold only text", at)
    return [_text(block["text"]) for block in blocks]


def _text(text: str) -> JSON:
    return {"type": "text", "text": text}


def _image(block: JSON) -> list[JSON] | None:
    source = block["source"]
    if source["type"] not in ("base64", "url"):
        return None
    url = source.get("url") or f"data:{source['media_type']};base64,{source['data']}"
    return [{"type": "image_url", "image_url": {"url": url}}]


def _document(block: JSON) -> list[JSON] | None:
    source = block["source"]
    title = [_text(block["title"])] if block.get("title") else []
    match source["type"]:
        case "text":
            return [*title, _text(source["data"])]
        case "content":
            inner = source["content"]
            blocks = [_text(inner)] if isinstance(inner, str) else inner
            parts = [_PARTS[one["type"]](one) for one in blocks]
            return [*title, *(part for found in parts for part in found or ())]
        case "base64":
            data = f"data:{source['media_type']};base64,{source['data']}"
            file = {"filename": block.get("title") or "document.pdf", "file_data": data}
            return [{"type": "file", "file": file}]
    return None


def _found(block: JSON) -> list[JSON]:
    """A search result of the caller's own."""
    texts = [one["text"] for one in block["content"]]
    return [_text("\n".join([f"{block['title']} ({block['source']})", *texts]))]


_PARTS: Mapping[str, Callable[[JSON], list[JSON] | None]] = {
    "text": lambda block: [_text(block["text"])],
    "image": _image,
    "document": _document,
    "search_result": _found,
}
