"""The OpenAI chat-completions dialect, which is also the form that requests take inside.

A request's members are kept as raw JSON: what we do not touch goes upstream byte for byte.
Source: https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any, TypeVar

import msgspec

from cascaded.types.event import Event, ToolDelta
from cascaded.types.model import Kind, Model
from cascaded.types.request import Asks
from cascaded.types.result import Completion
from cascaded.types.usage import Usage

MAX_CHOICES = 128
MAX_OUTPUT_TOKENS = 10_000_000
CHEAP_SERVICE_TIERS = (b"", b"null", b'"auto"', b'"default"', b'"flex"', b'"standard_only"')
"""Never dearer than the price list. (`auto` is the provider's default: an account that has bought
a dearer one needs its price in the configuration.)"""
MAX_COMMAS = 1_000_000
"""Of a body. They bound how many parts it can have, whatever they are."""
MAX_USAGE_TOKENS = 1_000_000_000
"""A provider that claims to have used more in one call talks nonsense."""
LOGPROB_MIN = -50.0
"""What is less probable counts as impossible."""
MAX_ERROR_CHARACTERS = 500
"""How much of an upstream's own words about an error is kept."""

T = TypeVar("T")
Fields = dict[str, msgspec.Raw]
ABSENT = msgspec.Raw(b"")
"""Stands for a member that was not sent (msgspec cannot read `Raw | None`)."""


class WireError(ValueError):
    """The message is not of the dialect. `param` names the member at fault, if one is."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


# --- requests -------------------------------------------------------------------------------


class StreamOptions(msgspec.Struct):
    """What a stream is to tell besides."""

    include_usage: bool | None = None


class _SchemaHolder(msgspec.Struct):
    schema: msgspec.Raw = ABSENT


class _ResponseFormat(msgspec.Struct):
    type: str = "text"
    json_schema: _SchemaHolder | None = None


class _Function(msgspec.Struct):
    name: str = ""


class _Tool(msgspec.Struct):
    function: _Function = msgspec.field(default_factory=_Function)


class ChatRequest(msgspec.Struct, kw_only=True):
    """The members that the daemon itself reads. Everything else is forwarded unseen."""

    model: str
    messages: list[msgspec.Raw]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    temperature: float | None = None
    logprobs: bool | None = None
    response_format: _ResponseFormat | None = None
    tools: list[_Tool] | None = None
    tool_choice: msgspec.Raw = ABSENT
    user: str | None = None
    safety_identifier: str | None = None

    @property
    def output_bound(self) -> int | None:
        """The caller's bound on output tokens. An explicit zero is a bound, not an absence."""
        newer = self.max_completion_tokens
        return newer if newer is not None else self.max_tokens

    @property
    def asks(self) -> Asks:
        """The form of answer asked for."""
        form = self.response_format or _ResponseFormat()
        schema = form.json_schema.schema if form.json_schema else ABSENT
        return Asks(
            json_object=form.type in ("json_object", "json_schema"),
            json_schema=None if is_absent(schema) else schema,
            tools=tuple(tool.function.name for tool in self.tools or ()),
            tool_required=_requires_tool(self.tool_choice),
            bounded=self.output_bound is not None,
        )


def is_absent(raw: msgspec.Raw) -> bool:
    """Whether a member was not sent, or sent as null."""
    return bytes(raw) in (b"", b"null")


def _requires_tool(choice: msgspec.Raw) -> bool:
    return not is_absent(choice) and bytes(choice) not in (b'"auto"', b'"none"')


_read_request = msgspec.json.Decoder(ChatRequest)
_read_fields = msgspec.json.Decoder(Fields)


def parse_request(body: bytes) -> tuple[ChatRequest, Fields]:
    """A request's body as what we read of it and as its raw members.

    Raises `WireError` naming the member that is wrong.
    """
    chat, fields = decoded(_read_request, body)
    _check_bounds(chat)
    return chat, fields


def decoded(reader: msgspec.json.Decoder[T], body: bytes) -> tuple[T, Fields]:
    """A body as what its reader reads of it and as its raw members. Raises `WireError`."""
    check_text(body)
    try:
        return reader.decode(body), _read_fields.decode(body)
    except msgspec.ValidationError as error:
        raise WireError(*explain_mistake(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"the body is not valid JSON: {error}") from None
    except RecursionError:
        raise WireError("the body is nested too deeply") from None


def check_text(body: bytes) -> None:
    """Raises `WireError` unless it is UTF-8 (members that are passed on raw are not looked into)
    and of no more parts than can be held: 16 MiB of `[0,0,0…` would be 580 MiB once it is read."""
    if body.count(b",") > MAX_COMMAS:
        raise WireError(f"the body has more than {MAX_COMMAS} commas: send less at once")
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise WireError(f"the body is not UTF-8: {error}") from None


def explain_mistake(error: msgspec.ValidationError) -> tuple[str, str | None]:
    """What is wrong, and the member where it is (`None`: the body as a whole)."""
    message, _, path = str(error).partition(" - at `$")
    path = path.strip(".`")
    if " field `" in message:  # it is missing, or unknown
        name = message.split("`")[1]
        return message, f"{path}.{name}" if path else name
    return (f"{message} at {path}", path) if path else (message, None)


def _check_bounds(chat: ChatRequest) -> None:
    if not chat.messages:
        raise WireError("messages must not be empty", "messages")
    if chat.n is not None and not 1 <= chat.n <= MAX_CHOICES:
        raise WireError(f"n must be from 1 to {MAX_CHOICES}", "n")
    bound = chat.output_bound
    if bound is not None and not 1 <= bound <= MAX_OUTPUT_TOKENS:
        name = "max_tokens" if chat.max_completion_tokens is None else "max_completion_tokens"
        raise WireError(f"{name} must be from 1 to {MAX_OUTPUT_TOKENS}", name)


_read_messages = msgspec.json.Decoder(list[msgspec.Raw])


def messages_of(fields: Mapping[str, msgspec.Raw]) -> tuple[msgspec.Raw, ...]:
    """The conversation, each message as it stands in a body that was read before."""
    return tuple(_read_messages.decode(fields["messages"]))


class _Part(msgspec.Struct):
    text: str = ""


class _Message(msgspec.Struct):
    role: str = ""
    content: str | list[_Part] | None = None


_read_message = msgspec.json.Decoder(_Message)


def last_question(messages: Sequence[msgspec.Raw]) -> str:
    """The text of the caller's last own message; empty when there is none."""
    for raw in reversed(messages):
        try:
            message = _read_message.decode(raw)
        except msgspec.ValidationError:
            continue
        if message.role == "user":
            content = message.content or ""
            return content if isinstance(content, str) else "\n".join(p.text for p in content)
    return ""


def member_names(body: bytes) -> frozenset[str]:
    """The members of a body; none where it is not a JSON object (its reader will say so)."""
    try:
        return frozenset(_read_fields.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return frozenset()


UNBOUNDED = ("web_search_options", "prediction")


def unpriced_members(fields: Mapping[str, msgspec.Raw]) -> tuple[str, ...]:
    """Members that make a call dearer than its hold: searches billed apart, predictions whose
    rejected tokens no bound limits, and tiers of service above the standard one."""
    found = [name for name in UNBOUNDED if not is_absent(fields.get(name, ABSENT))]
    if bytes(fields.get("service_tier", ABSENT)) not in CHEAP_SERVICE_TIERS:
        found.append("service_tier")
    return tuple(found)


def upstream_fields(
    fields: Mapping[str, msgspec.Raw],
    model: Model,
    *,
    output_bound: int | None,
    stream: bool,
    logprobs: bool | int,
    kind: Kind = "chat",
) -> Fields:
    """The members to send to this model's provider.

    `output_bound` replaces the caller's own; `None` leaves it as it was sent. Streams always
    ask for their usage; `logprobs` asks for log-probabilities that the caller did not, a number
    also for as many alternatives.
    """
    sent = dict(fields)
    sent["model"] = _raw(model.upstream_name)
    if output_bound is not None:
        sent.pop("max_tokens", None)
        sent.pop("max_completion_tokens", None)
        # Reasoning models refuse the older name; many compatible servers know only that one.
        newer = kind == "chat" and "reasoning" in model.capabilities
        sent["max_completion_tokens" if newer else "max_tokens"] = _raw(output_bound)
    if stream:
        sent["stream"] = _raw(True)
        options = msgspec.json.decode(sent.get("stream_options", b"null")) or {}
        sent["stream_options"] = _raw({**options, "include_usage": True})
    if logprobs:
        sent["logprobs"] = _raw(True)
        if logprobs is not True:
            sent["top_logprobs"] = _raw(logprobs)
    return sent


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


# --- answers --------------------------------------------------------------------------------


class InputDetails(msgspec.Struct):
    """Parts of the input's tokens, as OpenAI tells them."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    audio_tokens: int | None = None


class OutputDetails(msgspec.Struct):
    """Parts of the output's tokens, as OpenAI tells them."""

    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None
    """DeepSeek's own name of the cached part."""
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None


class _FunctionDelta(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    function: _FunctionDelta | None = None


class _Words(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Alternative(msgspec.Struct):
    logprob: float = 0.0


class TokenLogprob(msgspec.Struct):
    """How sure a model was of one token."""

    logprob: float = 0.0
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(msgspec.Struct):
    content: list[TokenLogprob] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Words | None = None
    message: _Words | None = None
    text: str | None = None
    """Of a legacy completion."""
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _GroqPart(msgspec.Struct):
    usage: _Usage | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    x_groq: _GroqPart | None = None
    """Where Groq's streams told their usage before they knew `include_usage`."""
    error: msgspec.Raw = ABSENT


_read_answer = msgspec.json.Decoder(_Answer)


class UpstreamSaidError(WireError):
    """A well-formed answer that says only that something went wrong: what, as a code."""

    def __init__(self, message: str, code: str = "upstream_server_error") -> None:
        super().__init__(message)
        self.code = code


def parse_event(raw: bytes, *, whole: bool, reasoning_apart: bool = False) -> Event:
    """A chunk of a stream, or a whole answer. `reasoning_apart`: of a provider whose
    `completion_tokens` leave out the hidden reasoning that its `total_tokens` has.

    Raises `UpstreamSaidError` for an error object and `WireError` for anything else that is not
    an answer.
    """
    try:
        answer = _read_answer.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a chat completion: {error}") from None
    if not is_absent(answer.error):
        raise UpstreamSaidError(error_message(answer.error))
    if answer.choices is None and answer.usage is None:
        raise WireError("not a chat completion: it has neither choices nor usage")
    told = answer.usage or (answer.x_groq.usage if answer.x_groq else None)
    usage = _usage(told, reasoning_apart) if told else None
    first = next((choice for choice in answer.choices or () if choice.index == 0), None)
    if first is None:
        if whole:
            raise WireError("not a chat completion: it has no choices")
        return Event(raw=raw, has_choices=bool(answer.choices), usage=usage)
    return _event(raw, whole, first, usage)


def _event(raw: bytes, whole: bool, choice: _Choice, usage: Usage | None) -> Event:
    words = choice.delta or choice.message or _Words()
    tokens = (choice.logprobs.content if choice.logprobs else None) or ()
    return Event(
        raw=raw,
        whole=whole,
        text=words.content or choice.text or "",
        refusal=words.refusal or "",
        reasoning=words.reasoning_content or words.reasoning or "",
        tool_deltas=tuple(
            ToolDelta(
                position if call.index is None else call.index,
                (call.function and call.function.name) or "",
                (call.function and call.function.arguments) or "",
            )
            for position, call in enumerate(words.tool_calls or ())
        ),
        finish_reason=choice.finish_reason,
        usage=usage,
        **how_sure(tokens),
    )


def how_sure(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The members of an event that tell how sure a model was of its tokens."""
    if not tokens:
        return {}
    each = [token.logprob for token in tokens]
    spreads = [_spread(token.top_logprobs) for token in tokens if token.top_logprobs]
    return {
        "logprob_sum": sum(each),
        "logprob_count": len(each),
        "logprob_least": min(each),
        "entropy_sum": sum(spreads) if spreads else None,
    }


def _spread(alternatives: Sequence[_Alternative]) -> float:
    """Nats over what was told; what was not is left out. A nonsense above 0 counts as 0."""
    known = (min(one.logprob, 0.0) for one in alternatives)
    return -sum(exp(logprob) * logprob for logprob in known if logprob > LOGPROB_MIN)


def error_message(error: msgspec.Raw) -> str:
    """The upstream's own words, in some of the forms that they come in."""
    try:
        content: Any = msgspec.json.decode(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        content = bytes(error)[:MAX_ERROR_CHARACTERS].decode(errors="replace")
    if isinstance(content, dict):
        content = content.get("message", content)
    return str(content)[:MAX_ERROR_CHARACTERS]


def _usage(usage: _Usage, reasoning_apart: bool) -> Usage | None:
    into = usage.prompt_tokens_details or InputDetails()
    if into.cached_tokens is None:
        into.cached_tokens = usage.prompt_cache_hit_tokens
    told = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
    unseen = max(0, (usage.total_tokens or 0) - told) if reasoning_apart else 0
    out = usage.completion_tokens_details or OutputDetails()
    return normalised(usage.prompt_tokens, usage.completion_tokens, into, out, unseen)


def normalised(
    input_tokens: int | None,
    output_tokens: int | None,
    into: InputDetails,
    out: OutputDetails,
    hidden: int = 0,
) -> Usage | None:
    """In our classes. `hidden`: reasoning that `output_tokens` leave out. `None` where a total is
    missing or a count is absurd: that is no statement of what was used."""
    if input_tokens is None or output_tokens is None:
        return None
    counts = (
        input_tokens,
        output_tokens,
        hidden,
        into.cached_tokens,
        into.cache_write_tokens,
        into.cache_write_1h_tokens,
        into.audio_tokens,
        out.audio_tokens,
        out.reasoning_tokens,
        out.image_tokens,
    )
    if any(count is not None and not 0 <= count <= MAX_USAGE_TOKENS for count in counts):
        return None
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens + hidden,
        cache_read_tokens=into.cached_tokens or 0,
        cache_write_tokens=into.cache_write_tokens or 0,
        cache_write_1h_tokens=into.cache_write_1h_tokens,
        input_audio_tokens=into.audio_tokens or 0,
        output_audio_tokens=out.audio_tokens or 0,
        reasoning_tokens=max(hidden, out.reasoning_tokens or 0),
        output_image_tokens=out.image_tokens,
    )


class Collector:
    """Folds the events of one attempt into the answer they make."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._reasoning: list[str] = []
        self._tools: dict[int, tuple[list[str], list[str]]] = {}
        self._logprob_sum = 0.0
        self._logprob_count = 0
        self._logprob_least = 0.0
        self._entropy: float | None = None

    def add(self, event: Event) -> None:
        """One more event. Usage may sit on any of them; the last one counts."""
        if event.text:
            self._text.append(event.text)
        if event.refusal:
            self._refusal.append(event.refusal)
        if event.reasoning:
            self._reasoning.append(event.reasoning)
        for delta in event.tool_deltas:
            names, arguments = self._tools.setdefault(delta.index, ([], []))
            names.append(delta.name)
            arguments.append(delta.arguments)
        self.finish_reason = event.finish_reason or self.finish_reason
        self.usage = event.usage or self.usage
        self._logprob_sum += event.logprob_sum
        if event.logprob_count:
            self._logprob_count += event.logprob_count
            self._logprob_least = min(self._logprob_least, event.logprob_least)
            if event.entropy_sum is not None:
                self._entropy = (self._entropy or 0.0) + event.entropy_sum

    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(self._text)

    @property
    def spoken(self) -> str:
        """Everything that was generated and could be seen, for counting."""
        tools = [piece for pair in self._tools.values() for pieces in pair for piece in pieces]
        return "".join((*self._text, *self._refusal, *self._reasoning, *tools))

    def completion(self) -> Completion:
        """The answer so far."""
        count = self._logprob_count
        return Completion(
            text=self.text,
            finish_reason=self.finish_reason,
            tool_calls=tuple(
                ("".join(names), "".join(arguments))
                for _, (names, arguments) in sorted(self._tools.items())
            ),
            refusal="".join(self._refusal) or None,
            mean_logprob=self._logprob_sum / count if count else None,
            least_logprob=self._logprob_least if count else None,
            entropy=self._entropy / count if count and self._entropy is not None else None,
            usage=self.usage,
        )


# --- what the caller did not ask for is taken out again -----------------------------------------


def without_usage(raw: bytes) -> bytes:
    """The chunk without its usage."""
    fields = _read_fields.decode(raw)
    fields.pop("usage", None)
    return msgspec.json.encode(fields)


class _Choices(msgspec.Struct):
    choices: list[Fields] = []


def without_logprobs(raw: bytes) -> bytes:
    """The chunk or answer without log-probabilities."""
    fields = _read_fields.decode(raw)
    choices = msgspec.json.decode(raw, type=_Choices).choices
    for choice in choices:
        choice.pop("logprobs", None)
    fields["choices"] = _raw(choices)
    return msgspec.json.encode(fields)


def chat_usage(usage: Usage) -> dict[str, Any]:
    """Our classes as chat completions tell them."""
    into = {
        "cached_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }
    if usage.cache_write_1h_tokens is not None:
        into["cache_write_1h_tokens"] = usage.cache_write_1h_tokens
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": into,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def usage_chunk(last: bytes, usage: Usage, cost: msgspec.Raw, details: msgspec.Raw) -> bytes:
    """The extra chunk at a stream's end: the provider's own words about usage if the last chunk
    has them, else ours; and what the call cost."""
    fields = _read_fields.decode(last)
    own = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    sent = fields.get("usage", _raw(None))
    told = own if is_absent(sent) else msgspec.json.decode(sent, type=Fields)
    fields["choices"] = _raw([])
    fields["usage"] = _raw({**told, "cost": cost, "cost_details": details})
    return msgspec.json.encode(fields)
