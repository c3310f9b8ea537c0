"""Both clients against answers that are late, cut, wrong, strange, or none at all."""

import asyncio
import errno
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from cascaded.client import (
    APIError,
    AsyncClient,
    BudgetExceededError,
    CascadedError,
    Client,
    DaemonUnreachableError,
    ProtocolError,
    RateLimitedError,
    StreamBrokenError,
    VersionError,
    calls,
    connection,
    sync,
)
from cascaded.client.calls import Call
from cascaded.wire import protocol
from cascaded.wire.sse import DONE, sse
from tests.support.process import wait_for
from tests.support.scripted import Answer, chunked, http, scripted

T = TypeVar("T")
HEALTH = b'{"status": "ok", "version": "1.0"}'
FINE = http(HEALTH)
CHUNK = b'{"content": "a"}'
RESULT = b'{"content": "Paris", "metadata": {"request_id": "r", "total_cost": 0, "draft_cost": 0,'
RESULT += b' "verifier_cost": 0, "cost_saved": 0, "savings_percent": 0}}'


class Asks(Protocol):
    """Either client, asked from plain code."""

    idle: Callable[[], int]

    def __call__(self, call: Call[T]) -> T: ...
    def stream(self, call: Call[T]) -> list[T]: ...


class Blocking:
    def __init__(self, path: str, timeout_s: float) -> None:
        self._client = Client(path, timeout_s=timeout_s)
        self.idle = lambda: len(self._client._idle)
        self.close = self._client.close

    def __call__(self, call: Call[T]) -> T:
        return self._client.ask(call)

    def stream(self, call: Call[T]) -> list[T]:
        return list(self._client.ask_stream(call))


class Awaiting:
    """Each call on a loop of its own."""

    def __init__(self, path: str, timeout_s: float) -> None:
        self._client = AsyncClient(path, timeout_s=timeout_s)
        self.idle = lambda: len(self._client._idle)
        self.close = self._client.close

    def __call__(self, call: Call[T]) -> T:
        return asyncio.run(self._client.ask(call))

    def stream(self, call: Call[T]) -> list[T]:
        async def collect() -> list[T]:
            return [chunk async for chunk in self._client.ask_stream(call)]

        return asyncio.run(collect())


Opens = Callable[..., Asks]


@pytest.fixture(params=[Blocking, Awaiting], ids=["sync", "async"])
def opens(request: pytest.FixtureRequest) -> Iterator[Opens]:
    """Makes a client for a path."""
    made: list[Any] = []

    def make(path: str, timeout_s: float = 5.0) -> Any:
        made.append(request.param(path, timeout_s))
        return made[-1]

    yield make
    for client in made:
        client.close()


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "raised", "words"),
    [
        (b"220 mail.example ESMTP\r\n", ProtocolError, "speaks no HTTP"),
        ([b"220 mail.example ESMTP\r\n", 9.0], ProtocolError, "speaks no HTTP"),
        (b"HTTP/2 200 OK\r\n\r\n", ProtocolError, "speaks no HTTP"),
        (b"HTTP/1.1 two\r\n\r\n", ProtocolError, "speaks no HTTP"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", ProtocolError, "speaks no HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, ProtocolError, "speaks no HTTP"),
        (http(b"", headers=["Content-Length: 7"]), ProtocolError, "speaks no HTTP"),
        (chunked(HEALTH, end=b"zz\r\n"), ProtocolError, "speaks no HTTP"),
        (http(b"<html>"), ProtocolError, "unknown shape"),
        (http(b""), ProtocolError, "unknown shape"),
        (http(b"\xff"), ProtocolError, "unknown shape"),
        (http(b'{"status": 5}'), ProtocolError, "unknown shape"),
        (http(HEALTH, length=len(HEALTH) - 3), ProtocolError, "unknown shape"),
        (http(b"<html>\xff", 502), ProtocolError, "status 502, not from this daemon: <html>"),
        (http(b'{"error": "words"}', 500), ProtocolError, "status 500"),
        (http(b'{"error": {}}', 500), APIError, "gave no reason"),
        (http(HEALTH, length=50), DaemonUnreachableError, "went away as it answered"),
        ([http(HEALTH, length=50), 0.6], DaemonUnreachableError, "as it answered: Timeout"),
        (chunked(HEALTH, end=b""), DaemonUnreachableError, "went away as it answered"),
        (b"HTTP/1.1 200 OK\r\nContent-", DaemonUnreachableError, "went away before"),
        (b"", DaemonUnreachableError, "went away before it answered"),
        (None, DaemonUnreachableError, r"no answer within 0\.3 s"),
    ],
)
def test_what_is_not_this_daemon(
    tmp_path: Path, opens: Opens, answer: Answer, raised: type[CascadedError], words: str
) -> None:
    with scripted(tmp_path, [answer]) as script:
        client = opens(script.path, timeout_s=0.3)
        with pytest.raises(raised, match=words):
            client(calls.health())
        assert len(script.heard) == 1


@pytest.mark.parametrize(
    "answer",
    [
        [bytes([byte]) for byte in FINE],
        chunked(HEALTH[:5], HEALTH[5:6], HEALTH[6:]),
        [chunked(HEALTH[:5], HEALTH[5:]), 0.01],
        b"HTTP/1.1 200 OK\r\n\r\n" + HEALTH,
        b"HTTP/1.0 200 OK\r\n\r\n" + HEALTH,
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + FINE,
        [b"HTTP/1.1 100 Continue\r\n\r\n", 0.05, FINE],
        http(HEALTH, headers=["Connection: close"]),
        http(b'{"status": "ok", "version": "1.0", "colour": {"of": ["the", "sky"]}}'),
        http(b'{"status": "resting", "version": "1.0"}'),
    ],
    ids=range(10),
)
def test_what_is_an_answer_all_the_same(tmp_path: Path, opens: Opens, answer: Answer) -> None:
    with scripted(tmp_path, [answer]) as script:
        assert opens(script.path)(calls.health()).version == "1.0"


def test_an_answer_must_fit_into_memory(
    tmp_path: Path, opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "MAX_ANSWER_BYTES", 1_000)
    monkeypatch.setattr("cascaded.client.aio.MAX_ANSWER_BYTES", 1_000)
    with (
        scripted(tmp_path, [http(b"x" * 1_001)]) as script,
        pytest.raises(ProtocolError, match="larger than 1000 bytes"),
    ):
        opens(script.path)(calls.health())


def test_a_refusal_before_all_was_heard(tmp_path: Path, opens: Opens) -> None:
    """The daemon has seen enough of a body and hangs up; why stands in its answer."""
    refusal = http(b'{"error": {"code": "too_large", "message": "Too large."}}', 413)
    with socket.socket(socket.AF_UNIX) as listener:
        path = str(tmp_path / "s.sock")
        listener.bind(path)
        listener.listen()

        def refuse() -> None:
            line, _ = listener.accept()
            with line:
                line.recv(1_000)
                line.sendall(refusal)
                line.shutdown(socket.SHUT_RD)

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(APIError, match="Too large") as caught:
            opens(path)(calls.run("x" * 5_000_000))
        assert caught.value.status == 413
        thread.join()


# --- streams -------------------------------------------------------------------------------------


def events(*data: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(sse(one) for one in data)


@pytest.mark.parametrize(
    ("answer", "raised", "words"),
    [
        (events(CHUNK), StreamBrokenError, "before its last chunk"),
        (chunked(sse(CHUNK)), StreamBrokenError, "before its last chunk"),
        (chunked(sse(CHUNK), end=b""), StreamBrokenError, "the connection broke"),
        ([chunked(sse(CHUNK), end=b""), 0.6], StreamBrokenError, "the connection broke: Timeout"),
        (events(b"<html>"), ProtocolError, "unknown shape"),
        (events(b'{"content": 5}'), ProtocolError, "unknown shape"),
        (events(b'{"error": {"message": "it fell"}}'), StreamBrokenError, "it fell"),
        (events(b'{"error": "words"}'), ProtocolError, "unknown shape"),
        (events(b"x" * 9_000_000), ProtocolError, "longer than"),
        (http(sse(CHUNK), length=99), StreamBrokenError, "broke"),
        (chunked(sse(CHUNK), end=b"zz\r\n"), ProtocolError, "speaks no HTTP"),
        (http(b"<html>", 500), ProtocolError, "status 500"),
        (http(b'{"error": {"code": "draining"}}', 503), APIError, "gave no reason"),
        (http(b'{"error": {"co', 503, length=50), DaemonUnreachableError, "as it answered"),
    ],
)
def test_streams_that_are_not_this_daemons(
    tmp_path: Path, opens: Opens, answer: Answer, raised: type[CascadedError], words: str
) -> None:
    with (
        scripted(tmp_path, [answer]) as script,
        pytest.raises(raised, match=words),
    ):
        opens(script.path, timeout_s=0.3).stream(calls.stream("Hi"))


def test_a_stream_however_it_is_cut(tmp_path: Path, opens: Opens) -> None:
    whole = chunked(sse(CHUNK), sse(CHUNK) + sse(DONE))
    with scripted(tmp_path, [[bytes([byte]) for byte in whole], FINE]) as script:
        client = opens(script.path)
        assert [chunk.content for chunk in client.stream(calls.stream("Hi"))] == ["a", "a"]
        assert client.idle() == 1
        assert client(calls.health()).status == "ok"


# --- connections ---------------------------------------------------------------------------------


def test_what_was_said_too_much_is_not_the_next_answer(tmp_path: Path, opens: Opens) -> None:
    """A connection with bytes left over is not used again: they would answer another's question."""
    other = http(HEALTH.replace(b"1.0", b"6.66"))
    with scripted(tmp_path, [FINE + other, FINE], [FINE, FINE]) as script:
        client = opens(script.path)
        assert [client(calls.health()).version for _ in range(3)] == ["1.0"] * 3


def test_a_connection_that_ends_after_its_answer(tmp_path: Path, opens: Opens) -> None:
    closing = http(HEALTH, headers=["Connection: close"])
    with scripted(tmp_path, [closing], [FINE], [FINE]) as script:
        client = opens(script.path)
        client(calls.health())
        assert client.idle() == 0
        for _ in range(2):
            assert client(calls.health()).status == "ok"


REPEATED = [
    pytest.param(calls.health(), FINE, id="a look"),
    pytest.param(calls.check("Hi"), http(b'{"allowed": true}'), id="a check"),
    pytest.param(
        calls.reserve(1, idempotency_key="k"), http(b'{"hold": 1, "cost": 1}'), id="with a key"
    ),
]
NOT_REPEATED = [
    pytest.param(calls.run("Hi"), id="run"),
    pytest.param(calls.reserve(1), id="reserve"),
    pytest.param(calls.settle(1, 1), id="settle"),
    pytest.param(calls.release(1), id="release"),
    pytest.param(calls.resolve(1, 1), id="resolve"),
    pytest.param(calls.backup("/b"), id="backup"),
]


@pytest.mark.parametrize(("call", "answer"), REPEATED)
def test_a_kept_connection_that_dies_under_a_repeatable_call(
    tmp_path: Path, opens: Opens, call: Call[Any], answer: bytes
) -> None:
    with scripted(tmp_path, [FINE, b""], [answer]) as script:
        client = opens(script.path)
        client(calls.health())
        client(call)
        assert len(script.heard) == 3
        assert script.heard[1] == script.heard[2]


@pytest.mark.parametrize("call", NOT_REPEATED)
def test_what_may_have_been_done_is_not_done_again(
    tmp_path: Path, opens: Opens, call: Call[Any]
) -> None:
    with scripted(tmp_path, [FINE, b""], [FINE]) as script:
        client = opens(script.path)
        client(calls.health())
        with pytest.raises(DaemonUnreachableError, match="may have made the call"):
            client(call)
        assert len(script.heard) == 2


@pytest.mark.parametrize("half", [b"HTTP/1.1 2", FINE[:-5]])
def test_an_answer_that_has_begun_is_not_asked_for_again(
    tmp_path: Path, opens: Opens, half: bytes
) -> None:
    with scripted(tmp_path, [FINE, half], [FINE]) as script:
        client = opens(script.path)
        client(calls.health())
        with pytest.raises(DaemonUnreachableError, match="went away"):
            client(calls.health())
        assert len(script.heard) == 2


def test_it_is_tried_once_again_and_no_more(tmp_path: Path, opens: Opens) -> None:
    with scripted(tmp_path, [FINE, b""], [b""], [FINE]) as script:
        client = opens(script.path)
        client(calls.health())
        with pytest.raises(DaemonUnreachableError, match="went away before it answered"):
            client(calls.health())
        assert len(script.heard) == 3


def test_silence_is_no_reason_to_ask_again(tmp_path: Path, opens: Opens) -> None:
    with scripted(tmp_path, [FINE, None], [FINE]) as script:
        client = opens(script.path, timeout_s=0.2)
        client(calls.health())
        with pytest.raises(DaemonUnreachableError, match="no answer within"):
            client(calls.health())
        assert len(script.heard) == 2
        assert script.hung_up.wait(5)


@pytest.mark.parametrize("call", NOT_REPEATED)
def test_what_the_daemon_never_saw_may_always_be_said_again(
    tmp_path: Path, opens: Opens, monkeypatch: pytest.MonkeyPatch, call: Call[Any]
) -> None:
    """It went away between our look at the connection and the first byte."""
    monkeypatch.setattr(connection.Connection, "usable", lambda _: True)
    refusal = http(b'{"error": {"message": "heard"}}', 400)
    with scripted(tmp_path, [FINE], [refusal]) as script:
        client = opens(script.path)
        client(calls.health())
        wait_for(lambda: script.lines[0].fileno() == -1)
        with pytest.raises(APIError, match="heard"):
            client(call)
        assert len(script.heard) == 2


def crowd(path: str) -> Iterator[socket.socket]:
    """Callers until the queue is full."""
    while True:
        one = socket.socket(socket.AF_UNIX)
        one.setblocking(False)
        if one.connect_ex(path) == errno.EAGAIN:
            one.close()
            return
        yield one


def test_a_crowd_at_the_door(tmp_path: Path, opens: Opens) -> None:
    """A full queue is waited for, and not taken for a daemon that is not there."""
    path = str(tmp_path / "s.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        waiting = list(crowd(path))
        with pytest.raises(DaemonUnreachableError, match="no answer within"):
            opens(path, timeout_s=0.1)(calls.health())
        client = opens(path)
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(client(calls.health()).status))
        asking.start()
        for one in waiting:
            listener.accept()[0].close()
            one.close()
        line, _ = listener.accept()
        with line:
            line.recv(65_536)
            line.sendall(FINE)
        asking.join()
    assert answers == ["ok"]


async def test_cancelling_hangs_up(tmp_path: Path) -> None:
    with scripted(tmp_path, [FINE, None]) as script:
        async with AsyncClient(script.path) as client:
            await client.health()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.run("Hi")
            assert await asyncio.to_thread(script.hung_up.wait, 5)
            assert len(client._idle) == 0


async def test_nothing_is_read_ahead_of_the_reader(tmp_path: Path) -> None:
    """A daemon that writes faster than we read has to wait."""
    path, sent = str(tmp_path / "s.sock"), 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def pour() -> None:
            nonlocal sent
            line, _ = listener.accept()
            with line, suppress(ConnectionError):
                line.recv(65_536)
                line.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    sent += line.send(sse(CHUNK) * 1_000)

        thread = threading.Thread(target=pour)
        thread.start()
        async with AsyncClient(path) as client:
            chunks: AsyncGenerator[Any] = client.stream("Hi")
            await anext(chunks)
            before = -1
            while sent != before:
                before = sent
                assert sent < 2_000_000
                await asyncio.sleep(0.1)
            await chunks.aclose()
        await asyncio.to_thread(thread.join)


def test_a_stream_of_the_parent_is_not_the_childs(tmp_path: Path) -> None:
    """In a fresh process, as forking one with threads is asking for trouble."""
    code = """
import os, sys, cascaded
client = cascaded.Client(sys.argv[1])
stream = client.stream("Hi")
assert next(stream).content == "a"
pid = os.fork()
if pid == 0:
    try:
        next(stream)
    except cascaded.StreamBrokenError as error:
        os._exit(0 if "parent" in str(error) else 1)
    os._exit(2)
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert [chunk.content for chunk in stream] == ["b"]
"""
    last = sse(CHUNK.replace(b"a", b"b")) + sse(DONE)
    rest = b"%x\r\n%s\r\n0\r\n\r\n" % (len(last), last)
    answer: Answer = [chunked(sse(CHUNK), end=b""), 0.5, rest]
    with scripted(tmp_path, [answer]) as script:
        subprocess.run([sys.executable, "-c", code, script.path], check=True, timeout=20)


# --- versions ------------------------------------------------------------------------------------


def speaking(version: object, body: bytes = HEALTH, status: int = 200) -> bytes:
    return http(body, status, headers=[f"{protocol.HEADER}: {version}"])


def test_every_call_names_its_version(tmp_path: Path, opens: Opens) -> None:
    with scripted(tmp_path, [speaking(protocol.CURRENT), http(HEALTH)]) as script:
        client = opens(script.path)
        for _ in range(2):
            assert client(calls.health()).status == "ok", "who names none speaks the first"
        assert all(b"x-cascaded-protocol: 1\r\n" in heard for heard in script.heard)


REFUSED = b'{"error": {"code": "unsupported_protocol", "message": "Not spoken here."}}'


@pytest.mark.parametrize(
    "answer",
    [speaking(7), speaking(7, REFUSED, 400), speaking(7, b"\xff" * 9), speaking("seven")],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_newer_daemon(tmp_path: Path, opens: Opens, answer: bytes, stream: bool) -> None:
    with scripted(tmp_path, [answer]) as script:
        client = opens(script.path)
        with pytest.raises(VersionError, match=r"upgrade the client \(pip install") as caught:
            client.stream(calls.stream("Hi")) if stream else client(calls.health())
        assert caught.value.client == protocol.CURRENT
        assert caught.value.daemon in (7, None)


@pytest.mark.parametrize("answer", [FINE, speaking(1), speaking(1, REFUSED, 400), speaking(0)])
def test_an_older_daemon(
    tmp_path: Path, opens: Opens, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a client will see it that no longer speaks the first version."""
    monkeypatch.setattr(protocol, "OLDEST", 2)
    monkeypatch.setattr(protocol, "CURRENT", 3)
    with scripted(tmp_path, [answer]) as script:
        with pytest.raises(VersionError, match="upgrade the daemon and restart") as caught:
            opens(script.path)(calls.health())
        assert b"x-cascaded-protocol: 3\r\n" in script.heard[0]
        assert caught.value.client == 3


def test_one_that_is_both_new_and_spoken(
    tmp_path: Path, opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of the third version, with a daemon of the second, which both speak."""
    monkeypatch.setattr(protocol, "CURRENT", 3)
    with scripted(tmp_path, [speaking(2)]) as script:
        assert opens(script.path)(calls.health()).status == "ok"


def test_words_that_this_version_does_not_know(tmp_path: Path, opens: Opens) -> None:
    news = b'"mood": "good", "cache": "telepathic", "request_id"'
    strange = RESULT.replace(b'"request_id"', news)
    row = b'{"scope": "galaxy", "id": "x", "window": "eon", "zone": "UTC", "limit": null,'
    row += b' "enforcement": "plead", "origin": "?", "posted": 0, "held": 0, "unknown": 0,'
    row += b' "overrun": 0, "remaining": null, "degraded": false, "karma": 1}'
    budgets = b'{"budgets": [' + row + b'], "more": 0}'
    with scripted(tmp_path, [http(strange), http(budgets)]) as script:
        client = opens(script.path)
        assert client(calls.run("Hi")).metadata.cache == "telepathic"
        assert client(calls.budgets())[0].enforcement == "plead"


# --- errors --------------------------------------------------------------------------------------

BUDGET = b"""{"error": {"message": "No.", "type": "budget_exceeded", "param": null,
 "code": "insufficient_quota", "user_id": "u", "scope": "user", "budget_type": "daily",
 "budget_limit": 1.000000001, "current_spend": 1.05, "reset_time": "2026-01-01T00:00:00Z",
 "recommendation": "Wait.", "next_tier": "pro", "next_tier_budget": 10.00, "shade": "blue"}}"""


def test_a_budget_error_carries_what_the_server_said(tmp_path: Path, opens: Opens) -> None:
    headers = ["x-request-id: r-1", "retry-after: 7", "x-should-retry: false"]
    with scripted(tmp_path, [http(BUDGET, 429, headers=headers), FINE]) as script:
        client = opens(script.path)
        with pytest.raises(BudgetExceededError) as caught:
            client(calls.run("Hi"))
        assert client.idle() == 1, "a refusal is an answer: the connection goes on"
    error = caught.value
    assert (error.user_id, error.scope, error.budget_type) == ("u", "user", "daily")
    assert (str(error.budget_limit), str(error.current_spend)) == ("1.000000001", "1.05")
    assert (error.reset_time, error.recommendation) == ("2026-01-01T00:00:00Z", "Wait.")
    assert (error.next_tier, str(error.next_tier_budget)) == ("pro", "10.00")
    assert (error.request_id, error.retry_after_s, error.should_retry) == ("r-1", 7.0, False)
    assert error.details["shade"] == "blue"


@pytest.mark.parametrize(
    ("headers", "seconds", "advice"),
    [
        (["retry-after-ms: 1500", "retry-after: 2", "x-should-retry: true"], 1.5, True),
        (["retry-after: 2"], 2.0, None),
        (["retry-after: Wed, 21 Oct 2026 07:28:00 GMT", "x-should-retry: perhaps"], None, None),
        ([], None, None),
    ],
)
def test_when_to_try_again(
    tmp_path: Path,
    opens: Opens,
    headers: Sequence[str],
    seconds: float | None,
    advice: bool | None,
) -> None:
    body = b'{"error": {"code": "rate_limited", "message": "Too soon."}}'
    with scripted(tmp_path, [http(body, 429, headers=headers)]) as script:
        with pytest.raises(RateLimitedError) as caught:
            opens(script.path)(calls.run("Hi"))
        assert (caught.value.retry_after_s, caught.value.should_retry) == (seconds, advice)


@pytest.mark.parametrize("key", ["a\nb", "a\r\nX-User-ID: root", "k\u00e4se", "\0"])
def test_a_key_that_no_header_can_carry(tmp_path: Path, opens: Opens, key: str) -> None:
    with scripted(tmp_path, [FINE]) as script:
        client = opens(script.path)
        with pytest.raises(ValueError, match=r"header|ascii|Illegal"):
            client(calls.reserve(1, idempotency_key=key))
        assert script.heard == []


def test_not_ready_is_an_answer(tmp_path: Path, opens: Opens) -> None:
    body = b'{"ready": false, "draining": true, "in_flight": 3}'
    with scripted(tmp_path, [http(body, 503)]) as script:
        told = opens(script.path)(calls.ready())
        assert (told.ready, told.draining, told.in_flight) == (False, True, 3)
