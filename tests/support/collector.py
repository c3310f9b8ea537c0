"""A real OTLP receiver: it reads what it is sent as a collector does."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.upstream import in_thread


class Collector:
    """What came."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.metrics: dict[str, Metric] = {}
        """The last of each name."""
        self.resources: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.refuse_with: list[int] = []
        """Statuses of the next answers."""
        self.delay_s = 0.0
        self.answer = b""

    async def handle(self, http: web.Request) -> web.Response:
        await asyncio.sleep(self.delay_s)
        body = await http.read()
        if self.refuse_with:
            return web.Response(status=self.refuse_with.pop(0), headers={"Retry-After": "0"})
        assert http.headers["Content-Type"] == "application/x-protobuf"
        self.headers.append(dict(http.headers))
        if http.path == "/v1/traces":
            for told in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(attributes(told.resource.attributes))
                self.spans += [span for scope in told.scope_spans for span in scope.spans]
        else:
            for one in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.resources.append(attributes(one.resource.attributes))
                for scope in one.scope_metrics:
                    self.metrics |= {metric.name: metric for metric in scope.metrics}
        return web.Response(body=self.answer, content_type="application/x-protobuf")


def attributes(pairs: Any) -> dict[str, Any]:
    """By name, as Python's values."""
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> object:
    kind = pair.value.WhichOneof("value")
    assert kind is not None
    if kind == "array_value":
        return [one.string_value for one in pair.value.array_value.values]
    return getattr(pair.value, kind)


@contextmanager
def collector() -> Iterator[Collector]:
    """One on a loopback port."""
    found = Collector()

    @asynccontextmanager
    async def serve(_: asyncio.Event) -> AsyncIterator[Collector]:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/traces", found.handle)
        app.router.add_post("/v1/metrics", found.handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield found
        finally:
            await runner.cleanup()

    with in_thread(serve) as running:
        yield running
