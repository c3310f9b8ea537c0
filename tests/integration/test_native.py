"""`POST /infer`: what it takes, what it refuses, and everything it tells."""

import json
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from tests.support.daemon import Daemon
from tests.support.upstream import Fails, Resets, Says, Upstream

ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
GOOD = "The capital of France is Paris."
REFUSAL = "I'm sorry, but I can't help with that."
DOCUMENTED = {
    *("total_cost", "draft_cost", "verifier_cost", "cost_saved", "savings_percent"),
    *("confidence", "quality_score", "domain", "complexity", "draft_model", "verifier_model"),
    *("model_used", "draft_accepted", "user_id", "user_tier", "latency_ms", "draft_latency_ms"),
    *("verifier_latency_ms", "overhead_ms", "cache", "request_id"),
}
"""The names that users rely on, so far as what they tell of is built."""


def infer(daemon: Daemon, **body: Any) -> httpx2.Response:
    with daemon.http() as http:
        return http.post("/infer", json={"query": ASK[0]["content"], **body})


def exact(answer: httpx2.Response) -> dict[str, Any]:
    """The metadata, its money as exact decimals."""
    told: dict[str, Any] = json.loads(answer.text, parse_float=Decimal)["metadata"]
    return told


def chunks(answer: httpx2.Response) -> list[dict[str, Any]]:
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line, parse_float=Decimal) for line in lines]


# --- what it tells -----------------------------------------------------------------------------


def test_the_whole_story_of_an_accepted_draft(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD, input_tokens=20, output_tokens=8, logprob=-0.05))
    answer = infer(daemon, user_id="u-1", user_tier="pro", domain="geography")
    assert answer.json().keys() == {"content", "tool_calls", "finish_reason", "metadata"}
    told = exact(answer)
    assert told.keys() >= DOCUMENTED
    assert answer.json()["content"] == GOOD
    cost, full = Decimal("0.0000078"), Decimal("0.00013")
    assert (told["total_cost"], told["draft_cost"], told["verifier_cost"]) == (cost, cost, 0)
    assert told["cost_saved"] == full - cost
    assert told["savings_percent"] == round(100 * (full - cost) / full, 2)
    assert (told["draft_model"], told["verifier_model"]) == ("cheap", "strong")
    assert (told["model_used"], told["draft_accepted"]) == ("cheap", True)
    assert (told["user_id"], told["user_tier"], told["domain"]) == ("u-1", "pro", "geography")
    assert 0.6 <= told["quality_score"] <= 1
    assert 0 < told["confidence"] <= 1
    assert told["latency_ms"] >= told["draft_latency_ms"] > 0
    assert 0 < told["overhead_ms"] < told["latency_ms"]
    assert told["verifier_latency_ms"] is None
    assert told["request_id"] == answer.headers["x-request-id"]
    assert (told["input_tokens"], told["output_tokens"]) == (20, 8)


def test_the_whole_story_of_an_escalation(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(REFUSAL, input_tokens=20, output_tokens=10))
    upstream.on("strong", Says(GOOD, input_tokens=20, output_tokens=8))
    told = exact(infer(daemon))
    draft, verifier = Decimal("0.000009"), Decimal("0.00013")
    assert (told["draft_cost"], told["verifier_cost"]) == (draft, verifier)
    assert told["total_cost"] == draft + verifier
    assert told["cost_saved"] == -draft, "escalating costs: the figure is negative"
    assert told["savings_percent"] < 0
    assert (told["model_used"], told["draft_accepted"]) == ("strong", False)
    assert told["verifier_latency_ms"] > 0
    rejected, accepted = told["attempts"]
    assert rejected["quality_score"] < 0.6 <= accepted["quality_score"]
    assert (rejected["accepted"], accepted["accepted"]) == (False, True)
    assert rejected["cost"] + accepted["cost"] == told["total_cost"]


def test_failed_attempts_stand_in_the_story(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Resets())
    upstream.on("strong", Says(REFUSAL))
    told = exact(infer(daemon, options={"temperature": 0}))
    broken, flagged = told["attempts"]
    assert (broken["error"], broken["billing"]) == ("upstream_reset", "unknown")
    assert broken["cost"] > 0
    assert told["flagged"] is True
    assert told["quality_failed"]
    assert flagged["accepted"] is True


def test_a_model_by_name_has_no_draft(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD))
    told = exact(infer(daemon, model="strong"))
    assert (told["draft_model"], told["draft_accepted"]) == (None, False)
    assert told["quality_score"] is None
    assert told["cost_saved"] == 0


def test_headers_say_the_same(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD))
    answer = infer(daemon, max_cost="0.0005", max_tokens=300)
    told, headers = exact(answer), answer.headers
    assert Decimal(headers["x-cascaded-cost"]) == told["total_cost"]
    assert headers["x-litellm-response-cost"] == headers["x-cascaded-cost"]
    assert Decimal(headers["x-cascaded-cost-saved"]) == told["cost_saved"]
    assert headers["x-cascaded-model"] == told["model_used"]
    assert headers["x-cascaded-cache"] == "off"
    assert Decimal(headers["x-cascaded-overhead-ms"]) == told["overhead_ms"]
    assert headers["x-cascaded-notice"] == "; ".join(told["notices"]) != ""
    assert "strong" in headers["x-cascaded-notice"], "it was trimmed away, and that is told"
    domained = infer(daemon, domain="code").headers
    assert domained["x-cascaded-domain"] == "code"
    assert domained["x-cascaded-draft-accepted"] == "true"


# --- streams -----------------------------------------------------------------------------------


def test_chunks_of_a_stream(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(REFUSAL, chunks=4))
    upstream.on("strong", Says(GOOD, chunks=4))
    answer = infer(daemon, stream=True)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.text.endswith("data: [DONE]\n\n")
    *words, last = chunks(answer)
    assert "".join(chunk["content"] for chunk in words) == GOOD
    keys = {"model_name", "content", "is_final", "cost", "metadata"}
    assert all(chunk.keys() == keys for chunk in words)
    assert not any(chunk["is_final"] or chunk["metadata"] for chunk in words)
    assert last.keys() == keys | {"tool_calls", "finish_reason"}
    assert (last["content"], last["is_final"], last["model_name"]) == ("", True, "strong")
    assert last["metadata"].keys() >= DOCUMENTED
    assert last["cost"] == last["metadata"]["total_cost"]


@pytest.mark.parametrize(("mode", "live"), [("auto", True), ("stream", True), ("buffer", False)])
def test_stream_modes(daemon: Daemon, upstream: Upstream, mode: str, live: bool) -> None:
    upstream.on("strong", Resets(after_chunks=1))
    answer = infer(daemon, model="strong", stream=True, stream_mode=mode)
    assert (answer.status_code == 200) is live
    assert "upstream_reset" in answer.text


def test_a_stream_refused_before_it_began(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Fails(500))
    answer = infer(daemon, model="strong", stream=True)
    assert (answer.status_code, answer.headers["content-type"]) == (502, "application/json")


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "query", "either query"),
        ({"query": "x", "messages": ASK}, "query", "not both"),
        ({"query": 5}, "query", "Expected `str"),
        ({"messages": []}, "messages", "must not be empty"),
        ({"messages": "x"}, "messages", "Expected `array"),
        ({"query": "x", "colour": "red"}, "colour", "unknown field `colour`"),
        ({"query": "x", "context": {"team": "t"}}, "context.team", "unknown field `team`"),
        ({"query": "x", "context": 5}, "context", "Expected `object"),
        ({"query": "x", "metadata": {"a": 5}}, "metadata[...]", "Expected `str`"),
        ({"query": "x", "model": None}, "model", "Expected `str`"),
        ({"query": "x", "stream": "yes"}, "stream", "Expected `bool`"),
        ({"query": "x", "stream_mode": "fast"}, "stream_mode", "Invalid enum value"),
        ({"query": "x", "max_tokens": 0}, "max_tokens", "from 1 to"),
        ({"query": "x", "max_tokens": -1}, "max_tokens", "from 1 to"),
        ({"query": "x", "max_tokens": 1.5}, "max_tokens", "Expected `int"),
        ({"query": "x", "max_tokens": 10**12}, "max_tokens", "from 1 to"),
        ({"query": "x", "options": {"n": 0}}, "n", "n must be"),
        ({"query": "x", "options": {"temperature": "warm"}}, "temperature", "Expected `float"),
        ({"query": "x", "options": {"model": "strong"}}, "options.model", "beside options"),
        ({"query": "x", "options": {"messages": ASK}}, "options.messages", "beside options"),
        ({"query": "x", "options": {"stream": True}}, "options.stream", "beside options"),
        ({"query": "x", "quality_mode": "best"}, "quality_mode", "Invalid enum value"),
        ([], None, "Expected `object"),
        ("x", None, "Expected `object"),
        (None, None, "Expected `object"),
    ],
)
def test_bad_bodies(
    daemon: Daemon, upstream: Upstream, body: Any, param: str | None, words: str
) -> None:
    with daemon.http() as http:
        answer = http.post("/infer", content=json.dumps(body))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_request")
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert words in error["message"]
    assert not upstream.received


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"{}{}", b"[" * 100_000, b'{"query": NaN}'])
def test_bodies_that_are_no_json(daemon: Daemon, upstream: Upstream, text: bytes) -> None:
    with daemon.http() as http:
        answer = http.post("/infer", content=text)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, None)
    assert not upstream.received


@pytest.mark.parametrize(
    "cost",
    [
        *("-0.01", "NaN", "Infinity", "-inf", "1e99", "1e-99", "9" * 100, "", "a lot", "0,01"),
        *("0.0000000001", "0x10", "１", True, [], {}, [1], -1, -0.5, 1e30, 1e-12),
    ],
    ids=str,
)
def test_amounts_that_are_none(daemon: Daemon, upstream: Upstream, cost: Any) -> None:
    answer = infer(daemon, max_cost=cost)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "max_cost")
    assert error["message"].startswith("max_cost: ")
    assert len(error["message"]) < 300
    assert not upstream.received


@pytest.mark.parametrize(
    "written", ["1", "0.01", "1e-2", '"0.01"', '"1E-2"', "1.000000000", "null"]
)
def test_amounts_in_every_spelling(daemon: Daemon, upstream: Upstream, written: str) -> None:
    upstream.on("cheap", Says(GOOD))
    with daemon.http() as http:
        answer = http.post("/infer", content=f'{{"query": "x", "max_cost": {written}}}')
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("cost", ["0", 0, "0.000000001"])
def test_a_cap_that_nothing_fits(daemon: Daemon, upstream: Upstream, cost: Any) -> None:
    answer = infer(daemon, max_cost=cost)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "max_cost_exceeded"
    assert not upstream.received


def test_who_it_is_for(daemon: Daemon, upstream: Upstream) -> None:
    """The body's own word, then its context, then headers."""
    upstream.on("cheap", Says(GOOD))
    headers = {"X-User-ID": "header", "X-User-Tier": "free"}
    context = {"user_id": "context", "tier": "pro"}
    with daemon.http() as http:

        def told(**body: Any) -> Any:
            return exact(http.post("/infer", json={"query": "x", **body}, headers=headers))

        assert told(user_id="body", context=context)["user_id"] == "body"
        assert told(context=context)["user_id"] == "context"
        assert told(context=context)["user_tier"] == "pro"
        assert (told()["user_id"], told()["user_tier"]) == ("header", "free")
