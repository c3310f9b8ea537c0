"""OpenAI's official SDK with its Responses, unchanged, over the socket and TCP, served by upstreams
of every form."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from pydantic import BaseModel

from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.types.errors import StoreFullError
from tests.integration.test_anthropic_sdk import BOTH, KEY
from tests.support.daemon import Daemon, daemon_with
from tests.support.upstream import Fails, Resets, Says, SaysError, Upstream

THREE = BOTH.replace(
    "[ladders.default]",
    """
[providers.oai]
kind = "openai_compatible"
api = "responses"
base_url = "{url}/v1"
api_key = "env:FAKE_KEY"
max_retries = 1
backoff_s = 0.01
breaker_failures = 0
total_timeout_s = 1.5

[models.mini]
provider = "oai"
upstream_name = "gpt-5-mini"
input_usd_per_mtok = "0.25"
output_usd_per_mtok = "2"
cache_read_usd_per_mtok = "0.025"

[models.old]
provider = "oai"
api = "chat"
upstream_name = "gpt-4o"
input_usd_per_mtok = "2.50"
output_usd_per_mtok = "10"
capabilities = []

[models.big]
provider = "oai"
upstream_name = "gpt-5"
input_usd_per_mtok = "1.25"
output_usd_per_mtok = "10"
capabilities = ["reasoning", "tools"]

[ladders.oai]
rungs = ["mini", "big"]
threshold = 0.6

[ladders.three]
rungs = ["cheap", "opus", "big"]
threshold = 0.6

[ladders.default]""",
    1,
)
QUESTION = "What is the capital of France?"
GOOD = "The capital of France is Paris."
REFUSAL = "I'm sorry, but I can't help with that."
MINI, BIG, OPUS = "gpt-5-mini", "gpt-5", "claude-opus-4-7"
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
CALL: Any = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "weather",
    "arguments": '{"city": "Paris"}',
    "status": "completed",
}
CHAT_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
}
TOOL_USE = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Paris"}}
THOUGHT: Any = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "France:"}],
    "encrypted_content": "c2VhbGVk",
}
SIGNED = {"type": "thinking", "thinking": "France: Paris.", "signature": "c2ln"}
PICTURE = "data:image/png;base64,aGk="
ROUTES = {"strong": "strong", "opus": OPUS, "mini": MINI}
"""Models of each form, and what they are called upstream."""


@pytest.fixture(scope="module")
def _daemon(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(THREE, url=_upstream.url, APP_KEY=KEY) as daemon:
        yield daemon


@pytest.fixture
def sdk(daemon: Daemon) -> openai.OpenAI:
    return daemon.sdk()


def ask(sdk: openai.OpenAI, model: str = "mini", **more: Any) -> Any:
    return sdk.responses.create(**{"model": model, "input": QUESTION, **more})


def streamed(sdk: openai.OpenAI, model: str, **more: Any) -> list[Any]:
    return list(ask(sdk, model, stream=True, **more))


class TestServedByResponses:
    def test_a_good_draft_is_kept(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        upstream.on(MINI, Says(GOOD))
        raw = sdk.responses.with_raw_response.create(model="cascade/oai", input=QUESTION)
        answer = raw.parse()
        assert answer.output_text == GOOD
        assert answer.id == "resp_upstream_1"
        assert answer.unknown_to_us == "r_1"  # type: ignore[attr-defined]
        assert raw.headers["x-cascaded-model"] == "mini"
        assert raw.headers["x-cascaded-cost"] == "0.0000125"
        assert not upstream.calls(BIG)
        [sent] = upstream.received
        assert sent.path == "/v1/responses"
        assert sent.headers["Authorization"] == "Bearer sk-upstream-secret"

    def test_a_bad_draft_escalates(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        upstream.on(MINI, Says(REFUSAL))
        upstream.on(BIG, Says(GOOD))
        assert ask(sdk, "cascade/oai").output_text == GOOD
        with sdk.responses.stream(model="cascade/oai", input=QUESTION) as stream:
            words = [event.delta for event in stream if event.type == "response.output_text.delta"]
            assert "".join(words) == GOOD, "nothing of the draft reaches the caller"
            assert stream.get_final_response().output_text == GOOD

    def test_the_body_goes_up_as_it_came(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        items = [
            {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
            THOUGHT,
            CALL,
            {"type": "function_call_output", "call_id": "call_1", "output": "Sun"},
        ]
        body = {"reasoning": {"effort": "low"}, "tools": [{"type": "web_search"}, TOOL]}
        ask(sdk, input=items, extra_body={**body, "future": {"a": [1, 2.50]}})
        [sent] = upstream.received
        assert sent.body["input"] == items
        assert {name: sent.body[name] for name in body} == body
        assert b'"future":{"a":[1,2.5]}' in sent.raw
        assert sent.body["store"] is False, "nothing is kept upstream"

    def test_who_thinks_tells_it_sealed(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        """Nothing is kept upstream, so that thoughts must come back with the caller."""
        upstream.on(BIG, Says(GOOD))
        ask(sdk, "big", include=["web_search_call.action.sources"])
        [sent] = upstream.received
        assert sent.body["include"] == [
            "web_search_call.action.sources",
            "reasoning.encrypted_content",
        ]

    def test_events_pass_as_they_are(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        upstream.on(MINI, Says(items=[THOUGHT, CALL], output_tokens=7))
        told = streamed(sdk, "mini")
        assert [event.sequence_number for event in told] == list(range(len(told)))
        assert told[0].response.id == told[-1].response.id == "resp_upstream_1"
        end = told[-1].response
        assert end.output[1].arguments == CALL["arguments"]
        assert (end.usage.output_tokens, end.usage.cost) == (7, 0.0000165)
        assert end.usage.cost_details["model_used"] == "mini"

    def test_one_that_is_cut(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        upstream.on(MINI, Says("The capi", status="incomplete"))
        assert ask(sdk, max_output_tokens=4).incomplete_details.reason == "max_output_tokens"
        assert upstream.received[-1].body["max_output_tokens"] == 4
        assert streamed(sdk, "mini")[-1].type == "response.incomplete"

    def test_a_model_may_be_asked_otherwise(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        upstream.on("gpt-4o", Says(GOOD))
        assert ask(sdk, "old", reasoning={"effort": "low"}).output_text == GOOD
        [sent] = upstream.received
        assert sent.path == "/v1/chat/completions"
        assert "reasoning_effort" not in sent.body, "who does not think is not told how hard to"


@pytest.mark.parametrize("model", ROUTES)
class TestServedByAnybody:
    def test_words(self, sdk: openai.OpenAI, upstream: Upstream, model: str) -> None:
        upstream.on(ROUTES[model], Says(GOOD, input_tokens=12, output_tokens=7))
        answer = ask(sdk, model, instructions="Be brief.", metadata={"a": "b"}, temperature=0.5)
        assert answer.output_text == GOOD
        assert answer.status == "completed"
        usage = answer.usage
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (12, 7, 19)
        with sdk.responses.stream(model=model, input=QUESTION) as stream:
            events = list(stream)
        assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == GOOD
        assert stream.get_final_response().output_text == GOOD
        assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
        assert events[-1].type == "response.completed"
        assert events[-1].response.usage.cost_details["model_used"] == model  # type: ignore

    def test_the_loop_of_tools(self, sdk: openai.OpenAI, upstream: Upstream, model: str) -> None:
        call = Says(
            tool_calls=[CHAT_CALL],
            blocks=[SIGNED, TOOL_USE],
            items=[THOUGHT, CALL],
            finish_reason="tool_calls",
        )
        upstream.on(ROUTES[model], call, call, Says(GOOD))
        told = streamed(sdk, model, tools=[TOOL])
        items: Any = [{"role": "user", "content": QUESTION}]
        for answer in (ask(sdk, model, tools=[TOOL]), told[-1].response):
            [asked] = [item for item in answer.output if item.type == "function_call"]
            assert (asked.name, asked.call_id) == ("weather", "call_1")
            assert json.loads(asked.arguments) == {"city": "Paris"}
            again = [one.model_dump(exclude_unset=True) for one in answer.output]
        result = {"type": "function_call_output", "call_id": "call_1", "output": "Sun"}
        picture = {"type": "input_image", "image_url": PICTURE, "detail": "low"}
        look = {"role": "user", "content": [{"type": "input_text", "text": "So?"}, picture]}
        assert ask(sdk, model, input=[*items, *again, result, look], tools=[TOOL]).output_text
        sent = upstream.received[-1].body
        match model:
            case "mini":
                assert sent["input"][1]["encrypted_content"] == THOUGHT["encrypted_content"]
                assert sent["input"][2]["call_id"] == "call_1"
            case "strong":
                _, called, said, shown = sent["messages"]
                arguments = called["tool_calls"][0]["function"]["arguments"]
                assert json.loads(arguments) == {"city": "Paris"}
                assert (said["role"], said["tool_call_id"], said["content"]) == (
                    "tool",
                    "call_1",
                    "Sun",
                )
                assert shown["content"][1]["image_url"] == {"url": PICTURE, "detail": "low"}
            case _:
                _, called, said = sent["messages"]
                assert called["content"] == [SIGNED, TOOL_USE], "what Claude signed comes back"
                assert said["content"][0]["tool_use_id"] == "call_1"
                assert said["content"][2]["source"]["data"] == "aGk="

    def test_a_structured_answer(self, sdk: openai.OpenAI, upstream: Upstream, model: str) -> None:
        class City(BaseModel):
            name: str

        upstream.on(ROUTES[model], Says('{"name": "Paris"}'))
        answer = sdk.responses.parse(model=model, input=QUESTION, text_format=City)
        assert answer.output_parsed == City(name="Paris")
        sent = upstream.received[-1].body
        schema = {
            "mini": lambda: sent["text"]["format"]["schema"],
            "strong": lambda: sent["response_format"]["json_schema"]["schema"],
            "opus": lambda: sent["output_config"]["format"]["schema"],
        }[model]()
        assert schema["properties"]["name"]["type"] == "string"

    def test_an_error_is_an_exception(
        self, sdk: openai.OpenAI, upstream: Upstream, model: str
    ) -> None:
        upstream.on(ROUTES[model], Fails(400, body='{"error": {"message": "no such thing"}}'))
        with pytest.raises(openai.BadRequestError, match="no such thing"):
            ask(sdk, model)
        upstream.on(ROUTES[model], Fails(500))
        with pytest.raises(openai.InternalServerError):
            streamed(sdk, model)

    @pytest.mark.parametrize("fault", [SaysError(), Resets(after_chunks=1)], ids=["error", "reset"])
    def test_a_stream_that_breaks_off(
        self, sdk: openai.OpenAI, daemon: Daemon, upstream: Upstream, model: str, fault: Any
    ) -> None:
        upstream.on(ROUTES[model], fault)
        heard: list[Any] = []
        with pytest.raises(openai.APIError):
            heard.extend(ask(sdk, model, stream=True))
        with (
            daemon.http() as http,
            http.stream(
                "POST", "/responses", json={"model": model, "input": QUESTION, "stream": True}
            ) as raw,
        ):
            events = [json.loads(line[6:]) for line in raw.iter_lines() if line.startswith("data:")]
        assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        failed = events[-1]["response"]
        assert (failed["status"], failed["id"]) == ("failed", events[0]["response"]["id"])

    def test_the_sdk_tries_again(self, daemon: Daemon, upstream: Upstream, model: str) -> None:
        upstream.on(ROUTES[model], Fails(503, headers={"retry-after": "60"}), Says(GOOD))
        with pytest.raises(openai.InternalServerError):
            ask(daemon.sdk(), model)
        upstream.on(ROUTES[model], Fails(503), Fails(503), Says(GOOD))
        assert ask(daemon.sdk(max_retries=1), model).output_text == GOOD

    async def test_asynchronously(self, daemon: Daemon, upstream: Upstream, model: str) -> None:
        upstream.on(ROUTES[model], Says(GOOD))
        async with daemon.async_sdk() as sdk:
            answer = await sdk.responses.create(model=model, input=QUESTION)
            assert answer.output_text == GOOD
            words = [
                event.delta
                async for event in await sdk.responses.create(
                    model=model, input=QUESTION, stream=True
                )
                if event.type == "response.output_text.delta"
            ]
        assert "".join(words) == GOOD


class TestBetweenForms:
    def test_a_ladder_of_three_forms(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        """A draft in chat completions, one in Messages, the answer in Responses."""
        upstream.on("cheap", Says(REFUSAL))
        upstream.on(OPUS, Says(REFUSAL))
        upstream.on(BIG, Says(GOOD))
        assert ask(sdk, "cascade/three", max_output_tokens=50).output_text == GOOD
        paths = [one.path for one in upstream.received]
        assert paths == ["/v1/chat/completions", "/v1/messages", "/v1/responses"]
        bounds = ("max_tokens", "max_completion_tokens", "max_output_tokens")
        asked = [
            [one.body[name] for name in bounds if name in one.body] for one in upstream.received
        ]
        assert asked == [[50]] * 3

    @pytest.mark.parametrize("stream", [False, True])
    def test_chat_completions_of_it(
        self, sdk: openai.OpenAI, upstream: Upstream, stream: bool
    ) -> None:
        upstream.on(MINI, Says(items=[THOUGHT, CALL]), Says(GOOD))
        messages: Any = [{"role": "user", "content": QUESTION}]
        tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
        asked: Any = {"model": "mini", "messages": messages, "tools": tools, "stop": None}
        if stream:
            with sdk.chat.completions.stream(**asked) as chunks:
                message = chunks.get_final_completion().choices[0].message
        else:
            message = sdk.chat.completions.create(**asked).choices[0].message
        assert message.tool_calls[0].function.arguments == CALL["arguments"]  # type: ignore
        said = message.model_dump(exclude_unset=True, exclude={"parsed"})
        assert said["reasoning_content"] == "France:"
        assert said["reasoning_items"] == [THOUGHT]
        for call in said["tool_calls"]:
            call["function"].pop("parsed_arguments", None)
        result: Any = {"role": "tool", "tool_call_id": "call_1", "content": "Sun"}
        asked["messages"] = [*messages, said, result]
        answer = sdk.chat.completions.create(**asked)
        assert answer.choices[0].message.content == GOOD
        _, thought, called, output = upstream.received[-1].body["input"]
        assert thought == THOUGHT
        assert (called["call_id"], output["output"]) == ("call_1", "Sun")

    def test_messages_of_it(self, daemon: Daemon, upstream: Upstream) -> None:
        upstream.on(MINI, Says(items=[THOUGHT, CALL]), Says(items=[THOUGHT, CALL]))
        body: Any = {"model": "mini", "max_tokens": 64, "tools": [], "messages": []}
        body["messages"].append({"role": "user", "content": QUESTION})
        body["tools"].append({"name": "weather", "input_schema": {"type": "object"}})
        with daemon.http() as http:
            told = http.post("/messages", json=body).json()
            assert [block["type"] for block in told["content"]] == ["thinking", "tool_use"]
            assert told["content"][1]["input"] == {"city": "Paris"}
            assert told["stop_reason"] == "tool_use"
            lines = http.post("/messages", json={**body, "stream": True}).text.splitlines()
        events = [json.loads(line[6:]) for line in lines if line.startswith("data:")]
        given = "".join(one["delta"].get("partial_json", "") for one in events if "delta" in one)
        assert json.loads(given) == {"city": "Paris"}

    @pytest.mark.parametrize(
        ("body", "named"),
        [
            ({"tools": [{"type": "web_search"}]}, "tools[0] (web_search)"),
            ({"truncation": "auto"}, "truncation"),
            ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0] (item_reference)"),
            ({"background": True}, "background"),
            ({"conversation": "conv_1"}, "conversation"),
            ({"future": 1}, "future"),
        ],
    )
    def test_what_cannot_be_said_is_refused_by_name(
        self, sdk: openai.OpenAI, upstream: Upstream, body: Any, named: str
    ) -> None:
        with pytest.raises(openai.BadRequestError) as refused:
            ask(sdk, "strong", extra_body=body)
        assert refused.value.param == named
        assert not upstream.received

    def test_chat_completions_that_cannot_be_said(
        self, sdk: openai.OpenAI, upstream: Upstream
    ) -> None:
        messages: Any = [{"role": "user", "content": QUESTION}]
        for member in ({"n": 2}, {"stop": ["x"]}, {"logit_bias": {"1": 1}}):
            with pytest.raises(openai.BadRequestError) as refused:
                sdk.chat.completions.create(model="mini", messages=messages, **member)
            assert refused.value.param == next(iter(member))
        assert not upstream.received


class TestMoney:
    def test_budgets_hold(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        with pytest.raises(openai.RateLimitError) as refused:
            ask(sdk, extra_headers={"X-User-ID": "poor"})
        assert refused.value.code == "insufficient_quota"
        assert not upstream.received

    def test_classes_have_their_prices(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        details = {"input_tokens_details": {"cached_tokens": 800}}
        upstream.on(MINI, Says(GOOD, input_tokens=1000, output_tokens=10, extra_usage=details))
        raw = sdk.responses.with_raw_response.create(model="mini", input=QUESTION)
        # 200 x 0.25 + 800 x 0.025 + 10 x 2 USD per million
        assert raw.headers["x-cascaded-cost"] == "0.00009"

    def test_tools_of_openai_need_a_soft_budget(
        self, sdk: openai.OpenAI, upstream: Upstream
    ) -> None:
        """Nobody can bound what a search feeds the model."""
        upstream.on(MINI, Says(GOOD))
        tools: Any = [{"type": "web_search"}]
        raw = sdk.responses.with_raw_response.create(model="mini", input=QUESTION, tools=tools)
        assert "tools[0] (web_search)" in raw.headers["x-cascaded-notice"]


class TestKept:
    def test_one_goes_on_from_another(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        upstream.on("strong", Says("I am Bob."), Says("Bob."), Says("Still Bob."))
        first = ask(sdk, "strong", input="Who are you?", store=True)
        assert first.store
        second = ask(sdk, "strong", input="Who?", previous_response_id=first.id, store=True)
        assert second.previous_response_id == first.id
        third = streamed(sdk, "strong", input="And now?", previous_response_id=second.id)
        assert third[-1].response.output_text == "Still Bob."
        said = [one["content"] for one in upstream.received[-1].body["messages"]]
        assert said == ["Who are you?", "I am Bob.", "Who?", "Bob.", "And now?"]

    @pytest.mark.parametrize("model", ROUTES)
    @pytest.mark.parametrize("stream", [False, True])
    def test_it_is_there_again(
        self, sdk: openai.OpenAI, upstream: Upstream, model: str, stream: bool
    ) -> None:
        upstream.on(ROUTES[model], Says(GOOD))
        if stream:
            told = streamed(sdk, model, store=True)
            assert len({one.response.id for one in (told[0], told[1], told[-1])}) == 1
            made = told[-1].response
        else:
            made = ask(sdk, model, store=True)
        assert made.id.startswith("resp_")
        assert made.id != "resp_upstream_1", "its own id, so that nobody's is guessed"
        again = sdk.responses.retrieve(made.id)
        assert again == made
        page = sdk.responses.input_items.list(made.id)
        assert page.data[0].content[0].text == QUESTION  # type: ignore
        assert upstream.received[-1].body.get("store") in (None, False)
        with pytest.raises(openai.BadRequestError, match="ended"):
            sdk.responses.cancel(made.id)
        sdk.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(made.id)

    def test_a_prompt_is_counted(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        """As what it costs, with all that it goes on from."""
        upstream.on("strong", Says(GOOD))
        first = ask(sdk, "strong", store=True)
        alone = sdk.responses.input_tokens.count(model="strong", input=QUESTION)
        thread: Any = {"model": "strong", "input": QUESTION, "previous_response_id": first.id}
        together = sdk.responses.input_tokens.count(**thread)
        assert alone.object == "response.input_tokens"
        assert alone.input_tokens < together.input_tokens
        assert sdk.responses.input_tokens.count(model="opus", input=QUESTION).input_tokens
        with pytest.raises(openai.NotFoundError):
            sdk.responses.input_tokens.count(model="cascade/none", input=QUESTION)
        with pytest.raises(openai.BadRequestError):
            sdk.responses.input_tokens.count(model="strong", previous_response_id="resp_none")
        assert len(upstream.received) == 1, "nobody is asked"

    def test_items_come_in_pages(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        upstream.on("strong", Says(GOOD))
        items: Any = [{"role": "user", "content": str(number)} for number in range(5)]
        made = ask(sdk, "strong", input=items, store=True)

        def texts(**query: Any) -> list[str]:
            listed = sdk.responses.input_items.list(made.id, **query)
            return [one.content[0].text for one in listed]  # type: ignore

        assert texts(limit=2) == ["4", "3", "2", "1", "0"]
        assert texts(limit=2, order="asc") == ["0", "1", "2", "3", "4"]
        for query in ({"limit": 0}, {"after": "msg_none"}, {"order": "x"}):
            with pytest.raises(openai.BadRequestError):
                texts(**query)

    def test_nobody_else_has_it(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        upstream.on("strong", Says(GOOD))
        alice: Any = {"X-User-ID": "alice"}
        made = ask(sdk, "strong", store=True, extra_headers=alice)
        assert sdk.responses.retrieve(made.id, extra_headers=alice).id == made.id
        for headers in ({}, {"X-User-ID": "bob"}, {"X-Organization-ID": "acme"}):
            with pytest.raises(openai.NotFoundError):
                sdk.responses.retrieve(made.id, extra_headers=headers)
            with pytest.raises(openai.BadRequestError) as refused:
                ask(sdk, "strong", previous_response_id=made.id, extra_headers=headers)
            assert refused.value.code == "previous_response_not_found"
            assert refused.value.param == "previous_response_id"
        with pytest.raises(openai.NotFoundError):
            sdk.responses.delete(made.id)
        assert len(upstream.received) == 1

    def test_what_nobody_asked_to_keep_is_not(self, sdk: openai.OpenAI, upstream: Upstream) -> None:
        upstream.on("strong", Says(GOOD))
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(ask(sdk, "strong").id)

    def test_thoughts_of_another_form_do_not_go_up(
        self, sdk: openai.OpenAI, upstream: Upstream
    ) -> None:
        """What Claude thought nobody at OpenAI can read."""
        upstream.on(OPUS, Says(blocks=[SIGNED, {"type": "text", "text": GOOD}]))
        first = ask(sdk, "opus", store=True)
        assert [item.type for item in first.output] == ["reasoning", "message"]
        assert first.output[0].content[0].text == SIGNED["thinking"]
        ask(sdk, "mini", input="Sure?", previous_response_id=first.id)
        roles = [item["role"] for item in upstream.received[-1].body["input"]]
        assert roles == ["user", "assistant", "user"]


def test_over_tcp(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD))
    [ready] = [line for line in daemon.log_lines().splitlines() if '"ready"' in line]
    address = json.loads(ready)["tcp"]
    with httpx2.Client() as http:
        sdk = openai.OpenAI(api_key=KEY, base_url=f"http://{address}/v1", http_client=http)
        assert ask(sdk, "strong").output_text == GOOD


KEEPING = (
    THREE.replace(
        "[models.opus]",
        '[models.safe]\nprovider = "fake"\nupstream_name = "strong"\nfallback = ["opus"]\n'
        'input_usd_per_mtok = "1"\noutput_usd_per_mtok = "1"\n\n[models.opus]',
        1,
    )
    + "[responses]\n"
)


class TestSettings:
    """What the operator says of keeping."""

    def test_never(self, upstream: Upstream) -> None:
        text = KEEPING + 'keep = "never"\n'
        with daemon_with(text, url=upstream.url, APP_KEY=KEY) as daemon:
            with pytest.raises(openai.BadRequestError) as refused:
                ask(daemon.sdk(), "strong", store=True)
            assert refused.value.param == "store"
            assert ask(daemon.sdk(), "strong", store=False).output_text
            assert not (daemon.folder / "state" / "responses").exists()

    def test_always_over_a_restart_and_a_reload(self, upstream: Upstream, tmp_path: Path) -> None:
        upstream.on("strong", Says(GOOD))
        text = KEEPING.replace("{folder}/state", f"{tmp_path}/state") + 'keep = "always"\n'
        with daemon_with(text, url=upstream.url, APP_KEY=KEY) as daemon:
            made = ask(daemon.sdk(), "strong")
            assert not ask(daemon.sdk(), "strong", store=False).store
        with daemon_with(text, url=upstream.url, APP_KEY=KEY) as daemon:
            assert daemon.sdk().responses.retrieve(made.id) == made
            daemon.toml = daemon.toml.replace('"always"', '"asked"\nttl_s = 1')
            assert daemon.reload().status_code == 200
            assert not ask(daemon.sdk(), "strong").store
            time.sleep(1)
            with pytest.raises(openai.NotFoundError):
                daemon.sdk().responses.retrieve(made.id)
            daemon.toml += "max_bytes = 1048576\n"
            assert "responses.max_bytes" in daemon.reload().text, "it holds until a restart"

    @pytest.mark.parametrize("model", ["strong", "mini"])
    @pytest.mark.parametrize("stream", [False, True])
    def test_what_is_too_long_is_given_and_says_so(
        self, upstream: Upstream, model: str, stream: bool
    ) -> None:
        upstream.on(ROUTES[model], Says("long " * 500))
        text = KEEPING + "max_entry_bytes = 2048\n"
        with daemon_with(text, url=upstream.url, APP_KEY=KEY) as daemon:
            sdk = daemon.sdk()
            if stream:
                made = streamed(sdk, model, store=True)[-1].response
            else:
                made = ask(sdk, model, store=True)
            assert made.output_text == "long " * 500
            assert made.store is False
            with pytest.raises(openai.NotFoundError):
                sdk.responses.retrieve(made.id)

    def test_a_disk_that_says_no(self, upstream: Upstream, monkeypatch: Any) -> None:
        upstream.on("strong", Says(GOOD))
        with daemon_with(KEEPING, url=upstream.url, APP_KEY=KEY) as daemon:
            sdk = daemon.sdk()
            made = ask(sdk, "strong", store=True)

            def refuse(*_: object, **__: object) -> None:
                raise StoreFullError("the disk is full")

            for name in ("put_many", "get_many", "scan"):
                monkeypatch.setattr(LmdbStore, name, refuse)
            given = ask(sdk, "strong", store=True)
            assert (given.output_text, given.store) == (GOOD, False)
            for call in (
                sdk.responses.retrieve,
                sdk.responses.delete,
                sdk.responses.input_items.list,
            ):
                with pytest.raises(openai.InternalServerError, match="full"):
                    call(made.id)
            with pytest.raises(openai.InternalServerError, match="full"):
                ask(sdk, "strong", previous_response_id=made.id)
            monkeypatch.undo()
            assert sdk.responses.retrieve(made.id) == made
            assert '"fault"' in daemon.log_lines()

    def test_somebody_who_may_not_is_told(self, upstream: Upstream) -> None:
        with daemon_with(KEEPING, url=upstream.url, APP_KEY=KEY) as daemon, daemon.http() as http:
            assert http.get("/responses/resp_x", params={"stream": "true"}).status_code == 400
            wrong = {"X-User-ID": "x", "X-User-Tier": "no-such-tier"}
            for answer in (
                http.get("/responses/resp_x", headers=wrong),
                http.delete("/responses/resp_x", headers=wrong),
                http.get("/responses/resp_x/input_items", headers=wrong),
                http.post("/responses/resp_x/cancel", headers=wrong),
                http.post(
                    "/responses",
                    headers=wrong,
                    json={"model": "strong", "input": "x", "store": True},
                ),
            ):
                assert answer.status_code in (400, 403, 404)

    def test_a_fallback_that_cannot_be_asked_is_left_out(self, upstream: Upstream) -> None:
        upstream.on("strong", Fails(500))
        with daemon_with(KEEPING, url=upstream.url, APP_KEY=KEY) as daemon:
            upstream.on(OPUS, Says(GOOD))
            assert ask(daemon.sdk(), "safe").output_text == GOOD
            with pytest.raises(openai.InternalServerError):
                ask(daemon.sdk(), "safe", temperature=1.5)
        assert len(upstream.calls(OPUS)) == 1
