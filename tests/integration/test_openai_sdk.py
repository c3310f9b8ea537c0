"""The official SDK, unchanged, over the socket."""

import json
from typing import Any

import openai
import pydantic
import pytest

from tests.support.daemon import Daemon
from tests.support.upstream import Fails, Resets, Says, Upstream

ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
GOOD = "The capital of France is Paris."
REFUSAL = "I'm sorry, but I can't help with that."
TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
}


def test_a_good_draft_is_kept(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD))
    raw = daemon.sdk().chat.completions.with_raw_response.create(model="auto", messages=ASK)
    answer = raw.parse()
    assert answer.choices[0].message.content == GOOD
    assert answer.system_fingerprint == "fp_unknown_to_us"
    assert raw.headers["x-cascaded-model"] == "cheap"
    assert raw.headers["x-cascaded-draft-accepted"] == "true"
    assert raw.headers["x-cascaded-cost"] == "0.0000045"
    assert raw.headers["x-cascaded-cost-saved"] == "0.0000705"
    assert float(raw.headers["x-cascaded-overhead-ms"]) > 0
    assert raw.headers["x-request-id"]
    assert not upstream.calls("strong")


def test_a_bad_draft_escalates(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(REFUSAL))
    upstream.on("strong", Says(GOOD))
    raw = daemon.sdk().chat.completions.with_raw_response.create(model="auto", messages=ASK)
    assert raw.parse().choices[0].message.content == GOOD
    assert raw.headers["x-cascaded-model"] == "strong"
    assert raw.headers["x-cascaded-draft-accepted"] == "false"
    assert raw.headers["x-cascaded-cost-saved"] == "-0.0000045"


@pytest.mark.parametrize("model", ["auto", "cascade/default"])
def test_ladders_by_name(daemon: Daemon, upstream: Upstream, model: str) -> None:
    upstream.on("cheap", Says(GOOD))
    answer = daemon.sdk().chat.completions.create(model=model, messages=ASK)
    assert answer.choices[0].message.content == GOOD


def test_a_real_model_is_used_as_asked(daemon: Daemon, upstream: Upstream) -> None:
    """Not second-guessed, and the body goes up as it came, unknown members included."""
    upstream.on("strong", Says(REFUSAL))
    answer = daemon.sdk().chat.completions.create(
        model="strong",
        messages=ASK,
        max_tokens=7,
        temperature=0.25,
        seed=12345678901234567890123,
        extra_body={"future_option": {"a": [1, 2.50]}},
    )
    assert answer.choices[0].message.content == REFUSAL
    sent = upstream.calls("strong")[0]
    assert sent.body["future_option"] == {"a": [1, 2.5]}
    assert sent.body["seed"] == 12345678901234567890123
    assert (sent.body["max_tokens"], sent.body["temperature"]) == (7, 0.25)
    assert b"2.50" in sent.raw or b"2.5" in sent.raw
    assert "logprobs" not in sent.body


def test_the_callers_key_stays_here(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD))
    daemon.sdk().chat.completions.create(model="auto", messages=ASK)
    sent = upstream.calls("cheap")[0]
    assert sent.headers["Authorization"] == "Bearer sk-upstream-secret"
    assert "sk-caller" not in str(sent.headers)


async def test_async(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD))
    async with daemon.async_sdk() as client:
        answer = await client.chat.completions.create(model="auto", messages=ASK)
        assert answer.choices[0].message.content == GOOD
        stream = await client.chat.completions.create(model="auto", messages=ASK, stream=True)
        text = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(text) == GOOD


@pytest.mark.parametrize("pieces", [1, 2, 5, len(GOOD)])
def test_streams(daemon: Daemon, upstream: Upstream, pieces: int) -> None:
    upstream.on("strong", Says(GOOD, chunks=pieces))
    stream = daemon.sdk().chat.completions.create(model="strong", messages=ASK, stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == GOOD
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)
    assert upstream.calls("strong")[0].body["stream_options"] == {"include_usage": True}


def test_include_usage(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(REFUSAL))
    upstream.on("strong", Says(GOOD, input_tokens=20, output_tokens=8))
    stream = daemon.sdk().chat.completions.create(
        model="auto", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    *words, last = list(stream)
    assert all(chunk.choices for chunk in words)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (20, 8)
    told: Any = last.usage
    assert told.cost == pytest.approx(0.0001345)
    assert told.cost_details["model_used"] == "strong"


@pytest.mark.parametrize("where", ["last", "none"])
def test_usage_elsewhere_is_not_shown(daemon: Daemon, upstream: Upstream, where: str) -> None:
    before = daemon.spend["posted"]
    upstream.on("strong", Says(GOOD, usage_on=where))
    stream = daemon.sdk().chat.completions.create(model="strong", messages=ASK, stream=True)
    assert all(chunk.usage is None for chunk in stream)
    assert daemon.spend["posted"] > before, "a call without usage is counted here, not free"


@pytest.mark.parametrize("where", ["own", "last", "every", "none"])
def test_asked_for_usage_comes_once_at_the_end(
    daemon: Daemon, upstream: Upstream, where: str
) -> None:
    upstream.on("strong", Says(GOOD, usage_on=where))
    stream = daemon.sdk().chat.completions.create(
        model="strong", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    *words, last = list(stream)
    assert all(chunk.usage is None for chunk in words)
    told: Any = last.usage
    assert (last.choices, told.cost > 0) == ([], True)
    if where != "none":
        assert (told.prompt_tokens, told.completion_tokens) == (10, 5)


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_pass_through(daemon: Daemon, upstream: Upstream, stream: bool) -> None:
    upstream.on("cheap", Says("", tool_calls=[CALL], finish_reason="tool_calls"))
    client = daemon.sdk()
    if stream:
        got: dict[str, str] = {"name": "", "arguments": ""}
        for chunk in client.chat.completions.create(
            model="auto", messages=ASK, tools=[TOOL], stream=True
        ):
            for delta in chunk.choices[0].delta.tool_calls or []:
                assert delta.function is not None
                got["name"] += delta.function.name or ""
                got["arguments"] += delta.function.arguments or ""
    else:
        answer = client.chat.completions.create(model="auto", messages=ASK, tools=[TOOL])
        call: Any = (answer.choices[0].message.tool_calls or [])[0]
        got = {"name": call.function.name, "arguments": call.function.arguments}
    assert got == {"name": "weather", "arguments": '{"city": "Paris"}'}
    assert upstream.calls("cheap")[0].body["tools"] == [TOOL]
    assert not upstream.calls("strong")


def test_json_schema_passes_through_and_is_checked(daemon: Daemon, upstream: Upstream) -> None:
    schema: Any = {
        "type": "json_schema",
        "json_schema": {
            "name": "city",
            "schema": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    upstream.on("cheap", Says("Paris, of course"))
    upstream.on("strong", Says('{"city": "Paris"}'))
    answer = daemon.sdk().chat.completions.create(
        model="auto", messages=ASK, response_format=schema
    )
    assert json.loads(answer.choices[0].message.content or "") == {"city": "Paris"}
    assert upstream.calls("strong")[0].body["response_format"] == schema


class City(pydantic.BaseModel):
    """What the SDK makes of a structured answer."""

    city: str


def test_structured_answers_are_parsed(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says("Paris, of course"))
    upstream.on("strong", Says('{"city": "Paris"}'))
    client = daemon.sdk()
    answer = client.chat.completions.parse(model="auto", messages=ASK, response_format=City)
    assert answer.choices[0].message.parsed == City(city="Paris")
    with client.chat.completions.stream(
        model="strong", messages=ASK, response_format=City
    ) as stream:
        last = stream.get_final_completion()
    assert last.choices[0].message.parsed == City(city="Paris")


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}


@pytest.mark.parametrize("part", [IMAGE, AUDIO], ids=lambda part: part["type"])
def test_media_pass_through_and_are_priced(daemon: Daemon, upstream: Upstream, part: Any) -> None:
    """A call that may have been billed is charged with a bound on what they can cost."""
    charged = []
    for content in ([{"type": "text", "text": "What is this?"}, part][:count] for count in (1, 2)):
        upstream.on("strong", Resets())
        before = daemon.spend["unknown"]
        messages: Any = [{"role": "user", "content": content}]
        with pytest.raises(openai.APIStatusError):
            daemon.sdk().chat.completions.create(model="strong", messages=messages)
        assert upstream.calls("strong")[-1].body["messages"] == messages
        charged.append(daemon.spend["unknown"] - before)
    assert charged[1] > charged[0]


@pytest.mark.parametrize(
    "member",
    [
        {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "mp3"}},
        {"prediction": {"type": "content", "content": "The capital is"}},
        {"service_tier": "flex"},
        {"parallel_tool_calls": False, "tools": [TOOL], "tool_choice": "none"},
        {"reasoning_effort": "low", "verbosity": "low"},
        {"store": True, "metadata": {"a": "b"}},
        {"n": 3, "logit_bias": {"50256": -100}},
    ],
    ids=lambda member: next(iter(member)),
)
def test_what_is_not_ours_goes_up_untouched(
    daemon: Daemon, upstream: Upstream, member: Any
) -> None:
    upstream.on("strong", Says(GOOD))
    answer = daemon.sdk().chat.completions.create(model="strong", messages=ASK, **member)
    assert len(answer.choices) == member.get("n", 1)
    sent = upstream.calls("strong")[0].body
    assert {name: sent[name] for name in member} == member


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_asked_for_and_taken_out(
    daemon: Daemon, upstream: Upstream, stream: bool
) -> None:
    upstream.on("cheap", Says(GOOD, logprob=-0.1))
    with daemon.http() as http:
        body = {"model": "auto", "messages": ASK, "stream": stream}
        text = http.post("/v1/chat/completions", json=body).text
        assert upstream.calls("cheap")[0].body["logprobs"] is True
        assert 'logprob"' not in text
        asked = http.post("/v1/chat/completions", json={**body, "logprobs": True}).text
        assert 'logprob"' in asked


def test_the_bound_on_the_answer_is_always_sent(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD))
    client = daemon.sdk()
    client.chat.completions.create(model="strong", messages=ASK)
    client.chat.completions.create(model="strong", messages=ASK, max_completion_tokens=9)
    unset, asked = upstream.calls("strong")
    assert unset.body["max_tokens"] == daemon.config.cascade.default_max_output_tokens
    assert asked.body["max_completion_tokens"] == 9
    assert "max_tokens" not in asked.body


def test_models_list(daemon: Daemon) -> None:
    names = {model.id for model in daemon.sdk().models.list()}
    assert names == {"auto", "cascade/default", "cheap", "strong"}


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (400, openai.BadRequestError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (401, openai.InternalServerError),
    ],
)
def test_upstream_errors_are_the_sdks_own_classes(
    daemon: Daemon, upstream: Upstream, status: int, raised: type[openai.APIStatusError]
) -> None:
    upstream.on("strong", Fails(status))
    with pytest.raises(raised) as caught:
        daemon.sdk().chat.completions.create(model="strong", messages=ASK)
    assert "the upstream is unwell" in str(caught.value)
    assert caught.value.response.headers["x-request-id"]


def test_an_unknown_model(daemon: Daemon, upstream: Upstream) -> None:
    with pytest.raises(openai.BadRequestError, match="price") as caught:
        daemon.sdk().chat.completions.create(model="strongg", messages=ASK)
    assert caught.value.code == "price_unknown"
    with pytest.raises(openai.NotFoundError, match="cascade/default"):
        daemon.sdk().chat.completions.create(model="cascade/defualt", messages=ASK)
    assert not upstream.received


def test_without_the_v1_prefix(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD))
    with daemon.http() as http:
        body = {"model": "auto", "messages": ASK}
        assert http.post("/chat/completions", json=body).status_code == 200
        assert http.get("/models").status_code == 200
