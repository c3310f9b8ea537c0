"""Metrics for Prometheus. Labels are bounded: models that exist, codes of the error table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from cascaded.types.decision import Refusal
from cascaded.types.guarding import Finding
from cascaded.types.model import Kind
from cascaded.types.money import NANO_PER_USD
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Outcome
from cascaded.types.times import NS_PER_S
from cascaded.types.vectors import ModelFigures, Reason

MAX_MODELS = 200
"""More distinct models than this share the label `other`."""
MAX_FINDINGS = 1_000
"""With more distinct ones their categories share the label `other`."""
_OVERHEAD_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.2, 1.0)
_LATENCY_S = (0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class _ModelSeries:
    """The series of one model, bound once so that a call looks nothing up by label."""

    def __init__(self, metrics: "PrometheusMetrics", model: str) -> None:
        self.answered = metrics.attempts.labels(model, "answered")
        self.failed = metrics.attempts.labels(model, "failed")
        self.accepted = metrics.accepted.labels(model)
        self.input = metrics.tokens.labels(model, "input")
        self.output = metrics.tokens.labels(model, "output")
        self.latency = metrics.attempt_seconds.labels(model)
        self.first_token = metrics.attempt_first_token_seconds.labels(model)


class _Spend(Collector):
    """Spend as the ledger has it at the moment of the scrape, from its integers."""

    def __init__(self, read: Callable[[], dict[str, int]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """One gauge for each state that money can be in."""
        family = GaugeMetricFamily(
            "cascaded_spend_usd",
            "US dollars posted since this start, held for calls under way, and charged (since ever)"
            " because nobody knows the bill.",
            labels=["state"],
        )
        for state, nano_usd in self._read().items():
            family.add_metric([state], nano_usd / NANO_PER_USD)
        return [family]


class _Disk(Collector):
    """What the ledger's disk costs, from the ledger's own figures."""

    def __init__(self, read: Callable[[], dict[str, int]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Flush times, and how many calls had to wait for one."""
        stats = self._read()
        flush = GaugeMetricFamily(
            "cascaded_flush_seconds",
            "Time of a flush of the ledger's journal: the median of a few before the start, and"
            " upper bounds of the median and the 99th percentile since.",
            labels=["quantile"],
        )
        for quantile in ("at_start", "p50", "p99"):
            flush.add_metric([quantile], stats.get(f"flush_{quantile}_ns", 0) / NS_PER_S)
        holds = CounterMetricFamily(
            "cascaded_holds", "Holds by whether a flush had to be waited for.", labels=["gate"]
        )
        waited = stats["gated"]
        holds.add_metric(["passed"], stats["admitted"] - waited)
        holds.add_metric(["waited"], waited)
        return [flush, holds]


class _States(Collector):
    """In which of a few states each of several things is, at the moment of the scrape."""

    def __init__(
        self,
        name: str,
        documentation: str,
        label: str,
        states: Sequence[str],
        read: Callable[[], Mapping[str, str]],
    ) -> None:
        self._describe = partial(GaugeMetricFamily, name, documentation, labels=[label, "state"])
        self._states = states
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """1 for the state that it is in, 0 for the others."""
        family = self._describe()
        for thing, now in self._read().items():
            for state in self._states:
                family.add_metric([thing, state], float(state == now))
        return [family]


class _SmallModels(Collector):
    """What the models that judge texts have done, from their own figures."""

    def __init__(self, read: Callable[[], Mapping[str, ModelFigures]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Texts by how they fared, and the time that their models took."""
        texts = CounterMetricFamily(
            "cascaded_small_model_texts",
            "Texts given to a small model: answered, remembered (known from before), or why there"
            " was no answer, so that rules alone decided.",
            labels=["model", "outcome"],
        )
        busy = CounterMetricFamily(
            "cascaded_small_model_busy_seconds",
            "Time that a small model has worked.",
            labels=["model"],
        )
        for name, figures in self._read().items():
            for outcome in ("answered", "remembered", *get_args(Reason)):
                texts.add_metric([name, outcome], getattr(figures, outcome))
            busy.add_metric([name], figures.busy_ns / NS_PER_S)
        return [texts, busy]


class _Counted(Collector):
    """A count that somebody else keeps."""

    def __init__(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        self._name = name
        self._documentation = documentation
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """The count."""
        return [CounterMetricFamily(self._name, self._documentation, value=self._read())]


class PrometheusMetrics:
    """A `ports.Sink` that counts."""

    def __init__(self, spend: Callable[[], dict[str, int]]) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "cascaded_requests",
            "Calls by how they ended and what was asked.",
            ["status", "kind"],
            registry=registry,
        )
        self._turned_away = Counter(
            "cascaded_turned_away",
            "Requests refused before the pipeline, by the error's code.",
            ["code"],
            registry=registry,
        )
        self.attempts = Counter(
            "cascaded_attempts",
            "Calls made to providers.",
            ["model", "outcome"],
            registry=registry,
        )
        self.accepted = Counter(
            "cascaded_accepted", "Answers handed over, by model.", ["model"], registry=registry
        )
        self.tokens = Counter(
            "cascaded_tokens", "Tokens used.", ["model", "direction"], registry=registry
        )
        self.attempt_seconds = Histogram(
            "cascaded_attempt_seconds",
            "Time of one call to a provider.",
            ["model"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.attempt_first_token_seconds = Histogram(
            "cascaded_attempt_first_token_seconds",
            "Time of a streamed call to a provider until the first of its answer.",
            ["model"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self._first_token = Histogram(
            "cascaded_first_token_seconds",
            "Time from the arrival of a streamed call to the first of its answer.",
            buckets=_LATENCY_S,
            registry=registry,
        )
        self._escalated = Counter(
            "cascaded_escalated", "Calls whose first rung was not kept.", registry=registry
        )
        self._saved = Gauge(
            "cascaded_saved_usd",
            "US dollars saved against the strongest rung alone; may fall.",
            registry=registry,
        )
        self._overhead = Histogram(
            "cascaded_overhead_seconds",
            "Time of a call outside its providers.",
            buckets=_OVERHEAD_S,
            registry=registry,
        )
        self._latency = Histogram(
            "cascaded_request_seconds", "Time of a call.", buckets=_LATENCY_S, registry=registry
        )
        self._waited = Histogram(
            "cascaded_waited_seconds",
            "Time that calls without a place waited for one, by how that ended.",
            ["ended"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self._hooks = Counter(
            "cascaded_hooks",
            "Hooks asked or told, by how that ended.",
            ["point", "kind", "outcome"],
            registry=registry,
        )
        self._guarded = Counter(
            "cascaded_guardrails",
            "What guardrails found, by where and what was done.",
            ["guardrail", "category", "place", "action"],
            registry=registry,
        )
        registry.register(_Spend(spend))
        ProcessCollector(registry=registry)
        self._by_model: dict[str, _ModelSeries] = {}
        self._by_finding: dict[tuple[str, ...], Counter] = {}
        self._by_status: dict[tuple[str, Kind], Counter] = {}

    def record(self, request: Request, outcome: Outcome) -> None:
        """See `ports.Sink.record`."""
        end = outcome.end
        self._status("ok" if not isinstance(end, Refusal) else end.code, request.kind).inc()
        self._latency.observe(outcome.elapsed_ns / NS_PER_S)
        self._overhead.observe(outcome.overhead_ns / NS_PER_S)
        if outcome.first_token_ns is not None:
            self._first_token.observe(outcome.first_token_ns / NS_PER_S)
        for attempt in outcome.attempts:
            self._attempt(attempt, streamed=request.stream)
        for finding in outcome.findings:
            self._finding(finding)
        if not isinstance(end, Refusal):
            self._saved.inc(end.saved_nano_usd / NANO_PER_USD)
            if end.answered_by and end.answered_by.rung > 0:
                self._escalated.inc()

    def turned_away(self, code: str) -> None:
        """A request was refused at the door, with this code of the error table."""
        self._turned_away.labels(code).inc()

    def hook(self, point: str, kind: str, outcome: str) -> None:
        """A hook was asked or told at this point."""
        self._hooks.labels(point, kind, outcome).inc()

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """One more figure, read when it is looked at."""
        Gauge(name, documentation, registry=self._registry).set_function(read)

    def disk(self, stats: Callable[[], dict[str, int]]) -> None:
        """The ledger's own figures (`DurableLedger.stats`), read when they are looked at."""
        self._registry.register(_Disk(stats))

    def states(
        self,
        name: str,
        documentation: str,
        label: str,
        states: Sequence[str],
        read: Callable[[], Mapping[str, str]],
    ) -> None:
        """How each of some things stands, read when it is looked at."""
        self._registry.register(_States(name, documentation, label, states, read))

    def small_models(self, read: Callable[[], Mapping[str, ModelFigures]]) -> None:
        """What each small model has done, read when it is looked at."""
        self._registry.register(_SmallModels(read))

    def counter(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """One more figure that only grows, read when it is looked at."""
        self._registry.register(_Counted(name, documentation, read))

    def waited(self, ending: str, seconds: float) -> None:
        """A call had to wait for a place."""
        self._waited.labels(ending).observe(seconds)

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """The exposition in the format that the `Accept` header asks for, and its type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _attempt(self, attempt: Attempt, *, streamed: bool) -> None:
        series = self._model(attempt.model.name)
        (series.failed if attempt.error else series.answered).inc()
        if attempt.accepted:
            series.accepted.inc()
        series.input.inc(attempt.usage.input_tokens)
        series.output.inc(attempt.usage.output_tokens)
        series.latency.observe(attempt.latency_ns / NS_PER_S)
        if streamed and attempt.first_token_ns is not None:
            series.first_token.observe(attempt.first_token_ns / NS_PER_S)

    def _model(self, name: str) -> _ModelSeries:
        series = self._by_model.get(name)
        if series is None:
            label = name if len(self._by_model) < MAX_MODELS else "other"
            series = self._by_model.get(label) or _ModelSeries(self, label)
            self._by_model[label] = series
        return series

    def _finding(self, finding: Finding) -> None:
        labels = (finding.guardrail, finding.category, finding.place, finding.action)
        series = self._by_finding.get(labels)
        if series is None:
            if len(self._by_finding) >= MAX_FINDINGS:  # plug-ins have words of their own
                labels = (finding.guardrail, "other", finding.place, finding.action)
            series = self._by_finding[labels] = self._guarded.labels(*labels)
        series.inc(finding.count)

    def _status(self, status: str, kind: Kind) -> Counter:
        series = self._by_status.get((status, kind))
        if series is None:
            series = self._by_status[status, kind] = self.requests.labels(status, kind)
        return series
