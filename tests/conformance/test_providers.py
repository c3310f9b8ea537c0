"""What every `ports.Provider` must do, whoever is behind it."""

import asyncio
import gc
import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from msgspec.structs import replace

from cascaded.adapters.clock import SystemClock
from cascaded.api.errors import ERRORS
from cascaded.ports import Call, Provider, ProviderTraits
from cascaded.providers.anthropic import Anthropic
from cascaded.providers.embedded.provider import TRAITS, EmbeddedModel, EmbeddedProvider
from cascaded.providers.litellm.provider import LiteLLMProvider
from cascaded.providers.openai_compatible import Endpoint, OpenAICompatible
from cascaded.types.errors import ProviderError
from cascaded.types.event import Event
from cascaded.types.model import Model
from cascaded.types.secret import Secret
from tests.support.upstream import Fails, Garbage, Hangs, Resets, Says, SaysError, Upstream

READY = """
import sys
sys.stdin.readline()
print('{"ready":true}', flush=True)
sys.stdin.read()
"""
"""A worker that is there and does nothing."""
FAKE_RUNTIME = Path(__file__).parents[1] / "support" / "fake_runtime"
KINDS = ("tcp", "unix", "embedded", "anthropic", "responses", "litellm")
GOOD = "The capital of France is Paris."
KEY = Secret("sk-upstream-secret")
HASTY = {"first_token_timeout_s": 0.5, "idle_timeout_s": 0.4, "total_timeout_s": 0.9}
"""For upstreams that are to be given up."""


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    """A scripted upstream on a loopback port and on a Unix socket."""
    upstream = Upstream()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", upstream.handle)
    app.router.add_post("/v1/messages", upstream.handle)
    app.router.add_post("/v1/responses", upstream.handle)
    app.router.add_post("/v1/messages/count_tokens", upstream.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await web.UnixSite(runner, str(tmp_path / "u.sock")).start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield upstream
    await runner.cleanup()


class AskedSo(OpenAICompatible):
    """One whose models are asked by its Responses."""

    def call(self, call: Call) -> AsyncGenerator[Event]:
        return super().call(replace(call, form="responses"))


def made(
    kind: str, upstream: Upstream, folder: Path, *, patience: Any = None, **traits: Any
) -> Provider:
    """A provider of this kind over the upstream.

    The embedded one and LiteLLM's start a child process; their words come from the upstream all the
    same.
    """
    tcp = kind in ("tcp", "anthropic", "responses")
    uds = None if tcp else str(folder / "u.sock")
    base_url = upstream.url if tcp else "http://upstream/v1"
    endpoint = Endpoint(
        base_url=base_url, uds=uds, api_key=KEY, max_response_bytes=100_000, **(patience or {})
    )

    def client(*_: object) -> Provider:
        one = AskedSo if kind == "responses" else OpenAICompatible
        return one(kind, endpoint, ProviderTraits(**traits), SystemClock())

    if kind == "anthropic":
        return Anthropic(kind, endpoint, ProviderTraits(**traits), SystemClock(), "2023-06-01")
    if kind == "litellm":
        return LiteLLMProvider(
            kind,
            ProviderTraits(**traits),
            environment={"OPENAI_API_KEY": KEY},
            options={},
            timeout_s=9,
            stem=folder / "run" / "l",
            connect=client,
            clock=SystemClock(),
            command=(sys.executable, "-c", READY),
            runtime_there=lambda: True,
        )
    if kind != "embedded":
        return client()
    weights = folder / "m.gguf"
    weights.write_text("")
    return EmbeddedProvider(
        kind,
        {"m": EmbeddedModel(weights=weights, slots=32)},
        runtime_folder=folder / "run",
        connect=client,
        clock=SystemClock(),
        environ={**os.environ, "PYTHONPATH": str(FAKE_RUNTIME)},
        runtime_there=lambda: True,
    )


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def provider(kind: str, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Provider]:
    provider = made(kind, upstream, tmp_path)
    yield provider
    await provider.close()


def call(*, stream: bool = False, **more: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    members = {**body, **more.pop("body", {})}
    return Call(
        model=Model(name="local", provider="p", upstream_name="m"),
        fields={name: msgspec.Raw(msgspec.json.encode(value)) for name, value in members.items()},
        stream=stream,
        request_id="r-1",
        **more,
    )


async def ask(provider: Provider, asked: Call) -> list[Event]:
    async with aclosing(provider.call(asked)) as events:
        return [event async for event in events]


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_it_has_a_name_and_traits(provider: Provider, kind: str) -> None:
    assert provider.name == kind
    assert isinstance(provider.traits, ProviderTraits)
    assert provider.traits is TRAITS or kind != "embedded"


async def test_a_plain_call_yields_one_whole_event(provider: Provider, upstream: Upstream) -> None:
    upstream.on("m", Says(GOOD, input_tokens=7, output_tokens=3))
    [event] = await ask(provider, call())
    assert event.whole
    assert (event.text, event.finish_reason) == (GOOD, "stop")
    assert event.usage is not None
    assert (event.usage.input_tokens, event.usage.output_tokens) == (7, 3)
    assert "unknown_to_us" in event.raw.decode()


@pytest.mark.parametrize("pieces", [1, 4, len(GOOD)])
async def test_a_stream_yields_chunks_and_usage(
    provider: Provider, upstream: Upstream, pieces: int
) -> None:
    upstream.on("m", Says(GOOD, chunks=pieces, input_tokens=7, output_tokens=3))
    events = await ask(provider, call(stream=True))
    assert not any(event.whole for event in events)
    assert "".join(event.text for event in events) == GOOD
    assert len([event for event in events if event.text]) == pieces
    assert [event.finish_reason for event in events if event.finish_reason] == ["stop"]
    [usage] = [event.usage for event in events if event.usage]
    assert (usage.input_tokens, usage.output_tokens) == (7, 3)
    for event in events:
        said = json.loads(event.raw)
        assert said.get("object", event.kind) == (event.kind or "chat.completion.chunk")


async def test_the_body_goes_as_it_is(provider: Provider, upstream: Upstream) -> None:
    upstream.on("m", Says(GOOD))
    sent = call(body={"seed": 1, "unknown": {"é": [1.50, None]}})
    await ask(provider, sent)
    [received] = upstream.received
    assert received.raw == msgspec.json.encode(sent.fields)
    assert received.headers["X-Request-ID"] == "r-1"
    assert received.headers["Content-Type"] == "application/json"
    assert "User-Agent" not in received.headers


async def test_keys(provider: Provider, upstream: Upstream, kind: str) -> None:
    upstream.on("m", Says(GOOD))
    await ask(provider, call())
    await ask(provider, call(caller_key="sk-caller"))
    key = "x-api-key" if kind == "anthropic" else "Authorization"
    keys = [received.headers[key].removeprefix("Bearer ") for received in upstream.received]
    assert keys == ["sk-upstream-secret", "sk-caller"]


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_closing_early_hangs_up(provider: Provider, upstream: Upstream, after: int) -> None:
    upstream.on("m", Says(GOOD, chunks=20, chunk_delay_s=0.05))
    events = provider.call(call(stream=True))
    for _ in range(after):
        await anext(events)
    await events.aclose()
    await until(lambda: upstream.hung_up == (1 if after else 0))
    upstream.on("m", Says(GOOD))
    assert await ask(provider, call()), "the next call is none the worse"


@pytest.mark.parametrize("stream", [False, True])
async def test_being_cancelled_hangs_up(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    upstream.on("m", Says(GOOD, delay_s=5))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ask(provider, call(stream=stream)))
        await until(lambda: upstream.received)
        task.cancel()
    assert task.cancelled()
    await until(lambda: upstream.hung_up == 1)


def chunk(delta: dict[str, Any]) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


SSE = "text/event-stream"
HEAD = chunk({"role": "assistant", "content": "Par"})
BAD_ERROR = b'{"error": {"message": "\xff"}}'
BOTH: list[tuple[Any, str, str, int | None]] = [
    (Fails(400), "upstream_refused", "not_billed", 400),
    (Fails(401), "upstream_authentication", "not_billed", 401),
    (Fails(403), "upstream_authentication", "not_billed", 403),
    (Fails(404, body=""), "upstream_refused", "not_billed", 404),
    (Fails(408), "upstream_timeout", "not_billed", 408),
    (Fails(422, body="[" * 50_000), "upstream_refused", "not_billed", 422),
    (Fails(429), "upstream_rate_limited", "not_billed", 429),
    (Fails(500, body="<html>" * 50_000), "upstream_server_error", "not_billed", 500),
    (Fails(503), "upstream_overloaded", "not_billed", 503),
    (Fails(504), "upstream_timeout", "not_billed", 504),
    (Fails(529), "upstream_overloaded", "not_billed", 529),
    (Fails(204, body=""), "upstream_garbage", "unknown", 204),
    (Fails(302, headers={"Location": "/x"}), "upstream_garbage", "unknown", 302),
    (Resets(), "upstream_reset", "unknown", None),
    (Hangs(), "upstream_timeout", "unknown", None),
]
PLAIN: list[tuple[Any, str, str, int | None]] = [
    (Garbage(), "upstream_garbage", "unknown", None),
    (Garbage(b""), "upstream_garbage", "unknown", None),
    (Garbage(b"\xff\xfe"), "upstream_garbage", "unknown", None),
    (Garbage(b"[" * 50_000), "upstream_garbage", "unknown", None),
    (Garbage(b'{"choices": []}'), "upstream_garbage", "unknown", None),
    (Garbage(b'{"choices": [{"index": 1}]}'), "upstream_garbage", "unknown", None),
    (Garbage(b" " * 100_001), "upstream_garbage", "unknown", None),
    (Garbage(b'{"error": "words"}'), "upstream_server_error", "unknown", None),
    (Garbage(BAD_ERROR), "upstream_server_error", "unknown", None),
]
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "P"}}
MESSAGES_HEAD = b"data: " + json.dumps(DELTA).encode() + b"\n\n"


RESPONSES_HEAD = b'data: {"type": "response.created", "response": {"id": "resp_1"}}\n\n'
HEADS = {"anthropic": (MESSAGES_HEAD, b"{}"), "responses": (RESPONSES_HEAD, b"{}")}


def streamed(head: bytes, wrong: bytes) -> list[tuple[Any, str, str, int | None]]:
    error = b"data: " + BAD_ERROR + b"\n\n"
    return [
        (Garbage(b"<html>"), "upstream_reset", "unknown", None),
        (Garbage(head, SSE), "upstream_reset", "unknown", None),
        (Garbage(head + b"data: nonsense\n\n", SSE), "upstream_garbage", "unknown", None),
        (Garbage(head + b"data: " + wrong + b"\n\n", SSE), "upstream_garbage", "unknown", None),
        (Garbage(head + error, SSE), "upstream_server_error", "unknown", None),
        (Garbage(head * 3_000, SSE), "upstream_garbage", "unknown", None),
        (SaysError(after_chunks=1), "upstream_server_error", "unknown", None),
        (Resets(after_chunks=1), "upstream_reset", "unknown", None),
        (Hangs(after_chunks=1), "upstream_timeout", "unknown", None),
    ]


def faults(kind: str) -> list[tuple[Any, ...]]:
    head, wrong = HEADS.get(kind, (HEAD, b'{"choices": 5}'))
    return [
        *((False, *fault) for fault in BOTH + PLAIN),
        *((True, *fault) for fault in BOTH + streamed(head, wrong)),
    ]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_fault_is_a_provider_error(
    kind: str, upstream: Upstream, tmp_path: Path
) -> None:
    """With a code of the error table, and told whether the call may be on the bill."""
    provider = made(kind, upstream, tmp_path, patience=HASTY)
    for stream, behaviour, code, billing, status in faults(kind):
        upstream.on("m", behaviour)
        with pytest.raises(ProviderError) as caught:
            await ask(provider, call(stream=stream))
        fault, what = caught.value, f"{behaviour!r:.80}, stream={stream}"
        assert (fault.code, fault.status) == (code, status), what
        assert fault.billing == ("not_billed" if kind == "embedded" else billing), what
        assert fault.code in ERRORS
        assert fault.message == str(fault)
        assert kind in fault.message, "it says who it was"
        assert len(fault.message) < 1_000, what
    upstream.on("m", Says(GOOD))
    assert [event.text for event in await ask(provider, call())] == [GOOD]
    await provider.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_nobody_there(kind: str, upstream: Upstream, tmp_path: Path, stream: bool) -> None:
    upstream.url = "http://127.0.0.1:1/v1"
    (tmp_path / "u.sock").unlink()
    provider = made(kind, upstream, tmp_path)
    with pytest.raises(ProviderError, match="cannot be reached") as caught:
        await ask(provider, call(stream=stream))
    assert (caught.value.code, caught.value.billing) == ("upstream_connect", "not_billed")
    await provider.close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "1e400"}, 86_400),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86_400),
        ({"retry-after": "Mon, 01 Jan 0001 00:00:00 -0000"}, 0),
        ({"retry-after": "Mon, 99 Xyz 2024 00:00:00 GMT"}, None),
    ],
    ids=str,
)
async def test_when_to_come_back(
    upstream: Upstream, tmp_path: Path, headers: dict[str, str], seconds: float | None
) -> None:
    provider = made("tcp", upstream, tmp_path)
    upstream.on("m", Fails(429, headers=headers))
    with pytest.raises(ProviderError) as caught:
        await ask(provider, call())
    assert caught.value.retry_after_s == seconds
    await provider.close()


async def test_an_upstream_that_repeats_the_key(
    provider: Provider, kind: str, upstream: Upstream
) -> None:
    said = '{"error": {"message": "Incorrect API key provided: sk-upstream-secret."}}'
    for behaviour in (Fails(401, body=said), Garbage(said.encode())):
        upstream.on("m", behaviour)
        with pytest.raises(ProviderError, match=r"provided: \*\*\*\.") as caught:
            await ask(provider, call())
        assert "sk-upstream" not in str(caught.value)


async def test_who_bills_on_5xx(upstream: Upstream, tmp_path: Path) -> None:
    provider = made("tcp", upstream, tmp_path, bills_on_5xx=True)
    for status, billing in [(500, "unknown"), (503, "unknown"), (429, "not_billed")]:
        upstream.on("m", Fails(status))
        with pytest.raises(ProviderError) as caught:
            await ask(provider, call())
        assert caught.value.billing == billing
    await provider.close()


async def test_authorities_that_are_gone(upstream: Upstream, tmp_path: Path) -> None:
    """Nothing was sent, so nothing is charged."""
    endpoint = Endpoint(base_url="https://127.0.0.1:1/v1", ca_file=str(tmp_path / "ca.pem"))
    provider = OpenAICompatible("p", endpoint, ProviderTraits(), SystemClock())
    with pytest.raises(ProviderError, match=r"ca\.pem") as caught:
        await ask(provider, call())
    assert (caught.value.code, caught.value.billing) == ("upstream_connect", "not_billed")
    await provider.close()


async def test_side_by_side(provider: Provider, upstream: Upstream) -> None:
    upstream.on("m", Says(GOOD, delay_s=0.05))
    answers = await asyncio.gather(*(ask(provider, call(stream=n % 2 == 0)) for n in range(20)))
    assert {"".join(event.text for event in events) for events in answers} == {GOOD}
    assert len(upstream.received) == 20


async def test_close_leaves_nothing_open(kind: str, upstream: Upstream, tmp_path: Path) -> None:
    def descriptors() -> set[str]:
        gc.collect()
        links = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        return {str(link.readlink()) for link in links if link.is_symlink()}

    upstream.on("m", Says(GOOD))
    provider = made(kind, upstream, tmp_path)
    await provider.close()
    before = descriptors()
    provider = made(kind, upstream, tmp_path)
    await asyncio.gather(*(ask(provider, call()) for _ in range(5)))
    abandoned = provider.call(call(stream=True))
    await anext(abandoned)
    await abandoned.aclose()
    for _ in range(2):
        await provider.close()
    for _ in range(100):  # the upstream's ends, in this same process, follow when they notice
        left = {name for name in descriptors() - before if "socket" in name}
        if not left:
            break
        await asyncio.sleep(0.02)
    assert not left, Path("/proc/net/tcp").read_text()
    assert not list(tmp_path.glob("run/*.sock"))


async def test_a_provider_that_counts(upstream: Upstream, tmp_path: Path) -> None:
    provider = made("anthropic", upstream, tmp_path)
    assert isinstance(provider, Anthropic)
    upstream.on("m", Says(input_tokens=7))
    assert await provider.count(call()) == 7
    upstream.on("m", Garbage(b"{}"))
    with pytest.raises(ProviderError, match="not a count"):
        await provider.count(call())
    assert {received.path for received in upstream.received} == {"/v1/messages/count_tokens"}
    await provider.close()
