"""Anthropic's Messages on the wire: usage, odd answers, and what each dialect cannot say."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cascaded.api.errors import ERRORS, anthropic_response
from cascaded.policy.limits import anthropic_rate_headers
from cascaded.types.decision import Refusal
from cascaded.types.limits import LimitView
from cascaded.types.model import Model
from cascaded.types.usage import Usage
from cascaded.wire.anthropic import (
    MessagesEar,
    finish_reason,
    parse_message,
    parse_messages,
    told_usage,
    unpriced,
)
from cascaded.wire.between.messages.answers import messages_answer
from cascaded.wire.between.messages.from_chat import to_messages
from cascaded.wire.between.messages.to_chat import FAILED, to_chat
from cascaded.wire.between.said import suited
from cascaded.wire.openai_chat import UpstreamSaidError, WireError, parse_event

USAGES = Path(__file__).parents[3] / "shared" / "data" / "prices" / "genai_usages.jsonl"
HI: Any = [{"role": "user", "content": "Hi"}]
NORMALISED = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
}
"""Their names and ours. (Of the thoughts, which are part of the output, the record says nothing.)
"""


def fields(body: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}


def plain(said: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(said))


def answer(**more: Any) -> bytes:
    told = {"type": "message", "content": [], "stop_reason": "end_turn", **more}
    return json.dumps(told).encode()


class TestUsage:
    @pytest.mark.skipif(not USAGES.exists(), reason="the shared data is not here")
    def test_recorded_payloads_have_their_recorded_classes(self) -> None:
        seen = 0
        for line in map(json.loads, USAGES.read_text().splitlines()):
            usage = line["body"].get("usage") or {}
            recorded = [
                one["usage"]
                for one in line["extracted"]
                if any(price["provider_id"] == "anthropic" for price in one["prices"])
            ]
            if not recorded or "input_tokens" not in usage:
                continue
            read = parse_message(answer(usage=usage)).usage
            assert read is not None
            for told in recorded:
                classes = {ours: told.get(theirs, 0) for theirs, ours in NORMALISED.items()}
                assert {name: getattr(read, name) for name in classes} == classes, line
            seen += 1
        assert seen > 20

    @pytest.mark.parametrize(
        "usage",
        [{}, {"input_tokens": 5}, {"input_tokens": -1, "output_tokens": 1}, {"output_tokens": 1}],
    )
    def test_what_tells_nothing(self, usage: dict[str, int]) -> None:
        assert parse_message(answer(usage=usage)).usage is None

    def test_counts_are_cumulative(self) -> None:
        """The last one counts, and nothing is added up."""
        ear = MessagesEar()

        def hear(**event: Any) -> Any:
            return ear.hear(json.dumps(event).encode())

        start = {"usage": {"input_tokens": 9, "cache_read_input_tokens": 4, "output_tokens": 1}}
        assert hear(type="message_start", message=start).usage is None
        first = hear(type="message_delta", delta={}, usage={"output_tokens": 5})
        last = {"output_tokens": 8, "input_tokens": 0}
        second = hear(type="message_delta", delta={"stop_reason": "end_turn"}, usage=last)
        assert (first.usage.input_tokens, first.usage.output_tokens) == (13, 5)
        assert (second.usage.input_tokens, second.usage.output_tokens) == (4, 8)
        assert second.usage.cache_read_tokens == 4

    def test_told_again(self) -> None:
        usage = Usage(
            input_tokens=100, output_tokens=9, cache_write_tokens=30, cache_write_1h_tokens=10
        )
        assert told_usage(usage) == {
            "input_tokens": 70,
            "cache_creation_input_tokens": 30,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
            "output_tokens": 9,
        }


class TestAnswers:
    @pytest.mark.parametrize(
        ("stop", "reason"),
        [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("pause_turn", "stop"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("tool_use", "tool_calls"),
            ("refusal", "content_filter"),
            ("of_tomorrow", "of_tomorrow"),
            (None, None),
        ],
    )
    def test_why_they_ended(self, stop: str | None, reason: str | None) -> None:
        assert finish_reason(stop) == reason

    @pytest.mark.parametrize(
        ("kind", "code"),
        [
            ("overloaded_error", "upstream_overloaded"),
            ("rate_limit_error", "upstream_rate_limited"),
            ("api_error", "upstream_server_error"),
        ],
    )
    def test_errors_in_a_stream(self, kind: str, code: str) -> None:
        event = {"type": "error", "error": {"type": kind, "message": "no"}}
        with pytest.raises(UpstreamSaidError, match="no") as caught:
            MessagesEar().hear(json.dumps(event).encode())
        assert caught.value.code == code
        assert code in ERRORS

    def test_events_of_tomorrow_pass(self) -> None:
        event = MessagesEar().hear(b'{"type": "of_tomorrow", "x": 1}')
        assert event is not None
        assert (event.kind, event.text, event.speaks) == ("of_tomorrow", "", False)

    @pytest.mark.parametrize("raw", [b"{}", b'{"type": "message_start"}', b"[]", b"\xff"])
    def test_what_is_no_event(self, raw: bytes) -> None:
        with pytest.raises(WireError):
            MessagesEar().hear(raw)

    @pytest.mark.parametrize("arguments", ["{", "[1]", "5"])
    def test_arguments_that_are_no_object(self, arguments: str) -> None:
        function = {"name": "f", "arguments": arguments}
        calls = [{"id": "c", "type": "function", "function": function}]
        choice = {"index": 0, "message": {"tool_calls": calls}, "finish_reason": "tool_calls"}
        event = parse_event(json.dumps({"choices": [choice]}).encode(), whole=True)
        [block] = json.loads(messages_answer(event))["content"]
        assert block["input"] == {"unreadable_arguments": arguments}

    @pytest.mark.parametrize(
        ("choice", "stop", "sequence"),
        [
            ({"finish_reason": "stop"}, "end_turn", None),
            ({"finish_reason": "stop", "stop_reason": "END"}, "stop_sequence", "END"),
            ({"finish_reason": "content_filter"}, "refusal", None),
            ({"finish_reason": "of_tomorrow"}, "end_turn", None),
            ({"finish_reason": "stop", "native_finish_reason": "pause_turn"}, "pause_turn", None),
        ],
    )
    def test_stop_reasons(self, choice: dict[str, Any], stop: str, sequence: str | None) -> None:
        said = {"choices": [{"index": 0, "message": {"content": "Hi"}, **choice}]}
        told = json.loads(messages_answer(parse_event(json.dumps(said).encode(), whole=True)))
        assert (told["stop_reason"], told["stop_sequence"]) == (stop, sequence)

    def test_a_refusal(self) -> None:
        said = {"choices": [{"index": 0, "message": {"refusal": "No."}, "finish_reason": "stop"}]}
        told = json.loads(messages_answer(parse_event(json.dumps(said).encode(), whole=True)))
        assert told["content"] == [{"type": "text", "text": "No."}]
        assert told["stop_reason"] == "refusal"


class TestInChatCompletions:
    @pytest.mark.parametrize(
        ("block", "name"),
        [
            ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "(image, file)"),
            ({"type": "document", "source": {"type": "url", "url": "u"}}, "(document, url)"),
            ({"type": "container_upload", "file_id": "f"}, "(container_upload)"),
        ],
    )
    def test_blocks_that_cannot_be_said(self, block: dict[str, Any], name: str) -> None:
        said = to_chat(fields({"messages": [{"role": "user", "content": [block]}]}))
        assert said.unsayable == (f"messages[0].content[0] {name}",)
        assert said.unseen_tokens >= len(json.dumps(block, separators=(",", ":")))

    def test_members_that_cannot_be_said(self) -> None:
        more = {"top_k": 5, "mcp_servers": [], "cache_control": {"type": "ephemeral"}, "x": None}
        said = to_chat(fields({"messages": HI, **more}))
        assert said.unsayable == ("top_k", "mcp_servers")

    def test_documents(self) -> None:
        blocks = [
            {"type": "document", "title": "T", "source": {"type": "text", "data": "words"}},
            {"type": "document", "source": {"type": "content", "content": "more"}},
            {
                "type": "document",
                "source": {"type": "content", "content": [{"type": "text", "text": "inner"}]},
            },
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "eA=="},
            },
            {
                "type": "search_result",
                "title": "R",
                "source": "s",
                "content": [{"type": "text", "text": "found"}],
            },
        ]
        said = to_chat(fields({"messages": [{"role": "user", "content": blocks}]}))
        [message] = plain(said.fields)["messages"]
        *texts, file, found = message["content"]
        assert [part["text"] for part in texts] == ["T", "words", "more", "inner"]
        assert file["file"]["file_data"] == "data:application/pdf;base64,eA=="
        assert found["text"] == "R (s)\nfound"
        assert not said.unsayable

    def test_thoughts(self) -> None:
        """Those of chat completions go back; Anthropic's own are signed, for nobody else."""
        unsigned = {"type": "thinking", "thinking": "hm", "signature": ""}
        signed = {"type": "thinking", "thinking": "ah", "signature": "s"}
        message = {"role": "assistant", "content": [unsigned, signed]}
        said = to_chat(fields({"messages": [*HI, message]}))
        told = {"role": "assistant", "content": "", "reasoning_content": "hm"}
        assert plain(said.fields)["messages"][1] == told
        assert said.unseen_tokens == len(msgspec.json.encode(signed))
        assert not said.unsayable

    def test_a_tool_that_failed(self) -> None:
        block = {"type": "tool_result", "tool_use_id": "t", "content": "no", "is_error": True}
        said = to_chat(fields({"messages": [{"role": "user", "content": [block]}]}))
        [message] = plain(said.fields)["messages"]
        assert message == {"role": "tool", "tool_call_id": "t", "content": f"{FAILED}no"}

    @pytest.mark.parametrize(
        ("more", "effort"),
        [
            ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
            ({"thinking": {"type": "enabled", "budget_tokens": 9000}}, "medium"),
            ({"thinking": {"type": "enabled", "budget_tokens": 60000}}, "high"),
            ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "max"),
            ({"thinking": {"type": "adaptive"}}, "high"),
            ({"thinking": {"type": "disabled"}}, None),
            ({}, None),
        ],
    )
    def test_thinking(self, more: dict[str, Any], effort: str | None) -> None:
        said = to_chat(fields({"messages": HI, **more})).fields
        assert plain(said).get("reasoning_effort") == effort
        model = Model(name="m", provider="p", upstream_name="m")
        assert "reasoning_effort" not in suited("chat", said, model)
        thinker = msgspec.structs.replace(model, capabilities=frozenset({"reasoning"}))
        assert suited("chat", said, thinker) == said

    def test_tools_of_anthropics_making(self) -> None:
        tools = [{"type": "bash_20250124", "name": "bash"}, {"type": "web_search_1", "name": "w"}]
        body = {"model": "m", "messages": HI, "tools": tools, "speed": "fast", "container": "c"}
        said = to_chat(fields(body))
        assert {"container", "speed"} <= set(said.unsayable)
        assert said.unseen_tokens > 2_000
        asked, raw = parse_messages(json.dumps(body).encode())
        assert unpriced(asked, raw) == ("tools[1] (web_search_1)", "speed", "container")

    def test_nonsense(self) -> None:
        shapes: tuple[Any, ...] = ([5], [{}], [{"role": "user", "content": [{}]}], {"a": 1})
        for messages in shapes:
            with pytest.raises(WireError):
                to_chat(fields({"messages": messages}))


class TestInMessages:
    @pytest.mark.parametrize(
        ("more", "param"),
        [
            ({"n": 2}, "n"),
            ({"logprobs": True}, "logprobs"),
            ({"frequency_penalty": 0.5}, "frequency_penalty"),
            ({"audio": {}}, "audio"),
            ({"service_tier": "flex"}, "service_tier (flex)"),
            ({"temperature": 2}, "temperature"),
            ({"response_format": {"type": "json_object"}}, "response_format (json_object)"),
            ({"tools": [{"type": "custom"}]}, "tools[0] (custom)"),
            ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice (allowed_tools)"),
            ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages[0].name"),
            ({"messages": [{"role": "function", "content": "x"}]}, "messages[0] (role function)"),
            (
                {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
                "messages[0].content[0] (input_audio)",
            ),
            (
                {"messages": [{"role": "system", "content": [{"type": "image_url"}]}]},
                "messages[0] (image_url)",
            ),
            (
                {"messages": [{"role": "assistant", "content": "x", "audio": {"id": "a"}}]},
                "messages[0].audio",
            ),
        ],
    )
    def test_what_cannot_be_said(self, more: dict[str, Any], param: str) -> None:
        with pytest.raises(WireError) as caught:
            to_messages(fields({"messages": HI, **more}))
        assert caught.value.param == param

    @pytest.mark.parametrize(
        "neutral",
        [
            {"n": 1, "logprobs": False, "presence_penalty": 0, "logit_bias": {}, "audio": None},
            {"seed": 5, "store": True, "metadata": {"a": "b"}, "max_tokens": 5},
            {"response_format": {"type": "text"}, "reasoning_effort": "none", "user": None},
        ],
    )
    def test_what_asks_for_nothing(self, neutral: dict[str, Any]) -> None:
        said = plain(to_messages(fields({"messages": HI, **neutral})))
        content = [{"type": "text", "text": "Hi"}]
        assert said == {"messages": [{"role": "user", "content": content}]}

    def test_thinking(self) -> None:
        said = plain(to_messages(fields({"messages": HI, "reasoning_effort": "low"})))
        assert said["thinking"] == {"type": "adaptive"}
        assert said["output_config"] == {"effort": "low"}

    def test_a_refusal_and_thoughts_of_earlier(self) -> None:
        thought = {"type": "thinking", "thinking": "t", "signature": "s"}
        earlier = {
            "role": "assistant",
            "content": "",
            "refusal": "No.",
            "reasoning_content": "t",
            "thinking_blocks": [thought],
        }
        said = plain(to_messages(fields({"messages": [*HI, earlier]})))
        assert said["messages"][1]["content"] == [thought, {"type": "text", "text": "No."}]

    def test_arguments_that_are_no_object(self) -> None:
        call = {"id": "c", "function": {"name": "f", "arguments": "[1]"}}
        message = {"role": "assistant", "tool_calls": [call]}
        with pytest.raises(WireError, match="not a JSON object"):
            to_messages(fields({"messages": [message]}))

    def test_nonsense(self) -> None:
        shapes: tuple[Any, ...] = ([5], [{}], [{"role": "user", "content": [{}]}], {"a": 1})
        for messages in shapes:
            with pytest.raises(WireError):
                to_messages(fields({"messages": messages}))


@pytest.mark.parametrize("code", ERRORS)
def test_how_each_error_is_told(code: str) -> None:
    response = anthropic_response(Refusal(code=code, message="m", param="p"), "r-1")
    assert isinstance(response.body, bytes)
    told = json.loads(response.body)
    assert (told["type"], told["request_id"]) == ("error", "r-1")
    kinds = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        500: "api_error",
        504: "timeout_error",
        529: "overloaded_error",
    }
    assert told["error"]["type"] == kinds.get(response.status, "invalid_request_error")
    assert response.status in kinds or response.status < 500
    assert response.headers["request-id"] == response.headers["x-request-id"] == "r-1"


def test_rates_in_anthropics_names() -> None:
    now = 1_790_000_000_000_000_000
    views = [
        LimitView(
            scope="user",
            id="u",
            degraded=False,
            fits=True,
            unit=unit,
            limit=10,
            used=3,
            remaining=7,
            reset_at_ns=now + 1,
            enforced=True,
        )
        for unit in ("requests", "tokens")
    ]
    assert anthropic_rate_headers(views, now) == {
        f"anthropic-ratelimit-{unit}-{what}": value
        for unit in ("requests", "tokens")
        for what, value in [
            ("limit", "10"),
            ("remaining", "7"),
            ("reset", "2026-09-21T14:13:21Z"),
        ]
    }
