"""Tells a collector, in the background: whatever becomes of it, no call waits and none fails."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import aiohttp
import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics, ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from prometheus_client.core import Metric as Family

from cascaded.adapters.otel.figures import GenAi, translated
from cascaded.adapters.otel.spans import Story, spans_of, story_of
from cascaded.adapters.otel.values import pairs
from cascaded.ports import Clock
from cascaded.types.request import Request
from cascaded.types.result import Outcome
from cascaded.types.secret import Secret
from cascaded.types.tracing import SPAN_IDS, Trace
from cascaded.wire.tracing import read_parent

TRACES, METRICS = "/v1/traces", "/v1/metrics"
BATCH = 128
"""Calls whose spans go out together."""
TRIES = 4
"""How often a batch is sent before it is given up."""
BACKOFF_S = 1.0
"""Before the second time; doubles."""
MAX_PAUSE_S = 30.0
FLUSH_S = 5.0
"""What the end of the daemon waits for the collector."""
MAX_ANSWER_BYTES = 64 * 1024
SCHEMA = "https://opentelemetry.io/schemas/1.37.0"
_OK, _MULTIPLE_CHOICES = 200, 300
_PASSING = frozenset({429, 502, 503, 504})
"""What OTLP says may be sent again."""
Report = Callable[[str], object]


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of calls."""

    users: bool = False
    prompts: bool = False


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to tell, what and how often. Times are seconds."""

    endpoint: str
    """Without `/v1/…`."""
    headers: Mapping[str, Secret] = {}
    service: str
    version: str
    instance: str
    traces: bool = True
    metrics: bool = True
    content: Content = Content()
    sample_ratio: float = 1.0
    """Of the calls that come without a trace of their own."""
    queue: int = 2048
    """Calls that may wait to be told; of more nothing is told."""
    spans_every_s: float = 5.0
    metrics_every_s: float = 30.0
    timeout_s: float = 10.0


class UndeliveredError(Exception):
    """The collector did not take it. `again`: it may later, after `pause_s` if it says so."""

    def __init__(self, what: str, *, again: bool, pause_s: float | None = None) -> None:
        super().__init__(what)
        self.again = again
        self.pause_s = pause_s


class Exporter:
    """A `ports.Sink`. What it makes of calls is made in the background, a call at a time."""

    def __init__(
        self,
        terms: Terms,
        clock: Clock,
        chance: Callable[[int], int],
        families: Callable[[], Iterable[Family]],
        report: Report,
    ) -> None:
        """`chance` gives a number of so many bits; `report` hears, once until it works again, that
        the collector cannot be reached. Needs the event loop that it lives on."""
        self._terms = terms
        self._clock = clock
        self._chance = chance
        self._families = families
        self._report = report
        self._start_ns = clock.wall_ns()
        self._resource = Resource(
            attributes=pairs(
                {
                    "service.name": terms.service,
                    "service.version": terms.version,
                    "service.instance.id": terms.instance,
                }
            )
        )
        self._scope = InstrumentationScope(name="cascaded", version=terms.version)
        self._gen_ai = GenAi()
        self._waiting: deque[Story] = deque()
        self._session: aiohttp.ClientSession | None = None
        self._well = True
        self._closing = asyncio.Event()
        self.lost = 0
        """Calls of which nothing could be told."""
        loops = [self._spans] if terms.traces else []
        loops += [self._metrics] if terms.metrics else []
        self._tasks = [asyncio.create_task(each()) for each in loops]  # noqa: TID251  `close` ends them

    def trace(self, headers: Mapping[str, str]) -> Trace:
        """Where a call with these headers stands: in its caller's trace, or in one of its own."""
        parent, span_id = read_parent(headers), self._new_id(64)
        if parent is None:
            sampled = self._chance(64) < self._terms.sample_ratio * SPAN_IDS
            return Trace(trace_id=self._new_id(128), span_id=span_id, sampled=sampled)
        return Trace(
            trace_id=parent.trace_id,
            span_id=span_id,
            parent_id=parent.span_id,
            sampled=parent.sampled,
            state=parent.state,
        )

    def record(self, request: Request, outcome: Outcome) -> None:
        """See `ports.Sink.record`."""
        if self._terms.metrics:
            self._gen_ai.record(request, outcome)
        trace = request.trace
        if trace is None or not trace.sampled or not self._terms.traces:
            return
        if len(self._waiting) >= self._terms.queue:
            self.lost += 1
            return
        clock_ns = self._clock.wall_ns() - self._clock.monotonic_ns()
        content = self._terms.content
        self._waiting.append(
            story_of(
                trace, request, outcome, clock_ns, users=content.users, content=content.prompts
            )
        )

    async def close(self) -> None:
        """Tell what waits, as far as there is time for it."""
        self._closing.set()
        _, late = await asyncio.wait(self._tasks, timeout=FLUSH_S) if self._tasks else ((), ())
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.lost += len(self._waiting)
        if self._session is not None:
            await self._session.close()

    async def _spans(self) -> None:
        while await self._pause(self._terms.spans_every_s) or self._waiting:
            while self._waiting:
                taken = min(BATCH, len(self._waiting))
                spans: list[Span] = []
                for _ in range(taken):
                    spans += self._made(self._waiting.popleft())
                    await asyncio.sleep(0)  # calls go first
                told = ResourceSpans(
                    resource=self._resource,
                    scope_spans=[ScopeSpans(scope=self._scope, spans=spans, schema_url=SCHEMA)],
                )
                body = ExportTraceServiceRequest(resource_spans=[told]).SerializeToString()
                if not await self._deliver(TRACES, body):
                    self.lost += taken

    def _made(self, story: Story) -> list[Span]:
        try:
            return list(spans_of(story))
        except Exception as fault:  # a bug with one call; the others are told all the same
            self.lost += 1
            self._report(f"a call without spans: {type(fault).__name__}")
            return []

    async def _metrics(self) -> None:
        while True:
            more = await self._pause(self._terms.metrics_every_s)
            try:
                body = self._figures()
            except Exception as fault:  # a bug with one figure; the next time may be better
                self._report(f"no metrics: {type(fault).__name__}")
            else:
                await self._deliver(METRICS, body)
            if not more:
                return

    def _figures(self) -> bytes:
        now_ns = self._clock.wall_ns()
        told = [
            *translated(self._families(), self._start_ns, now_ns),
            *self._gen_ai.told(self._start_ns, now_ns),
        ]
        scope = ScopeMetrics(scope=self._scope, metrics=told)
        request = ExportMetricsServiceRequest(
            resource_metrics=[ResourceMetrics(resource=self._resource, scope_metrics=[scope])]
        )
        body: bytes = request.SerializeToString()
        return body

    async def _pause(self, seconds: float) -> bool:
        """Wait; whether it goes on afterwards."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return not self._closing.is_set()

    async def _deliver(self, path: str, body: bytes) -> bool:
        """Whether the collector took it, if need be at a later try."""
        pause_s = BACKOFF_S
        for left in reversed(range(TRIES)):
            try:
                await self._post(path, body)
            except UndeliveredError as fault:
                self._tell(f"{self._terms.endpoint}{path}: {fault}")
                if not left or not fault.again:
                    return False
                wait_s = pause_s if fault.pause_s is None else fault.pause_s
                if not await self._pause(min(wait_s, MAX_PAUSE_S)):
                    return False
                pause_s *= 2
            else:
                self._well = True
                return True
        return False

    async def _post(self, path: str, body: bytes) -> None:
        """Raises `UndeliveredError`."""
        headers = {name: secret.reveal() for name, secret in self._terms.headers.items()}
        headers |= {"Content-Type": "application/x-protobuf", "Accept-Encoding": "identity"}
        session = self._session or self._open()
        try:
            async with session.post(
                self._terms.endpoint + path, data=body, headers=headers, allow_redirects=False
            ) as response:
                answer = await response.content.read(MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError) as fault:
            raise UndeliveredError(str(fault) or type(fault).__name__, again=True) from None
        if not _OK <= response.status < _MULTIPLE_CHOICES:
            passing = response.status in _PASSING
            pause_s = _seconds(response.headers.get("Retry-After"))
            raise UndeliveredError(f"status {response.status}", again=passing, pause_s=pause_s)
        if path == TRACES and (refused := _refused(answer)):
            raise UndeliveredError(f"{refused} spans were refused", again=False)

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._terms.timeout_s),
            auto_decompress=False,
        )
        return self._session

    def _tell(self, what: str) -> None:
        if self._well:
            self._report(what)
        self._well = False

    def _new_id(self, bits: int) -> int:
        return self._chance(bits) or 1


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() else None


def _refused(answer: bytes) -> int:
    told = ExportTraceServiceResponse()
    try:
        told.ParseFromString(answer)
    except DecodeError:
        return 0
    return told.partial_success.rejected_spans
