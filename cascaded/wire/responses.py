"""OpenAI's Responses: bodies, answers and errors as the official SDKs speak them.

What we do not touch goes upstream, and back, byte for byte.
Source: https://platform.openai.com/docs/api-reference/responses
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cascaded.types.event import Event, ToolDelta
from cascaded.types.model import Model
from cascaded.types.usage import Usage
from cascaded.wire.openai_chat import (
    ABSENT,
    MAX_OUTPUT_TOKENS,
    Fields,
    InputDetails,
    OutputDetails,
    TokenLogprob,
    UpstreamSaidError,
    WireError,
    decoded,
    error_message,
    how_sure,
    is_absent,
    normalised,
)
from cascaded.wire.sse import DONE

JSON = dict[str, Any]
OWN_FUNCTIONS = (None, "function", "custom")
"""Tools that run at the caller's and cost nothing but their description."""
ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"
OWN_THOUGHTS = "rs_cascaded_"
"""How the ids of reasoning items begin that were made here, of another form's thoughts."""
ENDS = ("response.completed", "response.incomplete")
"""The last event of a streamed answer."""
WITH_RESPONSE = ("response.created", "response.queued", "response.in_progress", *ENDS)
CALLS = ("function_call", "custom_tool_call")
ERROR_CODES = {
    "rate_limit_exceeded": "upstream_rate_limited",
    "server_is_overloaded": "upstream_overloaded",
    "slow_down": "upstream_overloaded",
    "invalid_prompt": "upstream_refused",
    "context_length_exceeded": "upstream_refused",
    "bio_policy": "upstream_refused",
    "image_parse_error": "upstream_refused",
    "image_content_policy_violation": "upstream_refused",
    "failed_to_download_image": "upstream_refused",
    "image_file_not_found": "upstream_refused",
}
"""What the error of an answer that failed is to our callers; any other is a server's error."""
_REFUSED_IMAGES = ("invalid_image", "invalid_base64_image", "image_too_", "unsupported_image")


class _Tool(msgspec.Struct):
    type: str | None = None
    name: str = ""


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """The members that the daemon itself reads. Everything else is forwarded unseen."""

    model: str
    input: str | list[msgspec.Raw] = ""
    max_output_tokens: int | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    include: list[str] | None = None
    conversation: msgspec.Raw = ABSENT
    user: str | None = None
    safety_identifier: str | None = None
    tools: list[_Tool] | None = None


_read_request = msgspec.json.Decoder(ResponsesRequest)
_read_fields = msgspec.json.Decoder(Fields)
_read_items = msgspec.json.Decoder(list[msgspec.Raw])


def parse_responses(body: bytes) -> tuple[ResponsesRequest, Fields]:
    """A body as what we read of it and as its raw members.

    Raises `WireError` naming the member that is wrong, or that is not served here.
    """
    asked, fields = decoded(_read_request, body)
    if not asked.input and asked.previous_response_id is None:
        raise WireError("input must not be empty", "input")
    if asked.background:
        raise WireError(
            "background is not served here: leave it out, and stream the answer", "background"
        )
    if not is_absent(asked.conversation):
        raise WireError(
            "conversation is not served here: send the items as input, or go on from a"
            " previous_response_id",
            "conversation",
        )
    bound = asked.max_output_tokens
    if bound is not None and not 1 <= bound <= MAX_OUTPUT_TOKENS:
        raise WireError(
            f"max_output_tokens must be from 1 to {MAX_OUTPUT_TOKENS}", "max_output_tokens"
        )
    return asked, fields


def input_items(asked: ResponsesRequest) -> list[msgspec.Raw]:
    """The input as items, in whichever form it came."""
    if isinstance(asked.input, str):
        return [_raw({"role": "user", "content": asked.input})] if asked.input else []
    return asked.input


def unpriced(asked: ResponsesRequest, fields: Mapping[str, msgspec.Raw]) -> tuple[str, ...]:
    """Members that make a call dearer than the price list says, or by tokens that nothing bounds:
    tools that run at OpenAI's, prompts and summaries that are kept or made there."""
    found = [
        f"tools[{number}] ({tool.type})"
        for number, tool in enumerate(asked.tools or ())
        if tool.type not in OWN_FUNCTIONS
    ]
    members = ("prompt", "context_management")
    found += [name for name in members if not is_absent(fields.get(name, ABSENT))]
    return tuple(found)


def upstream_responses(
    fields: Mapping[str, msgspec.Raw], model: Model, *, output_bound: int, stream: bool
) -> Fields:
    """The members to send to this model's provider: the caller's own but for the model, the bound
    on the answer, whether it is streamed, and that nothing is kept there. What a model thought
    must then come along, so that a caller can send it back."""
    sent = dict(fields)
    sent.pop("previous_response_id", None)
    sent["model"] = _raw(model.upstream_name)
    sent["max_output_tokens"] = _raw(output_bound)
    sent["store"] = _raw(False)
    if stream:
        sent["stream"] = _raw(True)
    if "reasoning" in model.capabilities:
        asked = msgspec.json.decode(sent.get("include", b"null")) or []
        if ENCRYPTED not in asked:
            sent["include"] = _raw([*asked, ENCRYPTED])
    given = sent.get("input", ABSENT)
    if bytes(given).startswith(b"[") and OWN_THOUGHTS.encode() in bytes(given):
        sent["input"] = _raw([item for item in _read_items.decode(given) if not _is_own(item)])
    return sent


class _Identified(msgspec.Struct):
    id: str | None = None
    type: str = ""


def _is_own(item: msgspec.Raw) -> bool:
    """Whether it is a thought that was made into an item here: nobody there can read it."""
    try:
        said = msgspec.json.decode(item, type=_Identified)
    except msgspec.DecodeError:
        return False
    return said.type == "reasoning" and (said.id or "").startswith(OWN_THOUGHTS)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


# --- answers --------------------------------------------------------------------------------


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None

    def normalised(self) -> Usage | None:
        """In our classes; `None` where a total is missing or a count is absurd."""
        return normalised(
            self.input_tokens,
            self.output_tokens,
            self.input_tokens_details or InputDetails(),
            self.output_tokens_details or OutputDetails(),
        )


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    logprobs: list[TokenLogprob] | None = None


class _Item(msgspec.Struct):
    """An item of an answer, as far as it is read; which members it has, its type says."""

    type: str = ""
    name: str | None = None
    arguments: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT
    summary: msgspec.Raw = ABSENT


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    status: str | None = None
    output: list[_Item] | None = None
    usage: _Usage | None = None
    incomplete_details: _Incomplete | None = None
    error: msgspec.Raw = ABSENT


class _Whole(_Response):
    object: str = ""


class _Spoken(msgspec.Struct):
    type: str = ""
    response: _Response | None = None
    item: _Item | None = None
    output_index: int = 0
    summary_index: int = 0
    delta: msgspec.Raw = ABSENT
    logprobs: list[TokenLogprob] | None = None
    error: msgspec.Raw = ABSENT


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


_read_whole = msgspec.json.Decoder(_Whole)
_read_spoken = msgspec.json.Decoder(_Spoken)
_read_parts = msgspec.json.Decoder(list[_Part] | None)
_read_text = msgspec.json.Decoder(str | None)


def _said(error: msgspec.Raw) -> UpstreamSaidError:
    """The error of an answer that failed."""
    try:
        code = msgspec.json.decode(error, type=_Error).code or ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        code = ""
    usual = "upstream_refused" if code.startswith(_REFUSED_IMAGES) else "upstream_server_error"
    return UpstreamSaidError(error_message(error), ERROR_CODES.get(code, usual))


def _parts(raw: msgspec.Raw) -> list[_Part]:
    return [] if is_absent(raw) else _read_parts.decode(raw) or []


def _text(raw: msgspec.Raw) -> str:
    return "" if is_absent(raw) else _read_text.decode(raw) or ""


def _finish_reason(response: _Response, *, called: bool) -> str:
    """Why it ended, in the words of chat completions, which are those used inside."""
    if response.status == "incomplete":
        why = response.incomplete_details and response.incomplete_details.reason
        return "content_filter" if why == "content_filter" else "length"
    return "tool_calls" if called else "stop"


def parse_response(raw: bytes) -> Event:
    """A whole answer. Raises `UpstreamSaidError` for one that failed, `WireError` for anything
    else."""
    try:
        said = _read_whole.decode(raw)
        if not is_absent(said.error):
            raise _said(said.error)
        if said.output is None or said.status not in ("completed", "incomplete"):
            raise WireError("not a response: it has no output, or it has not ended")
        return _whole(raw, said, said.output)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not of the Responses API: {error}") from None


def _whole(raw: bytes, said: _Response, output: Sequence[_Item]) -> Event:
    parts = [part for item in output if item.type == "message" for part in _parts(item.content)]
    tokens = [token for part in parts for token in part.logprobs or ()]
    calls = _tool_calls(output)
    return Event(
        raw=raw,
        form="responses",
        kind="response",
        whole=True,
        text="".join(part.text or "" for part in parts if part.type == "output_text"),
        refusal="".join(part.refusal or "" for part in parts),
        reasoning=_thoughts(output),
        tool_deltas=calls,
        finish_reason=_finish_reason(said, called=bool(calls)),
        usage=said.usage.normalised() if said.usage else None,
        **how_sure(tokens),
    )


def _tool_calls(output: Sequence[_Item]) -> tuple[ToolDelta, ...]:
    return tuple(
        ToolDelta(number, item.name or "", _text(item.arguments) or _text(item.input))
        for number, item in enumerate(output)
        if item.type in CALLS
    )


def _thoughts(output: Iterable[_Item]) -> str:
    """What is shown of the thoughts: a summary, or where there is none the thoughts themselves."""
    shown = (
        _parts(item.summary) or _parts(item.content) for item in output if item.type == "reasoning"
    )
    return BETWEEN_THOUGHTS.join(part.text or "" for parts in shown for part in parts)


BETWEEN_THOUGHTS = "\n\n"
_TEXT, _REFUSAL = "response.output_text.delta", "response.refusal.delta"
_THOUGHTS = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")
_CALL_DELTAS = ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta")
_SAID = (_TEXT, _REFUSAL, *_THOUGHTS, *_CALL_DELTAS)
"""Events whose `delta` is a text."""


class ResponsesEar:
    """Hears one streamed answer: an event for each of its own, told in the terms used inside."""

    def __init__(self) -> None:
        self._called = False

    def hear(self, data: bytes) -> Event | None:
        """The next event; `None` for an end mark, which only some servers send. Raises
        `WireError`."""
        if data == DONE:
            return None
        try:
            return self._event(data, _read_spoken.decode(data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"not of the Responses API: {error}") from None

    def _event(self, data: bytes, spoken: _Spoken) -> Event:
        kind, response = spoken.type, spoken.response
        if kind == "error" or not is_absent(spoken.error):
            raise _said(msgspec.Raw(data) if is_absent(spoken.error) else spoken.error)
        if kind == "response.failed":
            raise _said(response.error if response else ABSENT)
        if kind in ENDS and response is not None:
            return self._end(data, kind, response)
        if not kind.startswith("response."):
            raise WireError(f"not an event of the Responses API: {data[:80]!r}")
        return self._other(data, spoken)

    def _end(self, data: bytes, kind: str, response: _Response) -> Event:
        called = self._called or bool(_tool_calls(response.output or ()))
        return Event(
            raw=data,
            form="responses",
            kind=kind,
            finish_reason=_finish_reason(response, called=called),
            usage=response.usage.normalised() if response.usage else None,
        )

    def _other(self, data: bytes, spoken: _Spoken) -> Event:
        at, kind, item = spoken.output_index, spoken.type, spoken.item
        calls: tuple[ToolDelta, ...] = ()
        said = _text(spoken.delta) if kind in _SAID else ""
        tokens = spoken.logprobs or () if kind == _TEXT else ()
        if kind in _CALL_DELTAS:
            calls = (ToolDelta(at, "", said),)
        elif kind == "response.output_item.added" and item is not None and item.type in CALLS:
            self._called = True
            calls = (ToolDelta(at, item.name or "", ""),)
        elif kind == "response.reasoning_summary_part.added" and spoken.summary_index > 0:
            said = BETWEEN_THOUGHTS
        thinks = kind in _THOUGHTS or said is BETWEEN_THOUGHTS
        return Event(
            raw=data,
            form="responses",
            kind=kind,
            text=said if kind == _TEXT else "",
            refusal=said if kind == _REFUSAL else "",
            reasoning=said if thinks else "",
            tool_deltas=calls,
            **how_sure(tokens),
        )


# --- what callers are told --------------------------------------------------------------------


def told_usage(usage: Usage) -> JSON:
    """Our classes as Responses tell them."""
    into: JSON = {
        "cached_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }
    if usage.cache_write_1h_tokens is not None:
        into["cache_write_1h_tokens"] = usage.cache_write_1h_tokens
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": into,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def with_members(raw: bytes, members: Mapping[str, object]) -> bytes:
    """A response with these members instead of its own."""
    return msgspec.json.encode({**_read_fields.decode(raw), **members})


def with_response(raw: bytes, members: Mapping[str, object]) -> bytes:
    """An event with these members of its response."""
    fields = _read_fields.decode(raw)
    return msgspec.json.encode({**fields, "response": _raw_with(fields["response"], members)})


def _raw_with(response: msgspec.Raw, members: Mapping[str, object]) -> msgspec.Raw:
    return msgspec.Raw(with_members(bytes(response), members))


def response_of(raw: bytes) -> bytes:
    """An event's response."""
    return bytes(_read_fields.decode(raw)["response"])


def with_cost(raw: bytes, usage: Usage, cost: msgspec.Raw, details: msgspec.Raw) -> bytes:
    """A last event with what the call cost in its response's usage; with our own count where the
    provider gave none."""
    response = _read_fields.decode(response_of(raw))
    sent = response.get("usage", ABSENT)
    told = told_usage(usage) if is_absent(sent) else msgspec.json.decode(sent, type=Fields)
    return with_response(raw, {"usage": {**told, "cost": cost, "cost_details": details}})
