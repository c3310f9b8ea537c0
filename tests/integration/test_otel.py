"""OpenTelemetry: traces and metrics before a real receiver of OTLP."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.collector import attributes, collector
from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.upstream import Fails, Says, Upstream

GOOD = "Paris is the capital of France."
BAD = "I'm sorry, but I can't help with that."
ASKED: dict[str, Any] = {
    "model": "auto",
    "max_tokens": 99,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {
    "traceparent": f"00-{TRACE}-{PARENT}-01",
    "tracestate": "vendor=value",
    "X-User-ID": "ann",
}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as upstream:
        yield upstream


def told(url: str, **settings: object) -> str:
    lines = {"endpoint": url, "spans_every_s": 0.1, "metrics_every_s": 0.2, **settings}
    return (
        "\n".join(
            [CASCADE, "[otel]", *(f"{name} = {json.dumps(value)}" for name, value in lines.items())]
        )
        + '\nheaders = {x-api-key = "env:OTEL_KEY"}\n'
    )


def ask(daemon: Daemon, headers: dict[str, str] | None = None, **fields: Any) -> int:
    with daemon.http() as http:
        answer = http.post("/v1/chat/completions", json={**ASKED, **fields}, headers=headers or {})
        return answer.status_code


def test_a_cascade_is_a_span_with_its_draft_and_verifier_below_it(upstream: Upstream) -> None:
    upstream.on("cheap", Says(BAD, input_tokens=11, output_tokens=7))
    upstream.on("strong", Says(GOOD, input_tokens=11, output_tokens=5))
    with collector() as seen:
        with daemon_with(told(seen.url), url=upstream.url, OTEL_KEY="k3y") as daemon:
            before_ns = time.time_ns()
            assert ask(daemon, HEADERS) == 200
            after_ns, spend = time.time_ns(), daemon.spend["posted"]
            until(lambda: f'"trace_id":"{TRACE}"' in daemon.log_lines())
        call, draft, verifier = seen.spans
        assert {one["x-api-key"] for one in seen.headers} == {"k3y"}
    assert {one.trace_id.hex() for one in seen.spans} == {TRACE}
    assert call.parent_span_id.hex() == PARENT
    assert {one.parent_span_id for one in (draft, verifier)} == {call.span_id}
    assert len({one.span_id for one in seen.spans}) == 3
    kinds = [one.kind for one in seen.spans]
    assert kinds == [Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_CLIENT]
    assert before_ns < call.start_time_unix_nano < draft.start_time_unix_nano
    assert draft.end_time_unix_nano < verifier.start_time_unix_nano
    assert verifier.end_time_unix_nano <= call.end_time_unix_nano < after_ns
    assert [one.name for one in seen.spans] == ["chat default", "chat cheap", "chat strong"]
    whole, first, second = (attributes(one.attributes) for one in seen.spans)
    assert whole["gen_ai.request.model"] == "auto"
    assert whole["gen_ai.response.model"] == "strong"
    assert whole["gen_ai.request.max_tokens"] == 99
    assert whole["cascaded.escalated"] is True
    assert "gen_ai.usage.input_tokens" not in whole, "it would be counted twice"
    costs = [first["cascaded.cost_nano_usd"], second["cascaded.cost_nano_usd"]]
    assert whole["cascaded.cost_nano_usd"] == sum(costs) == spend
    assert min(costs) > 0
    for one, model, role, tokens in (first, "cheap", "draft", 7), (second, "strong", "verifier", 5):
        assert one["gen_ai.operation.name"] == "chat"
        assert one["gen_ai.provider.name"] == "fake"
        assert one["gen_ai.request.model"] == model
        assert (one["gen_ai.usage.input_tokens"], one["gen_ai.usage.output_tokens"]) == (11, tokens)
        assert one["cascaded.role"] == role
    assert (first["cascaded.accepted"], second["cascaded.accepted"]) == (False, True)
    assert first["cascaded.failed_checks"]
    assert second["gen_ai.response.finish_reasons"] == ["stop"]
    resource = seen.resources[0]
    assert resource["service.name"] == "cascaded"
    assert resource["service.version"]
    sent = [one.headers for one in upstream.received]
    assert [one["traceparent"] for one in sent] == [
        f"00-{TRACE}-{one.span_id.hex()}-01" for one in (draft, verifier)
    ]
    assert {one["tracestate"] for one in sent} == {"vendor=value"}
    assert "ann" not in str(seen.spans)
    assert "capital" not in str(seen.spans)


def test_metrics_come_by_otlp_too(upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD), Fails(400))
    with collector() as seen:
        with daemon_with(told(seen.url, traces=False), url=upstream.url, OTEL_KEY="k") as daemon:
            assert ask(daemon, HEADERS) == 200
            assert ask(daemon, model="cheap") == 400
            spend = daemon.spend["posted"]
        assert seen.spans == []
    assert "traceparent" not in upstream.received[0].headers
    requests = seen.metrics["cascaded_requests"].sum
    assert requests.is_monotonic
    by_status = {attributes(one.attributes)["status"]: one for one in requests.data_points}
    assert by_status["ok"].as_double == 1
    assert 0 < by_status["ok"].start_time_unix_nano < by_status["ok"].time_unix_nano
    states = {
        attributes(one.attributes)["state"]: one.as_double
        for one in seen.metrics["cascaded_spend_usd"].gauge.data_points
    }
    assert round(states["posted"] * 1e9) == spend
    [calls] = seen.metrics["cascaded_request_seconds"].histogram.data_points
    assert calls.count == sum(calls.bucket_counts) == 2
    assert len(calls.bucket_counts) == len(calls.explicit_bounds) + 1
    durations = seen.metrics["gen_ai.client.operation.duration"]
    assert durations.unit == "s"
    errors = {
        attributes(one.attributes).get("error.type") for one in durations.histogram.data_points
    }
    assert errors == {None, "upstream_refused"}
    tokens = {
        attributes(one.attributes)["gen_ai.token.type"]: one.sum
        for one in seen.metrics["gen_ai.client.token.usage"].histogram.data_points
    }
    assert tokens == {"input": 10, "output": 5}


def test_who_sends_no_trace_begins_one_and_refusals_are_told(upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD), Says(GOOD), Fails(400))
    with (
        collector() as seen,
        daemon_with(told(seen.url), url=upstream.url, OTEL_KEY="k") as daemon,
    ):
        assert ask(daemon) == 200
        assert ask(daemon, {"traceparent": "00-nonsense-01"}, stream=True) == 200
        assert ask(daemon, model="cheap") == 400
        assert ask(daemon, model="cascade/nothing") == 404
        until(lambda: len(seen.spans) == 7)
    calls = [one for one in seen.spans if one.kind == Span.SPAN_KIND_SERVER]
    assert len({one.trace_id for one in calls}) == 4
    assert {one.parent_span_id for one in calls} == {b""}
    errors = {attributes(one.attributes).get("error.type") for one in calls}
    assert errors == {None, "upstream_refused", "model_not_found"}
    assert [one.status.code for one in calls].count(Status.STATUS_CODE_ERROR) == 2
    [streamed] = [
        one for one in seen.spans if "gen_ai.response.time_to_first_chunk" in str(one.attributes)
    ]
    assert streamed.kind == Span.SPAN_KIND_CLIENT
    roles = {attributes(one.attributes).get("cascaded.role") for one in seen.spans}
    assert roles == {None, "draft", "only"}


def test_callers_who_do_not_sample_have_no_spans_but_their_context_goes_on(
    upstream: Upstream,
) -> None:
    upstream.on("cheap", Says(GOOD), Says(GOOD))
    with collector() as seen:
        toml = told(seen.url, sample_ratio=0)
        with daemon_with(toml, url=upstream.url, OTEL_KEY="k") as daemon:
            assert ask(daemon, {"traceparent": f"00-{TRACE}-{PARENT}-00"}) == 200
            assert ask(daemon) == 200
        assert seen.spans == []
    ours, own = (one.headers["traceparent"] for one in upstream.received)
    assert ours.startswith(f"00-{TRACE}-")
    assert TRACE not in own
    assert {ours[-3:], own[-3:]} == {"-00"}


def test_prompts_and_users_only_when_asked_for(upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD), Says(GOOD))
    with collector() as seen:
        toml = told(seen.url, prompts=True, users=True)
        with daemon_with(toml, url=upstream.url, OTEL_KEY="k") as daemon:
            assert ask(daemon, HEADERS) == 200
            long = [{"role": "user", "content": "word " * 10_000}]
            assert ask(daemon, HEADERS, messages=long) == 200
        call = attributes(seen.spans[0].attributes)
        longer = attributes(seen.spans[2].attributes)
    assert call["user.id"] == "ann"
    [message] = json.loads(call["gen_ai.input.messages"])
    assert message["parts"][0]["content"] == ASKED["messages"][0]["content"]
    [answer] = json.loads(call["gen_ai.output.messages"])
    assert (answer["parts"][0]["content"], answer["finish_reason"]) == (GOOD, "stop")
    assert "left out" in longer["gen_ai.input.messages"]


def test_what_guardrails_kept_from_the_model_is_kept_from_the_collector(
    upstream: Upstream,
) -> None:
    upstream.on("cheap", Says("I have written to [EMAIL_1], as you asked me to."))
    with collector() as seen:
        toml = told(seen.url, prompts=True) + "\n[guardrails]\nenabled = true\n"
        with daemon_with(toml, url=upstream.url, OTEL_KEY="k") as daemon, daemon.http() as http:
            question = [{"role": "user", "content": "Write to ann@example.org about France."}]
            answer = http.post("/v1/chat/completions", json={**ASKED, "messages": question})
            assert "ann@example.org" in answer.text, "the caller gets it back"
        call = attributes(seen.spans[0].attributes)
    assert "ann@example.org" not in str(seen.spans)
    assert "[EMAIL_1]" in call["gen_ai.input.messages"]
    assert "[EMAIL_1]" in call["gen_ai.output.messages"]
    assert call["cascaded.guardrails"] == ["pii/email/redact"]


def test_a_collector_that_comes_back_gets_it_and_gets_it_once(upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD))
    with collector() as seen:
        seen.refuse_with = [503, 429]
        toml = told(seen.url, metrics=False)
        with daemon_with(toml, url=upstream.url, OTEL_KEY="k") as daemon:
            assert ask(daemon) == 200
            until(lambda: len(seen.spans) == 2)
            assert daemon.log_lines().count('"telemetry"') == 1
        assert len(seen.spans) == 2


def test_what_it_does_not_want_is_not_sent_again(upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD), Says(GOOD))
    with collector() as seen:
        seen.refuse_with = [400]
        toml = told(seen.url, metrics=False)
        with daemon_with(toml, url=upstream.url, OTEL_KEY="k") as daemon:
            assert ask(daemon) == 200
            until(lambda: lost(daemon) == 1)
            refused = ExportTraceServiceResponse()
            refused.partial_success.rejected_spans = 2
            seen.answer = refused.SerializeToString()
            assert ask(daemon) == 200
            until(lambda: lost(daemon) == 2)
            assert daemon.log_lines().count('"telemetry"') == 1


def test_a_dead_collector_neither_fails_nor_slows_a_call(upstream: Upstream) -> None:
    with daemon_with(
        told("http://127.0.0.1:9", max_queue=3), url=upstream.url, OTEL_KEY="k"
    ) as daemon:
        for _ in range(20):
            assert ask(daemon) == 200
        until(lambda: lost(daemon) >= 10)
        assert daemon.log_lines().count('"telemetry"') == 1
        begun = time.monotonic()
    assert time.monotonic() - begun < 4, "and the end of the daemon does not wait for it"


def test_a_collector_that_hangs_does_not_hold_up_the_end(upstream: Upstream) -> None:
    with collector() as seen:
        seen.delay_s = 60
        with daemon_with(told(seen.url), url=upstream.url, OTEL_KEY="k") as daemon:
            assert ask(daemon) == 200
            begun = time.monotonic()
        assert time.monotonic() - begun < 10


def test_without_it_its_libraries_are_not_imported() -> None:
    probe = (
        "import sys, cascaded.daemon.run;"
        "print([n for n in sys.modules if n.startswith(('opentelemetry', 'google.protobuf'))])"
    )
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def lost(daemon: Daemon) -> float:
    with daemon.http() as http:
        lines = http.get("/metrics").text.splitlines()
    [line] = [one for one in lines if one.startswith("cascaded_telemetry_lost_total ")]
    return float(line.split()[1])


def until(met: Any) -> None:
    end = time.monotonic() + 15
    while not met():
        assert time.monotonic() < end
        time.sleep(0.05)
