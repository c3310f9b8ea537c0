"""A call of OpenAI's Responses, said in chat completions.

What it cannot say is named. Hints that change nothing about the answer are left out, and so are
thoughts that are encrypted: nobody else can read them.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cascaded.wire.between.said import Said, Saying, legible
from cascaded.wire.openai_chat import WireError
from cascaded.wire.responses import LOGPROBS

JSON = dict[str, Any]
THOUGHTS = "cascaded:"
"""How what stands in `encrypted_content` begins where it is thoughts that Anthropic has signed: as
base64 of their block."""
_SAME = (
    *("model", "stream", "temperature", "top_p"),
    *("user", "safety_identifier", "service_tier"),
)
_READ = frozenset(
    {"input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning"}
) | {"max_output_tokens", "include", "top_logprobs", "truncation"}
_LEFT_OUT = frozenset(
    {"metadata", "store", "previous_response_id", "background", "conversation", "stream_options"}
) | {"max_tool_calls", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"}


def to_chat(fields: Mapping[str, msgspec.Raw]) -> Said:
    """The body in chat-completions form. Raises `WireError` for what is no Responses body."""
    with legible("Responses"):
        return _Sayer(fields).said()


class _Sayer(Saying):
    def __init__(self, fields: Mapping[str, msgspec.Raw]) -> None:
        super().__init__(fields)
        self._messages: list[JSON] = []
        self._turn: JSON | None = None
        """The assistant's message under way: a thought, words and calls of one turn."""
        self._shown: list[JSON] = []
        """What tools showed, which only a user's message may, after all of their results."""

    def said(self) -> Said:
        """All of it."""
        if instructions := self._get("instructions"):
            self._messages.append({"role": "system", "content": instructions})
        self._conversation()
        # Where nothing of it can be said it is not asked so; but it is measured.
        self._sent["messages"] = self._messages or [{"role": "user", "content": ""}]
        self._members(_SAME, _READ | _LEFT_OUT)
        self._tools()
        self._settings()
        return self._all()

    # --- the conversation

    def _conversation(self) -> None:
        given = self._get("input")
        if isinstance(given, str):
            given = [{"role": "user", "content": given}]
        for number, item in enumerate(given or ()):
            self._item(item, f"input[{number}]")
        self._end_turn()
        self._show()

    def _item(self, item: JSON, at: str) -> None:
        kind = item.get("type") or "message"
        if kind == "item_reference":
            raise WireError(
                f"{at} (item_reference): items are not kept upstream, so send the item itself",
                f"{at} ({kind})",
            )
        if kind != "function_call_output":
            self._show()
        if kind == "message" and item["role"] == "assistant":
            self._assistant(item, at)
        elif kind == "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            self._open().setdefault("tool_calls", []).append(call)
        elif kind == "reasoning":
            self._reasoning(item)
        else:
            self._end_turn()
            if kind == "message":
                self._others_message(item, at)
            elif kind == "function_call_output":
                self._result(item, at)
            else:
                self._cannot(f"{at} ({kind})", item)

    def _open(self) -> JSON:
        if self._turn is None:
            self._turn = {"role": "assistant", "content": None}
        return self._turn

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None and turn.keys() != {"role", "content"}:
            self._messages.append(turn)
        elif turn is not None:
            self._messages.append({**turn, "content": turn["content"] or ""})

    def _show(self) -> None:
        if self._shown:
            self._messages.append({"role": "user", "content": self._shown})
            self._shown = []

    def _others_message(self, item: JSON, at: str) -> None:
        role = "system" if item["role"] == "developer" else item["role"]
        content = item["content"]
        if not isinstance(content, str):
            content = self._parts(content, at)
        self._messages.append({"role": role, "content": content})

    def _assistant(self, item: JSON, at: str) -> None:
        if self._turn is not None and (self._turn["content"] or "tool_calls" in self._turn):
            self._end_turn()
        turn, content = self._open(), item["content"]
        if isinstance(content, str):
            turn["content"] = content
            return
        texts, refusals = [], []
        for number, part in enumerate(content):
            match part["type"]:
                case "output_text" | "input_text" | "text":
                    texts.append(part["text"])
                case "refusal":
                    refusals.append(part["refusal"])
                case other:
                    self._cannot(f"{at}.content[{number}] ({other})", part)
        turn["content"] = "".join(texts) if texts else None
        if refusals:
            turn["refusal"] = "".join(refusals)

    def _reasoning(self, item: JSON) -> None:
        """A thought: Anthropic's own signed one, one in words, or one that nobody can read."""
        if self._turn is not None and (self._turn["content"] or "tool_calls" in self._turn):
            self._end_turn()
        sealed = item.get("encrypted_content") or ""
        if sealed.startswith(THOUGHTS):
            blocks = self._open().setdefault("thinking_blocks", [])
            blocks.append(_unsealed(sealed.removeprefix(THOUGHTS)))
        elif sealed:
            self._unseen += len(sealed)
        elif texts := [part["text"] for part in item.get("content") or item.get("summary") or ()]:
            turn = self._open()
            turn["reasoning_content"] = turn.get("reasoning_content", "") + "".join(texts)

    def _result(self, item: JSON, at: str) -> None:
        """What a tool said, and the pictures in it."""
        output = item["output"]
        shown: list[JSON] = []
        if not isinstance(output, str):
            parts = self._parts(output, at, "output")
            shown = [part for part in parts if part["type"] != "text"]
            output = "\n".join(part["text"] for part in parts if part["type"] == "text")
        said = {"role": "tool", "tool_call_id": item["call_id"], "content": output}
        self._messages.append(said)
        if shown:
            told = {"type": "text", "text": f"What the tool call {item['call_id']} showed:"}
            self._shown += [told, *shown]

    def _parts(self, content: list[JSON], at: str, member: str = "content") -> list[JSON]:
        parts = []
        for number, part in enumerate(content):
            reader = _PARTS.get(part["type"])
            said = reader(part) if reader else None
            if said is None:
                self._cannot(f"{at}.{member}[{number}] ({part['type']})", part)
            else:
                parts.append(said)
        return parts

    # --- tools and settings

    def _tools(self) -> None:
        tools = []
        for number, tool in enumerate(self._get("tools") or ()):
            if tool["type"] == "function":
                tools.append(_tool(tool))
            else:
                self._cannot(f"tools[{number}] ({tool['type']})", tool)
        if not tools:
            return  # of no use without, and refused by some
        self._sent["tools"] = tools
        if (parallel := self._get("parallel_tool_calls")) is not None:
            self._sent["parallel_tool_calls"] = parallel
        choice = self._get("tool_choice")
        if isinstance(choice, str):
            self._sent["tool_choice"] = choice
        elif choice is not None and choice["type"] == "function":
            named = {"type": "function", "function": {"name": choice["name"]}}
            self._sent["tool_choice"] = named
        elif choice is not None:
            self._cannot(f"tool_choice ({choice['type']})", choice)

    def _settings(self) -> None:
        sent = self._sent
        if (bound := self._get("max_output_tokens")) is not None:
            sent["max_completion_tokens"] = bound
        if effort := (self._get("reasoning") or {}).get("effort"):
            sent["reasoning_effort"] = effort
        if LOGPROBS in (self._get("include") or ()):
            sent["logprobs"] = True
            sent["top_logprobs"] = self._get("top_logprobs") or 0
        if self._get("truncation") not in (None, "disabled"):
            self._unsayable.append("truncation")
        text = self._get("text") or {}
        if text.get("verbosity") not in (None, "medium"):
            sent["verbosity"] = text["verbosity"]
        form = text.get("format") or {"type": "text"}
        if form["type"] == "json_schema":
            schema = {name: value for name, value in form.items() if name != "type"}
            sent["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif form["type"] != "text":
            sent["response_format"] = form


def _unsealed(sealed: str) -> JSON:
    """A block that Anthropic has signed; whoever wrote another one in its place is told."""
    block: JSON = msgspec.json.decode(base64.b64decode(sealed, validate=True))
    if block["type"] not in ("thinking", "redacted_thinking"):
        raise WireError("encrypted_content holds no thought that was given here", "input")
    return block


def _tool(tool: JSON) -> JSON:
    kept = ("name", "description", "parameters", "strict")
    return {
        "type": "function",
        "function": {name: tool[name] for name in kept if tool.get(name) is not None},
    }


def _image(part: JSON) -> JSON | None:
    url = part.get("image_url")
    if not url:
        return None  # a file that is kept at OpenAI's
    detail = {"detail": part["detail"]} if part.get("detail") else {}
    return {"type": "image_url", "image_url": {"url": url, **detail}}


def _file(part: JSON) -> JSON | None:
    data = part.get("file_data")
    if not data:
        return None
    return {"type": "file", "file": {"filename": part.get("filename") or "file", "file_data": data}}


def _audio(part: JSON) -> JSON:
    return {"type": "input_audio", "input_audio": part["input_audio"]}


def _text(part: JSON) -> JSON:
    return {"type": "text", "text": part["text"]}


_PARTS: Mapping[str, Callable[[JSON], JSON | None]] = {
    "input_text": _text,
    "output_text": _text,
    "text": _text,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}
