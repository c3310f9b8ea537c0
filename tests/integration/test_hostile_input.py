"""Bodies made to hurt: refused early, in the dialect's shape, and without the daemon growing."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.daemon import CASCADE, upstream_server
from tests.support.process import Served, serving
from tests.support.upstream import Upstream

MIB = 2**20
PATHS = (
    *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/infer"),
    *("/v1/messages", "/v1/messages/count_tokens", "/v1/responses"),
)
PROMPT = {
    "/v1/chat/completions": b'"messages"',
    "/v1/completions": b'"prompt"',
    "/v1/embeddings": b'"input"',
    "/infer": b'"query"',
    "/v1/messages": b'"max_tokens": 9, "messages"',
    "/v1/messages/count_tokens": b'"messages"',
    "/v1/responses": b'"input"',
}
GROWTH_MIB_MAX = 100
"""Of all of them together at the worst moment. The longest body that is read has 16 MiB."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Upstream]]:
    folder = tmp_path_factory.mktemp("hostile")
    with (
        upstream_server(Upstream()) as upstream,
        serving(folder, CASCADE.replace("{url}", upstream.url)) as daemon,
    ):
        yield daemon, upstream


def http(served: Served) -> httpx2.Client:
    transport = httpx2.HTTPTransport(uds=str(served.socket))
    return httpx2.Client(transport=transport, base_url="http://localhost", timeout=30)


def status_mib(served: Served, name: str) -> int:
    """A figure of the process in MiB: `VmHWM` is the most that it ever had."""
    lines = Path(f"/proc/{served.process.pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(name + ":")]
    return int(line.split()[1]) // 1024


def bodies(path: str) -> Iterator[tuple[str, bytes]]:
    """What is wrong with a body, and the body."""
    start = b'{"model": "strong", ' + PROMPT[path] + b": "
    many = 15 * MIB
    yield "no end of lists in lists", start + b"[" * many
    yield "lists in a list", start + b"[" + b"[]," * (many // 3) + b"[]]}"
    yield "numbers", start + b"[" + b"0," * (many // 2) + b"0]}"
    members = b"".join(b',"%d":0' % number for number in range(1_200_000))
    yield "members", start + b'"a"' + members + b"}"
    yield "no UTF-8", start + b'"' + b"\xff" * many + b'"}'
    yield "a quote without end", start + b'"' + b"a" * many
    yield "half a pair", start + b'"' + b"\\ud800" * 1000 + b'"}'
    yield "zeros", b"\0" * many


ABSURD: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"n": 10**9}),
    ("/v1/chat/completions", {"max_tokens": 10**18}),
    ("/v1/chat/completions", {"max_completion_tokens": -(10**30)}),
    ("/v1/completions", {"n": 10**9}),
    ("/v1/completions", {"best_of": 10**300}),
    ("/v1/completions", {"max_tokens": 10**18}),
    ("/v1/embeddings", {"input": ["a"] * 100_000}),
    ("/v1/messages", {"max_tokens": 10**18}),
    ("/v1/messages", {"max_tokens": -1}),
    ("/v1/responses", {"max_output_tokens": 10**18}),
]


def refused(answer: httpx2.Response, path: str) -> None:
    assert answer.status_code in (400, 413), (path, answer.text[:300])
    told = answer.json()
    error = told["error"]
    if path.startswith("/v1/messages"):
        assert told["type"] == "error"
        assert error["type"] in ("invalid_request_error", "request_too_large")
    else:
        assert error["type"] == "invalid_request_error"
        assert set(error) >= {"message", "param", "code"}
    assert len(answer.content) < 10_000
    assert answer.headers["x-should-retry"] == "false"


def test_nothing_of_it_gets_far(served: tuple[Served, Upstream]) -> None:
    daemon, upstream = served
    with http(daemon) as client:
        good = {"model": "strong", "messages": [{"role": "user", "content": "Why?"}]}
        assert client.post("/v1/chat/completions", json=good).status_code == 200
        upstream.received.clear()
        before = status_mib(daemon, "VmRSS")
        for path in PATHS:
            for name, body in bodies(path):
                answer = client.post(path, content=body)
                assert answer.status_code in (400, 413), (path, name, answer.text[:200])
                refused(answer, path)
        for path, members in ABSURD:
            given: dict[str, Any] = {"messages": good["messages"]}
            if not path.endswith("messages"):
                given |= {"prompt": "a", "input": "a"}
            refused(client.post(path, json={"model": "strong", **given, **members}), path)
        for length in ("100000000", None):
            assert b" 413 " in huge(daemon, length)
        assert status_mib(daemon, "VmHWM") - before < GROWTH_MIB_MAX
        assert not upstream.received
        assert client.post("/v1/chat/completions", json=good).status_code == 200
        assert client.get("/health").status_code == 200


def huge(daemon: Served, length: str | None) -> bytes:
    """The head of the answer to 100 MB, of a length that is told or not."""
    framing = f"Content-Length: {length}" if length else "Transfer-Encoding: chunked"
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(20)
        line.connect(str(daemon.socket))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n"
        line.sendall(head.encode())
        piece = b"a" * MIB if length else b"100000\r\n" + b"a" * MIB + b"\r\n"
        with suppress(ConnectionError, TimeoutError):
            for _ in range(100):
                line.sendall(piece)
        with suppress(ConnectionError):
            return line.recv(MIB)
    return b""


@pytest.mark.parametrize(
    "head",
    [
        b"".join(b"X-%d: y\r\n" % number for number in range(20_000)),
        b"X-Long: " + b"y" * MIB + b"\r\n",
        b"X" * MIB + b": y\r\n",
    ],
    ids=["many", "a long value", "a long name"],
)
def test_header_bombs(served: tuple[Served, Upstream], head: bytes) -> None:
    daemon, _ = served
    before = status_mib(daemon, "VmRSS")
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(20)
        line.connect(str(daemon.socket))
        with suppress(ConnectionError):
            line.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n")
        said = line.recv(MIB)
    assert b" 400 " in said.split(b"\r\n")[0]
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
    assert status_mib(daemon, "VmRSS") - before < 20


def test_slow_senders_keep_nobody_out(served: tuple[Served, Upstream]) -> None:
    daemon, _ = served
    slow = [socket.socket(socket.AF_UNIX) for _ in range(300)]
    try:
        for line in slow:
            line.connect(str(daemon.socket))
            line.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        with http(daemon) as client:
            asked = {"model": "strong", "input": "a"}
            assert client.post("/v1/embeddings", json=asked).status_code == 200
    finally:
        for line in slow:
            line.close()
