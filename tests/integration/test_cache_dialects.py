"""The exact cache in every dialect, over upstreams of every form, and under hooks."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.integration.test_anthropic_sdk import KEY as APP_KEY
from tests.integration.test_hooks import HookServer, asks, daemon_of, server
from tests.integration.test_responses_sdk import (
    CALL,
    CHAT_CALL,
    GOOD,
    MINI,
    OPUS,
    QUESTION,
    SIGNED,
    THOUGHT,
    THREE,
    TOOL_USE,
)
from tests.support.daemon import Daemon, daemon_with, upstream_server
from tests.support.upstream import Says, Upstream

__all__ = ["server"]  # a fixture
TURN: Any = [{"role": "user", "content": QUESTION}]
BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": TURN, "temperature": 0},
    "messages": {"messages": TURN, "temperature": 0, "max_tokens": 64},
    "responses": {"input": QUESTION, "temperature": 0},
}
FORMS = {"strong": "strong", "opus": OPUS, "mini": MINI}
"""Models of each form, and what they are called upstream."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def _shared() -> Iterator[tuple[Daemon, Upstream]]:
    with (
        upstream_server(Upstream()) as upstream,
        daemon_with(THREE, url=upstream.url, APP_KEY=APP_KEY) as daemon,
    ):
        yield daemon, upstream


@pytest.fixture
def shared(_shared: tuple[Daemon, Upstream]) -> tuple[Daemon, Upstream]:
    """For tests that ask what nobody else asks."""
    _shared[1].received.clear()
    return _shared


def ask(daemon: Daemon, path: str, headers: Any = None, **members: Any) -> httpx2.Response:
    with daemon.http() as http:
        response = http.post(f"/v1/{path}", json=members, headers=headers)
    assert response.status_code == 200, response.text
    return response


def told(response: httpx2.Response) -> list[Any]:
    """The events of a stream."""
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def essence(path: str, answer: Any) -> Any:
    """What an answer says, whether it came plain or as a stream."""
    if isinstance(answer, dict):
        match path:
            case "responses":
                items = answer["output"]
                new = ("status", "id", "arguments")  # it is made anew each time
                called = [json.loads(item.get("arguments", "{}")) for item in items]
                return called, [
                    {name: one for name, one in item.items() if name not in new} for item in items
                ]
            case "messages":
                return answer["content"]
        message = answer["choices"][0]["message"]
        return message["content"], message.get("reasoning_content"), _calls(message)
    if path == "responses":
        return essence(path, answer[-1]["response"])
    if path == "messages":
        return _blocks(answer)
    deltas = [one["choices"][0]["delta"] for one in answer if one["choices"]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    thought = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        for call in delta.get("tool_calls") or ():
            function = call["function"]
            pieces = (function.get("name") or "", function.get("arguments") or "")
            calls.setdefault(call["index"], ["", ""])
            calls[call["index"]] = [
                a + b for a, b in zip(calls[call["index"]], pieces, strict=True)
            ]
    return (
        text or None,
        thought or None,
        [(name, json.loads(said)) for name, said in calls.values()],
    )


def _calls(message: Any) -> list[Any]:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return [(one["name"], json.loads(one["arguments"])) for one in calls]


def _blocks(events: list[Any]) -> list[Any]:
    blocks: list[Any] = []
    for event in events:
        if event["type"] == "content_block_start":
            blocks.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            delta = dict(event["delta"])
            delta.pop("type")
            for name, piece in delta.items():
                blocks[-1][name] = blocks[-1].get(name, "") + piece
    for block in blocks:
        if "partial_json" in block:
            block["input"] = json.loads(block.pop("partial_json"))
    return blocks


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("model", FORMS)
@pytest.mark.parametrize("first", ["plain", "stream"])
def test_what_is_kept_is_given_again_either_way(
    shared: tuple[Daemon, Upstream], path: str, model: str, first: str
) -> None:
    daemon, upstream = shared
    text = {"type": "text", "text": GOOD}
    said = {"type": "output_text", "text": GOOD, "annotations": [], "logprobs": []}
    item = {"type": "message", "id": "msg_9", "role": "assistant", "status": "completed"}
    upstream.on(
        FORMS[model],
        Says(
            GOOD,
            blocks=[SIGNED, text, TOOL_USE],
            items=[THOUGHT, {**item, "content": [said]}, CALL],
            finish_reason="stop" if model == "strong" else "tool_calls",
        ),
    )
    body = {"model": model, **BODIES[path]}
    body["messages" if path != "responses" else "input"] = [
        {"role": "user", "content": f"{QUESTION} ({first})"}
    ]
    stream = {"stream": True}
    one = ask(daemon, path, **body, **(stream if first == "stream" else {}))
    assert one.headers["x-cascaded-cache"] == "miss"
    plain, streamed = ask(daemon, path, **body), ask(daemon, path, **body, **stream)
    assert [two.headers["x-cascaded-cache"] for two in (plain, streamed)] == ["hit", "hit"]
    assert len(upstream.received) == 1
    assert plain.headers["x-cascaded-model"] == model
    assert plain.headers["x-cascaded-cost"] == "0"
    bought = one.json() if first == "plain" else told(one)
    assert essence(path, plain.json()) == essence(path, told(streamed))
    assert essence(path, bought) == essence(path, plain.json())
    last = told(streamed)
    if path == "responses":
        usage = last[-1]["response"]["usage"]
        assert [event["sequence_number"] for event in last] == list(range(len(last)))
        assert (usage["output_tokens"], usage["cost"]) == (5, 0)
    elif path == "messages":
        assert (last[-2]["usage"]["output_tokens"], last[-2]["usage"]["cost"]) == (5, 0)


def test_the_tools_of_a_stream_come_again(shared: tuple[Daemon, Upstream]) -> None:
    daemon, upstream = shared
    upstream.on("strong", Says(tool_calls=[CHAT_CALL], finish_reason="tool_calls"))
    body = {"model": "strong", "input": "The weather?", "temperature": 0}
    headers = {"x-cascaded-cache": "on"}
    tools = [{"type": "function", "name": "weather", "parameters": {}}]
    first = ask(daemon, "responses", headers, **body, tools=tools, stream=True)
    again = ask(daemon, "responses", headers, **body, tools=tools)
    assert again.headers["x-cascaded-cache"] == "hit"
    [call] = again.json()["output"]
    assert json.loads(call["arguments"]) == {"city": "Paris"}
    assert essence("responses", again.json())[1][0]["name"] == "weather"
    assert told(first)[-1]["response"]["output"][0]["call_id"] == call["call_id"]
    other = ask(daemon, "responses", **body, tools=tools)
    assert other.headers["x-cascaded-cache"] == "off", "tools do something, so it must be asked for"


class TestTexts:
    @pytest.mark.parametrize("first", [False, True])
    def test_completions(self, shared: tuple[Daemon, Upstream], first: bool) -> None:
        daemon, upstream = shared
        upstream.on("strong", Says("upon a time", chunks=3))
        body = {"model": "strong", "prompt": f"Once {first}", "temperature": 0, "max_tokens": 9}
        answers = [ask(daemon, "completions", **body, stream=way) for way in (first, True, False)]
        assert [one.headers["x-cascaded-cache"] for one in answers] == ["miss", "hit", "hit"]
        assert answers[2].json()["choices"][0]["text"] == "upon a time"
        assert answers[2].json()["object"] == "text_completion"
        chunks = told(answers[1])
        assert "".join(one["choices"][0]["text"] for one in chunks) == "upon a time"
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        assert len(upstream.received) == 1

    def test_embeddings_where_that_is_asked_for(self, shared: tuple[Daemon, Upstream]) -> None:
        """An index that is built would push everything else out."""
        daemon, upstream = shared
        body = {"model": "strong", "input": ["a", "b"]}
        on = {"x-cascaded-cache": "on"}
        answers = [ask(daemon, "embeddings", on, **body) for _ in range(2)]
        assert [one.headers["x-cascaded-cache"] for one in answers] == ["miss", "hit"]
        assert answers[0].json() == answers[1].json()
        assert ask(daemon, "embeddings", **body).headers["x-cascaded-cache"] == "off"
        assert ask(daemon, "embeddings", on, **body, dimensions=2).json() != answers[0].json()
        assert len(upstream.received) == 3

    def test_a_text_is_no_conversation(self, shared: tuple[Daemon, Upstream]) -> None:
        daemon, upstream = shared
        upstream.on("strong", Says("x"))
        on = {"x-cascaded-cache": "on"}
        ask(daemon, "embeddings", on, model="strong", input="the same")
        ask(daemon, "responses", on, model="strong", input="the same")
        assert len(upstream.received) == 2


async def together(daemon: Daemon, path: str, body: Any, who: Any) -> list[str]:
    """A hundred calls at once, every other one a stream."""
    transport = httpx2.AsyncHTTPTransport(uds=daemon.socket)
    async with httpx2.AsyncClient(transport=transport, base_url="http://d", timeout=30) as http:

        async def one(number: int) -> str:
            stream = bool(number % 2) and path != "embeddings"
            said = {**body, "stream": stream} if path != "embeddings" else body
            headers = {"x-cascaded-cache": "on", **who(number)}
            response = await http.post(f"/v1/{path}", json=said, headers=headers)
            assert response.status_code == 200, response.text
            return str(response.headers["x-cascaded-cache"])

        return await asyncio.gather(*map(one, range(100)))


TOGETHER = {
    **BODIES,
    "completions": {"prompt": "Once", "max_tokens": 9},
    "embeddings": {"input": "Once"},
}


@pytest.mark.parametrize("path", TOGETHER)
async def test_a_hundred_equal_calls_make_one(upstream: Upstream, path: str) -> None:
    upstream.on("strong", Says("Paris.", delay_s=0.4))
    with daemon_with(THREE, url=upstream.url, APP_KEY=APP_KEY) as daemon:
        body = {"model": "strong", **TOGETHER[path]}
        states = await together(daemon, path, body, lambda _: {})
        assert (states.count("miss"), states.count("hit")) == (1, 99)
        assert len(upstream.received) == 1
        tenants = await together(
            daemon, path, body, lambda number: {"X-User-ID": ("alice", "bob")[number % 2]}
        )
    assert tenants.count("miss") == 2, "two tenants never share"
    assert len(upstream.received) == 3


def test_a_record_names_who_gave_it(upstream: Upstream) -> None:
    with daemon_with(THREE, url=upstream.url, APP_KEY=APP_KEY) as daemon:
        for _ in range(2):
            ask(daemon, "responses", model="strong", **BODIES["responses"])
        with daemon.http() as http:
            rows = http.get("/export", params={"format": "csv"}).text.splitlines()
        names = rows[0].split(",")
        kept = [dict(zip(names, row.split(","), strict=False)) for row in rows[1:]]
        assert [row["model_used"] for row in kept] == ["strong", "strong"]
        lines = [
            json.loads(line) for line in daemon.log_lines().splitlines() if "model_used" in line
        ]
    assert [line["model_used"] for line in lines] == ["strong", "strong"]
    assert [line["cache"] for line in lines] == ["miss", "hit"]


class TestHooks:
    """Nobody is given from the cache what a hook would not have let him have."""

    def ask(self, daemon: Daemon, user: str = "alice", model: str = "strong") -> httpx2.Response:
        headers = {"X-User-ID": user, "X-Organization-ID": "acme"}
        body = {"model": model, "temperature": 0, "messages": TURN}
        with daemon.http() as http:
            return http.post("/chat/completions", json=body, headers=headers)

    def test_a_block_blocks_what_is_known_too(self, server: HookServer) -> None:
        with daemon_of(asks(server.url)) as daemon:
            server.answers["/budget_check"] = {"action": "allow"}
            assert self.ask(daemon).headers["x-cascaded-cache"] == "miss"
            assert self.ask(daemon).headers["x-cascaded-cache"] == "hit"
            context = server.calls[-1][1]["context"]
            assert (context["user_id"], context["current_cost"]) == ("alice", 0)
            server.answers["/budget_check"] = {"action": "warn", "message": "soon"}
            warned = self.ask(daemon)
            assert warned.headers["x-cascaded-cache"] == "hit"
            assert "soon" in warned.headers["x-cascaded-notice"]
            server.answers["/budget_check"] = {"action": "degrade", "message": "unpaid"}
            assert self.ask(daemon).headers["x-cascaded-cache"] == "hit", "it costs nothing"
            server.answers["/budget_check"] = {"action": "block", "message": "gone"}
            refused = self.ask(daemon)
            assert refused.status_code == 429
            assert "gone" in refused.text

    def test_a_filter_takes_what_is_known_too(self, server: HookServer) -> None:
        with daemon_of(asks(server.url, "model_filter")) as daemon:
            server.answers["/model_filter"] = {"models": ["cheap", "strong"]}
            assert self.ask(daemon).headers["x-cascaded-cache"] == "miss"
            assert self.ask(daemon, "bob").headers["x-cascaded-cache"] == "hit"
            server.answers["/model_filter"] = {"models": ["cheap"]}
            refused = self.ask(daemon, "bob")
            assert (refused.status_code, refused.json()["error"]["code"]) == (
                403,
                "model_forbidden",
            )

    def test_what_a_hook_made_smaller_is_not_kept(self, server: HookServer) -> None:
        """A colleague of whom nothing is taken must get the answer of the whole ladder."""
        with daemon_of(asks(server.url, "model_filter")) as daemon:
            server.answers["/model_filter"] = {"models": ["strong"]}
            assert self.ask(daemon, model="auto").headers["x-cascaded-model"] == "strong"
            server.answers["/model_filter"] = {"models": ["cheap", "strong"]}
            whole = self.ask(daemon, "bob", model="auto")
            assert whole.headers["x-cascaded-cache"] == "miss"
            assert whole.headers["x-cascaded-model"] == "cheap"

    def test_a_hook_that_fails_has_its_default(self, server: HookServer) -> None:
        with daemon_of(asks(server.url, on_failure="block", deadline_ms=50)) as daemon:
            server.answers["/budget_check"] = {"action": "allow"}
            self.ask(daemon)
            server.answers["/budget_check"] = "nonsense"
            assert self.ask(daemon).status_code == 503
