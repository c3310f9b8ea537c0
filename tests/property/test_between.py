"""Between chat completions and Messages: what both can say comes back as it was."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascaded.types.event import Event
from cascaded.types.recalled import Whole
from cascaded.types.usage import Usage
from cascaded.wire.anthropic import MessagesEar, parse_message
from cascaded.wire.between.messages.answers import (
    ChatChunks,
    MessagesEvents,
    chat_answer,
    messages_answer,
)
from cascaded.wire.between.messages.from_chat import to_messages
from cascaded.wire.between.messages.to_chat import to_chat
from cascaded.wire.openai_chat import Collector, WireError, parse_event, parse_request
from cascaded.wire.sse import SseReader
from cascaded.wire.whole import messages
from cascaded.wire.whole.forms import Gathered, replayed
from tests.support.upstream import Says, events

few = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
texts = st.text(min_size=1, max_size=20)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
inputs = st.dictionaries(names, values, max_size=3)
text_blocks = st.builds(lambda text: {"type": "text", "text": text}, texts)
images = st.builds(
    lambda data: {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": data},
    },
    st.from_regex(r"[A-Za-z0-9+/]{4,8}", fullmatch=True),
) | st.just({"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}})
calls = st.builds(
    lambda id, name, given: {"type": "tool_use", "id": id, "name": name, "input": given},
    names,
    names,
    inputs,
)
results = st.builds(
    lambda id, text: {"type": "tool_result", "tool_use_id": id, "content": text}, names, texts
)
users = st.tuples(st.lists(results, max_size=2), st.lists(text_blocks | images, max_size=3)).filter(
    lambda both: any(both)
)
assistants = st.tuples(st.lists(text_blocks, max_size=1), st.lists(calls, max_size=2)).filter(
    lambda both: any(both)
)
turns = st.builds(lambda both: {"role": "user", "content": both[0] + both[1]}, users)
answers = st.builds(lambda both: {"role": "assistant", "content": both[0] + both[1]}, assistants)
conversations = st.lists(st.tuples(turns, answers), max_size=2).flatmap(
    lambda pairs: turns.map(lambda last: [*(one for pair in pairs for one in pair), last])
)
tools = st.builds(
    lambda name, words, schema: {"name": name, "description": words, "input_schema": schema},
    names,
    texts,
    inputs.filter(bool),
)
members = st.fixed_dictionaries(
    {},
    optional={
        "system": st.lists(text_blocks, min_size=1, max_size=2),
        "tools": st.lists(tools, min_size=1, max_size=2),
        "tool_choice": st.sampled_from(
            [{"type": "auto"}, {"type": "any"}, {"type": "none"}, {"type": "tool", "name": "x"}]
        ),
        "stop_sequences": st.lists(texts, min_size=1, max_size=2),
        "temperature": st.sampled_from([0, 0.5, 1]),
        "top_p": st.just(0.9),
        "metadata": st.just({"user_id": "u"}),
        "service_tier": st.sampled_from(["auto", "standard_only"]),
        "stream": st.booleans(),
        "output_config": st.builds(
            lambda schema: {"format": {"type": "json_schema", "schema": schema}}, inputs
        ),
    },
)


def fields(body: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}


def plain(said: dict[str, msgspec.Raw]) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(said))
    return decoded


@few
@given(conversations, members)
def test_a_call_there_and_back(turns: list[Any], more: dict[str, Any]) -> None:
    body = {"model": "m", "messages": turns, **more}
    said = to_chat(fields({**body, "max_tokens": 9}))
    assert (said.unsayable, said.unseen_tokens) == ((), 0)
    chat, _ = parse_request(msgspec.json.encode(said.fields))
    assert chat.output_bound == 9
    assert plain(to_messages(said.fields)) == body


blocks = st.lists(
    text_blocks
    | calls
    | st.builds(
        lambda text: {"type": "thinking", "thinking": text, "signature": "s"},
        texts,
    )
    | st.just({"type": "redacted_thinking", "data": "x"}),
    min_size=1,
    max_size=4,
)
stops = st.sampled_from(
    ["end_turn", "max_tokens", "tool_use", "pause_turn", "refusal", "model_context_window_exceeded"]
)
counts = st.integers(0, 10_000)
usages = st.builds(
    lambda into, out, read, short, long, thought: {
        "input_tokens": into,
        "output_tokens": out + thought,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": short + long,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "output_tokens_details": {"thinking_tokens": thought},
    },
    *[counts] * 6,
)


def in_order(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As chat completions have it: thoughts, what is said, calls."""
    said = "".join(block["text"] for block in content if block["type"] == "text")
    return [
        *(block for block in content if "thinking" in block["type"]),
        *([{"type": "text", "text": said}] if said else []),
        *(block for block in content if block["type"] == "tool_use"),
    ]


def message(content: list[Any], stop: str, usage: dict[str, Any]) -> dict[str, Any]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
    ended = {"stop_reason": stop, "stop_sequence": None}
    return {**head, "content": content, **ended, "usage": usage}


def without_zero_thoughts(usage: dict[str, Any]) -> dict[str, Any]:
    thought = usage["output_tokens_details"]["thinking_tokens"]
    kept = usage.items() if thought else list(usage.items())[:-1]
    return dict(kept)


@few
@given(blocks, stops, usages)
def test_an_answer_there_and_back(content: list[Any], stop: str, usage: dict[str, Any]) -> None:
    told = message(content, stop, usage)
    heard = parse_message(json.dumps(told).encode())
    chat = parse_event(chat_answer(heard, 1), whole=True)
    assert (chat.text, chat.finish_reason, chat.usage) == (
        heard.text,
        heard.finish_reason,
        heard.usage,
    )
    back = json.loads(messages_answer(chat))
    assert back == message(in_order(content), stop, without_zero_thoughts(usage))


def streamed(content: list[Any], stop: str, usage: dict[str, Any], chunks: int) -> list[Event]:
    says = Says(blocks=content, finish_reason=stop, extra_usage=usage, chunks=chunks)
    ear = MessagesEar()
    heard = [ear.hear(json.dumps(event).encode()) for event in events({"model": "m"}, says)]
    assert heard[-1] is None, "message_stop"
    return [event for event in heard if event is not None]


def whole(sent: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that events make, their order checked as the SDKs take it."""
    start, *middle, delta, stop = sent
    assert (start["type"], delta["type"], stop) == (
        "message_start",
        "message_delta",
        {"type": "message_stop"},
    )
    content: list[dict[str, Any]] = []
    pieces: list[str] = []
    is_open = False
    for event in middle:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(content)
                content.append(event["content_block"])
                pieces, is_open = [], True
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(content) - 1
                said = event["delta"]
                kind = said.pop("type")
                if kind == "input_json_delta":
                    pieces.append(said["partial_json"])
                for name, value in said.items() if kind != "input_json_delta" else ():
                    content[-1][name] = content[-1].get(name, "") + value
            case "content_block_stop":
                assert is_open
                is_open = False
                if content[-1]["type"] == "tool_use":
                    content[-1]["input"] = json.loads("".join(pieces) or "{}")
    assert not is_open
    return {"content": content, **delta["delta"], "usage": delta["usage"]}


@few
@given(blocks, stops, usages, st.integers(1, 4))
def test_a_stream_there_and_back(
    content: list[Any], stop: str, usage: dict[str, Any], chunks: int
) -> None:
    """Messages to chat completions to Messages, event by event."""
    heard = streamed(content, stop, usage, chunks)
    to, back, collected = ChatChunks(1), MessagesEvents(), Collector()
    sent = b""
    for event in heard:
        chunk = to.chunk(event)
        if chunk is not None:
            collected.add(chunk)
            sent += back.frames(chunk)
    plain_answer = Collector()
    for event in heard:
        plain_answer.add(event)
    ours, theirs = collected.completion(), plain_answer.completion()
    assert (ours.text, ours.finish_reason, ours.usage) == (
        theirs.text,
        theirs.finish_reason,
        theirs.usage,
    )
    assert [name for name, _ in ours.tool_calls] == [name for name, _ in theirs.tool_calls]
    assert ours.usage is not None
    sent += back.end(ours.usage, msgspec.Raw(b"0"), msgspec.Raw(b"{}"))
    frames = [json.loads(data) for data in SseReader().feed(sent)]
    made = whole(frames)
    assert made["stop_reason"] == stop
    expected = without_zero_thoughts(usage)
    assert made["usage"] == {**expected, "cost": 0, "cost_details": {}}
    said = "".join(block["text"] for block in content if block["type"] == "text")
    assert "".join(one["text"] for one in made["content"] if one["type"] == "text") == said
    for kind in ("tool_use", "thinking", "redacted_thinking"):
        assert [one for one in made["content"] if one["type"] == kind] == [
            one for one in content if one["type"] == kind
        ]


deltas = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "content": st.none() | texts,
            "refusal": texts,
            "reasoning_content": texts,
            "thinking_blocks": st.lists(
                st.just({"type": "thinking", "thinking": "t", "signature": "s"}), max_size=1
            ),
            "tool_calls": st.lists(
                st.fixed_dictionaries(
                    {"index": st.integers(0, 2)},
                    optional={
                        "id": names,
                        "function": st.fixed_dictionaries(
                            {}, optional={"name": names, "arguments": st.just("")}
                        ),
                    },
                ),
                max_size=3,
            ),
        },
    ),
    max_size=8,
)


@few
@given(deltas, st.sampled_from([None, "stop", "length", "tool_calls", "content_filter", "other"]))
def test_whatever_chunks_come_the_events_are_in_order(
    said: list[dict[str, Any]], ended: str | None
) -> None:
    events_of = MessagesEvents()
    sent = b""
    ends = [*[None] * len(said), ended]
    for delta, finish in zip([*said, {}], ends, strict=True):
        chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        sent += events_of.frames(parse_event(json.dumps(chunk).encode(), whole=False))
    sent += events_of.end(Usage(), msgspec.Raw(b"0"), msgspec.Raw(b"{}"))
    made = whole([json.loads(data) for data in SseReader().feed(sent)])
    text = "".join(
        part for delta in said for part in (delta.get("content"), delta.get("refusal")) if part
    )
    assert "".join(one["text"] for one in made["content"] if one["type"] == "text") == text


more_blocks = st.one_of(
    blocks,
    st.just(
        [
            {"type": "text", "text": "Paris", "citations": [{"type": "web", "url": "u"}]},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"a": 1}]},
        ]
    ),
)


@few
@given(more_blocks, stops, usages, st.integers(1, 4))
def test_what_is_kept_is_said_again(
    content: list[Any], stop: str, usage: dict[str, Any], chunks: int
) -> None:
    """A whole answer as a stream is that answer again; so is a stream that passed."""
    told = message(content, stop, usage)
    whole = Whole("messages", json.dumps(told).encode())
    again, heard = Gathered(), Collector()
    for event in replayed(whole, "chat", stream=True):
        again.add(event)
        heard.add(event)
    made = again.whole()
    assert made is not None
    assert json.loads(made.raw) == told
    [plainly] = replayed(whole, "chat", stream=False)
    assert (heard.text, heard.finish_reason, heard.usage) == (
        plainly.text,
        plainly.finish_reason,
        plainly.usage,
    )
    passed = Gathered()
    for event in streamed(content, stop, usage, chunks):
        passed.add(event)
    kept = passed.whole()
    assert kept is not None
    assert json.loads(kept.raw)["stop_reason"] == stop
    said = [block for block in json.loads(kept.raw)["content"] if block["type"] in MADE_WHOLE]
    assert said == [block for block in content if block["type"] in MADE_WHOLE]


MADE_WHOLE = ("text", "tool_use", "thinking", "redacted_thinking", "web_search_tool_result")


def test_what_grows_in_an_unknown_way_is_not_kept() -> None:
    gathering = messages.Gathered()
    assert gathering.whole() is None
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "x"}}
    gathering.add(json.dumps(start).encode())
    for delta in ({"type": "of_tomorrow"}, {"type": "text_delta"}):
        raw = {"type": "content_block_delta", "index": 0, "delta": delta}
        with pytest.raises(WireError):
            gathering.add(json.dumps(raw).encode())
    piece = {"type": "input_json_delta", "partial_json": "{"}
    gathering.add(json.dumps({**start, "type": "content_block_delta", "delta": piece}).encode())
    ended = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}
    gathering.add(json.dumps(ended).encode())
    assert gathering.whole() is None, "its input is no JSON"
