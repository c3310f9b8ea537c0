"""Between chat completions and Responses: what both can say comes back as it was."""

import json
from contextlib import suppress
from copy import deepcopy
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascaded.types.event import Event
from cascaded.types.usage import Usage
from cascaded.wire.between.messages.from_chat import to_messages
from cascaded.wire.between.messages.to_chat import to_chat as messages_to_chat
from cascaded.wire.between.responses.answers import (
    ChatChunks,
    ResponsesEvents,
    chat_answer,
    response_head,
)
from cascaded.wire.between.responses.from_chat import to_responses
from cascaded.wire.between.responses.to_chat import to_chat
from cascaded.wire.openai_chat import Collector, WireError, parse_event, parse_request
from cascaded.wire.responses import ENDS, ResponsesEar, parse_response, told_usage
from cascaded.wire.sse import SseReader
from tests.property.test_between import conversations, deltas, fields, inputs, names, plain, texts
from tests.support.upstream import Says, chunks

few = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
words = st.builds(lambda text: {"type": "input_text", "text": text}, texts)
pictures = st.builds(
    lambda url, detail: {"type": "input_image", "image_url": url, "detail": detail},
    st.sampled_from(["data:image/png;base64,aGk=", "https://x.example/a.png"]),
    st.sampled_from(["low", "high", "auto"]),
)
contents = texts | st.lists(words | pictures, min_size=1, max_size=3)
items = st.one_of(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["user", "system"]),
        contents,
    ),
    st.builds(
        lambda text: {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": text}],
        },
        texts,
    ),
    st.builds(
        lambda id, name, given: {
            "type": "function_call",
            "call_id": id,
            "name": name,
            "arguments": json.dumps(given),
        },
        names,
        names,
        inputs,
    ),
    st.builds(
        lambda id, text: {"type": "function_call_output", "call_id": id, "output": text},
        names,
        texts,
    ),
)
tools = st.builds(
    lambda name, told, schema, strict: {
        "type": "function",
        "name": name,
        "description": told,
        "parameters": schema,
        "strict": strict,
    },
    names,
    texts,
    inputs.filter(bool),
    st.booleans(),
)
with_tools = st.fixed_dictionaries(
    {"tools": st.lists(tools, min_size=1, max_size=2)},
    optional={
        "tool_choice": st.sampled_from(["auto", "none", "required"])
        | st.just({"type": "function", "name": "x"}),
        "parallel_tool_calls": st.booleans(),
    },
)
settings_said = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0, 0.5, 1]),
        "top_p": st.just(0.9),
        "user": st.just("u"),
        "safety_identifier": st.just("s"),
        "service_tier": st.sampled_from(["auto", "default", "flex"]),
        "stream": st.booleans(),
        "reasoning": st.builds(lambda effort: {"effort": effort}, st.sampled_from(["low", "high"])),
        "text": st.builds(
            lambda schema: {"format": {"type": "json_schema", "name": "n", "schema": schema}},
            inputs,
        )
        | st.just({"format": {"type": "json_object"}, "verbosity": "low"}),
    },
)


@few
@given(st.lists(items, min_size=1, max_size=6), settings_said, st.just({}) | with_tools)
def test_a_call_there_and_back(given: list[Any], more: dict[str, Any], tools: Any) -> None:
    body = {"model": "m", "input": given, **more, **tools}
    said = to_chat(fields({**body, "max_output_tokens": 9}))
    assert (said.unsayable, said.unseen_tokens) == ((), 0)
    chat, _ = parse_request(msgspec.json.encode(said.fields))
    assert chat.output_bound == 9
    assert plain(to_responses(said.fields)) == body


@few
@given(conversations)
def test_a_conversation_of_messages_by_way_of_both(messages: list[Any]) -> None:
    """Messages to chat completions to Responses and all the way back."""
    body = {"model": "m", "messages": messages}
    chat = messages_to_chat(fields(body)).fields
    again = to_chat(to_responses(chat))
    assert not again.unsayable
    there = plain(to_messages(chat))
    back = plain(to_messages(again.fields))
    for message in (*there["messages"], *back["messages"]):
        for block in message["content"]:
            block.pop("title", None)
    assert back == there


counts = st.integers(0, 10_000)
usages = st.builds(
    lambda into, out, read, write, thought: Usage(
        input_tokens=into + read + write,
        output_tokens=out + thought,
        cache_read_tokens=read,
        cache_write_tokens=write,
        reasoning_tokens=thought,
    ),
    *[counts] * 5,
)
calls = st.lists(
    st.builds(
        lambda id, name, given: {
            "id": id,
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(given)},
        },
        names,
        names,
        inputs,
    ),
    max_size=3,
)


def head() -> dict[str, Any]:
    return response_head(
        fields({"input": "x"}), id="resp_1", previous=None, created_s=1, kept=False
    )


def chat_usage(usage: Usage) -> dict[str, Any]:
    into = {"cached_tokens": usage.cache_read_tokens}
    into["cache_write_tokens"] = usage.cache_write_tokens
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": into,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


@few
@given(st.none() | texts, st.none() | texts, st.none() | texts, calls, usages, st.data())
def test_an_answer_there_and_back(
    text: str | None, refusal: str | None, thought: str | None, called: Any, usage: Usage, data: Any
) -> None:
    ends = ["length", "content_filter", "tool_calls" if called else "stop"]
    ended = data.draw(st.sampled_from(ends))
    message = {"role": "assistant", "content": text, "refusal": refusal}
    message |= {"tool_calls": called} if called else {}
    message |= {"reasoning_content": thought} if thought else {}
    choice = {"index": 0, "message": message, "finish_reason": ended}
    chat = {"id": "c", "model": "m", "choices": [choice], "usage": chat_usage(usage)}
    asked = parse_event(json.dumps(chat).encode(), whole=True)
    heard = parse_response(ResponsesEvents(head()).whole(asked, asked.usage))
    back = parse_event(chat_answer(heard, 1), whole=True)
    for event in (heard, back):
        assert (event.text, event.refusal, event.reasoning) == (
            asked.text,
            asked.refusal,
            asked.reasoning,
        )
        assert event.finish_reason == ended
        assert event.usage == usage
    returned = json.loads(back.raw)["choices"][0]["message"]
    assert returned.get("tool_calls", []) == called


def streamed(made: ResponsesEvents, said: list[Event], usage: Usage) -> list[dict[str, Any]]:
    """The events of these chunks."""
    frames = b"".join(made.frames(event) for event in said) + made.ends()
    frames += made.last(made.response(told_usage(usage)))
    return [json.loads(data) for data in SseReader().feed(frames)]


def check(sent: list[dict[str, Any]]) -> dict[str, Any]:
    """The response that events make, which must be the one that they end with."""
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))
    assert [event["type"] for event in sent[:2]] == ["response.created", "response.in_progress"]
    built: list[dict[str, Any]] = []
    done: dict[int, dict[str, Any]] = {}
    for event in sent[2:-1]:
        kind, at = event["type"].removeprefix("response."), event["output_index"]
        if kind == "output_item.added":
            assert at == len(built)
            built.append(event["item"])
            continue
        item = built[at]
        assert at not in done, "nothing comes after an item's end"
        assert event.get("item_id", item["id"]) == item["id"]
        match kind:
            case "content_part.added":
                assert event["content_index"] == len(item["content"])
                item["content"].append(event["part"])
            case "output_text.delta" | "reasoning_text.delta":
                item["content"][event["content_index"]]["text"] += event["delta"]
            case "refusal.delta":
                item["content"][event["content_index"]]["refusal"] += event["delta"]
            case "function_call_arguments.delta":
                item["arguments"] += event["delta"]
            case "content_part.done":
                assert item["content"][event["content_index"]] == event["part"]
            case "output_item.done":
                ended = event["item"]
                done[at] = ended
                assert {**item, "status": "completed"} | {
                    name: ended[name] for name in ("encrypted_content",) if name in ended
                } == ended
    assert len(done) == len(built)
    last = sent[-1]["response"]
    assert sent[-1]["type"] in ENDS
    kept = [{**one, "status": "completed"} for one in last["output"]]
    assert kept == [done[at] for at in range(len(built))]
    response: dict[str, Any] = last
    return response


@few
@given(texts, calls, st.integers(1, 4), usages)
def test_a_stream_there_and_back(text: str, called: Any, count: int, usage: Usage) -> None:
    """Chat completions to Responses to chat completions, event by event."""
    ended = "tool_calls" if called else "stop"
    says = Says(text, tool_calls=called, chunks=count, finish_reason=ended)
    said = [
        parse_event(json.dumps(chunk).encode(), whole=False)
        for chunk in chunks({"model": "m"}, says)
    ]
    sent = streamed(ResponsesEvents(head()), said, usage)
    check(deepcopy(sent))
    ear, back, here, there = ResponsesEar(), ChatChunks(1), Collector(), Collector()
    for event in said:
        here.add(event)
    for told in sent:
        heard = ear.hear(json.dumps(told).encode())
        assert heard is not None
        chunk = back.chunk(heard)
        if chunk is not None:
            there.add(chunk)
    ours, theirs = there.completion(), here.completion()
    assert (ours.text, ours.tool_calls, ours.finish_reason) == (
        theirs.text,
        theirs.tool_calls,
        theirs.finish_reason,
    )
    assert ours.usage == usage


@few
@given(deltas, st.sampled_from([None, "stop", "length", "tool_calls", "content_filter", "other"]))
def test_whatever_chunks_come_the_events_are_in_order(
    said: list[dict[str, Any]], ended: str | None
) -> None:
    ends = [*[None] * len(said), ended]
    told = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        for delta, finish in zip([*said, {}], ends, strict=True)
    ]
    events = [parse_event(json.dumps(chunk).encode(), whole=False) for chunk in told]
    made = check(streamed(ResponsesEvents(head()), events, Usage()))
    parts = [
        part for item in made["output"] if item["type"] == "message" for part in item["content"]
    ]
    text = "".join(delta.get("content") or "" for delta in said)
    assert "".join(part.get("text", "") for part in parts) == text
    refused = "".join(delta.get("refusal", "") for delta in said)
    assert "".join(part.get("refusal", "") for part in parts) == refused


@few
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | texts,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "input", "role", "content", "output", "call_id", "tools", "text"]
                )
                | names,
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_nonsense_is_refused_in_words(said: Any) -> None:
    """Whatever stands in a body: it is said, or it is a mistake of the caller's."""
    body = said if isinstance(said, dict) else {"input": said}
    for translate in (to_chat, to_responses):
        with suppress(WireError):
            translate(fields({"model": "m", "messages": [], **body}))
    for hear in (ResponsesEar().hear, parse_response):
        with suppress(WireError):
            hear(json.dumps(said).encode())
