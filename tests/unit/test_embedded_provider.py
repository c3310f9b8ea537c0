"""The embedded provider over the real child process, with a stand-in for llama.cpp inside it."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from cascaded.adapters.clock import SystemClock
from cascaded.ports import Call, Provider
from cascaded.providers.children.supervisor import Patience
from cascaded.providers.embedded.provider import TRAITS, EmbeddedModel, EmbeddedProvider
from cascaded.providers.openai_compatible import Endpoint, OpenAICompatible
from cascaded.types.errors import ProviderError
from cascaded.types.event import Event
from cascaded.types.model import Model
from cascaded.types.secret import Secret

FAKE_RUNTIME = Path(__file__).parents[1] / "support" / "fake_runtime"
HASTY = Patience(ready_timeout_s=5.0, backoff_s=0.05, backoff_max_s=0.4, caller_wait_s=0.15)


class NotingClock(SystemClock):
    """Notes the pauses between restarts."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await super().sleep(seconds)


def connect(socket: str, key: Secret) -> Provider:
    endpoint = Endpoint(
        base_url="http://embedded/v1", uds=socket, api_key=key, headers={"Connection": "close"}
    )
    return OpenAICompatible("embedded", endpoint, TRAITS, SystemClock())


class Bench:
    """One provider with one model, `m`."""

    def __init__(self, folder: Path) -> None:
        self.weights = folder / "m.gguf"
        self.runtime_folder = folder / "run"
        self.clock = NotingClock()
        self.behave("")

    def behave(self, words: str) -> None:
        self.weights.write_text(words)

    @property
    def starts(self) -> list[int]:
        """Process ids of all children so far."""
        noted = Path(f"{self.weights}.starts")
        return [int(line) for line in noted.read_text().split()] if noted.exists() else []

    @asynccontextmanager
    async def provider(
        self,
        patience: Patience = HASTY,
        runtime_there: Callable[[], bool] = lambda: True,
        **settings: object,
    ) -> AsyncIterator[EmbeddedProvider]:
        model = msgspec.convert({"weights": self.weights, **settings}, EmbeddedModel)
        provider = EmbeddedProvider(
            "embedded",
            {"m": model},
            runtime_folder=self.runtime_folder,
            connect=connect,
            clock=self.clock,
            patience=patience,
            environ={**os.environ, "PYTHONPATH": str(FAKE_RUNTIME), "OPENAI_API_KEY": "sk-x"},
            runtime_there=runtime_there,
        )
        try:
            yield provider
        finally:
            await provider.close()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def call_of(upstream: str = "m", **fields: object) -> Call:
    return Call(
        model=Model(name="local", provider="embedded", upstream_name=upstream),
        fields={
            name: msgspec.Raw(msgspec.json.encode(value))
            for name, value in {"model": "m", "messages": [], **fields}.items()
        },
        stream=False,
        request_id="r1",
    )


async def ask(provider: EmbeddedProvider, call: Call | None = None) -> Event:
    async with aclosing(provider.call(call or call_of())) as events:
        (event,) = [event async for event in events]
    return event


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether the process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_first_use_starts_one_child_that_answers_and_close_ends_it(bench: Bench) -> None:
    async with bench.provider(context_tokens=2048) as provider:
        provider.boot()
        await asyncio.sleep(0.05)
        assert bench.starts == []
        assert provider.pids() == {}

        event = await ask(provider)

        assert event.whole
        assert event.usage is not None
        assert (event.usage.input_tokens, event.usage.output_tokens) == (3, 2)
        assert json.loads(event.text)[1] == 2048
        assert list(provider.pids()) == ["m"]
        await ask(provider)
        (pid,) = bench.starts
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"sk-x" not in environ
        assert b"OMP_WAIT_POLICY=passive" in environ
    assert gone(pid)
    assert not bench.runtime_folder.exists()


async def test_its_socket_and_folder_are_for_this_user_alone(bench: Bench) -> None:
    bench.runtime_folder.mkdir(mode=0o755)
    (bench.runtime_folder / "embedded-0.sock").touch()  # a stale one
    async with bench.provider() as provider:
        await ask(provider)
        assert stat.S_IMODE(bench.runtime_folder.stat().st_mode) == 0o700
        socket = bench.runtime_folder / "embedded-0.sock"
        assert stat.S_ISSOCK(socket.stat().st_mode)
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        stranger = connect(str(socket), Secret("wrong"))
        with pytest.raises(ProviderError, match="Invalid API Key") as caught:
            await anext(stranger.call(call_of()))
        assert caught.value.status == 401
        await stranger.close()
        assert "runtime says hello" in (bench.runtime_folder / "embedded-0.log").read_text()


async def test_boot_starts_without_a_call(bench: Bench) -> None:
    async with bench.provider(start="boot") as provider:
        provider.boot()
        await until(lambda: bool(provider.pids()))
        await ask(provider)
        assert len(bench.starts) == 1


async def test_two_first_calls_start_one_child(bench: Bench) -> None:
    async with bench.provider() as provider:
        await asyncio.gather(*(ask(provider) for _ in range(5)))
        assert len(bench.starts) == 1


async def test_a_caller_that_gives_up_does_not_take_the_start_with_it(bench: Bench) -> None:
    async with bench.provider() as provider:
        hasty = asyncio.ensure_future(ask(provider))  # noqa: TID251
        patient = asyncio.ensure_future(ask(provider))  # noqa: TID251
        await asyncio.sleep(0.02)
        hasty.cancel()
        assert (await patient).whole
        assert len(bench.starts) == 1


async def test_a_killed_child_is_restarted_and_the_next_call_is_answered(bench: Bench) -> None:
    async with bench.provider() as provider:
        await ask(provider)
        os.kill(provider.pids()["m"], signal.SIGKILL)
        await until(lambda: not provider.pids())
        assert (await ask(provider)).whole  # sits out the short pause
        assert len(bench.starts) == 2
        assert bench.clock.slept == [0.05]


async def test_a_crash_while_answering_is_an_error_without_a_bill(bench: Bench) -> None:
    bench.behave("die-on-call")
    async with bench.provider() as provider:
        with pytest.raises(ProviderError) as caught:
            await ask(provider)
        assert caught.value.billing == "not_billed"
        assert caught.value.code in ("upstream_reset", "upstream_connect")
        bench.behave("")
        await until(lambda: not provider.pids())
        assert (await ask(provider)).whole


async def test_a_crash_loop_backs_off_and_tells_callers_when_to_return(bench: Bench) -> None:
    bench.behave("crash-at-start")
    async with bench.provider(msgspec.structs.replace(HASTY, backoff_max_s=0.8)) as provider:
        with pytest.raises(ProviderError, match=r"SIGABRT.*all is lost") as caught:
            await ask(provider)
        assert caught.value.code == "upstream_connect"
        await until(lambda: len(bench.clock.slept) >= 5)
        assert bench.clock.slept == [0.05, 0.1, 0.2, 0.4, 0.8]
        began = time.monotonic()
        with pytest.raises(ProviderError, match="5 times in a row") as caught:
            await ask(provider)
        assert time.monotonic() - began < 0.5
        assert caught.value.retry_after_s is not None
        assert 0.15 < caught.value.retry_after_s <= 0.8
        bench.behave("")
        await until(lambda: bool(provider.pids()))
        assert (await ask(provider)).whole


async def test_a_stable_child_is_forgiven_its_failures(bench: Bench) -> None:
    async with bench.provider(msgspec.structs.replace(HASTY, stable_s=0.0)) as provider:
        for _ in range(3):
            await ask(provider)
            os.kill(provider.pids()["m"], signal.SIGKILL)
            await until(lambda: not provider.pids())
        assert bench.clock.slept == [0.05] * 3


async def test_a_child_that_never_gets_ready_is_given_up(bench: Bench) -> None:
    bench.behave("hang-at-start")
    patience = msgspec.structs.replace(HASTY, ready_timeout_s=0.5, backoff_s=5.0, backoff_max_s=5.0)
    async with bench.provider(patience) as provider:
        with pytest.raises(ProviderError, match=r"not ready after 0\.5 s"):
            await ask(provider)
        assert all(gone(pid) for pid in bench.starts)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [("fail", "no such architecture"), ("tcp", r"listens on tcp://0\.0\.0\.0:1")],
)
async def test_what_stops_the_runtime_is_passed_on(
    bench: Bench, behaviour: str, words: str
) -> None:
    bench.behave(behaviour)
    async with bench.provider() as provider:
        with pytest.raises(ProviderError, match=words):
            await ask(provider)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("print('hello')", "it greeted with"),
        ("print('x' * 200_000)", "greeting was too long"),
        ("raise SystemExit(3)", "ended with code 3"),
        ('import os; os.close(0); print(\'{"ready": false, "error": "no"}\')', "does not run: no"),
    ],
)
async def test_a_child_that_says_nonsense(bench: Bench, script: str, words: str) -> None:
    provider = EmbeddedProvider(
        "embedded",
        {"m": EmbeddedModel(weights=bench.weights)},
        runtime_folder=bench.runtime_folder,
        connect=connect,
        clock=bench.clock,
        patience=HASTY,
        command=(sys.executable, "-c", script),
        runtime_there=lambda: True,
    )
    with pytest.raises(ProviderError, match=words):
        await ask(provider)
    await provider.close()


async def test_a_child_that_will_not_leave_is_killed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cascaded.providers.children.process.STOP_GRACE_S", 0.2)
    script = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN);"
        "print(os.getpid(), file=__import__('sys').stderr, flush=True);"
        "print('{\"ready\": true}', flush=True); time.sleep(60)"
    )
    provider = EmbeddedProvider(
        "embedded",
        {"m": EmbeddedModel(weights=bench.weights, start="boot")},
        runtime_folder=bench.runtime_folder,
        connect=connect,
        clock=bench.clock,
        patience=HASTY,
        command=(sys.executable, "-c", script),
        runtime_there=lambda: True,
    )
    provider.boot()
    await until(lambda: bool(provider.pids()))
    pid = provider.pids()["m"]
    await provider.close()
    assert gone(pid)


async def test_a_command_that_is_not_there(bench: Bench) -> None:
    provider = EmbeddedProvider(
        "embedded",
        {"m": EmbeddedModel(weights=bench.weights)},
        runtime_folder=bench.runtime_folder,
        connect=connect,
        clock=bench.clock,
        patience=HASTY,
        command=(str(bench.weights / "nothing"),),
        runtime_there=lambda: True,
    )
    with pytest.raises(ProviderError, match="does not run"):
        await ask(provider)
    await provider.close()


async def test_missing_weights_say_how_to_get_them_and_are_seen_once_they_come(
    bench: Bench,
) -> None:
    bench.weights.unlink()
    async with bench.provider(start="boot") as provider:
        provider.boot()
        for _ in range(2):
            with pytest.raises(ProviderError, match="cascaded models pull m") as caught:
                await ask(provider)
            assert caught.value.code == "upstream_connect"
            assert caught.value.retry_after_s is None
        bench.behave("")
        assert (await ask(provider)).whole


async def test_a_missing_runtime_says_what_to_install(bench: Bench) -> None:
    async with bench.provider(runtime_there=lambda: False) as provider:
        with pytest.raises(ProviderError, match=r"pip install 'cascaded\[embedded\]'"):
            await ask(provider)
    assert bench.starts == []


async def test_an_unknown_model_lists_those_there_are(bench: Bench) -> None:
    async with bench.provider() as provider:
        with pytest.raises(ProviderError, match=r"no embedded model 'x'.*there are: m") as caught:
            await ask(provider, call_of("x"))
        assert caught.value.code == "upstream_refused"


async def test_the_queue_is_bounded_in_length_and_in_time(bench: Bench) -> None:
    bench.behave("slow")
    async with bench.provider(queue_max=1, queue_timeout_s=0.1) as provider:
        await ask(provider)
        answers = await asyncio.gather(*(ask(provider) for _ in range(3)), return_exceptions=True)
        faults = [fault for fault in answers if isinstance(fault, ProviderError)]
        assert len(faults) == 2
        assert {fault.code for fault in faults} == {"upstream_overloaded"}
        assert sorted(str(fault).rpartition(": ")[2] for fault in faults) == [
            "2 requests are with it already",
            "it had no time for this request in 0.1 s",
        ]
        assert (await ask(provider)).whole


async def test_slots_answer_side_by_side(bench: Bench) -> None:
    bench.behave("slow")
    async with bench.provider(slots=2, context_tokens=1000) as provider:
        event = await ask(provider)
        assert json.loads(event.text)[1] == 2000
        began = time.monotonic()
        await asyncio.gather(ask(provider), ask(provider))
        assert time.monotonic() - began < 0.6


async def test_one_alternative_a_token_unless_the_caller_wants_more(bench: Bench) -> None:
    async with bench.provider() as provider:

        async def sent(**fields: object) -> object:
            event = await ask(provider, call_of("m", **fields))
            return json.loads(event.text)[0].get("top_logprobs")

        assert await sent() is None
        assert await sent(logprobs=False) is None
        assert await sent(logprobs=True) == 1
        assert await sent(logprobs=True, top_logprobs=5) == 5


async def test_after_close_nothing_starts_again(bench: Bench) -> None:
    async with bench.provider() as provider:
        await provider.close()
        with pytest.raises(ProviderError, match="it was stopped"):
            await ask(provider)
    assert bench.starts == []


async def test_close_during_a_start_releases_the_caller(bench: Bench) -> None:
    bench.behave("hang-at-start")
    async with bench.provider() as provider:
        waiting = asyncio.ensure_future(ask(provider))  # noqa: TID251
        await until(lambda: bool(bench.starts))
        await provider.close()
        with pytest.raises(ProviderError):
            await waiting
    assert all(gone(pid) for pid in bench.starts)


async def test_somebody_elses_runtime_folder_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = os.geteuid() + 1
    monkeypatch.setattr("os.geteuid", lambda: other)
    async with bench.provider() as provider:
        with pytest.raises(ProviderError, match="name another runtime folder"):
            await ask(provider)


def test_a_path_too_long_for_a_socket_is_refused_at_once(bench: Bench) -> None:
    with pytest.raises(ValueError, match="name a shorter runtime folder"):
        EmbeddedProvider(
            "embedded",
            {"m": EmbeddedModel(weights=bench.weights)},
            runtime_folder=Path("/" + "x" * 120),
            connect=connect,
            clock=bench.clock,
        )


PARENT = """
import asyncio, os, sys
from pathlib import Path
from cascaded.adapters.clock import SystemClock
from cascaded.providers.embedded.provider import EmbeddedModel, EmbeddedProvider

async def main():
    class Client:
        async def close(self): pass
    provider = EmbeddedProvider(
        "embedded", {"m": EmbeddedModel(weights=Path(sys.argv[1]), start="boot")},
        runtime_folder=Path(sys.argv[2]), connect=lambda *_: Client(), clock=SystemClock(),
        runtime_there=lambda: True,
    )
    provider.boot()
    while not provider.pids():
        await asyncio.sleep(0.01)
    print(provider.pids()["m"], flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
async def test_the_child_dies_with_its_parent(bench: Bench, signum: signal.Signals) -> None:
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(bench.weights), str(bench.runtime_folder)],
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{FAKE_RUNTIME}"},
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.send_signal(signum)
    await until(lambda: gone(pid))
