"""Who may come in, how many, for how long; and what can be seen from outside."""

import gzip
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cascaded.api.errors import ERRORS
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.process import wait_for
from tests.support.upstream import Hangs, Says, Upstream

ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
GOOD = "The capital of France is Paris."
KEYS = 'tcp = "127.0.0.1:0"\ntcp_keys = { app = "env:APP_KEY", other = "env:OTHER_KEY" }\n'
CALLS = ["/v1/chat/completions", "/infer"]


def toml(**settings: str) -> str:
    """The cascade with these server settings."""
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    return CASCADE.replace("drain_timeout_s = 2\n", f"drain_timeout_s = 2\n{lines}")


def with_tcp(text: str) -> str:
    return text.replace("drain_timeout_s = 2\n", "drain_timeout_s = 2\n" + KEYS)


def body(path: str = "/infer", model: str = "strong", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": ASK, **more}


def code(answer: httpx2.Response) -> str:
    told: str = answer.json()["error"]["code"]
    return told


# --- the TCP door --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tcp_daemon(_upstream: Upstream) -> Iterator[Daemon]:
    text = with_tcp(CASCADE).replace("logprobs = true", "forward_caller_key = true")
    with daemon_with(
        text, url=_upstream.url, APP_KEY="sk-app-1-0123456789", OTHER_KEY="sk-app-2-0123456789"
    ) as daemon:
        yield daemon


@pytest.fixture
def tcp(tcp_daemon: Daemon, upstream: Upstream) -> Iterator[httpx2.Client]:
    with tcp_daemon.tcp() as client:
        yield client


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer sk-wrong"},
        {"Authorization": "Basic sk-app-1-0123456789"},
        {"Authorization": "sk-app-1-0123456789"},
        {"x-api-key": ""},
        {"x-api-key": "sk-app-1-012345678"},
        {"Authorization": b"Bearer sk-\xff\xfe"},
        {"x-api-key": "sk-ключ".encode()},
    ],
    ids=str,
)
def test_over_tcp_a_key_is_needed(
    tcp: httpx2.Client, upstream: Upstream, path: str, headers: Any
) -> None:
    answer = tcp.post(path, json=body(), headers=headers)
    assert (answer.status_code, code(answer)) == (401, "unauthenticated")
    assert answer.headers["x-request-id"]
    assert not upstream.received


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer sk-app-1-0123456789"},
        {"Authorization": "bearer   sk-app-2-0123456789"},
        {"x-api-key": "sk-app-2-0123456789"},
    ],
    ids=str,
)
def test_a_key_opens_and_stays_here(
    tcp: httpx2.Client, upstream: Upstream, path: str, headers: Any
) -> None:
    """Also where callers' keys are forwarded: ours opens this daemon and nothing else."""
    upstream.on("strong", Says(GOOD))
    assert tcp.post(path, json=body(), headers=headers).status_code == 200
    [sent] = upstream.received
    assert "sk-app" not in str(sent.headers)
    assert sent.headers["Authorization"] == "Bearer sk-upstream-secret"


def test_a_path_with_the_end_of_a_line_is_answered_in_json(tcp: httpx2.Client) -> None:
    for path in ("/nowhere%0A", "/v1/models/a%0Ab", "/%0A"):
        answer = tcp.get(path)
        assert answer.status_code in (401, 404)
        assert "message" in answer.json()["error"]


def test_what_is_open_without_a_key(tcp: httpx2.Client) -> None:
    assert tcp.get("/health").json()["status"] == "ok"
    for path in ("/metrics", "/ready", "/models", "/v1/models"):
        answer = tcp.get(path)
        assert (answer.status_code, code(answer)) == (401, "unauthenticated"), path
        assert tcp.get(path, headers={"x-api-key": "sk-app-1-0123456789"}).status_code == 200, path


def test_metrics_without_a_key_where_the_operator_says_so() -> None:
    text = with_tcp(toml(metrics_without_key="true"))
    keys = {"APP_KEY": "sk-app-1-0123456789", "OTHER_KEY": "sk-app-2-0123456789"}
    with daemon_with(text, url="http://x", **keys) as daemon, daemon.tcp() as tcp:
        assert tcp.get("/metrics").status_code == 200
        assert tcp.get("/models").status_code == 401


@pytest.mark.parametrize("path", [*CALLS, "/models", "/metrics", "/ready"])
@pytest.mark.parametrize("header", ["Origin", "Referer", "origin"])
def test_browsers_are_refused_on_both_doors(
    tcp: httpx2.Client, tcp_daemon: Daemon, upstream: Upstream, path: str, header: str
) -> None:
    method = "POST" if path in CALLS else "GET"
    sent = {header: "http://localhost:8080", "x-api-key": "sk-app-1-0123456789"}
    with tcp_daemon.http() as over_socket:
        for client in (tcp, over_socket):
            answer = client.request(method, path, json=body(), headers=sent)
            assert (answer.status_code, code(answer)) == (403, "forbidden")
            assert "access-control-allow-origin" not in answer.headers
    assert not upstream.received


def test_a_preflight_gets_nothing(tcp: httpx2.Client) -> None:
    asked = {"Origin": "http://evil", "Access-Control-Request-Method": "POST"}
    answer = tcp.options("/infer", headers=asked)
    assert answer.status_code in (403, 405)
    assert "access-control-allow-origin" not in answer.headers


# --- whose key goes where ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer sk-mine"}, {"x-api-key": "sk-mine"}], ids=str
)
def test_a_key_on_the_socket_is_forwarded_where_that_is_configured(
    tcp_daemon: Daemon, upstream: Upstream, headers: dict[str, str]
) -> None:
    upstream.on("strong", Says(GOOD))
    with tcp_daemon.http() as http:
        http.post("/infer", json=body(), headers=headers)
        http.post("/infer", json=body())
    keys = [call.headers["Authorization"] for call in upstream.received]
    assert keys == ["Bearer sk-mine", "Bearer sk-upstream-secret"]
    assert "sk-mine" not in tcp_daemon.log_lines()


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    "header", ["Authorization", "X-User-ID", "X-User-Tier", "X-Organization-ID"]
)
def test_headers_that_are_no_text_are_refused(
    tcp_daemon: Daemon, upstream: Upstream, path: str, header: str
) -> None:
    """They could neither be logged, nor told, nor sent on."""
    upstream.on("strong", Says(GOOD))
    sent: Any = {header: b"Bearer \xff\xfe"}
    with tcp_daemon.http() as http:
        answer = http.post(path, json=body(), headers=sent)
        assert (answer.status_code, code(answer)) == (400, "invalid_request"), answer.text
        assert header in answer.json()["error"]["message"]
        assert http.get("/metrics").status_code == 200
    assert not upstream.received


# --- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    "text",
    [
        b'{"model": "auto", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "auto", "messages": [{"role": "user", "content": "x"}], "user": "\xff"}',
        b'{"model": "auto", "messages": [{"role": "user", "content": "x"}], "unknown": "\xff"}',
        b'{"model": "auto", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "auto", "messages": [{"role": "user", "content": '
        + b"[" * 600
        + b"]" * 600
        + b"}]}",
        b'{"model": "auto", "messages": [5]}',
        b'{"model": "auto", "messages": [null]}',
        b'{"model": "auto", "messages": [[[]]]}',
    ],
)
def test_text_that_is_none_never_reaches_a_model_or_a_fault(
    daemon: Daemon, upstream: Upstream, path: str, text: bytes
) -> None:
    with daemon.http() as http:
        answer = http.post(path, content=text)
    assert (answer.status_code, code(answer)) == (400, "invalid_request"), answer.text
    assert not upstream.received


def test_a_body_that_trickles_in_is_given_up(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cascaded.daemon.generation.BODY_TIMEOUT_S", 0.3)
    with (
        daemon_with(CASCADE, url=upstream.url) as daemon,
        socket.socket(socket.AF_UNIX) as line,
    ):
        line.settimeout(5)
        line.connect(daemon.socket)
        line.sendall(b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        began = time.monotonic()
        answer = line.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"request_timeout" in answer
        assert 0.25 < time.monotonic() - began < 3
        wait_for(lambda: daemon.services.status.in_flight == 0)


def test_a_compressed_bomb_is_refused(daemon: Daemon) -> None:
    """Small on the line, huge when it is unpacked."""
    most = daemon.config.server.max_body_bytes
    bomb = gzip.compress(b" " * (most * 8))
    assert len(bomb) < most
    with daemon.http() as http:
        answer = http.post("/infer", content=bomb, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")


# --- how many, how long --------------------------------------------------------------------------


def test_one_call_too_many_is_told_to_come_back(upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, delay_s=0.5))
    text = toml(max_concurrency="2", max_waiting="0")
    with daemon_with(text, url=upstream.url) as daemon:
        statuses: list[int] = []

        def call() -> None:
            with daemon.http() as http:
                statuses.append(http.post("/infer", json=body()).status_code)

        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_for(lambda: daemon.services.status.in_flight == 2)
        with daemon.http() as http:
            answer = http.post("/v1/chat/completions", json=body())
            assert (answer.status_code, code(answer)) == (503, "overloaded")
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["x-should-retry"] == "true"
            ready = http.get("/ready").json()
            assert ready.pop("uptime_s") > 0
            assert ready == {
                "ready": True,
                "draining": False,
                "in_flight": 2,
                "waiting": 0,
                "providers": {"fake": "closed"},
                "deployments": [],
            }
            for thread in threads:
                thread.join()
            assert http.post("/infer", json=body()).status_code == 200
        assert statuses == [200, 200]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_takes_too_long_is_ended_and_settled(upstream: Upstream, stream: bool) -> None:
    upstream.on("strong", Hangs())
    text = toml(request_timeout_s="0.3").replace("logprobs = true", "max_connections = 5")
    with daemon_with(text, url=upstream.url) as daemon, daemon.http() as http:
        answer = http.post("/infer", json=body(stream=stream))
        assert (answer.status_code, code(answer)) == (504, "call_timeout")
        assert daemon.spend["held"] == 0
        assert daemon.spend["unknown"] > 0
    wait_for(lambda: upstream.hung_up == 1)


def test_a_stream_that_takes_too_long_ends_in_an_error(upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, chunks=20, chunk_delay_s=0.1))
    with daemon_with(toml(request_timeout_s="0.4"), url=upstream.url) as daemon:
        with daemon.http() as http:
            text = http.post("/v1/chat/completions", json=body(stream=True)).text
        assert "call_timeout" in text.splitlines()[-2]
        assert "[DONE]" not in text
        assert daemon.spend["held"] == 0


def test_a_caller_that_does_not_read_does_not_keep_its_place(upstream: Upstream) -> None:
    """A stream that nobody takes stops at the time limit, its error included."""
    upstream.on("strong", Says("x" * 8_000_000, chunks=64))
    with daemon_with(toml(request_timeout_s="0.5"), url=upstream.url) as daemon:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(daemon.socket)
            asked = json.dumps(body(stream=True)).encode()
            line.sendall(
                b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                % (len(asked), asked)
            )
            wait_for(lambda: daemon.services.status.in_flight == 1)
            wait_for(lambda: daemon.services.status.in_flight == 0, 6)
        assert daemon.spend["held"] == 0


def test_a_caller_that_stops_reading_at_the_end(upstream: Upstream) -> None:
    """A held answer is passed on in one go; the time limit holds there as well."""
    upstream.on("cheap", Says("word " * 1_000_000, chunks=64))
    text = toml(request_timeout_s="1").replace("threshold = 0.6", "threshold = 0")
    text = text.replace('aliases = ["auto"]', 'aliases = ["auto"]\nmax_cost_usd = 10')
    with daemon_with(text, url=upstream.url) as daemon:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(daemon.socket)
            asked = json.dumps(body(model="auto", stream=True)).encode()
            line.sendall(
                b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                % (len(asked), asked)
            )
            wait_for(lambda: daemon.services.status.in_flight == 1)
            wait_for(lambda: daemon.services.status.in_flight == 0, 8)
        assert daemon.spend["held"] == 0


# --- what can be seen ----------------------------------------------------------------------------


def test_health_ready_and_where_they_are(daemon: Daemon) -> None:
    with daemon.http() as http:
        for prefix in ("", "/v1"):
            health = http.get(prefix + "/health")
            assert health.json() == {"status": "ok", "version": daemon.services.version}
            assert http.get(prefix + "/ready").json()["ready"] is True
        assert http.post("/health").status_code == 405


def test_request_ids_are_on_every_answer(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD))
    with daemon.http() as http:
        sent = {"X-Request-ID": "trace-1"}
        for answer in (
            http.get("/models", headers=sent),
            http.get("/nowhere", headers=sent),
            http.post("/infer", json=body(), headers=sent),
            http.post("/infer", json=body(stream=True), headers=sent),
            http.post("/v1/chat/completions", json=body(), headers=sent),
            http.post("/v1/chat/completions", json=body(stream=True), headers=sent),
            http.post("/v1/chat/completions", json={}, headers=sent),
        ):
            assert answer.headers["x-request-id"] == "trace-1", answer.url
    assert {call.headers["X-Request-ID"] for call in upstream.received} == {"trace-1"}


def scraped(daemon: Daemon) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples by name, then by the values of their labels in the order of the labels' names."""
    with daemon.http() as http:
        answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_metrics_add_up(upstream: Upstream) -> None:
    upstream.on("cheap", Says("I'm sorry, but I can't help with that."), Says(GOOD))
    upstream.on("strong", Says(GOOD))
    with daemon_with(CASCADE, url=upstream.url) as daemon, daemon.http() as http:
        for _ in range(2):
            assert http.post("/infer", json=body(model="auto")).status_code == 200
        http.post("/infer", json=body(model="cascade/nothing"))
        metrics = scraped(daemon)
        assert metrics["cascaded_requests_total"] == {
            ("chat", "ok"): 2,
            ("chat", "model_not_found"): 1,
        }
        attempts = metrics["cascaded_attempts_total"]
        assert attempts["cheap", "answered"] == 2
        assert attempts["strong", "answered"] == 1
        assert attempts["strong", "failed"] == 0
        assert metrics["cascaded_accepted_total"] == {("cheap",): 1, ("strong",): 1}
        assert metrics["cascaded_tokens_total"]["input", "cheap"] == 20
        assert metrics["cascaded_escalated_total"] == {(): 1}
        assert metrics["cascaded_in_flight"] == {(): 0}
        spend = metrics["cascaded_spend_usd"]
        assert spend["posted",] == pytest.approx(daemon.spend["posted"] / 1e9)
        assert spend["held",] == 0
        assert metrics["process_resident_memory_bytes"][()] > 1e6
        with daemon.http() as again:
            modern = again.get("/metrics", headers={"Accept": "application/openmetrics-text"})
        assert modern.headers["content-type"].startswith("application/openmetrics-text")
        assert modern.text.endswith("# EOF\n")


def test_labels_cannot_be_invented_by_callers(daemon: Daemon, upstream: Upstream) -> None:
    with daemon.http() as http:
        for n in range(30):
            http.post("/infer", json=body(model=f"invented-{n}", user_id=f"u{n}"))
    metrics = scraped(daemon)
    assert {labels[1] for labels in metrics["cascaded_requests_total"]} <= {"ok", *ERRORS}
    assert "invented" not in str(metrics)
    assert "u29" not in str(metrics)


def test_a_name_as_long_as_a_body_is_not_kept(daemon: Daemon) -> None:
    with daemon.http() as http:
        answer = http.post("/infer", json=body(model="x" * 1_000_000))
        assert answer.status_code in (400, 404)
        assert len(answer.text) < 2_000


# One connection: its end, its first head, what is no HTTP.


def dial(daemon: Daemon) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(5)
    line.connect(daemon.socket)
    return line


def said(line: socket.socket) -> bytes:
    """Everything until the daemon hangs up."""
    return b"".join(iter(lambda: line.recv(65536), b""))


def test_a_caller_may_close_its_half(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, delay_s=0.3))
    body = b'{"query": "x", "model": "strong"}'
    head = b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with dial(daemon) as line:
        line.sendall(head + body)
        line.shutdown(socket.SHUT_WR)
        answer = said(line)
    assert answer.startswith(b"HTTP/1.1 200")
    assert GOOD.encode() in answer
    with dial(daemon) as idle:
        idle.shutdown(socket.SHUT_WR)
        assert said(idle) == b""
    with dial(daemon) as cut:  # in the middle of a body
        cut.sendall(head + body[:-1])
        wait_for(lambda: daemon.services.status.arriving == 1)
        cut.close()
        wait_for(lambda: daemon.services.status.arriving == 0)


def test_so_many_bodies_at_once_and_no_more(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cascaded.api.server.MAX_ARRIVING", 1)
    head = b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    with dial(daemon) as slow, dial(daemon) as next_one:
        slow.sendall(head)
        wait_for(lambda: daemon.services.status.arriving == 1)
        next_one.sendall(head)
        answer = next_one.recv(4096)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"1 bodies are on their way already" in answer


def test_a_caller_that_leaves_altogether_is_noticed(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Hangs())
    with dial(daemon) as line:
        body = b'{"query": "x", "model": "strong"}'
        line.sendall(b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        line.sendall(body)
        wait_for(lambda: daemon.services.status.in_flight == 1)
    wait_for(lambda: daemon.services.status.left_behind, 1)
    wait_for(lambda: daemon.services.status.in_flight == 0, 10)


def test_a_head_that_trickles_in_is_given_up(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cascaded.daemon.doors.HEAD_TIMEOUT_S", 0.3)
    with daemon_with(CASCADE, url=upstream.url) as daemon, daemon.http() as http:
        assert http.get("/health").status_code == 200
        with dial(daemon) as line:
            line.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-")
            assert said(line) == b""
        assert http.get("/health").status_code == 200, "its first head came in time"


@pytest.mark.parametrize(
    "nonsense",
    [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET / HTTP/1.1\r\nA b\r\n\r\n"],
)
def test_what_is_no_http_is_refused_in_our_shape(daemon: Daemon, nonsense: bytes) -> None:
    with dial(daemon) as line:
        line.sendall(nonsense)
        head, _, body = said(line).partition(b"\r\n\r\n")
    assert b" 400 " in head.splitlines()[0]
    assert b"content-type: application/json" in head.lower()
    assert b"x-request-id" in head.lower()
    assert json.loads(body)["error"]["code"] == "invalid_request"


def test_a_head_that_is_too_long_is_refused_in_our_shape(daemon: Daemon) -> None:
    with daemon.http() as http:
        answer = http.get("/health", headers={"X-Long": "x" * 20_000})
    assert (answer.status_code, code(answer)) == (400, "invalid_request")
    assert len(answer.json()["error"]["message"]) < 300


def test_a_fault_of_a_handler_is_told_in_our_shape(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug with a prompt in it")

    monkeypatch.setattr(type(daemon.services.desk), "budgets", broken)
    with daemon.http() as http:
        answer = http.get("/budgets")
        assert (answer.status_code, code(answer)) == (500, "internal_error")
        assert http.get("/health").status_code == 200
    assert "a bug with" not in answer.text + daemon.log_lines()


def test_the_wrong_method_is_told_the_right_ones(daemon: Daemon) -> None:
    with daemon.http() as http:
        for path, allowed in (("/infer", "POST"), ("/unknowns/7", "POST"), ("/ready", "GET, HEAD")):
            answer = http.request("PUT", path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert http.put("/nowhere").status_code == 404


def turned_away(http: httpx2.Client) -> Counter[str]:
    families = text_string_to_metric_families(http.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return Counter(
        {
            sample.labels["code"]: int(sample.value)
            for sample in samples
            if sample.name == "cascaded_turned_away_total"
        }
    )


def test_refusals_at_the_door_are_counted(daemon: Daemon) -> None:
    with daemon.http() as http:
        before = turned_away(http)
        http.post("/infer", content=b"{")
        http.post("/infer", content=b"[")
        http.put("/infer")
        http.get("/nowhere")
        http.get("/models", headers={"Origin": "https://x"})
        counted = turned_away(http) - before
    assert counted == {
        "invalid_request": 2,
        "method_not_allowed": 1,
        "not_found": 1,
        "forbidden": 1,
    }
