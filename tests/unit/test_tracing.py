"""W3C's Trace Context: read from callers, and sent on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded.types.tracing import SPAN_IDS, Trace
from cascaded.wire.tracing import Parent, read_parent

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ids = st.integers(1, SPAN_IDS - 1)


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE_ID}-{SPAN_ID}-01", True),
        (f"00-{TRACE_ID}-{SPAN_ID}-00", False),
        (f"00-{TRACE_ID}-{SPAN_ID}-03", True),  # flags that nobody knows yet
        (f"cc-{TRACE_ID}-{SPAN_ID}-01-what-the-future-will-be-like", True),
    ],
)
def test_what_is_read(header: str, sampled: bool) -> None:
    parent = Parent(int(TRACE_ID, 16), int(SPAN_ID, 16), sampled, "a=b,c=d")
    assert read_parent({"traceparent": header, "tracestate": "a=b,c=d"}) == parent


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"00-{TRACE_ID}-{SPAN_ID}-01-",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-0x",
        f" 00-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01\n",
        f"00-{TRACE_ID}-{SPAN_ID}-٠١",
    ],
)
def test_what_cannot_be_read_begins_a_trace(header: str) -> None:
    assert read_parent({"traceparent": header}) is None
    assert read_parent({}) is None


@pytest.mark.parametrize("state", ["x" * 513, "a=b\r\nX-Evil: 1", "ä=b"])
def test_a_state_that_could_do_harm_is_left_out(state: str) -> None:
    found = read_parent({"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "tracestate": state})
    assert found is not None
    assert found.state == ""


@given(st.text(max_size=80))
def test_any_header_is_a_parent_or_none(header: str) -> None:
    assert read_parent({"traceparent": header, "tracestate": header}) is None or len(header) > 54


@given(ids, ids, st.booleans())
def test_what_is_sent_on_can_be_read_again(trace_id: int, span_id: int, sampled: bool) -> None:
    trace = Trace(trace_id=trace_id, span_id=span_id, sampled=sampled, state="a=b")
    read = read_parent(trace.headers(trace.attempt_id(0)))
    assert read == Parent(trace_id, trace.attempt_id(0), sampled, "a=b")


@given(ids)
def test_spans_of_a_call_differ(span_id: int) -> None:
    trace = Trace(trace_id=1, span_id=span_id)
    spans = {span_id, *(trace.attempt_id(index) for index in range(100))}
    assert len(spans) == 101
    assert all(0 < one < SPAN_IDS for one in spans)
