"""What metrics and traces cost: `python -m benches.telemetry`. Processor time, in one process."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from random import Random

from aiohttp import web
from msgspec.structs import replace

from cascaded.adapters.clock import SystemClock
from cascaded.adapters.otel import Exporter, Terms
from cascaded.adapters.otel.spans import Story, spans_of, story_of
from cascaded.adapters.prometheus import PrometheusMetrics
from cascaded.types.request import Request
from tests.support.records import answered, asked, attempt

CALLS = 2_000
ROUNDS = 15
CASES = {
    "one attempt": answered(attempt(accepted=True)),
    "draft and verifier": answered(attempt(), attempt(900, rung=1, accepted=True)),
}


def main() -> None:
    metrics = PrometheusMetrics(lambda: {})
    for name, outcome in CASES.items():
        request = asked(1)
        print(f"metrics, {name}: {_best_us(partial(metrics.record, request, outcome)):.1f} µs")
    print(f"a scrape: {_best_us(lambda: metrics.scrape(''), 50) / 1e3:.2f} ms")
    asyncio.run(_traces(metrics))


async def _traces(metrics: PrometheusMetrics) -> None:
    taken = 0

    async def take(http: web.Request) -> web.Response:
        nonlocal taken
        taken += len(await http.read())
        return web.Response()

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/{kind}", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    chance = Random(1).getrandbits
    terms = Terms(
        endpoint=f"http://127.0.0.1:{runner.addresses[0][1]}",
        service="bench",
        version="0",
        instance="0",
        queue=CALLS,
        spans_every_s=0.01,
    )
    for name, outcome in CASES.items():
        exporter = Exporter(terms, SystemClock(), chance, metrics.collect, print)
        request = _traced(exporter, asked(1))
        print(f"traces, {name}:", end=" ")
        print(f"{_best_us(partial(_traced, exporter, asked(1))):.1f} µs for the context,", end=" ")
        start = time.process_time()
        for _ in range(CALLS):
            exporter.record(request, outcome)
        recorded = time.process_time()
        await exporter.close()
        told = time.process_time()
        assert request.trace is not None
        story = story_of(request.trace, request, outcome, 0, users=False, content=False)
        spans = _best_us(partial(_made, story))
        print(f"{(recorded - start) / CALLS * 1e6:.1f} µs to be put in the queue,", end=" ")
        print(
            f"{(told - recorded) / CALLS * 1e6:.1f} µs in the background with a receiver", end=" "
        )
        print(
            f"in the same process, {spans:.1f} of them for the spans; {exporter.lost} lost,",
            end=" ",
        )
        print(f"{taken / CALLS:.0f} bytes")
        taken = 0
    await runner.cleanup()


def _traced(exporter: Exporter, request: Request) -> Request:
    return replace(request, trace=exporter.trace({}))


def _made(story: Story) -> None:
    for _ in spans_of(story):
        pass


def _best_us(work: Callable[[], object], times: int = CALLS) -> float:
    """Of several rounds, the processor time of one."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(times):
            work()
        best = min(best, (time.process_time() - start) / times * 1e6)
    return best


if __name__ == "__main__":
    main()
