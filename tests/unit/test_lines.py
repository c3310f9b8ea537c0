"""The lines to an upstream, on both event loops, against servers that do as they please."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from yarl import URL

from cascaded.ports import Progress
from cascaded.providers.lines import (
    MAX_HEAD_BYTES,
    MAX_WAITING_BYTES,
    Answer,
    DialError,
    LineError,
    Lines,
    Target,
)

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Coroutine[Any, Any, None]], None]
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def within(test: Coroutine[Any, Any, None]) -> None:
        async def timed() -> None:
            async with asyncio.timeout(20):
                await test

        request.param(timed())

    return within


async def heard(reader: asyncio.StreamReader) -> bytes:
    """One whole request."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    return head + await reader.readexactly(length)


def says(*pieces: bytes, then_close: bool = False) -> Script:
    """Answers every call with the same bytes."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await heard(reader)
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(0.001)
                if then_close:
                    return

    return script


@contextlib.asynccontextmanager
async def served(
    script: Script, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """A server on loopback: its port, and the connections that it was asked on."""
    dialled: list[asyncio.StreamWriter] = []
    over = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.append(writer)
        async with asyncio.TaskGroup() as group:
            talk = group.create_task(quietly(script(reader, writer)))
            last = group.create_task(over.wait())
            await asyncio.wait((talk, last), return_when=asyncio.FIRST_COMPLETED)
            talk.cancel()
            writer.transport.abort() if over.is_set() else writer.close()
            last.cancel()
        ended.release()

    ended = asyncio.Semaphore(0)
    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], dialled
    finally:
        server.close()
        over.set()
        for _ in dialled:
            await ended.acquire()


async def quietly(talk: Awaitable[None]) -> None:
    with contextlib.suppress(ConnectionError):
        await talk


def lines_to(port: int, **more: Any) -> Lines:
    target = Target(url=URL(f"{more.pop('scheme', 'http')}://127.0.0.1:{port}/v1"), **more)
    return Lines(target, {"Content-Type": "application/json"})


async def ask(lines: Lines, body: bytes = b"{}") -> Answer:
    return await lines.ask("/chat", {"X-Request-ID": "r"}, body, Progress(queued=True))


async def whole(lines: Lines) -> bytes:
    body = b""
    with await ask(lines) as answer:
        while part := await answer.read():
            body += part
    return body


FRAMED = {
    "counted": (PLAIN,),
    "in two": (PLAIN[:20], PLAIN[20:]),
    "byte by byte": tuple(bytes([byte]) for byte in PLAIN),
    "chunked": (CHUNKED, b"3\r\nhel\r\n", b"2\r\nlo\r\n0\r\n\r\n"),
    "with trailers": (CHUNKED, b"5;x=y\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
    "after a 100": (b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n", PLAIN),
    "after a 103": (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-", PLAIN[25:]),
}


@pytest.mark.parametrize("pieces", FRAMED.values(), ids=FRAMED)
def test_answers_in_every_frame_and_the_line_is_kept(run: Run, pieces: tuple[bytes, ...]) -> None:
    async def test() -> None:
        async with served(says(*pieces)) as (port, dialled):
            lines = lines_to(port)
            assert [await whole(lines) for _ in range(3)] == [b"hello"] * 3
            assert len(dialled) == 1
            lines.close()

    run(test())


CLOSING = {
    "until it is closed": b"HTTP/1.1 200 OK\r\n\r\nhello",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "said so": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("answer", CLOSING.values(), ids=CLOSING)
def test_a_line_that_ends_is_dialled_anew(run: Run, answer: bytes) -> None:
    async def test() -> None:
        async with served(says(answer, then_close=True)) as (port, dialled):
            lines = lines_to(port)
            assert [await whole(lines) for _ in range(2)] == [b"hello"] * 2
            assert len(dialled) == 2

    run(test())


BROKEN = {
    "nothing": (b"", "closed in the middle"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", "closed in the middle"),
    "half a body": (PLAIN[:-1], "closed in the middle"),
    "half a chunk": (CHUNKED + b"5\r\nhel", "closed in the middle"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
    "a false length": (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not HTTP"),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "not HTTP",
    ),
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "not HTTP",
    ),
    "a false chunk": (CHUNKED + b"xyz\r\n", "not HTTP"),
    "another protocol": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "not HTTP|closed",
    ),
    "an endless head": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_HEAD_BYTES, "head is longer"),
    "compressed": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
        "compressed",
    ),
}


@pytest.mark.parametrize(("answer", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_answer(run: Run, answer: bytes, words: str) -> None:
    async def test() -> None:
        async with served(says(answer, then_close=True)) as (port, dialled):
            lines = lines_to(port)
            for _ in range(2):
                with pytest.raises(LineError, match=words) as caught:
                    await whole(lines)
                assert not isinstance(caught.value, DialError), "it may have been billed"
            assert len(dialled) == 2

    run(test())


def test_words_that_nobody_asked_for_end_the_line(run: Run) -> None:
    async def test() -> None:
        for answer in (PLAIN + PLAIN, PLAIN + b"x"):
            async with served(says(answer)) as (port, dialled):
                lines = lines_to(port)
                for _ in range(2):
                    with contextlib.suppress(LineError):
                        assert await whole(lines) == b"hello"
                    await asyncio.sleep(0.01)
                assert len(dialled) == 2

    run(test())


def test_an_upstream_that_hangs_up_on_idle_lines(run: Run) -> None:
    async def test() -> None:
        async with served(says(PLAIN, then_close=True)) as (port, dialled):
            lines = lines_to(port)
            for _ in range(3):
                assert await whole(lines) == b"hello"
                await asyncio.sleep(0.05)
            assert len(dialled) == 3

    run(test())


def test_a_line_that_lay_idle_for_long_is_not_used(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cascaded.providers.lines.IDLE_S", 0.02)

    async def test() -> None:
        async with served(says(PLAIN)) as (port, dialled):
            lines = lines_to(port)
            await asyncio.gather(whole(lines), whole(lines))
            await asyncio.sleep(0.05)
            assert await whole(lines) == b"hello"
            assert len(dialled) == 3
            lines.close()

    run(test())


def test_no_more_lines_than_allowed(run: Run) -> None:
    """Further calls wait, in order; one that is cancelled while it waits takes no place."""

    async def test() -> None:
        async with served(says(PLAIN)) as (port, dialled):
            lines = lines_to(port, most=2)
            held = [await ask(lines), await ask(lines)]
            async with asyncio.TaskGroup() as group:
                waiting = [group.create_task(whole(lines)) for _ in range(3)]
                await asyncio.sleep(0.02)
                assert not any(task.done() for task in waiting)
                waiting[0].cancel()
                for answer in held:
                    assert await answer.read() == b"hello"
                    answer.close()
                    answer.close()
            assert waiting[0].cancelled()
            assert [task.result() for task in waiting[1:]] == [b"hello"] * 2
            assert len(dialled) == 2
            lines.close()

    run(test())


def test_an_early_end_hangs_up(run: Run) -> None:
    async def test() -> None:
        gone = asyncio.Event()

        async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await heard(reader)
            writer.write(CHUNKED + b"5\r\nhello\r\n")
            assert await reader.read() == b""
            gone.set()

        async with served(endless) as (port, _):
            lines = lines_to(port, most=1)
            for end in (True, False):
                with await ask(lines) as answer:
                    assert await answer.read() == b"hello"
                    if not end:
                        with pytest.raises(TimeoutError):
                            async with asyncio.timeout(0.01):
                                await answer.read()
                await gone.wait()
                gone.clear()

    run(test())


def test_an_upstream_waits_for_a_slow_reader(run: Run) -> None:
    """What nobody has read yet is bounded."""

    async def test() -> None:
        sent = 0
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

        async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await heard(reader)
            writer.write(CHUNKED)
            for _ in range(500):
                writer.write(piece)
                await writer.drain()
                sent += 0x10000
            writer.write(b"0\r\n\r\n")

        async with served(eager) as (port, _):
            lines = lines_to(port)
            with await ask(lines) as answer:
                before = -1
                while before < sent:
                    before = sent
                    await asyncio.sleep(0.1)
                assert sent < 500 * 0x10000
                longest = received = 0
                while part := await answer.read():
                    longest, received = max(longest, len(part)), received + len(part)
            assert received == 500 * 0x10000
            assert longest < MAX_WAITING_BYTES + 512 * 1024
            lines.close()

    run(test())


def test_nobody_there(run: Run, tmp_path: Path) -> None:
    async def test() -> None:
        async with served(says(PLAIN)) as (port, _):
            pass
        for lines in (lines_to(port), lines_to(1, uds=str(tmp_path / "none.sock"))):
            progress = Progress(queued=True)
            with pytest.raises(DialError):
                await lines.ask("/", {}, b"", progress)
            assert progress.queued

    run(test())


def test_who_takes_too_long_to_connect(run: Run) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def test() -> None:
        async with served(silent) as (port, _):
            trust = ssl.create_default_context()
            lines = lines_to(port, scheme="https", trust=trust, connect_timeout_s=0.05)
            with pytest.raises(DialError, match=r"127\.0\.0\.1:\d+: no connection within 0.05 s"):
                await ask(lines)

    run(test())


def test_a_header_with_a_line_of_its_own(run: Run) -> None:
    async def test() -> None:
        lines = lines_to(1)
        for wrong in ("a\r\nX-Admin: yes", "a\nb", "a\rb"):
            with pytest.raises(ValueError, match="line's end"):
                await lines.ask("/", {"X-Request-ID": wrong}, b"", Progress())

    run(test())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def trusting(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's side and a client's."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def test_tls(run: Run, authority: trustme.CA) -> None:
    server, client = trusting(authority)

    async def test() -> None:
        async with served(says(PLAIN), tls=server) as (port, dialled):
            lines = lines_to(port, scheme="https", trust=client)
            assert [await whole(lines) for _ in range(2)] == [b"hello"] * 2
            assert len(dialled) == 1
            lines.close()
            doubting = lines_to(port, scheme="https", trust=ssl.create_default_context())
            with pytest.raises(DialError, match="certificate verify failed"):
                await ask(doubting)

    run(test())


def proxying(asked: list[bytes], status: bytes = b"200 Connection established") -> Script:
    """A proxy that opens tunnels."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
        if not status.startswith(b"200"):
            return
        host, _, port = head.split()[1].decode().partition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                sink.write(data)
            sink.close()

        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.transport.abort()

    return script


@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
def test_a_tunnel(run: Run, authority: trustme.CA, secured: bool) -> None:
    server, client = trusting(authority)
    asked: list[bytes] = []

    async def test() -> None:
        tls = server if secured else None
        async with (
            served(says(PLAIN), tls=server) as (port, _),
            served(proxying(asked), tls=tls) as (proxy_port, _),
        ):
            scheme = "https" if secured else "http"
            proxy = URL(f"{scheme}://us%40er:pass@127.0.0.1:{proxy_port}")
            lines = lines_to(port, scheme="https", trust=client, proxy=proxy)
            assert [await whole(lines) for _ in range(2)] == [b"hello"] * 2
            lines.close()
            [head] = asked
            assert head.startswith(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n".encode())
            assert b"Proxy-Authorization: Basic dXNAZXI6cGFzcw==\r\n" in head
            assert b"X-Request-ID" not in head

    run(test())


def test_a_proxy_that_opens_no_tunnel(run: Run) -> None:
    async def test() -> None:
        async with served(proxying([], b"407 Proxy Authentication Required")) as (port, _):
            proxy = URL(f"http://user:pass@127.0.0.1:{port}")
            lines = lines_to(1, scheme="https", trust=ssl.create_default_context(), proxy=proxy)
            with pytest.raises(DialError, match="the proxy answers 407") as caught:
                await ask(lines)
            assert "pass" not in str(caught.value)

    run(test())


def test_a_proxy_for_plain_http_is_told_the_whole_url(run: Run) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await heard(reader))
        writer.write(PLAIN)

    async def test() -> None:
        async with served(proxy) as (port, _):
            through = URL(f"http://user:pass@127.0.0.1:{port}")
            target = Target(url=URL("http://api.example/v1"), proxy=through)
            assert await whole(Lines(target, {})) == b"hello"
            assert asked[0].startswith(
                b"POST http://api.example/v1/chat HTTP/1.1\r\nHost: api.example\r\n"
            )
            assert b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in asked[0]

    run(test())


def test_without_keep_alive(run: Run) -> None:
    async def test() -> None:
        async with served(says(PLAIN)) as (port, dialled):
            lines = lines_to(port, keep_alive=False)
            assert [await whole(lines) for _ in range(2)] == [b"hello"] * 2
            assert len(dialled) == 2

    run(test())
