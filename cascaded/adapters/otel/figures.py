"""Metrics as OTLP has them: all that `/metrics` shows, and two of the GenAI conventions."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)
from prometheus_client.core import Metric as Family
from prometheus_client.samples import Sample

from cascaded.adapters.otel.spans import OPERATIONS
from cascaded.adapters.otel.values import texts
from cascaded.types.request import Request
from cascaded.types.result import Outcome
from cascaded.types.times import NS_PER_S

DURATIONS_S = tuple(0.01 * 2**n for n in range(14))
TOKENS = tuple(4**n for n in range(14))
"""Buckets as the conventions advise."""
MAX_SERIES = 1_000
"""Of one of the conventions' metrics; what comes after that is in none of them."""
Labels = tuple[tuple[str, str], ...]


class Distribution:
    """A histogram, by labels."""

    def __init__(self, name: str, unit: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._unit = unit
        self._bounds = bounds
        self._series: dict[Labels, tuple[list[int], list[float]]] = {}

    def observe(self, labels: Labels, value: float) -> None:
        """One more value."""
        found = self._series.get(labels)
        if found is None:
            if len(self._series) >= MAX_SERIES:
                return
            found = self._series[labels] = [0] * (len(self._bounds) + 1), [0.0]
        counts, total = found
        counts[bisect_left(self._bounds, value)] += 1
        total[0] += value

    def told(self, start_ns: int, now_ns: int) -> Metric:
        """As it stands."""
        points = (
            HistogramDataPoint(
                attributes=texts(labels),
                start_time_unix_nano=start_ns,
                time_unix_nano=now_ns,
                count=sum(counts),
                sum=total,
                bucket_counts=counts,
                explicit_bounds=self._bounds,
            )
            for labels, (counts, (total,)) in self._series.items()
        )
        return _histogram(self._name, self._unit, "", points)


class GenAi:
    """The metrics of the GenAI conventions
    (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/)."""

    def __init__(self) -> None:
        self._durations = Distribution("gen_ai.client.operation.duration", "s", DURATIONS_S)
        self._tokens = Distribution("gen_ai.client.token.usage", "{token}", TOKENS)

    def record(self, request: Request, outcome: Outcome) -> None:
        """Every call to a provider."""
        for attempt in outcome.attempts:
            labels: Labels = (
                ("gen_ai.operation.name", OPERATIONS[request.kind]),
                ("gen_ai.provider.name", attempt.model.provider),
                ("gen_ai.request.model", attempt.model.upstream_name),
            )
            error: Labels = (("error.type", attempt.error),) if attempt.error else ()
            self._durations.observe((*labels, *error), attempt.latency_ns / NS_PER_S)
            if attempt.billing == "billed":
                usage = attempt.usage
                for kind, tokens in ("input", usage.input_tokens), ("output", usage.output_tokens):
                    self._tokens.observe((*labels, ("gen_ai.token.type", kind)), tokens)

    def told(self, start_ns: int, now_ns: int) -> list[Metric]:
        """As they stand."""
        return [one.told(start_ns, now_ns) for one in (self._durations, self._tokens)]


def translated(families: Iterable[Family], start_ns: int, now_ns: int) -> Iterator[Metric]:
    """Prometheus' families as OTLP's metrics, under their own names."""
    for family in families:
        if family.type == "histogram":
            points = _buckets(family.samples, start_ns, now_ns)
            yield _histogram(family.name, "", family.documentation, points)
        elif family.type in ("counter", "gauge"):
            yield _numbers(family, start_ns, now_ns)


def _numbers(family: Family, start_ns: int, now_ns: int) -> Metric:
    counts = family.type == "counter"
    points = [
        NumberDataPoint(
            attributes=texts(sample.labels.items()),
            start_time_unix_nano=start_ns if counts else 0,
            time_unix_nano=now_ns,
            as_double=sample.value,
        )
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
    told = Metric(name=family.name, description=family.documentation)
    if counts:
        told.sum.CopyFrom(
            Sum(
                data_points=points,
                aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE,
                is_monotonic=True,
            )
        )
    else:
        told.gauge.CopyFrom(Gauge(data_points=points))
    return told


def _buckets(samples: Iterable[Sample], start_ns: int, now_ns: int) -> Iterator[HistogramDataPoint]:
    """One point for each set of labels, whose samples stand together."""

    def own(sample: Sample) -> Labels:
        return tuple((key, value) for key, value in sample.labels.items() if key != "le")

    for labels, group in groupby(samples, own):
        bounds, cumulated, total = [], [], 0.0
        for sample in group:
            if sample.name.endswith("_bucket"):
                bounds.append(float(sample.labels["le"]))
                cumulated.append(int(sample.value))
            elif sample.name.endswith("_sum"):
                total = sample.value
        if cumulated:
            below = [0, *cumulated[:-1]]
            yield HistogramDataPoint(
                attributes=texts(labels),
                start_time_unix_nano=start_ns,
                time_unix_nano=now_ns,
                count=cumulated[-1],
                sum=total,
                bucket_counts=[each - less for each, less in zip(cumulated, below, strict=True)],
                explicit_bounds=bounds[:-1],
            )


def _histogram(name: str, unit: str, meaning: str, points: Iterable[HistogramDataPoint]) -> Metric:
    return Metric(
        name=name,
        unit=unit,
        description=meaning,
        histogram=Histogram(
            data_points=points, aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE
        ),
    )
