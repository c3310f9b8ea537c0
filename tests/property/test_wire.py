"""However bytes arrive, and whatever they are: the same events, or a `WireError`."""

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cascaded.types.model import Model
from cascaded.wire.native import parse_amount, parse_infer
from cascaded.wire.openai_chat import (
    WireError,
    last_question,
    parse_event,
    parse_request,
    upstream_fields,
    without_logprobs,
    without_usage,
)
from cascaded.wire.sse import SseError, SseReader, sse

LINES = st.sampled_from(
    [b"data: a", b"data:", b"data", b": c", b"event: x", b"", b"\r", b"data: \r", b"d", b"\xff"]
)
ENDS = st.sampled_from([b"\n", b"\r\n"])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    [
        *("model", "messages", "stream", "stream_options", "max_tokens", "n", "tools"),
        *("temperature", "logprobs", "response_format", "tool_choice", "user", "choices"),
        *("usage", "error", "query", "options", "max_cost", "context", "metadata"),
    ]
)
MODEL = Model(name="m", provider="p", upstream_name="m")


@given(lines=st.lists(st.tuples(LINES, ENDS), max_size=12), cuts=st.lists(st.integers(0, 150)))
def test_chunking_does_not_matter(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(line + end for line, end in lines)
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert _read(*pieces) == _read(stream)


@given(chunks=st.lists(st.binary(max_size=40)), limit=st.integers(1, 60))
def test_any_bytes_are_read_or_refused(chunks: list[bytes], limit: int) -> None:
    reader = SseReader(limit)
    try:
        for chunk in chunks:
            for data in reader.feed(chunk):
                assert len(data) <= 2 * limit, "the parts and their line ends"
    except SseError:
        pass


@given(data=st.lists(st.binary().filter(lambda text: b"\n" not in text and b"\r" not in text)))
def test_written_events_are_read_again(data: list[bytes]) -> None:
    assert _read(*(sse(one) for one in data)) == data


def _read(*chunks: bytes) -> list[bytes]:
    reader = SseReader()
    return [data for chunk in chunks for data in reader.feed(chunk)]


@given(
    body=st.binary()
    | st.dictionaries(MEMBERS | st.text(), JSON).map(lambda d: json.dumps(d).encode())
)
def test_any_body_is_a_request_or_a_mistake(body: bytes) -> None:
    for read in (parse_request, parse_infer):
        with suppress(WireError):
            read(body)


@given(body=st.binary() | st.dictionaries(MEMBERS, JSON).map(lambda d: json.dumps(d).encode()))
def test_any_answer_is_an_event_or_a_mistake(body: bytes) -> None:
    for whole in (False, True):
        with suppress(WireError):
            without_usage(parse_event(body, whole=whole).raw)


@given(
    raw=st.text(max_size=80).map(str.encode) | JSON.map(lambda value: json.dumps(value).encode())
)
def test_any_cost_is_an_amount_or_a_mistake(raw: bytes) -> None:
    with suppress(WireError):
        amount = parse_amount(msgspec.Raw(raw), "max_cost")
        assert 0 <= amount < 2**63


@given(unknown=st.dictionaries(st.text(), JSON), content=st.text(), logprobs=st.booleans())
def test_what_is_unknown_goes_on_as_it_came(
    unknown: dict[str, Any], content: str, logprobs: bool
) -> None:
    extra = {f"x_{name}": value for name, value in unknown.items()}
    body = {"model": "auto", "messages": [{"role": "user", "content": content}], **extra}
    chat, fields = parse_request(json.dumps(body).encode())
    assert last_question(chat.messages) == content
    sent = upstream_fields(fields, MODEL, output_bound=9, stream=True, logprobs=logprobs)
    for name, value in extra.items():
        assert bytes(sent[name]).decode() == json.dumps(value)
    assert json.loads(msgspec.json.encode(sent))["messages"] == body["messages"]


@given(extra=st.dictionaries(st.text(), JSON))
def test_log_probabilities_are_taken_out_of_every_choice(extra: dict[str, Any]) -> None:
    choices = [{**extra, "index": n, "logprobs": {"content": []}} for n in range(3)]
    left = json.loads(without_logprobs(json.dumps({"choices": choices, "y": extra}).encode()))
    kept = {key: value for key, value in extra.items() if key not in ("index", "logprobs")}
    assert left == {"choices": [{**kept, "index": n} for n in range(3)], "y": extra}
