"""The outside world, piece by piece: log, metrics, sockets, threads."""

import asyncio
import io
import json
import logging
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as text_families

from cascaded.adapters import prometheus
from cascaded.adapters.clock import SystemClock
from cascaded.adapters.deferred import MAX_WAITING, DeferredSinks
from cascaded.adapters.json_log import LEVELS, MAX_CAUSES, JsonLog, Level
from cascaded.adapters.library_log import library_lines
from cascaded.adapters.nothing import NoCache, NoGuardrail
from cascaded.adapters.offload import ThreadOffload
from cascaded.adapters.prometheus import PrometheusMetrics
from cascaded.adapters.unix_socket import SocketError, listen
from cascaded.types.decision import Decision, Refusal
from cascaded.types.model import Model
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Check, Completion, Outcome, Result, Verdict
from cascaded.types.secret import Secret
from cascaded.types.usage import Usage
from tests.support.fakes import FakeClock, Recorded, request

PROMPT = "What is the capital of France?"


def attempt(name: str = "cheap", **fields: Any) -> Attempt:
    made = {"rung": 0, "model": Model(name=name, provider="p", upstream_name=name), **fields}
    return Attempt(**made)


def outcome(*attempts: Attempt, end: Refusal | None = None, **fields: Any) -> Outcome:
    answered = Result(
        answer=Completion(text="Paris."), answered_by=attempts[-1] if attempts else None
    )
    made = {"decision": Decision(), "end": end or answered, "attempts": attempts, **fields}
    return Outcome(**made)


# --- the log -------------------------------------------------------------------------------------


class Log:
    """A log into memory."""

    def __init__(self, level: Level = "info", *, prompts: bool = False) -> None:
        self.stream = io.BytesIO()
        self.log = JsonLog(self.stream, FakeClock(), level=level, prompts=prompts)

    @property
    def text(self) -> str:
        return self.stream.getvalue().decode()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.mark.parametrize("threshold", LEVELS)
def test_levels(threshold: Level) -> None:
    log = Log(threshold)
    for level in LEVELS:
        log.log.write(level, "happened", n=1)
    assert [line["level"] for line in log.lines] == list(LEVELS[LEVELS.index(threshold) :])


def test_a_line() -> None:
    log = Log()
    log.log.write("info", "happened", text="two\nlines", none=None)
    assert log.lines == [
        {
            "ts": "2023-11-14T22:13:20.000+00:00",
            "level": "info",
            "event": "happened",
            "text": "two\nlines",
            "none": None,
        }
    ]
    assert log.text.count("\n") == 1


def test_secrets_and_strange_things_show_their_kind_only() -> None:
    log = Log()
    log.log.write("info", "happened", key=Secret("sk-1"), thing=object(), deep=[{"x": Secret("s")}])
    [line] = log.lines
    assert (line["key"], line["thing"], line["deep"]) == (
        "[secret]",
        "[object]",
        [{"x": "[secret]"}],
    )
    assert "sk-1" not in log.text


def test_a_request_that_was_answered() -> None:
    log = Log()
    usage = Usage(input_tokens=7, output_tokens=3)
    first = attempt(error="upstream_reset", billing="unknown", cost_nano_usd=5, latency_ns=10**6)
    second = attempt(
        "strong",
        rung=1,
        usage=usage,
        cost_nano_usd=10,
        latency_ns=2 * 10**6,
        verdict=Verdict(score=0.9, confidence=0.8),
    )
    log.log.record(request(PROMPT), outcome(first, second, elapsed_ns=4 * 10**6))
    [line] = log.lines
    assert line["cost_usd"] == "0.000000015"
    assert (line["latency_ms"], line["overhead_ms"]) == (4.0, 1.0)
    assert (line["status"], line["model_used"], line["quality_score"]) == ("ok", "strong", 0.9)
    assert (line["attempts"], line["errors"]) == (["cheap", "strong"], ["upstream_reset"])
    assert (line["input_tokens"], line["output_tokens"]) == (7, 3)
    assert line["principal"] == "uid:0"
    assert "France" not in log.text
    assert "Paris" not in log.text


def test_a_request_that_was_refused_or_came_from_a_cache() -> None:
    log = Log()
    log.log.record(request(), outcome(end=Refusal(code="model_not_found", message="no such")))
    log.log.record(request(), outcome(end=Refusal(code="abandoned", message="left")))
    log.log.record(request(), outcome())
    refused, abandoned, cached = log.lines
    assert (refused["status"], refused["message"]) == ("model_not_found", "no such")
    assert abandoned["status"] == "abandoned"
    assert "message" not in abandoned, "nobody was told it"
    assert (cached["status"], cached["model_used"], cached["cost_usd"]) == ("ok", None, "0")


def test_prompts_where_they_are_asked_for() -> None:
    log = Log(prompts=True)
    log.log.record(request(PROMPT), outcome(attempt()))
    log.log.record(request(PROMPT), outcome(end=Refusal(code="overloaded", message="m")))
    answered, refused = log.lines
    assert answered["messages"] == [{"role": "user", "content": PROMPT}]
    assert (answered["answer"], refused["answer"]) == ("Paris.", None)


def test_a_fault_shows_where_it_was() -> None:
    log = Log()
    try:
        try:
            raise KeyError(PROMPT)
        except KeyError:
            raise RuntimeError(f"a bug with {PROMPT}") from None
    except RuntimeError as fault:
        log.log.fault("r-1", fault)
    [line] = log.lines
    assert (line["level"], line["request_id"]) == ("error", "r-1")
    assert "test_a_fault_shows_where_it_was" in line["traceback"]
    assert "RuntimeError" in line["traceback"]
    assert "KeyError" in line["traceback"]
    assert PROMPT not in json.dumps(line), "an exception's words may quote what came in"


def test_a_chain_of_faults_has_an_end() -> None:
    log, fault = Log(), RuntimeError()
    fault.__cause__ = fault
    log.log.fault("r-1", fault)
    assert log.lines[0]["traceback"].count("RuntimeError") == MAX_CAUSES


def test_it_turns_to_another_stream_and_level() -> None:
    log, other = Log(), io.BytesIO()
    log.log.turn_to(other, level="error", prompts=False)
    log.log.write("info", "unheard")
    log.log.write("error", "heard")
    assert log.lines == []
    assert json.loads(other.getvalue())["event"] == "heard"


class Full(io.BytesIO):
    """A disk that is full for a while."""

    full = True

    def write(self, data: Any) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_a_disk_that_is_full_stops_nothing_and_is_told_afterwards() -> None:
    stream = Full()
    log = JsonLog(stream, FakeClock(), level="info", prompts=False)
    for _ in range(3):
        log.record(request(), outcome())
    stream.full = False
    log.write("info", "one")
    log.write("info", "two")
    one, two = (json.loads(line) for line in stream.getvalue().splitlines())
    assert one["lost_lines"] == 3
    assert "lost_lines" not in two


def test_what_libraries_say_becomes_lines() -> None:
    log = Log("debug")
    library = logging.Logger("some.library")
    library.parent = logging.root
    with library_lines(log.log.write):
        library.warning("slow: %s", "sk-1")
        library.info("not of interest")
        try:
            raise ValueError("sk-2")
        except ValueError:
            library.exception("it broke")
    library.error("after the end")
    warned, failed = log.lines
    assert (warned["level"], warned["logger"]) == ("warning", "some.library")
    assert (warned["message"], warned["error"], warned["where"]) == ("slow: …", None, None)
    assert (failed["level"], failed["error"]) == ("error", "ValueError")
    assert failed["where"].startswith(__file__)
    assert "sk-" not in log.text, "neither arguments nor the words of exceptions"


# --- records that are handed on later ------------------------------------------------------------


async def test_records_are_handed_on_in_order_and_soon() -> None:
    sinks = Recorded(), Recorded()
    deferred = DeferredSinks(*sinks, report=_no_fault)
    outcomes = [outcome(elapsed_ns=n) for n in range(3)]
    for one in outcomes:
        deferred.record(request(), one)
    assert sinks[0].outcomes == []
    await asyncio.sleep(0.1)
    assert sinks[0].outcomes == sinks[1].outcomes == outcomes
    deferred.record(request(), outcomes[0])
    deferred.hand_on()
    deferred.hand_on()
    assert len(sinks[0].outcomes) == 4


async def test_a_sink_that_fails_silences_nobody() -> None:
    class Broken:
        def record(self, asked: Request, ended: Outcome) -> None:
            raise ValueError("too large")

    sink, faults = Recorded(), []
    deferred = DeferredSinks(Broken(), sink, report=lambda *fault: faults.append(fault))
    deferred.record(request(), outcome())
    deferred.record(request(), outcome())
    deferred.hand_on()
    assert len(sink.outcomes) == len(faults) == 2
    assert faults[0][0] == "r1"


def _no_fault(request_id: str, fault: BaseException) -> None:
    raise AssertionError(request_id) from fault


async def test_no_more_records_wait_than_fit() -> None:
    sink = Recorded()
    deferred = DeferredSinks(sink, report=_no_fault)
    for _ in range(MAX_WAITING + 1):
        deferred.record(request(), outcome())
    assert len(sink.outcomes) == MAX_WAITING
    deferred.hand_on()
    assert len(sink.outcomes) == MAX_WAITING + 1


# --- metrics -------------------------------------------------------------------------------------


def scraped(metrics: PrometheusMetrics) -> dict[str, dict[tuple[str, ...], float]]:
    text = metrics.scrape("")[0].decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def made_metrics(**spend: int) -> PrometheusMetrics:
    return PrometheusMetrics(lambda: spend)


def test_what_is_counted() -> None:
    metrics = made_metrics(posted=1_500_000_000, held=0, unknown=1)
    usage = Usage(input_tokens=7, output_tokens=3)
    draft = attempt(usage=usage, latency_ns=10**8)
    kept = attempt("strong", rung=1, usage=usage, accepted=True, latency_ns=10**9)
    done = outcome(draft, kept, elapsed_ns=2 * 10**9)
    metrics.record(request(), msgspec.structs.replace(done, end=_saving(done, -500_000_000)))
    metrics.record(request(), outcome(attempt(error="upstream_reset"), end=_refused("overloaded")))
    metrics.record(request(), outcome())
    seen = scraped(metrics)
    assert seen["cascaded_requests_total"] == {("chat", "ok"): 2, ("chat", "overloaded"): 1}
    assert seen["cascaded_attempts_total"]["cheap", "failed"] == 1
    assert seen["cascaded_accepted_total"]["strong",] == 1
    assert seen["cascaded_tokens_total"]["input", "strong"] == 7
    assert seen["cascaded_escalated_total"] == {(): 1}
    assert seen["cascaded_saved_usd"] == {(): -0.5}, "it may fall"
    assert seen["cascaded_request_seconds_count"] == {(): 3}
    assert seen["cascaded_spend_usd"] == {("posted",): 1.5, ("held",): 0, ("unknown",): 1e-9}


def test_reasons_are_counted_and_money_by_model_is_exact() -> None:
    metrics = made_metrics()
    poor = Verdict(
        score=0.1,
        confidence=0.1,
        checks=(Check(name="refusal", score=0.1), Check(name="length", score=0.5)),
    )
    for _ in range(10):  # ten times 0.1 is not 1 in floats
        metrics.record(
            request(),
            outcome(
                attempt(verdict=poor, cost_nano_usd=100_000_000),
                attempt(
                    "strong", rung=1, error="upstream_timeout", billing="unknown", cost_nano_usd=3
                ),
                end=_refused("quality_refused"),
            ),
        )
    late = Refusal(code="budget_exceeded", message="m", details={"scope": "user"})
    metrics.record(request(), outcome(end=late))
    seen = scraped(metrics)
    assert seen["cascaded_rejected_total"] == {("refusal",): 10}
    assert seen["cascaded_provider_errors_total"] == {("upstream_timeout", "p"): 10}
    assert seen["cascaded_limited_total"] == {("budget_exceeded", "user"): 1}
    assert seen["cascaded_cost_usd_total"]["billed", "cheap"] == 1.0
    assert seen["cascaded_cost_usd_total"]["unknown", "strong"] == 3e-8


def test_figures_that_are_read_when_they_are_looked_at() -> None:
    metrics = made_metrics()
    metrics.gauge("cascaded_in_flight", "Requests under way.", lambda: 3)
    metrics.waited("entered", 0.25)
    metrics.waited("late", 10)
    nothing_flushed = {"admitted": 5, "gated": 2}
    metrics.disk(lambda: {**nothing_flushed, "flush_at_start_ns": 250_000})
    seen = scraped(metrics)
    assert seen["cascaded_flush_seconds"]["at_start",] == 0.00025
    assert seen["cascaded_holds_total"] == {("passed",): 3, ("waited",): 2}
    assert seen["cascaded_in_flight"] == {(): 3}
    assert seen["cascaded_waited_seconds_sum"] == {("entered",): 0.25, ("late",): 10}


def _refused(code: str) -> Refusal:
    return Refusal(code=code, message="m")


def _saving(done: Outcome, nano_usd: int) -> Result:
    assert isinstance(done.end, Result)
    return msgspec.structs.replace(done.end, saved_nano_usd=nano_usd)


def test_models_beyond_the_bound_share_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "MAX_MODELS", 3)
    metrics = made_metrics()
    for _ in range(2):
        for n in range(10):
            metrics.record(request(), outcome(attempt(f"m{n}")))
    counted = scraped(metrics)["cascaded_attempts_total"]
    models = {model for model, _ in counted}
    assert models == {"m0", "m1", "m2", "other"}
    assert counted["other", "answered"] == 14
    assert counted["m0", "answered"] == 2


def test_both_formats_can_be_parsed() -> None:
    metrics = made_metrics(posted=1)
    metrics.record(request(), outcome(attempt()))
    for accept, families in [
        ("", text_families),
        ("text/plain", text_families),
        ("application/openmetrics-text; version=1.0.0", openmetrics_families),
    ]:
        body, content_type = metrics.scrape(accept)
        assert content_type.startswith(accept.partition(";")[0])
        names = {family.name for family in families(body.decode())}
        assert {"cascaded_requests", "cascaded_spend_usd"} <= names
        assert all(name.startswith(("cascaded_", "process_")) for name in names)


# --- the socket ----------------------------------------------------------------------------------


def opened(path: Path, mode: int = 0o600, group: str | None = None) -> Any:
    return listen(path, mode=mode, group=group, backlog=5)


def test_a_socket_and_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "d.sock"
    before = os.umask(0o022)
    try:
        with opened(path, 0o640) as listener:
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert not listener.getblocking()
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(path))
        assert os.umask(0o022) == 0o022, "the process's own umask is as it was"
    finally:
        os.umask(before)
    assert not path.exists()
    with opened(path):
        assert path.is_socket()


def test_one_daemon_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    with opened(path):
        with (
            pytest.raises(SocketError, match=rf"another daemon \(pid {os.getpid()}\)"),
            opened(path),
        ):
            raise AssertionError("it was opened twice")
        assert path.is_socket(), "the one that is there is left alone"


def test_a_socket_that_vanished_is_no_trouble_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    with opened(path):
        path.unlink()


def test_a_stale_socket_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with opened(path):
        assert path.is_socket()


def test_a_group_that_is_not_ours_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.chown", refuse)
    path = tmp_path / "d.sock"
    with pytest.raises(SocketError, match="of group 'root': Operation not permitted"):
        opened(path, group="root").__enter__()
    assert not path.exists(), "it would stop the next start as well"


def test_a_socket_of_which_nothing_can_be_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))

    class Timid(socket.socket):
        def connect(self, _: Any) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket", Timid)
    with pytest.raises(SocketError, match="cannot tell whether"):
        opened(path).__enter__()
    assert path.exists()


def test_a_place_where_nothing_can_be_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Timid(socket.socket):
        def bind(self, _: Any) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket", Timid)
    with pytest.raises(SocketError, match="cannot make the socket"):
        opened(tmp_path / "d.sock").__enter__()


# --- threads, clocks, and what does nothing ------------------------------------------------------


async def test_work_is_done_on_another_thread() -> None:
    offload = ThreadOffload()
    here = threading.get_ident()
    assert await offload(threading.get_ident) != here
    with pytest.raises(ZeroDivisionError):
        await offload(lambda: 1 // 0)
    offload.close()


async def test_the_clock() -> None:
    clock = SystemClock()
    began = clock.monotonic_ns()
    await clock.sleep(0.01)
    assert clock.monotonic_ns() - began >= 9_000_000
    assert clock.wall_ns() > 1_600_000_000_000_000_000


async def test_what_is_not_configured_does_nothing() -> None:
    asked: Request = request()
    decision = Decision()
    assert await NoCache().recall(asked, decision) is decision
    NoCache().conclude(asked, decision, Refusal(code="x", message="y"), None)
    assert await NoGuardrail().inspect(asked, decision) is decision
