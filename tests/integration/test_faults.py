"""Upstreams that misbehave, callers that leave, input that is wrong: never a hang, never a leak."""

import json
import socket
import threading
import time
from typing import Any

import pytest

from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Fails, Garbage, Hangs, Resets, Says, SaysError, Upstream

ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
GOOD = "The capital of France is Paris."
REFUSAL = "I'm sorry, but I can't help with that."
FAULTS = [
    pytest.param(Fails(500), 502, id="500"),
    pytest.param(Fails(503), 503, id="503"),
    pytest.param(Fails(429), 429, id="429"),
    pytest.param(Fails(302, headers={"Location": "/elsewhere"}), 502, id="redirect"),
    pytest.param(Garbage(), 502, id="garbage"),
    pytest.param(Garbage(b'{"choices": 5}'), 502, id="wrong-shape"),
    pytest.param(Garbage(b'{"error": {"message": "no"}}'), 502, id="error-as-200"),
    pytest.param(Garbage(b""), 502, id="empty"),
    pytest.param(Resets(), 502, id="reset"),
    pytest.param(Hangs(), 504, id="hang"),
]


def post(daemon: Daemon, model: str = "auto", **more: Any) -> Any:
    with daemon.http() as http:
        return http.post("/v1/chat/completions", json={"model": model, "messages": ASK, **more})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("behaviour", "status"), FAULTS)
def test_a_faulty_draft_goes_to_the_next_rung(
    daemon: Daemon, upstream: Upstream, behaviour: Any, status: int, stream: bool
) -> None:
    upstream.on("cheap", behaviour)
    upstream.on("strong", Says(GOOD))
    answer = post(daemon, stream=stream)
    assert answer.status_code == 200
    assert "Paris" in answer.text
    assert status >= 400


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("behaviour", "status"), FAULTS)
def test_a_faulty_model_gives_one_clean_error(
    daemon: Daemon, upstream: Upstream, behaviour: Any, status: int, stream: bool
) -> None:
    upstream.on("strong", behaviour)
    answer = post(daemon, "strong", stream=stream)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"].startswith("upstream_")
    assert "fake" in error["message"]
    assert "sk-upstream-secret" not in answer.text


def test_retry_after_is_obeyed(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Fails(429, headers={"retry-after-ms": "300"}), Says(GOOD))
    started = time.monotonic()
    assert post(daemon, "strong").status_code == 200
    assert time.monotonic() - started >= 0.3
    assert len(upstream.calls("strong")) == 2


def test_a_long_retry_after_is_passed_on(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Fails(429, headers={"retry-after": "60"}))
    answer = post(daemon, "strong")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert answer.headers["x-should-retry"] == "true"
    assert len(upstream.calls("strong")) == 1


def test_unbilled_faults_cost_nothing(daemon: Daemon, upstream: Upstream) -> None:
    before = daemon.spend
    upstream.on("strong", Fails(500))
    assert post(daemon, "strong").status_code == 502
    assert len(upstream.calls("strong")) == 2, "one retry is configured"
    assert daemon.spend == before


@pytest.mark.parametrize("behaviour", [Hangs(), Resets(), Garbage()])
def test_what_may_have_been_billed_is_charged_and_not_repeated(
    daemon: Daemon, upstream: Upstream, behaviour: Any
) -> None:
    before = daemon.spend["unknown"]
    upstream.on("strong", behaviour)
    assert post(daemon, "strong", max_tokens=100).status_code in (502, 504)
    assert len(upstream.calls("strong")) == 1
    charged = daemon.spend["unknown"] - before
    assert charged >= 100 * 10_000, "at least the bound's worth of output, in nano-dollars"


@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("kind", [Hangs, Resets, SaysError])
def test_a_stream_that_breaks_after_it_began_ends_in_an_error(
    daemon: Daemon, upstream: Upstream, kind: Any, after: int
) -> None:
    """A live rung: what was sent stays, then an error event, and no end mark."""
    upstream.on("strong", kind(after_chunks=after))
    answer = post(daemon, "strong", stream=True)
    assert "[DONE]" not in answer.text
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data")]
    assert "error" in events[-1]
    assert all("error" not in event for event in events[:-1])


@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("kind", [Hangs, Resets, SaysError])
def test_a_draft_that_breaks_is_never_seen(
    daemon: Daemon, upstream: Upstream, kind: Any, after: int
) -> None:
    upstream.on("cheap", kind(after_chunks=after))
    upstream.on("strong", Says("Verified: " + GOOD))
    text = streamed_text(post(daemon, stream=True).text)
    assert text == "Verified: " + GOOD


@pytest.mark.parametrize("pieces", [*range(1, 8), 38])
def test_a_rejected_draft_never_reaches_the_caller(
    daemon: Daemon, upstream: Upstream, pieces: int
) -> None:
    upstream.on("cheap", Says(REFUSAL, chunks=pieces))
    upstream.on("strong", Says(GOOD, chunks=pieces))
    answer = post(daemon, stream=True)
    assert streamed_text(answer.text) == GOOD
    assert "sorry" not in answer.text


def streamed_text(body: str) -> str:
    events = [line[6:] for line in body.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def wait_for(condition: Any, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"\xff\xfe", None),
        (b"[]", None),
        (b"[" * 100_000, None),
        (b'{"model": "auto"}', "messages"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "model"),
        (b'{"model": 5, "messages": [{}]}', "model"),
        (b'{"model": "auto", "messages": []}', "messages"),
        (b'{"model": "auto", "messages": "hello"}', "messages"),
        (b'{"model": "auto", "messages": ["hello"]}', "messages"),
        (b'{"model": "auto", "messages": [{"role": "user", "content": "x"}], "n": 0}', "n"),
        (b'{"model": "auto", "messages": [{"role": "user", "content": "x"}], "n": 9999}', "n"),
        (
            b'{"model": "auto", "messages": [{"role": "user", "content": "x"}], "max_tokens": 0}',
            "max_tokens",
        ),
        (
            b'{"model": "auto", "messages": [{"role": "user", "content": "x"}],'
            b' "max_tokens": 1e400}',
            "max_tokens",
        ),
        (
            b'{"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream": "yes"}',
            "stream",
        ),
    ],
)
def test_bad_bodies_are_refused_with_a_reason(
    daemon: Daemon, upstream: Upstream, body: bytes, param: str | None
) -> None:
    with daemon.http() as http:
        answer = http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", param)
    assert error["message"]
    assert not upstream.received


def test_a_large_body_is_refused(daemon: Daemon) -> None:
    most = daemon.config.server.max_body_bytes
    with daemon.http() as http:
        answer = http.post("/v1/chat/completions", content=b" " * (most + 1))
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")

        def drip() -> Any:
            for _ in range(20):
                yield b" " * (most // 10)

        answer = http.post("/v1/chat/completions", content=drip())
        assert answer.status_code == 413


@pytest.mark.parametrize(
    ("expected", "first"),
    [
        (b"100-continue", b"100"),
        (b"100-Continue", b"100"),
        (b"a miracle", b"200"),
        (b"\xff", b"200"),
    ],
)
def test_who_waits_to_send_the_body_is_told_to(
    daemon: Daemon, upstream: Upstream, expected: bytes, first: bytes
) -> None:
    upstream.on("strong", Says(GOOD))
    body = json.dumps({"model": "strong", "messages": ASK}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: %s\r\n"
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(5)
        line.connect(daemon.socket)
        line.sendall(head % expected + b"Content-Length: %d\r\n\r\n" % len(body))
        told = line.recv(4096) if first == b"100" else b""
        line.sendall(body)
        with line.makefile("rb") as rest:
            told += rest.read()
    assert told.startswith(b"HTTP/1.1 " + first)
    assert b"HTTP/1.1 200 OK" in told


def test_paths_methods_and_browsers(daemon: Daemon) -> None:
    with daemon.http() as http:
        assert http.get("/nowhere").json()["error"]["code"] == "not_found"
        assert http.get("/v1/chat/completions").json()["error"]["code"] == "method_not_allowed"
        for name in ("Origin", "Referer"):
            answer = http.post("/infer", json={"query": "x"}, headers={name: "http://evil"})
            assert answer.status_code == 403


def test_request_ids(daemon: Daemon) -> None:
    with daemon.http() as http:
        given = http.post("/infer", content=b"", headers={"X-Request-ID": "trace-7"})
        made = http.post("/infer", content=b"", headers={"X-Request-ID": "bad id\t!"})
    assert given.headers["x-request-id"] == "trace-7"
    assert made.headers["x-request-id"] not in ("bad id\t!", "")


def test_many_callers_at_once(daemon: Daemon, upstream: Upstream) -> None:
    """All are answered or told to come back, and nothing is left held."""
    upstream.on("strong", Says(GOOD, delay_s=0.05))
    statuses: list[int] = []

    def call() -> None:
        statuses.append(post(daemon, "strong").status_code)

    threads = [threading.Thread(target=call) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 100


def test_logs_hold_no_secret_and_no_prompt(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD))
    post(daemon, user="u-17")
    wait_for(lambda: "u-17" in daemon.log_lines())
    text = daemon.log_lines()
    assert "sk-" not in text
    assert "capital of France" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert all({"ts", "level", "event"} <= line.keys() for line in lines)
    assert any(line.get("user_id") == "u-17" and line["model_used"] == "cheap" for line in lines)


def test_calls_that_wait_for_a_connection_are_not_charged(upstream: Upstream) -> None:
    """They time out in our own queue: nothing of them was sent, so nothing can be billed."""
    upstream.on("strong", Hangs())
    config = CASCADE.replace("max_retries = 1", "max_retries = 0\nmax_connections = 1")
    with daemon_with(config, url=upstream.url) as daemon:
        threads = [
            threading.Thread(target=post, args=(daemon, "strong"), kwargs={"max_tokens": 100})
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sent = len(upstream.calls("strong"))
        assert sent < len(threads)
        spend = daemon.spend
        assert spend["held"] == 0
        most = sent * (100 * 10_000 + 100 * 2_500)
        assert spend["posted"] + spend["unknown"] <= most
