"""Anthropic's official SDK, unchanged, over the socket and TCP; and each SDK served by the other's
upstream."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from cascaded.client import AsyncClient, Client
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Fails, Resets, Says, SaysError, Upstream

KEY = "sk-app-1-0123456789"
BOTH = (
    CASCADE.replace(
        "[server]\n", '[server]\ntcp = "127.0.0.1:0"\ntcp_keys = { app = "env:APP_KEY" }\n'
    ).replace(
        "[ladders.default]",
        """
[providers.claude]
kind = "anthropic"
base_url = "{url}/v1"
api_key = "env:FAKE_KEY"
max_retries = 1
backoff_s = 0.01
breaker_failures = 0
total_timeout_s = 1.5

[models.haiku]
provider = "claude"
upstream_name = "claude-haiku-4-5"
input_usd_per_mtok = "1"
output_usd_per_mtok = "5"
cache_read_usd_per_mtok = "0.10"
cache_write_usd_per_mtok = "1.25"
cache_write_1h_usd_per_mtok = "2"

[models.opus]
provider = "claude"
upstream_name = "claude-opus-4-7"
input_usd_per_mtok = "5"
output_usd_per_mtok = "25"

[ladders.claude]
rungs = ["haiku", "opus"]
threshold = 0.6

[ladders.mixed]
rungs = ["cheap", "opus"]
threshold = 0.6

[ladders.default]""",
    )
    + """
[limits.users.ids.poor]
daily_usd = "0.0000001"

[limits.users.ids.slow]
requests_per_minute = 1
"""
)
ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
GOOD = "The capital of France is Paris."
REFUSAL = "I'm sorry, but I can't help with that."
HAIKU, OPUS = "claude-haiku-4-5", "claude-opus-4-7"
TOOL: Any = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}
CHAT_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
}
THOUGHT = {"type": "thinking", "thinking": "France: Paris.", "signature": "c2ln"}
PICTURE: Any = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
}


@pytest.fixture(scope="module")
def _daemon(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(BOTH, url=_upstream.url, APP_KEY=KEY) as daemon:
        yield daemon


@pytest.fixture
def sdk(daemon: Daemon) -> Iterator[anthropic.Anthropic]:
    with Client(daemon.socket) as client, client.anthropic(max_retries=0) as sdk:
        yield sdk


def ask(sdk: anthropic.Anthropic, model: str = "haiku", **more: Any) -> Any:
    return sdk.messages.create(**{"model": model, "max_tokens": 64, "messages": ASK, **more})


class TestServedByAnthropic:
    def test_a_good_draft_is_kept(self, sdk: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.on(HAIKU, Says(GOOD))
        raw = sdk.messages.with_raw_response.create(
            model="cascade/claude", max_tokens=64, messages=ASK
        )
        answer = raw.parse()
        assert answer.content[0].text == GOOD  # type: ignore[union-attr]
        assert answer.unknown_to_us == "m_1"  # type: ignore[attr-defined]
        assert raw.headers["x-cascaded-model"] == "haiku"
        assert raw.headers["x-cascaded-cost"] == "0.000035"
        assert raw.headers["request-id"] == answer._request_id
        assert not upstream.calls(OPUS)
        [sent] = upstream.received
        assert sent.path == "/v1/messages"
        assert sent.headers["x-api-key"] == "sk-upstream-secret"
        assert sent.headers["anthropic-version"] == sdk.default_headers["anthropic-version"]
        assert "Authorization" not in sent.headers

    def test_a_bad_draft_escalates(self, sdk: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.on(HAIKU, Says(REFUSAL))
        upstream.on(OPUS, Says(GOOD))
        assert ask(sdk, "cascade/claude").content[0].text == GOOD
        with sdk.messages.stream(model="cascade/claude", max_tokens=64, messages=ASK) as stream:
            assert "".join(stream.text_stream) == GOOD, "nothing of the draft reaches the caller"

    def test_the_body_goes_up_as_it_came(
        self, sdk: anthropic.Anthropic, upstream: Upstream
    ) -> None:
        body = {
            "thinking": {"type": "adaptive"},
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "e"}}],
            "top_k": 5,
            "future": {"a": [1, 2.50]},
        }
        messages = [*ASK, {"role": "assistant", "content": [THOUGHT, CALL]}]
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Sun"}
        messages.append({"role": "user", "content": [result, PICTURE]})
        upstream.on(OPUS, Says(GOOD))
        ask(
            sdk,
            "opus",
            messages=messages,
            tools=[TOOL, {"type": "bash_20250124", "name": "bash"}],
            extra_body=body,
            extra_headers={"anthropic-beta": "a-beta"},
        )
        [sent] = upstream.received
        assert {name: sent.body[name] for name in body} == body
        assert sent.body["messages"] == messages
        assert sent.body["max_tokens"] == 64
        assert b"2.5" in sent.raw
        assert sent.headers["anthropic-beta"] == "a-beta"

    @pytest.mark.parametrize("pieces", [1, 3, len(GOOD)])
    def test_streams(self, sdk: anthropic.Anthropic, upstream: Upstream, pieces: int) -> None:
        blocks: list[dict[str, Any]] = [THOUGHT, {"type": "text", "text": GOOD}, CALL]
        upstream.on(OPUS, Says(chunks=pieces, blocks=blocks, finish_reason="tool_calls"))
        with sdk.messages.stream(model="opus", max_tokens=64, messages=ASK) as stream:
            heard: list[Any] = list(stream)
            message = stream.get_final_message()
        kinds = [event.type for event in heard]
        assert [block.model_dump(exclude_none=True) for block in message.content] == blocks
        assert message.stop_reason == "tool_use"
        assert (message.usage.input_tokens, message.usage.output_tokens) == (10, 5)
        [told] = [event.usage for event in heard if event.type == "message_delta"]
        assert told.cost == pytest.approx(0.000175)
        assert told.cost_details["model_used"] == "opus"
        assert kinds[0] == "message_start"
        assert kinds[-2:] == ["message_delta", "message_stop"]
        assert kinds.count("content_block_stop") == 3

    def test_usage_classes(self, sdk: anthropic.Anthropic, upstream: Upstream) -> None:
        """Of the cache, apart from `input_tokens`, five minutes and an hour."""
        written = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}
        usage = {"cache_creation_input_tokens": 300, "cache_read_input_tokens": 1000}
        upstream.on(HAIKU, Says(GOOD, extra_usage={**usage, "cache_creation": written}))
        raw = sdk.messages.with_raw_response.create(model="haiku", max_tokens=9, messages=ASK)
        # 10 · 1 + 5 · 5 + 1000 · 0.1 + 100 · 1.25 + 200 · 2 micro-dollars
        assert raw.headers["x-cascaded-cost"] == "0.00066"
        heard: list[Any] = list(ask(sdk, stream=True))
        assert heard[0].message.usage.cache_read_input_tokens == 1000
        assert heard[-2].usage.cost == pytest.approx(0.00066)

    async def test_async(self, daemon: Daemon, upstream: Upstream) -> None:
        upstream.on(OPUS, Says(GOOD))
        async with AsyncClient(daemon.socket).anthropic() as sdk:
            answer: Any = await sdk.messages.create(model="opus", max_tokens=9, messages=ASK)
            assert answer.content[0].text == GOOD
            async with sdk.messages.stream(model="opus", max_tokens=9, messages=ASK) as stream:
                assert "".join([text async for text in stream.text_stream]) == GOOD

    def test_over_tcp(self, daemon: Daemon, upstream: Upstream) -> None:
        upstream.on(OPUS, Says(GOOD))
        url = str(daemon.tcp().base_url)
        with anthropic.Anthropic(api_key=KEY, base_url=url, max_retries=0) as sdk:
            assert ask(sdk, "opus").content[0].text == GOOD
        assert "sk-app" not in str(upstream.received[0].headers)
        with anthropic.Anthropic(api_key="wrong", base_url=url, max_retries=0) as sdk:
            with pytest.raises(anthropic.AuthenticationError) as caught:
                ask(sdk, "opus")
            body: Any = caught.value.body
            assert body["error"]["type"] == "authentication_error"
            assert body["request_id"] == caught.value.request_id


class TestCounting:
    def test_by_anthropic(self, sdk: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.on(HAIKU, Says(input_tokens=77))
        counted = sdk.messages.count_tokens(
            model="cascade/claude", messages=ASK, system="Be brief.", tools=[TOOL]
        )
        assert counted.input_tokens == 77
        [sent] = upstream.received
        assert sent.path == "/v1/messages/count_tokens"
        assert sent.body == {
            "model": HAIKU,
            "messages": ASK,
            "system": "Be brief.",
            "tools": [TOOL],
        }

    def test_here(self, sdk: anthropic.Anthropic, upstream: Upstream) -> None:
        """As OpenAI counts it, where the vocabulary is public."""
        counted = sdk.messages.count_tokens(model="cheap", messages=ASK).input_tokens
        assert counted == 14
        longer = sdk.messages.count_tokens(model="cheap", messages=ASK, tools=[TOOL])
        assert longer.input_tokens > counted
        assert not upstream.received

    def test_a_document_cannot_be_counted_here(self, sdk: anthropic.Anthropic) -> None:
        source = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
        messages: Any = [{"role": "user", "content": [{"type": "document", "source": source}]}]
        with pytest.raises(anthropic.BadRequestError, match="cannot be bounded"):
            sdk.messages.count_tokens(model="cheap", messages=messages)

    def test_faults(self, sdk: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.on(OPUS, Fails(529))
        with pytest.raises(anthropic.APIStatusError) as caught:
            sdk.messages.count_tokens(model="opus", messages=ASK)
        assert caught.value.status_code == 529
        with pytest.raises(anthropic.NotFoundError):
            sdk.messages.count_tokens(model="cascade/nobody", messages=ASK)


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "told", "kind"),
        [
            (400, 400, "invalid_request_error"),
            (413, 413, "request_too_large"),
            (401, 500, "api_error"),
            (429, 429, "rate_limit_error"),
            (500, 500, "api_error"),
            (504, 504, "timeout_error"),
            (529, 529, "overloaded_error"),
        ],
    )
    def test_of_the_upstream(
        self, sdk: anthropic.Anthropic, upstream: Upstream, status: int, told: int, kind: str
    ) -> None:
        said = '{"type": "error", "error": {"type": "x", "message": "the upstream is unwell"}}'
        upstream.on(OPUS, Fails(status, body=said))
        for more in ({}, {"stream": True}):
            with pytest.raises(anthropic.APIStatusError, match="upstream is unwell") as caught:
                ask(sdk, "opus", **more)
            body: Any = caught.value.body
            assert (caught.value.status_code, body["error"]["type"]) == (told, kind)
            assert body["type"] == "error"
            assert caught.value.request_id == body["request_id"]

    @pytest.mark.parametrize("behaviour", [SaysError(), Resets(after_chunks=1)])
    def test_in_the_middle_of_a_stream(
        self, sdk: anthropic.Anthropic, upstream: Upstream, behaviour: Any
    ) -> None:
        upstream.on(OPUS, behaviour)
        with (
            pytest.raises(anthropic.APIStatusError) as caught,
            sdk.messages.stream(model="opus", max_tokens=9, messages=ASK) as stream,
        ):
            list(stream)
        body: Any = caught.value.body
        assert body["error"]["type"] == "api_error"

    def test_retries(self, daemon: Daemon, upstream: Upstream) -> None:
        """Ours, then the SDK's own, as it is told."""
        upstream.on(OPUS, Fails(529), Fails(529), Says(GOOD))
        with Client(daemon.socket) as client, client.anthropic(max_retries=1) as sdk:
            assert ask(sdk, "opus").content[0].text == GOOD
        assert len(upstream.received) == 3

    def test_a_budget_is_not_asked_again(self, daemon: Daemon, upstream: Upstream) -> None:
        headers = {"X-User-ID": "poor"}
        with (
            Client(daemon.socket) as client,
            client.anthropic(max_retries=3) as sdk,
            pytest.raises(anthropic.RateLimitError) as caught,
        ):
            ask(sdk, "opus", extra_headers=headers)
        assert caught.value.response.headers["x-should-retry"] == "false"
        body: Any = caught.value.body
        assert body["error"]["code"] == "insufficient_quota"
        assert body["error"]["type"] == "rate_limit_error"
        assert {"budget_limit", "current_spend", "reset_time", "scope"} <= body["error"].keys()
        assert not upstream.received

    def test_rates(self, sdk: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.on(OPUS, Says(GOOD))
        headers = {"X-User-ID": "slow"}
        raw = sdk.messages.with_raw_response.create(
            model="opus", max_tokens=9, messages=ASK, extra_headers=headers
        )
        assert raw.headers["anthropic-ratelimit-requests-limit"] == "1"
        assert raw.headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert raw.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        assert "x-ratelimit-limit-requests" not in raw.headers
        with pytest.raises(anthropic.RateLimitError) as caught:
            ask(sdk, "opus", extra_headers=headers)
        assert caught.value.response.headers["retry-after"]

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"messages": []}, "messages"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"model": 5}, "model"),
            ({"messages": [{"role": "user"}]}, "content"),
            ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "text"),
            ({"system": [PICTURE]}, "system"),
            ({"tools": [{"name": "x"}]}, "input_schema"),
        ],
    )
    def test_bad_bodies(
        self, daemon: Daemon, upstream: Upstream, body: dict[str, Any], param: str
    ) -> None:
        with daemon.http() as http:
            asked = {"model": "opus", "max_tokens": 9, "messages": ASK, **body}
            answer = http.post("/v1/messages", json=asked)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
        assert param in error["message"]
        assert not upstream.received

    @pytest.mark.parametrize("raw", [b"", b"[1]", b"{", b"[" * 10_000, b'{"a": "\xff"}'])
    def test_no_json(self, daemon: Daemon, raw: bytes) -> None:
        with daemon.http() as http:
            answer = http.post("/messages", content=raw)
        assert answer.status_code == 400
        assert answer.json()["type"] == "error"

    def test_a_model_that_is_not_there(self, sdk: anthropic.Anthropic) -> None:
        with pytest.raises(anthropic.NotFoundError, match="cascade/claude"):
            ask(sdk, "cascade/claud")

    def test_headers_that_are_no_text(self, daemon: Daemon) -> None:
        with daemon.http() as http:
            headers: Any = {"anthropic-beta": b"\xff"}
            body = {"model": "opus", "max_tokens": 9, "messages": ASK}
            answer = http.post("/v1/messages", json=body, headers=headers)
        assert answer.status_code == 400


HISTORY: Any = [
    {"role": "user", "content": [{"type": "text", "text": "How is it there?"}, PICTURE]},
    {"role": "assistant", "content": [{"type": "text", "text": "I shall look."}, CALL]},
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "toolu_1",
                "content": [{"type": "text", "text": "Sun"}, PICTURE],
            },
            {"type": "text", "text": "And?"},
        ],
    },
]
CHAT_PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


class TestServedByChatCompletions:
    """Anthropic's SDK, and an upstream that speaks OpenAI's."""

    def test_a_conversation(self, sdk: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.on("strong", Says("", tool_calls=[CHAT_CALL], finish_reason="tool_calls"))
        answer = ask(
            sdk,
            "strong",
            system="Be brief.",
            messages=HISTORY,
            tools=[TOOL],
            tool_choice={"type": "any", "disable_parallel_tool_use": True},
            stop_sequences=["END"],
            extra_body={"temperature": 0.5},
            metadata={"user_id": "alice"},
        )
        assert answer.stop_reason == "tool_use"
        [block] = answer.content
        assert block.model_dump(exclude_none=True) == {**CALL, "id": "call_1"}
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (10, 5)
        [sent] = upstream.received
        assert sent.path == "/v1/chat/completions"
        assert "anthropic-version" not in sent.headers
        function = {"name": "weather", "arguments": '{"city":"Paris"}'}
        told = {"type": "text", "text": "What the tool call toolu_1 showed:"}
        and_then = {"type": "text", "text": "And?"}
        assert sent.body == {
            "model": "strong",
            "max_tokens": 64,
            "temperature": 0.5,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "How is it there?"}, CHAT_PICTURE],
                },
                {
                    "role": "assistant",
                    "content": "I shall look.",
                    "tool_calls": [{"id": "toolu_1", "type": "function", "function": function}],
                },
                {"role": "tool", "tool_call_id": "toolu_1", "content": "Sun"},
                {"role": "user", "content": [told, CHAT_PICTURE, and_then]},
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "weather",
                        "parameters": TOOL["input_schema"],
                        "description": TOOL["description"],
                    },
                }
            ],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "stop": ["END"],
            "user": "alice",
        }

    @pytest.mark.parametrize("pieces", [1, 3, len(GOOD)])
    def test_streams(self, sdk: anthropic.Anthropic, upstream: Upstream, pieces: int) -> None:
        upstream.on("strong", Says(GOOD, chunks=pieces, usage_on="own"))
        with sdk.messages.stream(model="strong", max_tokens=64, messages=ASK) as stream:
            heard: list[Any] = list(stream)
            message = stream.get_final_message()
        assert message.content[0].text == GOOD  # type: ignore[union-attr]
        assert message.stop_reason == "end_turn"
        assert (message.usage.input_tokens, message.usage.output_tokens) == (10, 5)
        kinds = [event.type for event in heard if event.type not in ("text",)]
        assert kinds == [
            "message_start",
            "content_block_start",
            *["content_block_delta"] * pieces,
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        assert heard[-2].usage.cost == pytest.approx(0.000075)

    def test_streamed_tool_calls(self, sdk: anthropic.Anthropic, upstream: Upstream) -> None:
        second = {**CHAT_CALL, "id": "call_2"}
        calls = [CHAT_CALL, second]
        upstream.on("strong", Says("", tool_calls=calls, finish_reason="tool_calls"))
        with sdk.messages.stream(model="strong", max_tokens=64, messages=ASK) as stream:
            message = stream.get_final_message()
        assert [block.model_dump(exclude_none=True) for block in message.content] == [
            {**CALL, "id": "call_1"},
            {**CALL, "id": "call_2"},
        ]
        assert message.stop_reason == "tool_use"

    def test_what_cannot_be_said(self, sdk: anthropic.Anthropic, upstream: Upstream) -> None:
        search: Any = {"type": "web_search_20250305", "name": "web_search"}
        with pytest.raises(anthropic.BadRequestError, match=r"tools\[0\] \(web_search") as caught:
            ask(sdk, "strong", tools=[search])
        with pytest.raises(anthropic.BadRequestError, match="top_k cannot be said"):
            ask(sdk, "cascade/mixed", extra_body={"top_k": 4})
        body: Any = caught.value.body
        assert body["error"]["type"] == "invalid_request_error"
        assert not upstream.received

    def test_a_mixed_ladder(self, sdk: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.on("cheap", Says(REFUSAL))
        upstream.on(OPUS, Says(GOOD))
        assert ask(sdk, "cascade/mixed").content[0].text == GOOD
        with sdk.messages.stream(model="cascade/mixed", max_tokens=9, messages=ASK) as stream:
            assert "".join(stream.text_stream) == GOOD
        upstream.on("cheap", Says(GOOD))
        with sdk.messages.stream(model="cascade/mixed", max_tokens=9, messages=ASK) as stream:
            assert "".join(stream.text_stream) == GOOD

    @pytest.mark.parametrize("behaviour", [SaysError(), Resets(after_chunks=1)])
    def test_a_stream_that_breaks(
        self, sdk: anthropic.Anthropic, upstream: Upstream, behaviour: Any
    ) -> None:
        upstream.on("strong", behaviour)
        with pytest.raises(anthropic.APIStatusError):
            list(ask(sdk, "strong", stream=True))


class TestOpenAIServedByAnthropic:
    """OpenAI's SDK, and an upstream that speaks Anthropic's."""

    def test_a_conversation(self, daemon: Daemon, upstream: Upstream) -> None:
        blocks: list[dict[str, Any]] = [THOUGHT, {"type": "text", "text": GOOD}, CALL]
        upstream.on(OPUS, Says(blocks=blocks, finish_reason="tool_calls"))
        picture: Any = {"role": "user", "content": [{"type": "text", "text": "?"}, CHAT_PICTURE]}
        messages: Any = [
            {"role": "system", "content": "Be brief."},
            picture,
            {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "Sun"},
            {"role": "user", "content": "And?"},
        ]
        tool: Any = {"name": "weather", "parameters": TOOL["input_schema"]}
        answer: Any = daemon.sdk().chat.completions.create(
            model="opus",
            messages=messages,
            tools=[{"type": "function", "function": tool}],
            tool_choice="required",
            parallel_tool_calls=False,
            stop="END",
            max_completion_tokens=9,
            user="alice",
        )
        choice = answer.choices[0]
        assert (choice.message.content, choice.finish_reason) == (GOOD, "tool_calls")
        [call] = choice.message.tool_calls
        assert (call.id, json.loads(call.function.arguments)) == ("toolu_1", CALL["input"])
        assert choice.message.reasoning_content == THOUGHT["thinking"]
        assert choice.message.thinking_blocks == [THOUGHT]
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 5)
        assert answer.created > 1_700_000_000
        [sent] = upstream.received
        assert sent.path == "/v1/messages"
        assert sent.headers["anthropic-version"] == "2023-06-01"
        assert sent.body == {
            "model": OPUS,
            "max_tokens": 9,
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "?"}, PICTURE]},
                {"role": "assistant", "content": [{**CALL, "id": "call_1"}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "call_1", "content": "Sun"},
                        {"type": "text", "text": "And?"},
                    ],
                },
            ],
            "tools": [{"name": "weather", "input_schema": TOOL["input_schema"]}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
            "stop_sequences": ["END"],
            "metadata": {"user_id": "alice"},
        }

    @pytest.mark.parametrize("pieces", [1, 3])
    def test_streams(self, daemon: Daemon, upstream: Upstream, pieces: int) -> None:
        blocks: list[dict[str, Any]] = [
            THOUGHT,
            {"type": "text", "text": GOOD},
            CALL,
            {**CALL, "id": "toolu_2"},
        ]
        upstream.on(OPUS, Says(chunks=pieces, blocks=blocks, finish_reason="tool_calls"))
        chunks: list[Any] = list(
            daemon.sdk().chat.completions.create(
                model="opus",
                messages=ASK,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        *words, last = chunks
        deltas = [chunk.choices[0].delta for chunk in words]
        assert deltas[0].role == "assistant"
        assert "".join(delta.content or "" for delta in deltas) == GOOD
        thoughts = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
        assert thoughts == THOUGHT["thinking"]
        calls = [call for delta in deltas for call in delta.tool_calls or ()]
        assert [call.id for call in calls if call.id] == ["toolu_1", "toolu_2"]
        for index in (0, 1):
            said = [call.function.arguments for call in calls if call.index == index]
            assert json.loads("".join(said)) == CALL["input"]
        assert words[-1].choices[0].finish_reason == "tool_calls"
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (10, 5)
        assert last.usage.cost == pytest.approx(0.000175)

    @pytest.mark.parametrize(
        ("more", "param"),
        [
            ({"n": 2}, "n"),
            ({"logit_bias": {"5": 1}}, "logit_bias"),
            ({"temperature": 1.5}, "temperature"),
            ({"response_format": {"type": "json_object"}}, "response_format (json_object)"),
        ],
    )
    def test_what_cannot_be_said(
        self, daemon: Daemon, upstream: Upstream, more: dict[str, Any], param: str
    ) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            daemon.sdk().chat.completions.create(model="opus", messages=ASK, **more)
        assert caught.value.param == param
        assert not upstream.received

    def test_our_own_dialect(self, daemon: Daemon, upstream: Upstream) -> None:
        upstream.on(OPUS, Says(GOOD))
        with Client(daemon.socket) as client:
            assert client.run("What is the capital of France?", model="opus").content == GOOD
