"""Streams: signs of life, their form, their first word, and readers that do not read."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web

import cascaded
from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.process import serving
from tests.support.upstream import Fails, Hangs, Says, SaysError, Upstream, sse

ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
QUESTION = "What is the capital of France?"
GOOD = "The capital of France is Paris."
POOR = "I'm sorry, but I can't help with that."
BEATING = CASCADE.replace("[server]", "[server]\nheartbeat_s = 0.1")
SLOW: Any = {"delay_s": 0.4, "chunks": 1}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def daemon(upstream: Upstream) -> Iterator[Daemon]:
    assert BEATING != CASCADE
    with daemon_with(BEATING, url=upstream.url) as daemon:
        yield daemon


def streamed(daemon: Daemon, model: str = "auto", headers: Any = None, **more: Any) -> Any:
    with daemon.http() as http:
        body = {"model": model, "messages": ASK, "stream": True, **more}
        return http.post("/v1/chat/completions", json=body, headers=headers or {})


# --- heartbeats ----------------------------------------------------------------------------------


def test_who_waits_for_a_held_answer_is_told_that_it_comes(
    daemon: Daemon, upstream: Upstream
) -> None:
    upstream.on("cheap", Says(POOR, **SLOW))
    upstream.on("strong", Says(GOOD, **SLOW))
    text = streamed(daemon).text
    beats, _, answer = text.partition("data: ")
    assert set(beats.splitlines()) == {":", ""}
    assert beats.count(":") >= 4, "two answers of 0.4 s each"
    assert "sorry" not in text
    assert GOOD in answer
    assert answer.endswith("[DONE]\n\n")


def test_a_stream_that_pauses_beats_too(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, chunks=2, chunk_delay_s=0.3))
    text = streamed(daemon, "strong").text
    head, _, rest = text.partition("data: ")
    assert ":\n\n" in rest
    assert head == ""


def test_what_answers_in_time_has_none(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, chunks=3))
    assert "\n:\n" not in streamed(daemon, "strong", {"X-Cascaded-Heartbeat": "5"}).text


def test_a_caller_may_want_none_or_others(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, **SLOW))
    for seconds, beats in (("0", False), ("5", False), ("0.05", True)):
        answer = streamed(daemon, "strong", {"X-Cascaded-Heartbeat": seconds})
        assert answer.text.startswith(":") is beats
    for nonsense in ("-1", "soon", "1e9", "", "nan"):
        answer = streamed(daemon, "strong", {"X-Cascaded-Heartbeat": nonsense})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "X-Cascaded-Heartbeat"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/infer", "/v1/messages"])
def test_a_refusal_after_a_beat_is_an_event(daemon: Daemon, upstream: Upstream, path: str) -> None:
    upstream.on("strong", Hangs())
    body: Any = {"model": "strong", "messages": ASK, "stream": True, "max_tokens": 50}
    with daemon.http() as http:
        answer = http.post(path, json=body)
    assert answer.status_code == 200
    [error] = [
        line for line in answer.text.splitlines() if line.startswith("data: {") and "rror" in line
    ]
    assert "first-token time" in error
    assert "[DONE]" not in answer.text
    assert "message_stop" not in answer.text


def test_a_refusal_before_any_beat_keeps_its_status(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Fails(400))
    assert streamed(daemon, "strong").status_code == 400


def test_sdks_pass_over_them(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, delay_s=0.25, chunks=2, chunk_delay_s=0.05))
    chunks = daemon.sdk().chat.completions.create(model="strong", messages=ASK, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == GOOD
    with cascaded.Client(daemon.socket) as client:
        assert "".join(chunk.content for chunk in client.stream(QUESTION, model="strong")) == GOOD
        with (
            client.anthropic() as claude,
            claude.messages.stream(model="strong", max_tokens=50, messages=ASK) as stream,
        ):
            assert "".join(stream.text_stream) == GOOD
    with daemon.http() as http:
        body = {"model": "strong", "messages": ASK, "stream": True, "max_tokens": 50}
        text = http.post("/v1/messages", json=body).text
    assert text.startswith('event: ping\ndata: {"type": "ping"}\n\n')


# --- their form ----------------------------------------------------------------------------------


def test_the_form_is_the_callers(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, chunks=8))
    config = cascaded.StreamConfig(buffer_size=3, include_metadata=False, track_cost=False)
    with cascaded.Client(daemon.socket) as client:
        *words, last = client.stream(QUESTION, config, model="strong")
        assert len(words) == 3
        assert "".join(word.content for word in words) == GOOD
        assert (last.is_final, last.metadata, last.cost) == (True, None, None)
        assert (last.model_name, last.finish_reason) == ("strong", "stop")
        *words, last = client.stream(QUESTION, model="strong")
        assert len(words) == 8
        assert last.metadata is not None
        assert last.cost == last.metadata.total_cost


def test_what_was_gathered_is_not_lost_with_the_stream(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", SaysError(after_chunks=3))
    body = {"query": QUESTION, "model": "strong", "stream": True}
    off = {"X-Cascaded-Heartbeat": "0"}
    with daemon.http() as http:
        text = http.post("/infer", json={**body, "buffer_size": 2}, headers=off).text
        clean = http.post("/infer", json={**body, "buffer_size": 50}, headers=off)
    two, one, error = [json.loads(line[6:]) for line in text.splitlines() if line]
    assert two["content"] + one["content"] == "Paris."
    assert "error" in error
    assert clean.status_code == 502, "nothing of it had gone out"


@pytest.mark.parametrize("validated", [True, False])
def test_a_live_answer_is_judged_at_its_end_if_wanted(
    daemon: Daemon, upstream: Upstream, validated: bool
) -> None:
    for model in ("cheap", "strong"):
        upstream.on(model, Says(POOR))
    config = cascaded.StreamConfig(mode="stream", validate_quality_on_complete=validated)
    with cascaded.Client(daemon.socket) as client:
        *_, last = client.stream(QUESTION, config)
    assert last.metadata is not None
    assert last.metadata.flagged is validated
    assert (last.metadata.quality_score is None) is not validated
    assert last.metadata.attempts[0].quality_score is not None, "the draft always is"


@pytest.mark.parametrize(
    "member",
    [{"buffer_size": 0}, {"buffer_size": 1001}, {"track_cost": "no"}, {"include_metadata": 1}],
)
def test_nonsense_about_the_form_is_refused(daemon: Daemon, member: Any) -> None:
    with daemon.http() as http:
        answer = http.post("/infer", json={"query": QUESTION, "stream": True, **member})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, *member)


# --- the first word ------------------------------------------------------------------------------


def test_the_time_to_the_first_word_is_told(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(POOR, **SLOW))
    upstream.on("strong", Says(GOOD, chunks=3, delay_s=0.2, chunk_delay_s=0.1))
    with cascaded.Client(daemon.socket) as client:
        *_, last = client.stream(QUESTION)
        plain = client.run(QUESTION).metadata
    told = last.metadata
    assert told is not None
    assert told.first_token_ms is not None
    draft, verifier = told.attempts
    assert draft.first_token_ms is not None
    assert verifier.first_token_ms is not None
    assert 200 <= verifier.first_token_ms < verifier.latency_ms
    assert draft.latency_ms + verifier.first_token_ms <= told.first_token_ms < told.latency_ms
    assert plain.first_token_ms is None
    with daemon.http() as http:
        scrape = http.get("/metrics").text
    assert "cascaded_first_token_seconds_count" in scrape
    assert 'cascaded_attempt_first_token_seconds_count{model="strong",provider="fake"}' in scrape
    lines = [json.loads(line) for line in daemon.log_lines().splitlines()]
    [line] = [line for line in lines if line.get("request_id") == told.request_id]
    assert line["first_token_ms"] == told.first_token_ms


def test_the_first_word_of_a_held_answer_is_when_it_is_let_go(
    daemon: Daemon, upstream: Upstream
) -> None:
    upstream.on("cheap", Says(GOOD, chunks=3, chunk_delay_s=0.1))
    with cascaded.Client(daemon.socket) as client:
        *_, last = client.stream(QUESTION)
    told = last.metadata
    assert told is not None
    assert told.first_token_ms is not None
    [draft] = told.attempts
    assert draft.first_token_ms is not None
    assert draft.first_token_ms + 150 < told.first_token_ms


# --- who does not read ---------------------------------------------------------------------------

FLOOD_MIB = 96
PIECE = "x" * 16_000


class Flood(Upstream):
    """Says far more than anybody reads, and counts what was taken from it."""

    taken = 0

    async def _behave(self, behaviour: Any, request: Any, body: Any) -> Any:
        if body["model"] != "strong":
            return await super()._behave(behaviour, request, body)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        event = sse({"choices": [{"index": 0, "delta": {"content": PIECE}}]})
        while self.taken < FLOOD_MIB * 2**20:
            await response.write(event)
            self.taken += len(event)
            await asyncio.sleep(0)
        return response


def test_a_reader_that_does_not_read_holds_up_the_upstream_and_no_memory(tmp_path: Path) -> None:
    with (
        upstream_server(Flood()) as upstream,
        serving(tmp_path, CASCADE.replace("{url}", upstream.url)) as served,
    ):
        transport = httpx2.HTTPTransport(uds=str(served.socket))
        with httpx2.Client(transport=transport, base_url="http://localhost") as http:
            http.post("/v1/chat/completions", json={"model": "cheap", "messages": ASK})
        before = resident_mib(served.process.pid)
        body = json.dumps({"model": "strong", "messages": ASK, "stream": True}).encode()
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(served.socket))
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            line.sendall(head % len(body) + body)
            line.recv(100)
            stood, was = 0, -1
            while stood < 5:
                time.sleep(0.1)
                stood = stood + 1 if upstream.taken == was else 0
                was = upstream.taken
            assert upstream.taken < 32 * 2**20, "the sockets' own buffers, on both sides"
            assert resident_mib(served.process.pid) - before < 8


def resident_mib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) // 1024
