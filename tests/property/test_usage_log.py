"""The usage log against a list: any records, any ranges, any pages."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cascaded.state.usage_log import UsageLog, _Finished, _record
from cascaded.types.limits import Caller
from cascaded.types.records import UsageRecord
from tests.support.fakes import FakeClock
from tests.support.memory_store import MemoryStore
from tests.support.records import WARNING, attempt

TEXTS = st.text(max_size=20)
MAYBE = st.none() | TEXTS
TIMES = st.integers(0, 20) | st.integers(0, 2**62)
MONEY = st.integers(0, 2**55)
"""The ledger keeps all spend together within 2**63 nano-dollars; so do these."""
ATTEMPTS = st.lists(
    st.builds(
        attempt,
        MONEY,
        rung=st.integers(0, 1),
        billing=st.sampled_from(["billed", "not_billed", "unknown"]),
        accepted=st.booleans(),
        error=MAYBE,
    ),
    max_size=3,
).map(tuple)
FINISHED = st.builds(
    _Finished,
    at_ns=TIMES,
    request_id=TEXTS,
    principal=TEXTS,
    caller=st.builds(Caller, user_id=st.sampled_from(["", "a", "b"]), tier=MAYBE, team_id=MAYBE),
    tags=st.dictionaries(TEXTS, TEXTS, max_size=3),
    model=TEXTS,
    stream=st.booleans(),
    ladder=MAYBE,
    domain=MAYBE,
    complexity=MAYBE,
    warnings=st.sampled_from([(), (WARNING,)]),
    notices=st.lists(TEXTS, max_size=2).map(tuple),
    hold=st.none() | st.integers(0, 2**63 - 1),
    status=TEXTS,
    scope=MAYBE,
    answered_by=st.none(),
    cache=MAYBE,
    flagged=st.booleans(),
    saved_nano_usd=st.integers(-(2**55), 2**55),
    attempts=ATTEMPTS,
    elapsed_ns=MONEY,
    first_token_ns=st.none() | MONEY,
)


@settings(max_examples=150)
@given(
    batches=st.lists(st.lists(FINISHED, max_size=6), max_size=3),
    since_ns=TIMES,
    until_ns=TIMES,
    user_id=st.sampled_from([None, "a", "b"]),
    limit=st.integers(1, 4),
    newest_first=st.booleans(),
)
def test_it_is_a_list_sorted_by_time(
    batches: list[list[_Finished]],
    since_ns: int,
    until_ns: int,
    user_id: str | None,
    limit: int,
    newest_first: bool,
) -> None:
    log = UsageLog(MemoryStore(), FakeClock(), report=print)
    try:
        model: list[UsageRecord] = []
        for batch in batches:
            log._write(batch)
            model += [_record(finished) for finished in batch]
        model.sort(key=lambda record: record.at_ns)
        expected = [
            record
            for record in model
            if since_ns <= record.at_ns < until_ns and user_id in (None, record.user_id)
        ]
        read: list[UsageRecord] = []
        options: dict[str, Any] = {"user_id": user_id, "limit": limit}
        page = log.query(since_ns, until_ns, newest_first=newest_first, **options)
        read += page.records
        while page.cursor is not None:
            options["after"] = page.cursor
            page = log.query(since_ns, until_ns, newest_first=newest_first, **options)
            read += page.records
        assert read == (expected[::-1] if newest_first else expected)
    finally:
        log.close()
