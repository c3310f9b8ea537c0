"""Rows of exports: every record comes back as it was written, from texts and from values."""

import csv
import io
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascaded.types.records import AttemptRecord, UsageRecord
from cascaded.wire.exports import NAMES, cells, csv_line, csv_text, json_line, record_of, timestamp
from cascaded.wire.focus import FOCUS_COLUMNS, focus_rows
from cascaded.wire.openai_chat import WireError

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
optional = st.none() | names
money = st.integers(0, 10_000 * 10**9)
counts = st.integers(0, 2**40)
durations = st.integers(0, 10**15)
attempts = st.builds(
    AttemptRecord,
    model=names,
    provider=names,
    rung=st.integers(0, 5),
    billing=st.sampled_from(["billed", "not_billed", "unknown"]),
    error=optional,
    cost_nano_usd=money,
    latency_ns=durations,
    first_token_ns=st.none() | durations,
    score=st.none() | st.floats(0, 1),
    failed=st.lists(names, max_size=2).map(tuple),
    accepted=st.booleans(),
    input_tokens=counts,
    output_tokens=counts,
    cache_read_tokens=counts,
    cache_write_tokens=counts,
    input_audio_tokens=counts,
    output_audio_tokens=counts,
    reasoning_tokens=counts,
    cache_write_1h_tokens=st.none() | counts,
    output_image_tokens=st.none() | counts,
    estimated=st.booleans(),
)
records = st.builds(
    UsageRecord,
    request_id=names,
    at_ns=st.integers(0, 4_000_000_000 * 10**9),
    principal=names,
    user_id=optional,
    tier=optional,
    organization_id=optional,
    workspace_id=optional,
    team_id=optional,
    run_id=optional,
    tags=st.dictionaries(names, names, max_size=3),
    model=names,
    stream=st.booleans(),
    status=names,
    scope=optional,
    ladder=optional,
    domain=optional,
    complexity=optional,
    reasons=st.lists(names, max_size=2).map(tuple),
    notices=st.lists(names, max_size=2).map(tuple),
    hold=st.none() | counts,
    attempts=st.lists(attempts, max_size=3).map(tuple),
    model_used=optional,
    cache=optional,
    flagged=st.booleans(),
    score=st.none() | st.floats(0, 1),
    input_tokens=counts,
    output_tokens=counts,
    cost_nano_usd=st.integers(-(10**12), 10**12),
    unknown_nano_usd=money,
    saved_nano_usd=st.integers(-(10**12), 10**12),
    elapsed_ns=durations,
    overhead_ns=st.integers(-(10**9), 10**12),
    kind=st.sampled_from(["chat", "completion", "embedding"]),
    imported=st.booleans(),
    first_token_ns=st.none() | durations,
    guardrails=st.lists(names, max_size=2).map(tuple),
    cache_state=st.sampled_from(["hit", "miss", "off"]),
)
exactly = msgspec.json.Decoder(dict[str, object], float_hook=Decimal).decode


@settings(max_examples=40)
@given(records)
def test_a_record_comes_back_from_json_and_from_csv(record: UsageRecord) -> None:
    assert record_of(exactly(json_line(record))) == record
    [row] = csv.reader(io.StringIO(csv_line(cells(record)).decode(), newline=""))
    assert record_of(dict(zip(NAMES, map(csv_text, row), strict=True))) == record


@settings(max_examples=40)
@given(records)
def test_no_cell_is_a_formula(record: UsageRecord) -> None:
    [row] = csv.reader(io.StringIO(csv_line(cells(record)).decode(), newline=""))
    for cell in row:
        assert not cell.startswith(("=", "+", "@", "\t", "\r"))
        assert not cell.startswith("-") or Decimal(cell) < 0


@settings(max_examples=40)
@given(records)
def test_charges_have_every_column_and_sum_up(record: UsageRecord) -> None:
    rows = [dict(zip(FOCUS_COLUMNS, row, strict=True)) for row in focus_rows(record)]
    charged = [one for one in record.attempts if one.billing != "not_billed" or one.cost_nano_usd]
    wanted = sum(one.cost_nano_usd for one in charged) if charged else record.cost_nano_usd
    assert sum(int(Decimal(str(row["BilledCost"])).scaleb(9)) for row in rows) == wanted
    for row in rows:
        assert str(row["BillingPeriodStart"]) <= str(row["ChargePeriodStart"])
        assert str(row["ChargePeriodEnd"]) <= str(row["BillingPeriodEnd"])


LEAST = {"request_id": "r1", "at": "2026-11-21T00:00:00Z"}


def test_what_is_absent_has_nothing_to_say() -> None:
    record = record_of(LEAST)
    assert (record.status, record.kind, record.cost_nano_usd, record.tags) == ("ok", "chat", 0, {})
    assert timestamp(record.at_ns) == "2026-11-21T00:00:00.000000000Z"
    assert (
        record_of({**LEAST, "at": "2026-11-21T02:00:00.5+02:00"}).at_ns == record.at_ns + 5 * 10**8
    )


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ({"request_id": ""}, "request_id: every row needs one"),
        ({"request_id": "x" * 257}, "request_id: a text of at most 256"),
        ({"at": 5}, "at: a time such as"),
        ({"at": "noon"}, "at: Invalid isoformat"),
        ({"cost": "1e-12"}, "cost: "),
        ({"cost": "10001"}, "cost: more than a call can cost"),
        ({"cost": "NaN"}, "cost: "),
        ({"input_tokens": -1}, "input_tokens: this is no count"),
        ({"input_tokens": "1.5"}, "input_tokens: "),
        ({"latency_ms": "Infinity"}, "latency_ms: this is no duration"),
        ({"stream": "maybe"}, "stream: true or false"),
        ({"tags": "[["}, "tags: "),
        ({"tags": {"a": 1}}, "none of ours"),
        ({"tags": {str(n): "" for n in range(65)}}, "tags: a list or an object of at most 64"),
        ({"kind": "song"}, "none of ours"),
        ({"attempts": [{"model": 1}]}, "attempts: "),
        ({"attempts": [{"model": "m", "provider": "p", "cost": "x"}]}, "attempts: "),
        ({"quality_score": "high"}, "quality_score: "),
    ],
)
def test_a_bad_cell_is_named(cell: dict[str, object], words: str) -> None:
    with pytest.raises(WireError, match=words.replace("(", r"\(")):
        record_of({**LEAST, **cell})
