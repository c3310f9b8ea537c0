"""What is read from the usage log to answer questions: without a daemon, over a store in memory."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from cascaded.adapters.clock import SystemClock
from cascaded.adapters.lmdb_store import LmdbReader, LmdbStore
from cascaded.daemon import analyst
from cascaded.jobs.analysis import HOUR_NS
from cascaded.state.usage_log import UsageLog
from cascaded.state.usage_reader import UsageReader
from cascaded.types.errors import StoreError
from cascaded.types.insight import (
    AdviceQuestion,
    AnomalyQuestion,
    BreakdownQuestion,
    Errand,
    ExportQuestion,
    ForecastQuestion,
    GroupBy,
    Question,
    Subject,
)
from cascaded.types.records import ADJUSTED, Correction, Imported, UsageFilter
from tests.integration.test_insight import DAYS, SPIKE, history, record
from tests.support.memory_store import MemoryStore

NOW_NS = SystemClock().wall_ns()
ALICE = Subject(id="alice")


@pytest.fixture
def log() -> Iterator[UsageLog]:
    log = UsageLog(MemoryStore(), SystemClock(), report=pytest.fail)
    yield log
    log.close()


@pytest.fixture
def full(log: UsageLog) -> UsageLog:
    assert log.bring_in(history()) == Imported(added=3 * DAYS, known=0, too_old=0)
    return log


def asked(usage: UsageReader, question: Question) -> object:
    head, body = exported(usage, question)
    assert not head
    return json.loads(body, parse_float=Decimal)


def exported(usage: UsageReader, question: Question) -> tuple[dict[str, object], bytes]:
    head, pieces = analyst.answer(usage, question)
    return head, b"".join(pieces)


def test_history_counts_once(full: UsageLog) -> None:
    again = [*history()[:6], replace(history()[0], request_id="another")]
    assert full.bring_in(again) == Imported(added=1, known=6, too_old=0)
    twice = [replace(history()[0], request_id="new")] * 2
    assert full.bring_in(twice) == Imported(added=1, known=1, too_old=0)
    old = replace(history()[0], at_ns=5)
    assert full.bring_in([old]) == Imported(added=0, known=0, too_old=1)
    found = full.query(limit=1_000).records
    assert all(one.imported and one.hold is None for one in found)
    assert len(found) == 3 * DAYS + 2


def test_what_was_recorded_here_is_not_brought_in(log: UsageLog) -> None:
    own = replace(history()[0], hold=7)
    log.note(own)
    log.flushed().result(5)
    assert log.bring_in([own]).known == 1
    adjusted = replace(own, status=ADJUSTED, cost_nano_usd=-5)
    assert log.bring_in([adjusted]).added == 1, "what corrects it is another record"


def test_corrections_find_their_call(log: UsageLog) -> None:
    attempt = history()[0].attempts[0]
    unknown = replace(attempt, billing="unknown", cost_nano_usd=300)
    three = (replace(attempt, cost_nano_usd=50), unknown, replace(unknown, cost_nano_usd=100))
    original = replace(
        history()[-1], attempts=three, cost_nano_usd=450, unknown_nano_usd=400, hold=9
    )
    of = Correction(
        hold=9,
        at_ns=original.at_ns - 10,
        request_id=original.request_id,
        user_id=original.user_id,
        charged_nano_usd=400,
        posted_nano_usd=130,
    )
    log.note(original)
    log.note(of)
    log.note(msgspec.structs.replace(of, hold=10, request_id="lost", user_id=None))
    log.flushed().result(5)
    first, second, third = sorted(log.query().records, key=lambda one: one.cost_nano_usd)
    assert (first.status, first.cost_nano_usd, first.unknown_nano_usd) == (ADJUSTED, -270, -400)
    assert [one.cost_nano_usd for one in first.attempts] == [-203, -67]
    assert (first.at_ns, first.organization_id) == (original.at_ns, "acme")
    assert (second.request_id, second.cost_nano_usd, second.user_id) == ("lost", 130, None)
    assert third == original
    total = log.summary(None, NOW_NS)
    assert (total.total_nano_usd, total.entries) == (450 - 270 + 130, 1)


def test_days_and_counts(full: UsageLog) -> None:
    days = full.days("alice", 30, NOW_NS)
    assert len(days) == 30
    assert days[-1][0] == datetime.now(UTC).date()
    assert sum(tally.requests for _, tally in full.days(None, 100, NOW_NS)) == 3 * DAYS
    assert len(full.days("acme", 100, NOW_NS, owner="organization")) == DAYS + 1
    assert full.days("nobody", 100, NOW_NS) == []
    assert full.count(UsageFilter(), NOW_NS) == 3 * DAYS
    assert full.count(UsageFilter(user_id="bob"), NOW_NS) == DAYS
    half = UsageFilter(since_ns=NOW_NS - 30 * 24 * HOUR_NS, until_ns=NOW_NS)
    assert 0 < full.count(half, NOW_NS) < 3 * DAYS
    assert UsageReader(MemoryStore()).count(UsageFilter(), NOW_NS) == 0


def test_records_are_read_page_by_page(full: UsageLog, monkeypatch: pytest.MonkeyPatch) -> None:
    from cascaded.state import usage_reader

    monkeypatch.setattr(usage_reader, "MAX_PAGE", 7)
    assert len(list(full.records(UsageFilter()))) == 3 * DAYS
    assert len(list(full.records(UsageFilter(user_id="bob")))) == DAYS


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "focus"])
def test_exports(full: UsageLog, form: str) -> None:
    question = ExportQuestion(format=form, now_ns=NOW_NS)  # type: ignore[arg-type]
    head, body = exported(full, question)
    assert head == {"records": 3 * DAYS}
    assert len(body.splitlines()) >= 3 * DAYS
    nothing = replace(question, filter=UsageFilter(user_id="nobody"))
    _, empty = exported(full, nothing)
    assert len(empty.splitlines()) == {"jsonl": 0}.get(form, 1)


def test_forecasts_and_spikes(full: UsageLog) -> None:
    told = asked(full, ForecastQuestion(subject=ALICE, limit_nano_usd=10**10, now_ns=NOW_NS))
    assert isinstance(told, dict)
    assert (told["firm"], told["recommendation"]) == (True, "upgrade_tier")
    for subject in (Subject(), Subject(model="strong"), Subject(feature="feature=chat")):
        found = asked(full, AnomalyQuestion(subject=subject, now_ns=NOW_NS, sensitivity="low"))
        assert isinstance(found, dict)
        assert all(one["reason"] in ("spike", "feature_spike") for one in found["anomalies"])
    told = asked(full, AnomalyQuestion(subject=ALICE, now_ns=NOW_NS))
    assert isinstance(told, dict)
    days = {one["timestamp"][:10] for one in told["anomalies"]}
    assert days == {(datetime.now(UTC).date() - timedelta(days=SPIKE)).isoformat()}


def test_an_hour_that_is_out(log: UsageLog) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    hours = [now - timedelta(hours=ago) for ago in range(20 * 24, 0, -1)]
    records = []
    for number, at in enumerate(hours):
        cost = 10**8 + number % 5 * 10**6
        one = record(at.date(), "alice", "chat", cost * (50 if number == len(hours) - 9 else 1))
        at_ns = int(at.timestamp()) * 10**9
        records.append(replace(one, at_ns=at_ns, request_id=f"h{number}"))
    log.bring_in(records)
    told = asked(log, AnomalyQuestion(subject=ALICE, grain="hour", days=2, now_ns=NOW_NS))
    assert isinstance(told, dict)
    assert {one["timestamp"] for one in told["anomalies"]} == {hours[-9].isoformat()}
    assert {one["reason"] for one in told["anomalies"]} == {"spike", "feature_spike"}


@pytest.mark.parametrize("by", GroupBy.__args__)  # type: ignore[attr-defined]
def test_breakdowns_sum_up(full: UsageLog, by: GroupBy) -> None:
    told = asked(full, BreakdownQuestion(by=by, filter=UsageFilter(), top=1_000))
    assert isinstance(told, dict)
    total = sum(Decimal(one["cost"]) for one in told["groups"])
    assert total == Decimal(sum(one.cost_nano_usd for one in history())).scaleb(-9)


def test_advice(full: UsageLog) -> None:
    told = asked(full, AdviceQuestion(subject=ALICE, limit_nano_usd=10**9, now_ns=NOW_NS))
    assert isinstance(told, dict)
    [one] = told["recommendations"]
    assert one["kind"] == "upgrade_tier"
    everybody = asked(full, AdviceQuestion(subject=Subject(), now_ns=NOW_NS))
    assert everybody == {"recommendations": []}


def test_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the daemon runs it, but here, and where priorities may not be changed."""

    def forbidden(_: int) -> int:
        raise PermissionError

    monkeypatch.setattr("os.nice", forbidden)
    store = LmdbStore(tmp_path / "usage")
    log = UsageLog(store, SystemClock(), report=pytest.fail)
    log.bring_in(history())
    log.close()
    store.close()
    question = ExportQuestion(now_ns=NOW_NS, filter=UsageFilter(user_id="bob"))
    errand = msgspec.json.encode(Errand(str(tmp_path / "usage"), question))
    told = io.BytesIO()
    analyst.main(io.BytesIO(errand), told)
    head, *lines = told.getvalue().splitlines()
    assert (json.loads(head), len(lines)) == ({"records": DAYS}, DAYS)
    nowhere = msgspec.json.encode(Errand(str(tmp_path / "none"), question))
    said = io.BytesIO()
    with pytest.raises(SystemExit):
        analyst.main(io.BytesIO(nowhere), said)
    assert "cannot read" in json.loads(said.getvalue())["error"]


def test_a_reader_sees_what_a_writer_goes_on_to_write(tmp_path: Path) -> None:
    """In one process only here, and one after the other."""
    store = LmdbStore(tmp_path / "s", first_map_bytes=1024 * 1024)
    store.put_many((b"k%05d" % n, b"v" * 100) for n in range(100))
    store.close()
    reader = LmdbReader(tmp_path / "s")
    assert len(reader.scan(b"k", b"l", 1_000)) == 100
    assert reader.scan(b"k", b"l", 2, reverse=True)[0][0] == b"k00099"
    assert reader.scan(b"l", b"k", 5) == []
    assert reader.get_many([b"k00001", b"x"]) == [b"v" * 100, None]
    reader.close()
    with pytest.raises(StoreError, match="cannot read"):
        LmdbReader(tmp_path / "nowhere")
