"""Metrics for Prometheus. Labels are bounded: models that exist, codes of the error table."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from cascaded.types.decision import Refusal
from cascaded.types.guarding import Finding
from cascaded.types.limits import CounterStatus
from cascaded.types.model import Model
from cascaded.types.money import NANO_PER_USD
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Outcome, Result
from cascaded.types.times import NS_PER_S
from cascaded.types.vectors import ModelFigures, Reason

MAX_MODELS = 200
"""More distinct models than this share one label."""
OTHER = "other"
MAX_FINDINGS = 1_000
"""With more distinct ones their categories share that label, too."""
_OVERHEAD_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.2, 1.0)
_LATENCY_S = (0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


_LAG_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

M = TypeVar("M", bound=MetricWrapperBase)


class _Bound(dict[tuple[str, ...], M]):
    """The series of one metric by their labels, each bound when it is first asked for."""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> M:
        series = self[labels] = self._metric.labels(*labels)
        return series


class _ModelSeries:
    """The series of one model, bound once so that a call looks nothing up by label."""

    def __init__(self, metrics: "PrometheusMetrics", name: str, provider: str) -> None:
        self.answered = metrics.attempts.labels(name, "answered")
        self.failed = metrics.attempts.labels(name, "failed")
        self.accepted = metrics.accepted.labels(name)
        self.input = metrics.tokens.labels(name, "input")
        self.output = metrics.tokens.labels(name, "output")
        self.latency = metrics.attempt_seconds.labels(name, provider)
        self.first_token = metrics.attempt_first_token_seconds.labels(name, provider)
        self.billed_nano_usd = 0
        self.unknown_nano_usd = 0


class _Read(Collector):
    """What somebody else keeps, as it is at the moment of the scrape."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        return self._read()


def _usd(nano_usd: int) -> float:
    """The nearest float: right to nine decimals up to 4 million US dollars."""
    return nano_usd / NANO_PER_USD


def _spend(read: Callable[[], Mapping[str, int]]) -> Iterator[Metric]:
    """Spend as the ledger has it at the moment of the scrape, from its integers."""
    family = GaugeMetricFamily(
        "cascaded_spend_usd",
        "US dollars posted since this start, held for calls under way, and charged (since ever)"
        " because nobody knows the bill.",
        labels=["state"],
    )
    for state, nano_usd in read().items():
        family.add_metric([state], _usd(nano_usd))
    yield family


def _disk(read: Callable[[], Mapping[str, int]]) -> Iterator[Metric]:
    """What the ledger's disk costs, and what it holds, from its own figures."""
    stats = read()
    flush = GaugeMetricFamily(
        "cascaded_flush_seconds",
        "Time of a flush of the ledger's journal: the median of a few before the start, and"
        " upper bounds of the median and the 99th percentile since.",
        labels=["figure"],
    )
    for figure in ("at_start", "p50", "p99"):
        flush.add_metric([figure], stats.get(f"flush_{figure}_ns", 0) / NS_PER_S)
    yield flush
    holds = CounterMetricFamily(
        "cascaded_holds", "Holds by whether a flush had to be waited for.", labels=["gate"]
    )
    waited = stats["gated"]
    holds.add_metric(["passed"], stats["admitted"] - waited)
    holds.add_metric(["waited"], waited)
    yield holds
    standing = GaugeMetricFamily(
        "cascaded_holds_now",
        "Holds of calls under way, and those whose bill is still unknown.",
        labels=["state"],
    )
    standing.add_metric(["open"], stats.get("holds_open", 0))
    standing.add_metric(["unknown"], stats.get("holds_unknown", 0))
    yield standing


def _budgets(read: Callable[[], Iterable[CounterStatus]]) -> Iterator[Metric]:
    """The budgets of everybody together. Those of others would make labels without end."""
    family = GaugeMetricFamily(
        "cascaded_global_budget_usd",
        "Of each budget of everybody together (limits.global), in US dollars: its limit, what is"
        " spent (unknown bills included) and what is held.",
        labels=["window", "amount"],
    )
    for one in read():
        if one.limit is not None:
            amounts = {"limit": one.limit, "spent": one.posted + one.unknown, "held": one.held}
            for amount, nano_usd in amounts.items():
                family.add_metric([one.window, amount], _usd(nano_usd))
    yield family


def _states(
    name: str,
    documentation: str,
    label: str,
    states: Sequence[str],
    read: Callable[[], Mapping[str, str]],
) -> Iterator[Metric]:
    """1 for the state that each of several things is in, 0 for the others."""
    family = GaugeMetricFamily(name, documentation, labels=[label, "state"])
    for thing, now in read().items():
        for state in states:
            family.add_metric([thing, state], float(state == now))
    yield family


def _small_models(read: Callable[[], Mapping[str, ModelFigures]]) -> Iterator[Metric]:
    """Texts that models judged, by how they fared, and the time that these took."""
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
    for name, figures in read().items():
        for outcome in ("answered", "remembered", *get_args(Reason)):
            texts.add_metric([name, outcome], getattr(figures, outcome))
        busy.add_metric([name], figures.busy_ns / NS_PER_S)
    yield from (texts, busy)


class PrometheusMetrics:
    """A `ports.Sink` that counts."""

    def __init__(self, spend: Callable[[], Mapping[str, int]]) -> None:
        self._registry = CollectorRegistry()
        self._requests = _Bound(
            self._count("requests", "Calls by how they ended and what was asked.", "status", "kind")
        )
        self._limited = _Bound(
            self._count(
                "limited",
                "Calls that a limit refused, by the code of the refusal and whose limit it is.",
                "code",
                "scope",
            )
        )
        self._warned = _Bound(
            self._count(
                "budget_warnings",
                "Calls under a budget that had reached its warning level, by whose it is.",
                "scope",
            )
        )
        self._turned_away = _Bound(
            self._count(
                "turned_away", "Requests refused before the pipeline, by the error's code.", "code"
            )
        )
        self.attempts = self._count("attempts", "Calls made to providers.", "model", "outcome")
        self._errors = _Bound(
            self._count(
                "provider_errors",
                "Calls to providers that failed, by the error's code.",
                "provider",
                "code",
            )
        )
        self.accepted = self._count("accepted", "Answers handed over, by model.", "model")
        self._rejected = _Bound(
            self._count(
                "rejected",
                "Answers that were not kept, by the quality check that found most.",
                "check",
            )
        )
        self._flagged = self._count(
            "flagged", "Answers handed over although they failed their check at the top."
        )
        self.tokens = self._count("tokens", "Tokens used.", "model", "direction")
        self.attempt_seconds = self._time(
            "attempt_seconds", "Time of one call to a provider.", "model", "provider"
        )
        self.attempt_first_token_seconds = self._time(
            "attempt_first_token_seconds",
            "Time of a streamed call to a provider until the first of its answer.",
            "model",
            "provider",
        )
        self._first_token = self._time(
            "first_token_seconds",
            "Time from the arrival of a streamed call to the first of its answer.",
        )
        self._escalated = self._count("escalated", "Calls whose first rung was not kept.")
        self._overhead = self._time(
            "overhead_seconds", "Time of a call outside its providers.", buckets=_OVERHEAD_S
        )
        self._latency = self._time("request_seconds", "Time of a call.")
        self._waited = _Bound(
            self._time(
                "waited_seconds",
                "Time that calls without a place waited for one, by how that ended.",
                "ended",
            )
        )
        self._lag = self._time(
            "loop_lag_seconds",
            "How much later than planned a timer of the event loop was served, twice a second.",
            buckets=_LAG_S,
        )
        self._hooks = _Bound(
            self._count(
                "hooks", "Hooks asked or told, by how that ended.", "point", "kind", "outcome"
            )
        )
        self._guarded = _Bound(
            self._count(
                "guardrails",
                "What guardrails found, by where and what was done.",
                "guardrail",
                "category",
                "place",
                "action",
            )
        )
        self._by_model: dict[str, _ModelSeries] = {}
        self._saved_nano_usd = 0
        self.gauge(
            "cascaded_saved_usd",
            "US dollars saved against the strongest rung alone; may fall.",
            lambda: _usd(self._saved_nano_usd),
        )
        self.read(self._cost)
        self.read(partial(_spend, spend))
        ProcessCollector(registry=self._registry)

    def record(self, request: Request, outcome: Outcome) -> None:
        """See `ports.Sink.record`."""
        end = outcome.end
        if isinstance(end, Refusal):
            self._refusal(request, end)
        else:
            self._result(request, end)
        self._latency.observe(outcome.elapsed_ns / NS_PER_S)
        self._overhead.observe(outcome.overhead_ns / NS_PER_S)
        if outcome.first_token_ns is not None:
            self._first_token.observe(outcome.first_token_ns / NS_PER_S)
        for attempt in outcome.attempts:
            self._attempt(attempt, streamed=request.stream)
        for finding in outcome.findings:
            self._finding(finding)
        for warning in outcome.decision.warnings:
            self._warned[warning.scope,].inc()

    def turned_away(self, code: str) -> None:
        """A request was refused at the door, with this code of the error table."""
        self._turned_away[code,].inc()

    def hook(self, point: str, kind: str, outcome: str) -> None:
        """A hook was asked or told at this point."""
        self._hooks[point, kind, outcome].inc()

    def waited(self, ending: str, seconds: float) -> None:
        """A call had to wait for a place."""
        self._waited[ending,].observe(seconds)

    def lag(self, late_ns: int) -> None:
        """The event loop served a timer so late."""
        self._lag.observe(late_ns / NS_PER_S)

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """One more figure, read when it is looked at."""
        Gauge(name, documentation, registry=self._registry).set_function(read)

    def counter(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """One more figure that only grows, read when it is looked at."""
        self.read(lambda: [CounterMetricFamily(name, documentation, value=read())])

    def disk(self, stats: Callable[[], Mapping[str, int]]) -> None:
        """The ledger's own figures (`DurableLedger.stats`), read when they are looked at."""
        self.read(partial(_disk, stats))

    def budgets(self, counters: Callable[[], Iterable[CounterStatus]]) -> None:
        """The budgets of everybody together, read when they are looked at."""
        self.read(partial(_budgets, counters))

    def states(
        self,
        name: str,
        documentation: str,
        label: str,
        states: Sequence[str],
        read: Callable[[], Mapping[str, str]],
    ) -> None:
        """How each of some things stands, read when it is looked at."""
        self.read(partial(_states, name, documentation, label, states, read))

    def small_models(self, read: Callable[[], Mapping[str, ModelFigures]]) -> None:
        """What each small model has done, read when it is looked at."""
        self.read(partial(_small_models, read))

    def read(self, families: Callable[[], Iterable[Metric]]) -> None:
        """What somebody else keeps, read when it is looked at."""
        self._registry.register(_Read(families))

    def collect(self) -> Iterable[Metric]:
        """Everything, as it is now."""
        return self._registry.collect()

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """The exposition in the format that the `Accept` header asks for, and its type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _count(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"cascaded_{name}", documentation, labels, registry=self._registry)

    def _time(
        self,
        name: str,
        documentation: str,
        *labels: str,
        buckets: Sequence[float] = _LATENCY_S,
    ) -> Histogram:
        return Histogram(
            f"cascaded_{name}", documentation, labels, buckets=buckets, registry=self._registry
        )

    def _refusal(self, request: Request, end: Refusal) -> None:
        self._requests[end.code, request.kind].inc()
        scope = end.details.get("scope")
        if isinstance(scope, str):
            self._limited[end.code, scope].inc()

    def _result(self, request: Request, end: Result) -> None:
        self._requests["ok", request.kind].inc()
        self._saved_nano_usd += end.saved_nano_usd
        if end.answered_by and end.answered_by.rung > 0:
            self._escalated.inc()
        if end.flagged:
            self._flagged.inc()

    def _attempt(self, attempt: Attempt, *, streamed: bool) -> None:
        series = self._model(attempt.model)
        if attempt.error:
            series.failed.inc()
            self._errors[attempt.model.provider, attempt.error].inc()
        else:
            series.answered.inc()
        if attempt.accepted:
            series.accepted.inc()
        elif attempt.verdict is not None and attempt.verdict.failed:
            self._rejected[attempt.verdict.failed[0],].inc()
        series.input.inc(attempt.usage.input_tokens)
        series.output.inc(attempt.usage.output_tokens)
        series.latency.observe(attempt.latency_ns / NS_PER_S)
        if streamed and attempt.first_token_ns is not None:
            series.first_token.observe(attempt.first_token_ns / NS_PER_S)
        if attempt.billing == "unknown":
            series.unknown_nano_usd += attempt.cost_nano_usd
        else:
            series.billed_nano_usd += attempt.cost_nano_usd

    def _finding(self, finding: Finding) -> None:
        labels = (finding.guardrail, finding.category, finding.place, finding.action)
        if labels not in self._guarded and len(self._guarded) >= MAX_FINDINGS:
            # Plug-ins have words of their own.
            labels = (finding.guardrail, OTHER, finding.place, finding.action)
        self._guarded[labels].inc(finding.count)

    def _cost(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "cascaded_cost_usd",
            "US dollars that calls to each model took since this start: what was billed, and for"
            " bills that nobody knows the most that they can be.",
            labels=["model", "billing"],
        )
        for name, series in self._by_model.items():
            family.add_metric([name, "billed"], _usd(series.billed_nano_usd))
            family.add_metric([name, "unknown"], _usd(series.unknown_nano_usd))
        yield family

    def _model(self, model: Model) -> _ModelSeries:
        series = self._by_model.get(model.name)
        if series is None:
            full = len(self._by_model) >= MAX_MODELS
            name, provider = (OTHER, OTHER) if full else (model.name, model.provider)
            series = self._by_model.get(name) or _ModelSeries(self, name, provider)
            self._by_model[name] = series
        return series
