"""What is told by OTLP, without a network."""

import asyncio
import sys
from typing import Any, cast

import msgspec
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client import CollectorRegistry, Counter, Histogram

from cascaded.adapters.clock import SystemClock
from cascaded.adapters.otel import Exporter, Terms, figures
from cascaded.adapters.otel.figures import GenAi, translated
from cascaded.adapters.otel.spans import MAX_CONTENT, Story, spans_of, story_of
from cascaded.config import Config
from cascaded.config.schema import Otel
from cascaded.daemon.errors import StartError
from cascaded.daemon.telemetry import open_telemetry
from cascaded.types.request import Request
from cascaded.types.result import Outcome
from cascaded.types.tracing import Trace
from cascaded.types.usage import Usage
from tests.support.collector import attributes
from tests.support.fakes import FakeClock
from tests.support.records import ALICE, SECRET, answered, asked, attempt

TRACE = Trace(trace_id=1, span_id=2)


def story(request: Request, outcome: Outcome, **options: Any) -> Story:
    return story_of(TRACE, request, outcome, 0, **{"users": False, "content": False, **options})


def told(request: Request, outcome: Outcome, **options: Any) -> list[tuple[Span, dict[str, Any]]]:
    spans = spans_of(story(request, outcome, **options))
    return [(span, attributes(span.attributes)) for span in spans]


def test_nothing_that_was_said_and_nobodys_name_unless_asked() -> None:
    words = msgspec.Raw(msgspec.json.encode({"role": "user", "content": SECRET}))
    request = msgspec.structs.replace(asked(), messages=(words,))
    quiet = str(told(request, answered()))
    assert SECRET not in quiet
    assert "alice" not in quiet
    [call, *_] = told(request, answered(), users=True, content=True)
    assert SECRET in call[1]["gen_ai.input.messages"]
    assert call[1]["user.id"] == ALICE.user_id


def test_texts_and_long_prompts() -> None:
    request = msgspec.structs.replace(asked(), kind="completion", texts=("go on", 7))
    [(call, seen), *_] = told(request, answered(), content=True)
    assert call.name.startswith("text_completion ")
    assert "go on" in seen["gen_ai.input.messages"]
    request = msgspec.structs.replace(request, texts=("x" * (MAX_CONTENT + 1),))
    [(_, seen), *_] = told(request, answered(), content=True)
    assert len(seen["gen_ai.input.messages"]) < 200


def test_parts_of_usage_stand_where_there_are_any() -> None:
    usage = Usage(
        input_tokens=9,
        output_tokens=8,
        cache_read_tokens=4,
        cache_write_tokens=3,
        reasoning_tokens=2,
        estimated=True,
    )
    one = msgspec.structs.replace(attempt(billing="unknown"), usage=usage)
    [_, (_, seen)] = told(asked(), answered(one))
    assert seen["gen_ai.usage.cache_read.input_tokens"] == 4
    assert seen["gen_ai.usage.cache_creation.input_tokens"] == 3
    assert seen["gen_ai.usage.reasoning.output_tokens"] == 2
    assert (seen["cascaded.billing"], seen["cascaded.tokens_estimated"]) == ("unknown", True)


def test_histograms_of_prometheus_keep_their_counts() -> None:
    registry = CollectorRegistry()
    times = Histogram("t", "Times.", ["model"], buckets=(1, 2), registry=registry)
    for value in (0.5, 1.5, 1.5, 9):
        times.labels("a").observe(value)
    times.labels("b").observe(0.5)
    Counter("c", "Counts.", registry=registry).inc(3)
    found = {one.name: one for one in translated(registry.collect(), 1, 2)}
    a, b = found["t"].histogram.data_points
    assert list(a.bucket_counts) == [1, 2, 1]
    assert (a.count, a.sum, list(a.explicit_bounds)) == (4, 12.5, [1, 2])
    assert (attributes(b.attributes), list(b.bucket_counts)) == ({"model": "b"}, [1, 0, 0])
    [count] = found["c"].sum.data_points
    assert count.as_double == 3


def test_the_conventions_metrics_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MAX_SERIES", 2)
    gen_ai = GenAi()
    for error in (None, "upstream_timeout", "upstream_reset"):
        gen_ai.record(asked(), answered(attempt(error=error, billing="unknown")))
    durations, tokens = gen_ai.told(1, 2)
    assert len(durations.histogram.data_points) == 2
    assert len(tokens.histogram.data_points) == 0, "what nobody knows is not counted"


def test_without_the_extra_a_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cascaded.adapters.otel", None)
    config = Config(otel=Otel(endpoint="http://127.0.0.1:4318"))
    with pytest.raises(StartError, match=r"pip install 'cascaded\[otel\]'"):
        open_telemetry(config, FakeClock(), *cast("Any", (None, None, None)))


async def test_a_bug_with_one_figure_or_call_does_not_end_the_telling() -> None:
    def broken() -> list[Any]:
        raise RuntimeError("a bug")

    said: list[str] = []
    terms = Terms(
        endpoint="http://127.0.0.1:9",
        service="s",
        version="1",
        instance="i",
        metrics_every_s=0.01,
        spans_every_s=0.01,
    )
    exporter = Exporter(terms, SystemClock(), lambda _: 1, broken, said.append)
    trace = Trace(trace_id=2**130, span_id=1)  # no such id can be told
    exporter.record(msgspec.structs.replace(asked(), trace=trace), answered())
    while not (exporter.lost and len(said) > 2):
        await asyncio.sleep(0.01)
    await exporter.close()
    assert "no metrics: RuntimeError" in said
    assert "a call without spans: OverflowError" in said
