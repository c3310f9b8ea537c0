"""`cascaded.Client` against the real daemon, and against what only pretends to be one."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import cascaded
from cascaded.client import (
    APIError,
    CascadedError,
    CascadeStreamChunk,
    Client,
    DaemonUnreachableError,
    ProtocolError,
    StreamBrokenError,
)
from tests.support.daemon import Daemon
from tests.support.process import serving, wait_for
from tests.support.upstream import Fails, Resets, Says, Upstream

QUESTION = "What is the capital of France?"
GOOD = "The capital of France is Paris."
REFUSAL = "I'm sorry, but I can't help with that."
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.socket, timeout_s=10) as client:
        yield client


# --- what it can do ------------------------------------------------------------------------------


def test_run(client: Client, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD, input_tokens=20, output_tokens=8))
    result = client.run(QUESTION)
    told = result.metadata
    assert (result.content, result.finish_reason) == (GOOD, "stop")
    assert told.total_cost == Decimal("0.0000078")
    assert told.total_cost == told.draft_cost + told.verifier_cost
    assert told.cost_saved == Decimal("0.00013") - told.total_cost
    assert (told.draft_accepted, told.model_used, told.ladder) == (True, "cheap", "default")
    [attempt] = told.attempts
    assert (attempt.model, attempt.provider, attempt.accepted) == ("cheap", "fake", True)


def test_everything_that_can_be_asked_for_arrives(client: Client, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD))
    result = client.run(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}],
        model="strong",
        context={"user_id": "u-1", "tier": "pro", "organization": "o-1"},
        metadata={"feature": "search"},
        quality_mode="fast",
        domain="geography",
        max_tokens=50,
        max_cost="0.01",
        options={"temperature": 0.5, "stop": ["\n"]},
    )
    [sent] = upstream.received
    assert [message["role"] for message in sent.body["messages"]] == ["system", "user"]
    assert (sent.body["temperature"], sent.body["stop"], sent.body["max_tokens"]) == (
        0.5,
        ["\n"],
        50,
    )
    assert {"max_cost", "quality_mode", "context", "metadata", "query"}.isdisjoint(sent.body)
    told = result.metadata
    assert (told.user_id, told.user_tier, told.domain) == ("u-1", "pro", "geography")
    assert client.run(QUESTION, user_id="u-2", user_tier="free").metadata.user_id == "u-2"


@pytest.mark.parametrize("cost", ["0.01", Decimal("0.01"), 1, Decimal("1E-2")])
def test_a_cap_is_exact(client: Client, upstream: Upstream, cost: Any) -> None:
    upstream.on("cheap", Says(GOOD))
    assert client.run(QUESTION, max_cost=cost).content == GOOD
    upstream.received.clear()
    with pytest.raises(APIError) as caught:
        client.run(QUESTION, max_cost=Decimal(cost) / 1_000_000_000)
    assert caught.value.code in ("max_cost_exceeded", "invalid_request")
    assert not upstream.received


def test_a_float_is_no_amount(client: Client, upstream: Upstream) -> None:
    not_exact: Any = 0.01
    with pytest.raises(TypeError, match="Decimal, a string or an int"):
        client.run(QUESTION, max_cost=not_exact)
    with pytest.raises(TypeError):
        client.stream(QUESTION, max_cost=not_exact)
    assert not upstream.received


def test_money_keeps_every_digit(client: Client, upstream: Upstream) -> None:
    """Amounts that no float can hold are read as they were written."""
    upstream.on("strong", Says(GOOD, input_tokens=999_999_999, output_tokens=3))
    told = client.run(QUESTION, model="strong").metadata
    # 999,999,999 tokens at 2,500 and 3 at 10,000 nano-dollars.
    assert str(told.total_cost) == "2500.0000275"


def test_stream(client: Client, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, chunks=5))
    *words, last = client.stream(QUESTION, model="strong")
    assert len(words) == 5
    assert "".join(chunk.content for chunk in words) == GOOD
    assert not any(chunk.is_final or chunk.metadata for chunk in words)
    assert (last.is_final, last.content, last.model_name) == (True, "", "strong")
    assert last.metadata is not None
    assert last.cost == last.metadata.total_cost > 0
    assert last.finish_reason == "stop"


def test_a_stream_that_escalates_shows_one_answer(client: Client, upstream: Upstream) -> None:
    upstream.on("cheap", Says(REFUSAL))
    upstream.on("strong", Says(GOOD))
    for mode in ("auto", "stream", "buffer"):
        chunks = list(client.stream(QUESTION, mode=mode))
        assert "".join(chunk.content for chunk in chunks) == GOOD
        assert chunks[-1].metadata is not None
        assert not chunks[-1].metadata.draft_accepted


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls(client: Client, upstream: Upstream, stream: bool) -> None:
    upstream.on("cheap", Says("", tool_calls=[CALL], finish_reason="tool_calls"))
    result: Any
    if stream:
        *_, result = client.stream(QUESTION, options={"tools": [TOOL]})
    else:
        result = client.run(QUESTION, options={"tools": [TOOL]})
    assert [(call.name, call.arguments) for call in result.tool_calls] == [
        ("weather", '{"city": "Paris"}')
    ]
    assert result.finish_reason == "tool_calls"


def test_health_and_models(client: Client, daemon: Daemon) -> None:
    assert client.health().status == "ok"
    assert client.health().version == daemon.services.version
    assert {model.id: model.owned_by for model in client.models()} == {
        "auto": "cascaded",
        "cascade/default": "cascaded",
        "cheap": "fake",
        "strong": "fake",
    }


def test_the_package_offers_it_and_nothing_else() -> None:
    assert cascaded.Client is Client
    assert set(cascaded.__all__) == set(cascaded.client.__all__)
    assert all(
        getattr(cascaded, name) is getattr(cascaded.client, name) for name in cascaded.__all__
    )
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        _ = cascaded.Klient


@pytest.mark.parametrize("name", ["cascaded", "cascaded.client", "cascaded.Client"])
def test_importing_it_is_cheap(name: str) -> None:
    heavy = ["aiohttp", "uvloop", "prometheus_client", "httpx", "httpx2", "click", "rich"]
    heavy += ["asyncio", "ssl", "http.client", "onnxruntime", "openai", "anthropic"]
    code = (
        "import sys, cascaded\n"
        + (f"import {name}\n" if name != "cascaded.Client" else "cascaded.Client\n")
        + f"print([name for name in {heavy!r} if name in sys.modules])"
        "\nprint([name for name in sys.modules if name.startswith('cascaded.')])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    listed, ours = loaded.stdout.decode().splitlines()
    assert listed == "[]"
    if name == "cascaded":
        assert ours == "[]"


# --- connections ---------------------------------------------------------------------------------


def test_a_connection_is_kept_and_renewed(client: Client, daemon: Daemon) -> None:
    client.health()
    [first] = client._idle._kept
    client.models()
    assert client._idle._kept == [first]
    client.close()
    client.close()
    assert client.health().status == "ok"
    assert client._idle._kept != [first]


def test_a_call_in_the_middle_of_a_stream(client: Client, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, chunks=8, chunk_delay_s=0.02))
    upstream.on("cheap", Says(GOOD))
    text = ""
    for chunk in client.stream(QUESTION, model="strong"):
        assert client.run(QUESTION, model="cheap").content == GOOD
        text += chunk.content
    assert text == GOOD


@pytest.mark.parametrize("read", [0, 2])
def test_closing_a_stream_hangs_up(
    client: Client, daemon: Daemon, upstream: Upstream, read: int
) -> None:
    upstream.on("strong", Says(GOOD, chunks=20, chunk_delay_s=0.1))
    stream = client.stream(QUESTION, model="strong")
    for _ in range(read):
        next(stream)
    close: Any = stream
    close.close()
    if read:
        wait_for(lambda: upstream.hung_up == 1)
    wait_for(lambda: daemon.spend["held"] == 0)
    assert client.health().status == "ok"


def test_threads_share_one_client(client: Client, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, delay_s=0.02))
    answers: list[str] = []

    def ask(number: int) -> None:
        for call in range(5):
            result = client.run(QUESTION, model="strong", user_id=f"{number}-{call}")
            assert result.metadata.user_id == f"{number}-{call}", "an answer of another thread"
            answers.append(result.content)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [GOOD] * 80
    del threads
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()  # threads that ended without closing leave no warning behind


def test_a_forked_child_dials_anew(daemon: Daemon) -> None:
    """In a fresh process: forking one with threads, such as this, is asking for trouble."""
    code = f"""
import os, cascaded
client = cascaded.Client({daemon.socket!r})
client.health()
[mine] = client._idle._kept
pid = os.fork()
if pid == 0:
    ok = client.health().status == "ok" and client._idle._kept != [mine]
    os._exit(0 if ok else 1)
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert client.health().status == "ok"
assert client._idle._kept == [mine], "the child took the parent's connection down"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)


BARE = '[server]\nsocket = "{socket}"\n'


def test_a_daemon_that_was_restarted_in_between(tmp_path: Path) -> None:
    with Client(str(tmp_path / "d.sock"), timeout_s=10) as client:
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            with serving(tmp_path, BARE) as daemon:
                assert client.health().status == "ok"
                daemon.end(number)
            with pytest.raises(DaemonUnreachableError, match="cascaded serve"):
                client.health()


# --- what can go wrong ---------------------------------------------------------------------------


def test_errors_carry_their_fields(client: Client, upstream: Upstream) -> None:
    with pytest.raises(APIError) as caught:
        client.run(QUESTION, model="cascade/defualt")
    error = caught.value
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert error.type == "not_found_error"
    assert "cascade/default" in str(error) == error.message
    assert error.request_id
    assert error.details["code"] == "model_not_found"
    upstream.on("strong", Fails(429, headers={"retry-after": "7"}))
    for call in (client.run, lambda *a, **k: list(client.stream(*a, **k))):
        with pytest.raises(APIError) as caught:
            call(QUESTION, model="strong")
        assert (caught.value.status, caught.value.retry_after_s) == (429, 7.0)
    assert issubclass(APIError, CascadedError)


def test_a_stream_that_breaks(client: Client, upstream: Upstream) -> None:
    upstream.on("strong", Resets(after_chunks=2))
    seen: list[CascadeStreamChunk] = []
    with pytest.raises(StreamBrokenError, match="provider 'fake'"):
        seen.extend(client.stream(QUESTION, model="strong"))
    assert client.health().status == "ok"


@pytest.mark.parametrize("kind", ["absent", "file", "folder", "under a file", "too long", "stale"])
def test_nobody_there(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    path = {
        "absent": tmp_path / "nothing",
        "file": tmp_path / "file",
        "folder": tmp_path,
        "under a file": tmp_path / "file" / "d.sock",
        "too long": tmp_path / ("x" * 120),
        "stale": tmp_path / "stale",
    }[kind]
    with (
        Client(str(path)) as client,
        pytest.raises(DaemonUnreachableError, match="cascaded serve") as caught,
    ):
        client.health()
    assert str(path) in str(caught.value)


def test_where_it_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("CASCADED_SOCKET", raising=False)
    assert Client().socket == f"{tmp_path}/cascaded.sock"
    monkeypatch.setenv("CASCADED_SOCKET", "/named/d.sock")
    assert Client().socket == "/named/d.sock"
    assert Client("/given/d.sock").socket == "/given/d.sock"
    monkeypatch.delenv("CASCADED_SOCKET")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert Client().socket == f"/tmp/cascaded-{os.getuid()}/cascaded.sock"


@contextmanager
def pretending(tmp_path: Path, *answers: bytes | None) -> Iterator[Client]:
    """Something that listens and gives one of these to each connection. `None`: silence."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "p.sock"))
        listener.listen()

        def serve() -> None:
            for answer in answers:
                line, _ = listener.accept()
                with line, suppress(ConnectionError):  # it may hang up on what it hears
                    asked = line.recv(65536)
                    while not asked.endswith((b"}", b"\r\n\r\n")):
                        asked += line.recv(65536)
                    if answer is None:
                        line.recv(65536)
                    else:
                        line.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(str(tmp_path / "p.sock"), timeout_s=0.3) as client:
            yield client
        thread.join(5)


def http(body: bytes, status: int = 200, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, size, body)


@pytest.mark.parametrize(
    ("answer", "raised", "words"),
    [
        (b"220 mail.example ESMTP\r\n", ProtocolError, "speaks no HTTP"),
        (http(b"<html>"), ProtocolError, "unknown shape"),
        (http(b"\xff"), ProtocolError, "unknown shape"),
        (http(b'{"status": 5}'), ProtocolError, "unknown shape"),
        (http(b"<html>\xff", 502), ProtocolError, "status 502, not from this daemon: <html>"),
        (http(b'{"error": "words"}', 500), ProtocolError, "status 500"),
        (http(b'{"error": {}}', 500), APIError, "gave no reason"),
        (http(b'{"sta', length=50), DaemonUnreachableError, "went away as it answered"),
        (b"", DaemonUnreachableError, "went away before it answered"),
        (None, DaemonUnreachableError, r"no answer within 0\.3 s"),
    ],
)
def test_what_is_not_this_daemon(
    tmp_path: Path, answer: bytes | None, raised: type[CascadedError], words: str
) -> None:
    with pretending(tmp_path, answer) as client, pytest.raises(raised, match=words):
        client.health()


def events(*data: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(b"data: " + one + b"\n\n" for one in data)


@pytest.mark.parametrize(
    ("answer", "raised", "words"),
    [
        (events(b'{"content": "a"}'), StreamBrokenError, "before its last chunk"),
        (events(b"<html>"), ProtocolError, "unknown shape"),
        (events(b'{"content": 5}'), ProtocolError, "unknown shape"),
        (events(b'{"error": {"message": "it fell"}}'), StreamBrokenError, "it fell"),
        (events(b'{"error": "words"}'), ProtocolError, "unknown shape"),
        (events(b"x" * 9_000_000), ProtocolError, "longer than"),
        (http(b"data: {}\n\n", length=99), StreamBrokenError, "before its last|broke"),
        (http(b"<html>", 500), ProtocolError, "status 500"),
    ],
)
def test_streams_that_are_not_this_daemons(
    tmp_path: Path, answer: bytes, raised: type[CascadedError], words: str
) -> None:
    with pretending(tmp_path, answer) as client, pytest.raises(raised, match=words):
        list(client.stream(QUESTION))


def test_what_a_newer_daemon_adds_is_ignored(tmp_path: Path) -> None:
    answer = b'{"status": "ok", "version": "9.0", "colour": "red"}'
    with pretending(tmp_path, http(answer)) as client:
        assert client.health().version == "9.0"
