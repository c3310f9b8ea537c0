"""OpenAI's Responses on the wire: streams as documented, odd answers, what each dialect
cannot say, and what is kept."""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cascaded.types.event import Event
from cascaded.types.model import Model
from cascaded.types.usage import Usage
from cascaded.wire.between.forms import InChat, in_chat
from cascaded.wire.between.responses.answers import ResponsesEvents, response_head
from cascaded.wire.between.responses.from_chat import to_responses
from cascaded.wire.between.responses.to_chat import THOUGHTS, to_chat
from cascaded.wire.between.said import suited, without_thoughts
from cascaded.wire.openai_chat import Collector, UpstreamSaidError, WireError, parse_event
from cascaded.wire.responses import (
    OWN_THOUGHTS,
    ResponsesEar,
    input_items,
    parse_response,
    parse_responses,
    told_usage,
    unpriced,
    upstream_responses,
    with_cost,
)
from cascaded.wire.sse import SseReader
from cascaded.wire.texts import slots
from cascaded.wire.whole import responses
from cascaded.wire.whole.forms import Gathered, replayed
from tests.unit.test_usage_flavours import CLASSES

TRAFFIC = Path(__file__).parents[1] / "data" / "responses"
USAGES = Path(__file__).parents[3] / "shared" / "data" / "prices" / "genai_usages.jsonl"
PARIS = '{"city":"Paris"}'
ENDED: dict[str, dict[str, Any]] = {
    "text": {"text": "Paris is the capital.", "finish_reason": "stop"},
    "calls": {
        "tool_calls": (("weather", PARIS), ("weather", '{"city":"Rome"}')),
        "finish_reason": "tool_calls",
    },
    "thoughts": {"text": "Paris.", "finish_reason": "stop"},
    "refusal": {"refusal": "I can't help with that.", "finish_reason": "stop"},
    "cut": {"text": "Paris is", "finish_reason": "length"},
    "searched": {"text": "Paris.", "finish_reason": "stop"},
    "custom": {"tool_calls": (("shell", "ls -l"),), "finish_reason": "tool_calls"},
}
"""What each of the streams says."""


def fields(body: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}


def plain(said: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(said))


def heard(name: str) -> list[Event]:
    ear = ResponsesEar()
    events = [ear.hear(data) for data in SseReader().feed((TRAFFIC / f"{name}.sse").read_bytes())]
    return [event for event in events if event is not None]


def last_response(events: list[Event]) -> Any:
    return json.loads(events[-1].raw)["response"]


class TestStreams:
    @pytest.mark.parametrize("name", ENDED)
    def test_what_they_say(self, name: str) -> None:
        collected, chunks = Collector(), Collector()
        in_chunks = InChat(1)
        for event in heard(name):
            collected.add(event)
            chunk = in_chunks.chunk(event)
            if chunk is not None:
                chunks.add(chunk)
        said = collected.completion()
        assert {one: getattr(said, one) for one in ENDED[name]} == ENDED[name]
        assert said.usage is not None
        if name != "custom":  # chat completions tell it, our reading of them does not
            translated = chunks.completion()
            assert {one: getattr(translated, one) for one in ENDED[name]} == ENDED[name]
            assert translated.usage == said.usage
        whole = parse_response(json.dumps(last_response(heard(name))).encode())
        assert (whole.text, whole.finish_reason) == (said.text, said.finish_reason)
        assert [(one.name, one.arguments) for one in whole.tool_deltas] == list(said.tool_calls)
        assert whole.usage == said.usage

    def test_thoughts_are_told_with_a_line_between(self) -> None:
        events = heard("thoughts")
        told = "".join(event.reasoning for event in events)
        assert told == "**Looking**\n\nFrance it is.\n\nIts capital."
        whole = parse_response(json.dumps(last_response(events)).encode())
        assert whole.reasoning == told
        assert whole.usage is not None
        assert whole.usage.reasoning_tokens == 128
        message = json.loads(in_chat(whole, 1).raw)["choices"][0]["message"]
        assert message["reasoning_items"][0]["encrypted_content"] == "gAAAA-sealed"

    def test_citations_and_custom_calls_in_chat_completions(self) -> None:
        whole = parse_response(json.dumps(last_response(heard("searched"))).encode())
        message = json.loads(in_chat(whole, 1).raw)["choices"][0]["message"]
        assert message["annotations"][0]["url_citation"]["url"] == "https://x.example/paris"
        chunks = [InChat(1).chunk(event) for event in heard("searched")]
        assert any(chunk and b"url_citation" in chunk.raw for chunk in chunks)
        called = parse_response(json.dumps(last_response(heard("custom"))).encode())
        [call] = json.loads(in_chat(called, 1).raw)["choices"][0]["message"]["tool_calls"]
        assert (call["type"], call["custom"]) == ("custom", {"name": "shell", "input": "ls -l"})

    @pytest.mark.parametrize(
        ("name", "code"), [("failed", "upstream_server_error"), ("error", "upstream_rate_limited")]
    )
    def test_errors(self, name: str, code: str) -> None:
        with pytest.raises(UpstreamSaidError) as said:
            heard(name)
        assert said.value.code == code

    @pytest.mark.parametrize("name", ENDED)
    def test_what_is_kept_is_said_again(self, name: str) -> None:
        gathered = Gathered()
        for event in heard(name):
            gathered.add(event)
        whole = gathered.whole()
        assert whole is not None
        assert json.loads(whole.raw) == last_response(heard(name))
        again = Gathered()
        one, other = Collector(), Collector()
        for event in replayed(whole, "chat", stream=True):
            again.add(event)
            one.add(event)
        for event in heard(name):
            other.add(event)
        assert again.whole() == whole
        assert one.completion() == other.completion()
        [plainly] = replayed(whole, "chat", stream=False)
        assert plainly.text == one.text

    def test_items_may_be_left_out_of_the_end(self) -> None:
        gathered = responses.Gathered()
        for event in heard("text"):
            raw = json.loads(event.raw)
            if "response" in raw:
                raw["response"]["output"] = []
            gathered.add(json.dumps(raw).encode())
        whole = gathered.whole()
        assert whole is not None
        assert json.loads(whole)["output"] == last_response(heard("text"))["output"]
        with pytest.raises(WireError):
            gathered.add(b'{"type": "response.output_item.done"}')

    def test_what_ends_early_is_not_kept(self) -> None:
        gathered = Gathered()
        assert gathered.whole() is None
        for event in heard("text")[:-1]:
            gathered.add(event)
        assert gathered.whole() is None


ANSWER: dict[str, Any] = {"object": "response", "status": "completed", "output": []}


class TestAnswers:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            ({"code": "server_error", "message": "x"}, "upstream_server_error"),
            ({"code": "rate_limit_exceeded", "message": "x"}, "upstream_rate_limited"),
            ({"code": "invalid_image_url", "message": "x"}, "upstream_refused"),
            ({"code": "context_length_exceeded", "message": "x"}, "upstream_refused"),
            ("it fell over", "upstream_server_error"),
        ],
    )
    def test_one_that_failed(self, error: Any, code: str) -> None:
        with pytest.raises(UpstreamSaidError) as said:
            parse_response(json.dumps({**ANSWER, "status": "failed", "error": error}).encode())
        assert said.value.code == code

    @pytest.mark.parametrize(
        "answer",
        [
            b"[]",
            b"{",
            b"\xff",
            b'{"object": "response"}',
            b'{"output": [], "status": "queued"}',
            b'{"output": 1, "status": "completed"}',
            b'{"choices": []}',
            b"[" * 100_000,
        ],
    )
    def test_what_is_none(self, answer: bytes) -> None:
        for read in (parse_response, ResponsesEar().hear):
            with pytest.raises(WireError):
                read(answer)

    def test_items_and_events_of_tomorrow(self) -> None:
        items = [
            {"type": "of_tomorrow", "content": "text", "arguments": {"a": 1}, "summary": 5},
            {"type": "message", "content": [{"type": "of_tomorrow", "x": 1}]},
        ]
        assert parse_response(json.dumps({**ANSWER, "output": items}).encode()).text == ""
        event = {"type": "response.of_tomorrow", "item": items[0], "delta": {"a": 1}}
        told = ResponsesEar().hear(json.dumps(event).encode())
        assert told is not None
        assert not told.speaks
        assert ResponsesEar().hear(b"[DONE]") is None

    @pytest.mark.parametrize(
        "usage", [{}, {"input_tokens": 5}, {"input_tokens": -1, "output_tokens": 1}]
    )
    def test_usage_that_tells_nothing(self, usage: Any) -> None:
        assert parse_response(json.dumps({**ANSWER, "usage": usage}).encode()).usage is None

    @pytest.mark.skipif(not USAGES.exists(), reason="the shared data is not here")
    def test_recorded_usages_have_their_recorded_classes(self) -> None:
        seen = 0
        for line in map(json.loads, USAGES.read_text().splitlines()):
            for recorded in line["extracted"]:
                flavours = {price["api_flavor"] for price in recorded["prices"]}
                usage = line["body"].get("usage") or {}
                if "responses" not in flavours or "input_tokens_details" not in usage:
                    continue
                read = parse_response(json.dumps({**ANSWER, "usage": usage}).encode()).usage
                wanted = {name: recorded["usage"].get(name, 0) for name in CLASSES}
                told = {theirs: getattr(read, ours) or 0 for theirs, ours in CLASSES.items()}
                if not wanted["cache_write_tokens"]:
                    told["cache_write_tokens"] = 0  # the record leaves some out
                assert told == wanted, line
                seen += 1
        assert seen > 20

    def test_cost_is_told_with_our_count_where_there_is_none(self) -> None:
        usage = Usage(input_tokens=9, output_tokens=3, cache_write_1h_tokens=2)
        raw = json.dumps({"type": "response.completed", "response": {**ANSWER, "usage": None}})
        told = json.loads(with_cost(raw.encode(), usage, msgspec.Raw(b"1"), msgspec.Raw(b"{}")))
        assert told["response"]["usage"] == {**plain(told_usage(usage)), "cost": 1} | {
            "cost_details": {}
        }
        assert told["response"]["usage"]["input_tokens_details"]["cache_write_1h_tokens"] == 2

    def test_what_claude_signed_travels_sealed(self) -> None:
        """Whole and as a stream, one item for each block."""
        blocks: list[Any] = [
            {"type": "thinking", "thinking": "One.", "signature": "a"},
            {"type": "redacted_thinking", "data": "b"},
            {"type": "thinking", "thinking": "Two.", "signature": "c"},
        ]
        message = {"content": "Hi", "thinking_blocks": blocks, "reasoning_content": "One.Two."}
        whole = {"choices": [{"message": message, "finish_reason": "stop"}]}
        head = response_head({}, id="resp_x", previous=None, created_s=1, kept=False)
        event = parse_event(json.dumps(whole).encode(), whole=True)
        output = json.loads(ResponsesEvents(head).whole(event, None))["output"]
        sealed = [item["encrypted_content"] for item in output[:-1]]
        assert all(item["id"].startswith(OWN_THOUGHTS) for item in output[:-1])
        assert [[part["text"] for part in item["content"]] for item in output[:-1]] == [
            ["One."],
            [],
            ["Two."],
        ]
        assert all(one.startswith(THOUGHTS) for one in sealed)
        back = plain(to_chat(fields({"input": output})).fields)
        assert back["messages"] == [
            {"role": "assistant", "content": "Hi", "thinking_blocks": blocks}
        ]

    def test_encrypted_thoughts_come_through_chat_completions(self) -> None:
        """Where guardrails look through an answer of Responses it goes that way."""
        head = response_head({}, id="resp_x", previous=None, created_s=1, kept=False)
        made, in_chunks = ResponsesEvents(head), InChat(1)
        chunks = [in_chunks.chunk(event) for event in heard("thoughts")]
        said = b"".join(made.frames(chunk) for chunk in chunks if chunk) + made.ends()
        events = [json.loads(data) for data in SseReader().feed(said)]
        ends = [one["item"] for one in events if one["type"] == "response.output_item.done"]
        assert [item["type"] for item in ends] == ["reasoning", "reasoning", "message"]
        assert ends[0]["content"][0]["text"].endswith("Its capital.")
        assert (ends[1]["id"], ends[1]["encrypted_content"]) == ("rs_1", "gAAAA-sealed")
        model = Model(name="m", provider="p", upstream_name="gpt", capabilities=frozenset())
        again = upstream_responses(fields({"input": ends}), model, output_bound=9, stream=False)
        assert plain(again["input"])[0]["id"] == "rs_1"

    def test_guardrails_see_the_words_of_items(self) -> None:
        message = {"reasoning_items": [last_response(heard("thoughts"))["output"][0]]}
        found = [slot.text for slot in slots({"choices": [{"message": message}]}, "")]
        assert found == ["**Looking**\n\nFrance it is.", "Its capital."]

    def test_an_answer_that_breaks_off_before_its_first_word(self) -> None:
        head = response_head({}, id="resp_x", previous=None, created_s=1, kept=False)
        said = ResponsesEvents(head).broken({"message": "gone", "code": "x"}, None)
        error, failed = (json.loads(data) for data in SseReader().feed(said))
        assert (error["type"], error["error"]["message"]) == ("error", "gone")
        assert (failed["response"]["status"], failed["sequence_number"]) == ("failed", 1)


class TestCalls:
    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"input": ""}, "input"),
            ({"input": []}, "input"),
            ({"input": 5}, "input"),
            ({"input": "x", "background": True}, "background"),
            ({"input": "x", "conversation": {"id": "c"}}, "conversation"),
            ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
            ({"input": "x", "store": "yes"}, "store"),
        ],
    )
    def test_what_is_wrong_is_named(self, body: Any, param: str) -> None:
        with pytest.raises(WireError) as wrong:
            parse_responses(json.dumps({"model": "m", **body}).encode())
        assert wrong.value.param == param

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b'{"model": "m", "input": [' + b'{"a":' * 60_000,
            b'{"model": "m", "input": "\xff"}',
        ],
    )
    def test_no_json(self, body: bytes) -> None:
        with pytest.raises(WireError):
            parse_responses(body)

    def test_input_in_either_form(self) -> None:
        for given, items in (("Hi", 1), ([{"role": "user", "content": "Hi"}] * 2, 2)):
            asked, _ = parse_responses(json.dumps({"model": "m", "input": given}).encode())
            assert len(input_items(asked)) == items
        only, _ = parse_responses(b'{"model": "m", "previous_response_id": "resp_1"}')
        assert input_items(only) == []

    def test_what_costs_beside_the_list(self) -> None:
        tools = [{"type": "function", "name": "f"}, {"type": "file_search"}, {"type": "custom"}]
        body = {"model": "m", "input": "x", "tools": tools, "prompt": {"id": "p"}}
        asked, raw = parse_responses(json.dumps(body).encode())
        assert unpriced(asked, raw) == ("tools[1] (file_search)", "prompt")

    def test_what_goes_up(self) -> None:
        own = {"type": "reasoning", "id": f"{OWN_THOUGHTS}1", "summary": []}
        given = {"model": "auto", "input": [own, {"role": "user", "content": "x"}], "store": True}
        model = Model(name="m", provider="p", upstream_name="gpt", capabilities=frozenset())
        body = fields({**given, "previous_response_id": "resp_1", "stream": False})
        sent = plain(upstream_responses(body, model, output_bound=9, stream=True))
        assert sent == {
            "model": "gpt",
            "input": [{"role": "user", "content": "x"}],
            "store": False,
            "max_output_tokens": 9,
            "stream": True,
        }
        untouched = fields({"model": "m", "input": f"what is {OWN_THOUGHTS}?"})
        with_string = upstream_responses(untouched, model, output_bound=9, stream=False)
        assert plain(with_string["input"]) == f"what is {OWN_THOUGHTS}?"

    @pytest.mark.parametrize(
        ("item", "named", "elsewhere"),
        [
            ({"type": "input_file", "file_id": "f"}, "input[0].content[0] (input_file)", True),
            ({"type": "input_file", "file_url": "u"}, "input[0].content[0] (input_file)", True),
            ({"type": "input_image", "file_id": "f"}, "input[0].content[0] (input_image)", True),
            ({"type": "of_tomorrow"}, "input[0].content[0] (of_tomorrow)", False),
        ],
    )
    def test_parts_that_chat_completions_cannot_say(
        self, item: Any, named: str, elsewhere: bool
    ) -> None:
        """What refers to something of unknown length is not taken for what its name is long."""
        said = to_chat(fields({"input": [{"role": "user", "content": [item]}]}))
        assert said.unsayable == (named,)
        assert (said.elsewhere == (named,)) is elsewhere
        assert said.unseen_tokens >= len(json.dumps(item, separators=(",", ":")))

    def test_items_that_chat_completions_cannot_say(self) -> None:
        call = {"type": "web_search_call", "id": "ws", "status": "completed"}
        said = to_chat(fields({"input": [call]}))
        assert said.unsayable == ("input[0] (web_search_call)",)
        assert plain(said.fields)["messages"], "it can be measured all the same"
        choice = {"type": "allowed_tools", "mode": "auto", "tools": []}
        tools = [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}]
        said = to_chat(fields({"input": "x", "tools": tools, "tool_choice": choice}))
        assert said.unsayable == ("tools[1] (custom)", "tool_choice (allowed_tools)")

    def test_pictures_in_results_follow_them(self) -> None:
        picture = {"type": "input_image", "image_url": "data:image/png;base64,aGk="}
        output = {"type": "function_call_output", "call_id": "c1"}
        items = [
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {**output, "output": [{"type": "input_text", "text": "See:"}, picture]},
            {**output, "call_id": "c2", "output": "Sun"},
        ]
        said = plain(to_chat(fields({"input": items})).fields)["messages"]
        assert [one["role"] for one in said] == ["assistant", "tool", "tool", "user"]
        assert said[1]["content"] == "See:"
        assert said[3]["content"][1]["image_url"]["url"] == picture["image_url"]

    def test_files_and_sounds(self) -> None:
        parts: list[Any] = [
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:x;base64,aGk="},
            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
        ]
        body = fields({"input": [{"role": "developer", "content": parts}]})
        [said] = plain(to_chat(body).fields)["messages"]
        assert said["role"] == "system"
        assert said["content"][0]["file"] == {
            "filename": "a.pdf",
            "file_data": parts[0]["file_data"],
        }
        file = plain(to_responses(fields({"messages": [{**said, "content": said["content"][:1]}]})))
        assert file["input"][0]["content"][0]["file_data"] == parts[0]["file_data"]

    def test_settings(self) -> None:
        said = plain(
            to_chat(
                fields(
                    {
                        "input": "x",
                        "include": ["message.output_text.logprobs"],
                        "top_logprobs": 3,
                        "text": {"verbosity": "medium"},
                        "truncation": "disabled",
                        "parallel_tool_calls": True,
                        "tool_choice": "auto",
                        "prompt_cache_key": "k",
                    }
                )
            ).fields
        )
        assert said == {
            "messages": [{"role": "user", "content": "x"}],
            "logprobs": True,
            "top_logprobs": 3,
        }
        asked = plain(to_responses(fields({**said, "verbosity": "high"})))
        assert asked["include"] == ["message.output_text.logprobs"]
        assert (asked["top_logprobs"], asked["text"]) == (3, {"verbosity": "high"})

    @pytest.mark.parametrize("sealed", ["!", base64.b64encode(b'{"type": "text"}').decode()])
    def test_thoughts_that_were_never_given_here(self, sealed: str) -> None:
        item = {"type": "reasoning", "encrypted_content": THOUGHTS + sealed}
        with pytest.raises(WireError):
            to_chat(fields({"input": [item]}))

    def test_thoughts_between_the_forms(self) -> None:
        summary = [{"type": "summary_text", "text": "Hm."}]
        words = {"type": "reasoning", "summary": summary}
        sealed = {"type": "reasoning", "summary": summary, "encrypted_content": "x" * 50}
        answer = {"type": "message", "role": "assistant", "content": "Yes."}
        said = to_chat(fields({"input": [words, answer, sealed]}))
        assert said.unseen_tokens == 50
        assert plain(said.fields)["messages"] == [
            {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}
        ]
        assert plain(without_thoughts(said.fields))["messages"] == [
            {"role": "assistant", "content": "Yes."}
        ]

    @pytest.mark.parametrize(
        ("body", "named"),
        [
            ({"n": 2}, "n"),
            ({"stop": "x"}, "stop"),
            ({"frequency_penalty": 1}, "frequency_penalty"),
            ({"audio": {}}, "audio"),
            ({"of_tomorrow": 1}, "of_tomorrow"),
            ({"tools": [{"type": "custom"}]}, "tools[0] (custom)"),
            ({"tool_choice": {"type": "custom"}}, "tool_choice (custom)"),
            ({"messages": [{"role": "function", "content": ""}]}, "messages[0] (role function)"),
            ({"messages": [{"role": "user", "content": "", "name": "n"}]}, "messages[0].name"),
            (
                {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
                "messages[0].content[0] (input_audio)",
            ),
            (
                {"messages": [{"role": "assistant", "tool_calls": [{"type": "custom"}]}]},
                "messages[0].tool_calls[0] (custom)",
            ),
            (
                {"messages": [{"role": "assistant", "content": [{"type": "image_url"}]}]},
                "messages[0] (image_url)",
            ),
            (
                {"messages": [{"role": "assistant", "reasoning_items": [{"type": "message"}]}]},
                "messages[0].reasoning_items[0] (message)",
            ),
        ],
    )
    def test_what_responses_cannot_say_is_named(self, body: Any, named: str) -> None:
        messages = [{"role": "user", "content": "x"}]
        with pytest.raises(WireError) as refused:
            to_responses(fields({"messages": messages, **body}))
        assert refused.value.param == named

    def test_what_changes_nothing_is_left_out(self) -> None:
        thoughts = {"reasoning_content": "Hm.", "thinking_blocks": []}
        refusal = [{"type": "refusal", "refusal": "No."}]
        messages = [
            {"role": "assistant", "content": "x", **thoughts, "refusal": "No."},
            {"role": "assistant", "content": refusal},
        ]
        body = {"model": "m", "messages": messages, "n": 1, "stop": [], "seed": 5, "store": True}
        said = plain(to_responses(fields({**body, "max_tokens": 5, "metadata": {}})))
        parts = [{"type": "output_text", "text": "x"}, *refusal]
        head = {"type": "message", "role": "assistant"}
        assert said == {
            "model": "m",
            "input": [{**head, "content": parts}, {**head, "content": refusal}],
        }

    def test_who_does_not_think_is_not_told_how_hard_to(self) -> None:
        simple = Model(name="m", provider="p", upstream_name="m", capabilities=frozenset())
        output = {"effort": "low", "format": {"type": "json_schema"}}
        body = fields({"thinking": {"type": "adaptive"}, "output_config": output})
        assert plain(suited("messages", body, simple)) == {
            "output_config": {"format": output["format"]}
        }
        alone = fields({"thinking": {}, "output_config": {"effort": "low"}})
        assert suited("messages", alone, simple) == {}
        assert suited("responses", fields({"reasoning": {"effort": "low"}}), simple) == {}
