"""LiteLLM itself, in its own process, before upstreams of two dialects."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import cascaded
from tests.support.daemon import Daemon, daemon_with, upstream_server
from tests.support.process import wait_for
from tests.support.upstream import Fails, Garbage, Hangs, Resets, Says, SaysError, Upstream

pytestmark = pytest.mark.skipif(find_spec("litellm") is None, reason="needs the extra `litellm`")
TOML = """
[server]
socket = "{socket}"
[ledger]
dir = "{folder}/state"
[log]
file = "{folder}/log.jsonl"

[providers.many]
kind = "litellm"
max_retries = 0
breaker_failures = 0
total_timeout_s = 20

[providers.many.environment]
OPENAI_API_KEY = "env:FAKE_KEY"
ANTHROPIC_API_KEY = "env:FAKE_KEY"
OPENAI_API_BASE = "{url}/v1"
ANTHROPIC_API_BASE = "{url}"

[models.chat]
provider = "many"
upstream_name = "openai/gpt-4o-mini"
[models.claude]
provider = "many"
upstream_name = "anthropic/claude-haiku-4-5"
input_usd_per_mtok = "1"
output_usd_per_mtok = "5"
cache_read_usd_per_mtok = "0.1"
cache_write_usd_per_mtok = "1.25"
"""
ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
GOOD = "The capital of France is Paris."
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
START_S = 120


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def daemon(upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(TOML, url=upstream.url) as daemon:
        yield daemon


def showing(image: Any) -> Any:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": image}]}]


def sdk(daemon: Daemon) -> Any:
    return daemon.sdk(timeout=START_S)


def worker(daemon: Daemon) -> Any:
    return daemon.generations.now.answerers["many"].provider


def test_nothing_is_started_before_it_is_asked(daemon: Daemon) -> None:
    assert worker(daemon).pid is None
    assert "litellm" not in sys.modules


@pytest.mark.parametrize(
    ("model", "asked"), [("chat", "gpt-4o-mini"), ("claude", "claude-haiku-4-5")]
)
@pytest.mark.parametrize("stream", [False, True])
def test_it_answers_at_our_price(
    daemon: Daemon, upstream: Upstream, model: str, asked: str, stream: bool
) -> None:
    upstream.on(asked, Says(GOOD, input_tokens=1000, output_tokens=100))
    before = daemon.spend["posted"]
    made = sdk(daemon).chat.completions.create(
        model=model, messages=ASK, max_tokens=200, stream=stream
    )
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in made if chunk.choices)
    else:
        text = made.choices[0].message.content
    assert text == GOOD
    price = {"chat": 1000 * 150 + 100 * 600, "claude": 1000 * 1000 + 100 * 5000}[model]
    assert daemon.spend["posted"] - before == price
    assert upstream.calls(asked)[-1].body["max_tokens"] == 200
    sent = upstream.calls(asked)[-1].headers
    assert "sk-upstream-secret" in (sent.get("Authorization", "") + sent.get("x-api-key", ""))


def test_cached_tokens_are_a_part_of_the_prompt(daemon: Daemon, upstream: Upstream) -> None:
    told = {"cache_read_input_tokens": 500, "cache_creation_input_tokens": 200}
    upstream.on(
        "claude-haiku-4-5", Says(GOOD, input_tokens=300, output_tokens=100, extra_usage=told)
    )
    for stream in (False, True):
        before = daemon.spend["posted"]
        made = sdk(daemon).chat.completions.create(
            model="claude", messages=ASK, max_tokens=200, stream=stream
        )
        list(made) if stream else None
        price = 300 * 1000 + 500 * 100 + 200 * 1250 + 100 * 5000
        assert daemon.spend["posted"] - before == price


def test_tools_come_across(daemon: Daemon, upstream: Upstream) -> None:
    block = {"type": "tool_use", "id": "t1", "name": "look_up", "input": {"city": "Paris"}}
    upstream.on("claude-haiku-4-5", Says(blocks=[block], finish_reason="tool_calls"))
    for stream in (False, True):
        made = sdk(daemon).chat.completions.create(
            model="claude", messages=ASK, max_tokens=200, tools=[TOOL], stream=stream
        )
        if stream:
            deltas = [
                call.function
                for chunk in made
                if chunk.choices
                for call in chunk.choices[0].delta.tool_calls or []
            ]
            name = "".join(delta.name or "" for delta in deltas)
            arguments = "".join(delta.arguments or "" for delta in deltas)
        else:
            [call] = made.choices[0].message.tool_calls
            name, arguments = call.function.name, call.function.arguments
        assert (name, json.loads(arguments)) == ("look_up", {"city": "Paris"})
    [sent] = upstream.calls("claude-haiku-4-5")[-1].body["tools"]
    assert sent["name"] == "look_up"


@pytest.mark.parametrize(
    ("behaviour", "status", "doubt"),
    [
        (Fails(400), 400, False),
        (Fails(401, body='{"error": {"message": "bad key sk-upstream-secret"}}'), 502, False),
        (Fails(429, headers={"retry-after": "7"}), 429, False),
        (Fails(500), 502, False),
        (Fails(503), 503, False),
        (Resets(), 502, True),
        (Garbage(), 502, True),
    ],
    ids=str,
)
def test_faults_are_told_and_charged_as_they_are(
    daemon: Daemon, upstream: Upstream, behaviour: Any, status: int, doubt: bool
) -> None:
    upstream.on("gpt-4o-mini", behaviour)
    before = daemon.spend
    with daemon.http() as http:
        body = {"model": "chat", "messages": ASK, "max_tokens": 50}
        answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == status, answer.text
    assert "sk-upstream-secret" not in answer.text
    if status == 429:
        assert answer.headers["retry-after"] == "7"
    after = daemon.spend
    assert after["posted"] == before["posted"]
    assert (after["unknown"] > before["unknown"]) is doubt
    assert len(upstream.calls("gpt-4o-mini")[-2:]) <= 2


@pytest.mark.parametrize("behaviour", [SaysError(after_chunks=1), Resets(after_chunks=1)])
def test_a_stream_that_breaks_ends_in_one_error(
    daemon: Daemon, upstream: Upstream, behaviour: Any
) -> None:
    upstream.on("gpt-4o-mini", behaviour)
    with daemon.http() as http:
        body = {"model": "chat", "messages": ASK, "max_tokens": 50, "stream": True}
        text = http.post("/v1/chat/completions", json=body).text
    assert text.count('"error"') == 1
    assert "[DONE]" not in text


@pytest.mark.parametrize(
    "member",
    [
        {"api_base": "http://evil.example"},
        {"api_key": "x"},
        {"fallbacks": ["openai/gpt-4o"]},
        {"mock_response": "free"},
        {"messages": showing({"url": "http://169.254.169.254/"})},
        {"messages": showing(" HTTPS://internal/")},
    ],
    ids=str,
)
def test_a_caller_cannot_send_keys_or_the_worker_anywhere(
    daemon: Daemon, upstream: Upstream, member: Any
) -> None:
    upstream.received.clear()
    with daemon.http() as http:
        body = {"model": "chat", "messages": ASK, "max_tokens": 50, **member}
        answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400, answer.text
    assert upstream.received == []


def test_it_comes_back_when_it_was_killed(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("gpt-4o-mini", Says(GOOD))
    sdk(daemon).chat.completions.create(model="chat", messages=ASK)
    pid = worker(daemon).pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: worker(daemon).pid != pid, 10)
    deadline = time.monotonic() + START_S
    with cascaded.Client(daemon.socket, timeout_s=START_S) as client:
        while True:
            try:
                result = client.run("What is the capital of France?", model="chat")
                break
            except cascaded.APIError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
    assert result.content == GOOD
    assert worker(daemon).pid != pid


def test_nobody_else_may_ask_it_and_it_shows_no_secret(daemon: Daemon) -> None:
    pid = worker(daemon).pid
    [path] = Path(daemon.socket + ".d").glob("litellm-*.sock")
    assert path.stat().st_mode & 0o077 == 0
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert line.recv(4096).startswith(b"HTTP/1.1 401")
    for file in ("cmdline", "environ"):
        assert b"sk-upstream-secret" not in Path(f"/proc/{pid}/{file}").read_bytes()


def test_it_ends_with_the_daemon(upstream: Upstream) -> None:
    upstream.on("gpt-4o-mini", Hangs())
    hasty = TOML.replace("total_timeout_s = 20", "total_timeout_s = 1")
    with daemon_with(hasty, url=upstream.url) as one:
        with one.http() as http:
            body = {"model": "chat", "messages": ASK, "max_tokens": 50}
            answer = http.post("/v1/chat/completions", json=body, timeout=START_S)
        assert answer.status_code == 504
        assert one.spend["unknown"] > 0
        pid = worker(one).pid
    assert not Path(f"/proc/{pid}").exists()


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, upstream: Upstream) -> None:
    with daemon_with(TOML, url=upstream.url) as one:
        monkeypatch.setattr(worker(one), "_runtime_there", lambda: False)
        with one.http() as http:
            body = {"model": "chat", "messages": ASK, "max_tokens": 50}
            answer = http.post("/v1/chat/completions", json=body)
        assert "pip install 'cascaded[litellm]'" in answer.json()["error"]["message"]
        assert one.spend == {"posted": 0, "held": 0, "unknown": 0}


QUIETLY = """
import socket
def refuse(*words):
    raise AssertionError(f"it dials {words}")
socket.socket.connect = socket.socket.connect_ex = refuse
from cascaded.providers.litellm.worker import load
litellm = load({"OPENAI_API_KEY": "x"})
print(litellm.telemetry, litellm.callbacks, litellm.success_callback)
"""


def test_its_import_asks_nobody() -> None:
    said = subprocess.run(
        [sys.executable, "-c", QUIETLY],
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert said.stdout == "False [] []\n", said.stderr
