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
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import pytest

import cascaded
from cascaded.client import (
    APIError,
    AsyncClient,
    CascadedError,
    CascadeStreamChunk,
    Client,
    DaemonUnreachableError,
    StreamBrokenError,
)
from cascaded.client.connection import MAX_IDLE
from tests.support.daemon import CASCADE, Daemon
from tests.support.process import serving, wait_for
from tests.support.upstream import Fails, Resets, Says, Upstream

THREADS, CALLS = 64, 5
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
        chunks = list(client.stream(QUESTION, cascaded.StreamConfig(mode=mode)))
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


def test_the_package_offers_all_of_it() -> None:
    assert cascaded.Client is Client
    assert set(cascaded.client.__all__) <= set(cascaded.__all__)
    for name in cascaded.client.__all__:
        assert getattr(cascaded, name) is getattr(cascaded.client, name)
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
        wait_for(lambda: daemon.services.status.left_behind)
    wait_for(lambda: daemon.spend["held"] == 0)
    assert client.health().status == "ok"


def test_threads_share_one_client(client: Client) -> None:
    answers: list[str | None] = []

    def ask(number: int) -> None:
        for call in range(CALLS):
            answer = client.summary(f"{number}-{call}")
            assert answer.user_id == f"{number}-{call}", "an answer of another thread"
            answers.append(answer.user_id)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == THREADS * CALLS
    assert 0 < len(client._idle) <= MAX_IDLE
    client.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()  # nothing was left open


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


def test_a_child_of_a_busy_client(daemon: Daemon) -> None:
    """Forked while another thread is in the middle of a call: both go on, each on its own line."""
    code = f"""
import os, threading, warnings, cascaded
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on threads and fork
client = cascaded.Client({daemon.socket!r})
started, done = threading.Event(), threading.Event()
answers = []
def ask():
    while not done.is_set():
        answers.append(client.health().status)
        started.set()
thread = threading.Thread(target=ask)
thread.start()
started.wait(5)
children = []
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if [client.health().status for _ in range(20)] == ["ok"] * 20 else 1)
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 5
done.set()
thread.join()
assert set(answers) == {{"ok"}}
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


def test_a_daemon_that_is_killed_in_the_middle(tmp_path: Path, upstream: Upstream) -> None:
    """The call may have been made, so it is not made again; the next one reaches the new daemon."""
    upstream.on("strong", Says(GOOD, delay_s=5))
    toml = CASCADE.replace("{url}", upstream.url)
    with Client(str(tmp_path / "d.sock"), timeout_s=10) as client:
        with serving(tmp_path, toml) as daemon:
            client.health()

            def kill() -> None:
                wait_for(lambda: upstream.received)
                daemon.end(signal.SIGKILL)

            killing = threading.Thread(target=kill)
            killing.start()
            with pytest.raises(DaemonUnreachableError, match="may have made the call"):
                client.run(QUESTION, model="strong")
            killing.join()
        assert len(upstream.received) == 1
        with serving(tmp_path, toml):
            assert client.health().status == "ok"


# --- versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/summary", "/audit", "/nothing"])
def test_native_answers_name_their_version(daemon: Daemon, path: str) -> None:
    with daemon.http() as http:
        assert http.get(path).headers["x-cascaded-protocol"] == "1"


@pytest.mark.parametrize("stream", [False, True])
def test_calls_are_answered_in_a_version(daemon: Daemon, upstream: Upstream, stream: bool) -> None:
    upstream.on("cheap", Says(GOOD))
    body = {"query": QUESTION, "stream": stream}
    with daemon.http() as http:
        assert http.post("/infer", json=body).headers["x-cascaded-protocol"] == "1"


@pytest.mark.parametrize(
    "asked", ["0", "2", "999999", "-1", "1.0", "one", "", "1" * 5_000, "\u00b2"]
)
def test_a_version_that_the_daemon_does_not_speak(
    daemon: Daemon, upstream: Upstream, asked: str
) -> None:
    headers = {b"x-cascaded-protocol": asked.encode()}
    with daemon.http() as http:
        for answer in (
            http.get("/health", headers=headers),
            http.post("/infer", json={"query": QUESTION}, headers=headers),
            http.post("/reserve", json={"cost": 1}, headers=headers),
        ):
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "unsupported_protocol"
            assert "speaks 1 to 1: upgrade whichever" in answer.json()["error"]["message"]
            assert answer.headers["x-cascaded-protocol"] == "1"
            assert answer.headers["x-request-id"]
        assert not upstream.received
        assert daemon.spend["held"] == 0
        assert http.get("/v1/models").json()["data"], "the connection goes on"


# --- SDKs ----------------------------------------------------------------------------------------

ASK: Any = [{"role": "user", "content": QUESTION}]


def test_the_openai_sdk(client: Client, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD, chunks=3))
    with client.openai(max_retries=0, default_headers={"X-User-ID": "u-9"}) as sdk:
        answer = sdk.chat.completions.with_raw_response.create(model="auto", messages=ASK)
        assert answer.parse().choices[0].message.content == GOOD
        assert answer.headers["x-cascaded-model"] == "cheap"
        stream = sdk.chat.completions.create(model="auto", messages=ASK, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == GOOD
        assert (sdk.api_key, sdk.timeout, sdk.max_retries) == ("unused", 10, 0)


@pytest.mark.parametrize("of", ["sync", "async"])
async def test_the_openai_sdk_in_asyncio(daemon: Daemon, upstream: Upstream, of: str) -> None:
    upstream.on("cheap", Says(GOOD, chunks=3))
    make = Client(daemon.socket).async_openai if of == "sync" else AsyncClient(daemon.socket).openai
    async with make(api_key="sk-mine") as sdk:
        answer = await sdk.chat.completions.create(model="auto", messages=ASK)
        assert answer.choices[0].message.content == GOOD
        stream = await sdk.chat.completions.create(model="auto", messages=ASK, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == GOOD
        assert sdk.api_key == "sk-mine"


async def test_the_anthropic_sdk_reaches_the_daemon(client: Client, daemon: Daemon) -> None:
    with (
        client.anthropic() as sdk,
        pytest.raises(anthropic.NotFoundError, match="There is nothing at /v1/nowhere"),
    ):
        sdk.get("/v1/nowhere", cast_to=object)
    for make in (client.async_anthropic, AsyncClient(daemon.socket).anthropic):
        async with make(auth_token="mine") as awaited:
            with pytest.raises(anthropic.NotFoundError, match="nothing at /v1/nowhere"):
                await awaited.get("/v1/nowhere", cast_to=object)
            assert (awaited.api_key, awaited.auth_token) == (None, "mine")


@pytest.mark.parametrize("name", ["openai", "async_openai", "anthropic", "async_anthropic"])
def test_an_sdk_that_is_not_installed(
    client: Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = name.removeprefix("async_")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"pip install {package}") as caught:
        getattr(client, name)()
    assert caught.value.name == package


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
