"""`cascaded.AsyncClient` against the real daemon."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from decimal import Decimal

import pytest
import uvloop

from cascaded import APIError, AsyncClient, DaemonUnreachableError, StreamBrokenError
from tests.support.daemon import Daemon
from tests.support.process import wait_for
from tests.support.upstream import Resets, Says, Upstream

QUESTION = "What is the capital of France?"
GOOD = "The capital of France is Paris."


LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


@pytest.fixture
async def client(daemon: Daemon) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(daemon.socket, timeout_s=10) as client:
        yield client


async def test_run(client: AsyncClient, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD, input_tokens=20, output_tokens=8))
    result = await client.run(QUESTION, user_id="u-1")
    assert (result.content, result.metadata.user_id) == (GOOD, "u-1")
    assert result.metadata.total_cost == Decimal("0.0000078")
    with pytest.raises(APIError, match="cascade/default") as caught:
        await client.run(QUESTION, model="cascade/defualt")
    assert caught.value.code == "model_not_found"


async def test_the_rest(client: AsyncClient, daemon: Daemon) -> None:
    assert (await client.health()).version == daemon.services.version
    assert (await client.ready()).ready
    assert "cascaded_" in await client.metrics()
    assert "auto" in [model.id for model in await client.models()]
    assert (await client.check(QUESTION)).allowed
    assert await client.budgets("user", "nobody") == []
    assert (await client.summary("nobody")).requests_today == 0
    assert len((await client.audit(limit=1)).records) <= 1
    assert len(client._idle) == 1, "one connection served them all"


async def test_stream(client: AsyncClient, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, chunks=5))
    *words, last = [chunk async for chunk in client.stream(QUESTION, model="strong")]
    assert len(words) == 5
    assert "".join(chunk.content for chunk in words) == GOOD
    assert last.is_final
    upstream.on("strong", Resets(after_chunks=2))
    with pytest.raises(StreamBrokenError, match="provider 'fake'"):
        [chunk async for chunk in client.stream(QUESTION, model="strong")]
    with pytest.raises(APIError, match="cascade/default"):
        [chunk async for chunk in client.stream(QUESTION, model="cascade/defualt")]


async def test_closing_a_stream_hangs_up(
    client: AsyncClient, daemon: Daemon, upstream: Upstream
) -> None:
    upstream.on("strong", Says(GOOD, chunks=20, chunk_delay_s=0.1))
    async with aclosing(client.stream(QUESTION, model="strong")) as chunks:
        async for _ in chunks:
            break
    await asyncio.to_thread(wait_for, lambda: daemon.services.status.left_behind)
    await asyncio.to_thread(wait_for, lambda: daemon.spend["held"] == 0)


async def test_cancelling_hangs_up(client: AsyncClient, daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, delay_s=1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.run(QUESTION, model="strong")
    assert len(client._idle) == 0
    await asyncio.to_thread(wait_for, lambda: not daemon.services.status.in_flight)
    assert (await client.health()).status == "ok"


async def test_holds(client: AsyncClient) -> None:
    async with client.reserve("0.25", user_id="alice") as hold:
        assert hold.cost == Decimal("0.25")
        await hold.settle("0.11")
    assert hold.receipt is not None
    assert hold.receipt.posted == Decimal("0.11")
    async with client.reserve("0.25") as hold:
        await hold.release()
    assert hold.receipt is not None
    assert hold.receipt.returned == Decimal("0.25")
    with pytest.raises(ZeroDivisionError):
        async with client.reserve("0.25") as hold:
            _ = 1 / 0
    assert hold.receipt is not None
    assert hold.receipt.unknown == Decimal("0.25")
    assert hold.id in [unknown.hold for unknown in await client.unknowns()]
    assert (await client.resolve(hold.id, "0.2")).posted == Decimal("0.2")


@LOOPS
def test_many_calls_on_few_connections(
    loop: Callable[[], asyncio.AbstractEventLoop], daemon: Daemon, upstream: Upstream
) -> None:
    """Under both loops; the client and what it kept outlive the first loop."""
    upstream.on("strong", Says(GOOD, delay_s=0.005))
    client = AsyncClient(daemon.socket, timeout_s=10, max_connections=4)

    async def ask(number: int) -> None:
        result = await client.run(QUESTION, model="strong", user_id=f"{number}")
        assert result.metadata.user_id == f"{number}", "an answer of another task"

    async def main() -> None:
        await asyncio.gather(*(ask(number) for number in range(40)))

    for _ in range(2):
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(main())
        assert 0 < len(client._idle) <= 4
    assert len(client._turns) == 1, "loops that are over are forgotten"
    client.close()


async def test_nobody_there() -> None:
    async with AsyncClient("/nowhere/d.sock") as client:
        with pytest.raises(DaemonUnreachableError, match="cascaded serve"):
            await client.health()


def test_loops_in_threads_share_a_client(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD))
    client = AsyncClient(daemon.socket, timeout_s=10, max_connections=2)

    async def main() -> list[str]:
        results = await asyncio.gather(*(client.run(QUESTION) for _ in range(5)))
        return [result.content for result in results]

    async def all_of_them() -> list[list[str]]:
        return await asyncio.gather(*(asyncio.to_thread(asyncio.run, main()) for _ in range(4)))

    assert asyncio.run(all_of_them()) == [[GOOD] * 5] * 4
    client.close()
