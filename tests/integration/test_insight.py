"""What history says: brought in from files, summed up, foretold, watched for spikes, advised on."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from cascaded.cli import cascaded as command
from cascaded.client import APIError, AsyncClient, Client
from cascaded.types.records import UsageRecord, without_attempts
from cascaded.wire.exports import NAMES, cells, csv_line
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.records import attempt_record
from tests.support.upstream import Says, Upstream

NS = 1_000_000_000
DAYS = 60
DAY_COST = 2 * NS
"""On workdays; half of it at weekends."""
SPIKE = 3
"""So many days ago there was one, on the feature `report`."""
LIMITS = """
[limits.global]
monthly_usd = 1000

[limits.users.ids.alice]
monthly_usd = 10
enforcement = "warn"
"""


def history() -> list[UsageRecord]:
    """Two months of calls at noon, by alice on two features and by bob."""
    today = datetime.now(UTC).date()
    return [one for ago in range(DAYS, 0, -1) for one in _day(today - timedelta(days=ago), ago)]


def _day(day: date, ago: int) -> Iterator[UsageRecord]:
    cost = DAY_COST if day.weekday() < 5 else DAY_COST // 2
    cost += ago * 7_919 % 23 * DAY_COST // 300
    yield record(day, "alice", "chat", cost // 2)
    yield record(day, "alice", "report", cost // 10 * (12 if ago == SPIKE else 1))
    yield record(day, "bob", "chat", cost // 2)


def record(day: date, user: str, feature: str, cost: int) -> UsageRecord:
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    made = attempt_record("strong", "fake", cost)
    attempt = replace(made, latency_ns=NS, input_tokens=1_000, output_tokens=500)
    return replace(
        without_attempts(f"{day}-{user}-{feature}", int(at.timestamp()) * NS),
        principal="uid:1000",
        user_id=user,
        organization_id="acme",
        workspace_id="lab" if user == "alice" else None,
        tags={"feature": feature},
        model="strong",
        ladder="strong",
        hold=12,
        attempts=(attempt,),
        model_used="strong",
        input_tokens=1_000,
        output_tokens=500,
        cost_nano_usd=cost,
        elapsed_ns=NS,
    )


def write_csv(path: Path, records: list[UsageRecord]) -> Path:
    path.write_bytes(csv_line(NAMES) + b"".join(csv_line(cells(one)) for one in records))
    return path


@pytest.fixture(scope="module")
def told(_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that was given this history, and has answered one call of alice's."""
    file = write_csv(tmp_path_factory.mktemp("history") / "h.csv", history())
    _upstream.on("strong", Says("The capital of France is Paris."))
    with daemon_with(CASCADE + LIMITS, url=_upstream.url) as daemon:
        ask(daemon, "alice")
        with Client(daemon.socket) as client:
            done = client.load_from_file(file)
        assert (done.added, done.known, done.too_old) == (3 * DAYS, 0, 0)
        yield daemon


def ask(daemon: Daemon, user: str) -> None:
    with daemon.http() as http:
        http.post(
            "/v1/chat/completions",
            json={
                "model": "strong",
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
                "max_tokens": 50,
            },
            headers={"X-User-ID": user, "x-cascaded-tags": "feature=chat"},
        ).raise_for_status()


@pytest.fixture
def client(told: Daemon) -> Iterator[Client]:
    with Client(told.socket) as client:
        yield client


def run(daemon: Daemon, *args: str, **env: str) -> Result:
    argv = [*args, "--socket", daemon.socket]
    return CliRunner().invoke(command, argv, env=env, catch_exceptions=False)


def spent(days: int = DAYS, user: str | None = None) -> Decimal:
    """By the history, in whole dollars and nano-dollars."""
    since = datetime.now(UTC).date() - timedelta(days=days)
    found = [
        one.cost_nano_usd
        for one in history()
        if user in (None, one.user_id)
        and datetime.fromtimestamp(one.at_ns // NS, UTC).date() >= since
    ]
    return Decimal(sum(found)).scaleb(-9)


# --- import --------------------------------------------------------------------------------------


def test_imports_count_once_and_touch_no_budget(
    told: Daemon, client: Client, tmp_path: Path
) -> None:
    paths = [tmp_path / f"a.{suffix}" for suffix in ("jsonl", "json", "csv", "sqlite", "parquet")]
    for path in paths:
        assert run(told, "export", str(path)).exit_code == 0
        result = run(told, "import", str(path), "--json")
        assert json.loads(result.output) == {"added": 0, "known": 3 * DAYS + 1, "too_old": 0}
    [budget] = client.budgets("user", "alice")
    assert budget.posted < 1, "what was imported is no spend of this ledger"
    assert sum(1 for line in paths[0].read_text().splitlines() if '"imported":true' in line) == 180
    with client.export(imported=True) as export:
        rows = list(export.rows())
    assert sum(row.cost for row in rows) == spent()
    assert {row.hold for row in rows} == {None}, "holds of another ledger mean nothing here"
    assert client.summary("bob").entries == DAYS
    assert client.summary("bob").total_cost == spent(user="bob")


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "sqlite", "parquet"])
def test_every_format_is_read_as_it_was_written(
    told: Daemon, client: Client, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"a.{suffix}"
    run(told, "export", str(file), "--imported")
    with daemon_with(CASCADE, url="http://127.0.0.1:9") as other, Client(other.socket) as another:
        result = run(other, "import", str(file))
        assert "180 records brought in, 0 were there already" in result.output
        with another.export() as found, client.export(imported=True) as wanted:
            assert b"".join(found) == b"".join(wanted)


def test_what_is_too_old_is_said(told: Daemon, tmp_path: Path) -> None:
    old = record(date(2020, 2, 29), "alice", "chat", 5)
    result = run(told, "import", str(write_csv(tmp_path / "old.csv", [old])))
    assert "1 are older than records are kept" in result.output


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "x", "what is"),
        ("a.csv", "a,b\n1,2\n", "it has no column request_id"),
        ("a.jsonl", "nonsense\n", "no export of usage records"),
        ("a.json", "[5]\n", "no export of usage records"),
        ("a.sqlite", "nonsense", "no export of usage records"),
        ("a.parquet", "nonsense", "no export of usage records"),
    ],
)
def test_a_file_that_is_none(
    told: Daemon, tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / name).write_text(content)
    result = run(told, "import", str(tmp_path / name))
    assert result.exit_code == 1
    assert words in result.output


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"nonsense", "not valid JSON"),
        (b'{"records": 5}', "Expected `array`"),
        (b'{"rows": []}', "unknown field"),
        (b'{"records": [{"request_id": "a"}]}', "record 0: at: a time"),
        (b'{"records": [' + b"{}," * 1_000 + b"{}]}", "at most 1000 records"),
    ],
)
def test_rows_that_are_none(told: Daemon, body: bytes, words: str) -> None:
    with told.http() as http:
        answer = http.post("/import", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


async def test_the_asynchronous_client(told: Daemon, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "h.csv", history())
    async with AsyncClient(told.socket) as client:
        assert (await client.load_from_file(file)).known == 3 * DAYS
        assert (await client.forecast(user_id="bob")).user_id == "bob"


# --- sums ----------------------------------------------------------------------------------------


def test_what_was_spent_by_what(told: Daemon, client: Client) -> None:
    by_user = {one.name: one for one in client.breakdown("user", imported=True)}
    assert by_user["alice"].cost == spent(user="alice")
    assert by_user["bob"].requests == DAYS
    assert [one.name for one in client.breakdown("model", imported=True)] == ["strong"]
    features = {one.name for one in client.breakdown("feature")}
    assert features == {"feature=chat", "feature=report"}
    days = client.breakdown("day", top=7, user_id="bob")
    assert len(days) == 7
    assert sum(one.cost for one in days) == spent(7, "bob")
    [acme] = client.breakdown("organization", imported=True)
    assert (acme.name, acme.cost) == ("acme", spent())
    for by in ("workspace", "domain", "tier"):
        assert "-" in {one.name for one in client.breakdown(by)}
    result = run(told, "breakdown", "user", "--top", "1", "--own")
    assert "alice" in result.output


def test_summaries_of_all_owners(client: Client) -> None:
    assert client.summary(organization_id="acme").total_cost == spent()
    assert client.summary(workspace_id="lab").total_cost == spent(user="alice")
    alice = client.summary("alice")
    assert alice.monthly_budget == 10
    assert alice.monthly_remaining is not None
    assert alice.monthly_remaining <= 10
    assert alice.budget[0].window == "month"
    with pytest.raises(APIError, match="only one"):
        client.summary("alice", organization_id="acme")


# --- forecasts -----------------------------------------------------------------------------------


def test_a_forecast(told: Daemon, client: Client) -> None:
    for whose in (
        {"user_id": "alice"},
        {"organization_id": "acme"},
        {"feature": "feature=chat"},
        {},
    ):
        found = client.forecast(**whose)  # type: ignore[arg-type]
        assert found.firm
        assert found.history_days == DAYS
        assert found.spent <= found.lower <= found.predicted_cost <= found.upper
    found = client.forecast(user_id="alice")
    assert found.budget_limit == 10
    assert found.recommendation == "upgrade_tier"
    assert found.risk_score > 0.9
    assert found.overrun_amount == found.predicted_cost - 10
    by_limit = client.forecast(user_id="alice", limit="100000")
    assert (by_limit.risk_score, by_limit.recommendation) == (0.0, "on_track")
    day = client.forecast("day", user_id="bob")
    assert day.starts == datetime.now(UTC).date().isoformat()
    week = client.forecast("week", user_id="bob", zone="Pacific/Kiritimati")
    assert date.fromisoformat(week.starts).weekday() == 0
    assert client.forecast(model="strong").history_days == DAYS
    nobody = client.forecast(user_id="nobody")
    assert (nobody.firm, nobody.history_days) == (False, 0)
    assert nobody.predicted_cost == 0


def test_a_forecast_in_the_terminal(told: Daemon) -> None:
    plain = run(told, "forecast", "--user", "alice")
    assert "in 95 of 100 cases" in plain.output
    assert "\x1b" not in plain.output
    drawn = run(told, "forecast", "--user", "alice", FORCE_COLOR="1")
    assert "█" in drawn.output
    guess = run(told, "forecast", "--user", "nobody")
    assert "not firm: 0 whole days of history, and 7 are needed" in guess.output
    assert json.loads(run(told, "forecast", "--json").output)["period"] == "month"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/forecast?period=year", "period must be one of day, week, month"),
        ("/forecast?zone=Mars/Base", "there is no time zone"),
        ("/forecast?zone=../../etc/passwd", "there is no time zone"),
        ("/forecast?limit=-1", "limit: "),
        ("/forecast?user_id=a&workspace_id=b", "only one"),
        ("/forecast?model=a&feature=b", "only one"),
        ("/anomalies?sensitivity=extreme", "sensitivity must be one of"),
        ("/anomalies?days=0", "days must be a number from 1 to 366"),
        ("/anomalies?days=99999999999999999999", "days must be a number"),
        ("/recommendations?usr=a", "there is no 'usr' here"),
        ("/breakdown?by=moon", "by must be one of"),
    ],
)
def test_questions_that_mean_nothing(told: Daemon, path: str, words: str) -> None:
    with told.http() as http:
        answer = http.get(path)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


# --- anomalies, advice ---------------------------------------------------------------------------


def test_the_spike_is_found_where_it_was(told: Daemon, client: Client) -> None:
    found = client.anomalies(user_id="alice")
    spike_day = datetime.now(UTC).date() - timedelta(days=SPIKE)
    by_reason = {one.reason: one for one in found}
    assert set(by_reason) == {"feature_spike"} or set(by_reason) == {"spike", "feature_spike"}
    spike = by_reason["feature_spike"]
    assert spike.timestamp.startswith(spike_day.isoformat())
    assert (spike.feature, spike.severity, spike.user_id) == ("feature=report", "high", "alice")
    assert spike.actual > 8 * spike.expected
    assert "times the expected" in spike.description
    assert not client.anomalies(user_id="bob")
    assert not client.anomalies(user_id="nobody")
    assert not client.anomalies(user_id="alice", days=1)
    assert not client.anomalies(user_id="bob", grain="hour")
    assert spike_day.isoformat() in run(told, "anomalies", "--user", "alice").output
    assert "nothing out of the ordinary" in run(told, "anomalies", "--user", "bob").output


def test_advice(told: Daemon, client: Client) -> None:
    found = {one.kind: one for one in client.recommendations(user_id="alice")}
    over = client.forecast(user_id="alice").overrun_amount  # a moment later, and a bit less
    assert abs(found["upgrade_tier"].at_stake - over) < Decimal("0.01")
    assert "upgrade_tier" in run(told, "recommend", "--user", "alice").output
    assert "nothing to recommend" in run(told, "recommend", "--user", "nobody").output


def test_top(told: Daemon, client: Client) -> None:
    assert "calls under way" in run(told, "top").output
    seen = json.loads(run(told, "top", "--json").output)
    assert seen["ready"]["ready"]
    assert seen["nearest"][0]["limit"]


def test_top_live(told: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two looks, and Ctrl-C."""
    waits = iter((None,))

    def wait(_: float) -> None:
        if next(waits, "over") == "over":
            raise KeyboardInterrupt

    monkeypatch.setattr("cascaded.cli.top.time.sleep", wait)
    seen = run(told, "top", FORCE_COLOR="1")
    assert seen.exit_code == 0
    assert "0.0 calls/s" in seen.output


def test_a_question_that_nobody_answers(
    told: Daemon, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cascaded.api import insight

    analysts: Any = told.generations.now.services.insight._ask.__self__.analysts  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:
        patched.setattr(analysts, "_most", 0)
        with pytest.raises(APIError, match="such questions are being answered already") as no:
            client.forecast()
        assert no.value.code == "overloaded"
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(analysts, "_command", (*analysts._command[:-1], str(tmp_path / "slow.py")))
    monkeypatch.setattr(insight, "ANSWERED_WITHIN_S", 0.3)
    with pytest.raises(APIError, match=r"it took longer than 0\.3 s") as late:
        client.anomalies()
    assert late.value.code == "records_unavailable"
    monkeypatch.setattr(analysts, "_command", ("/no/such/python",))
    with pytest.raises(APIError, match="no process could be started"):
        client.recommendations()


def test_others_see_their_own_alone(told: Daemon) -> None:
    """As `tests/integration/test_access.py` has it for summaries."""
    with Client(told.socket) as client:
        key = client.issue_key("app", user_id="bob").key
    with told.http() as http:
        http.headers["Authorization"] = f"Bearer {key}"
        for path in ("/forecast", "/forecast?user_id=alice", "/forecast?organization_id=acme"):
            answer = http.get(path)
            assert (answer.status_code, answer.json()["user_id"]) == (200, "bob"), answer.text
        groups = http.get("/breakdown?by=user&user_id=alice").json()["groups"]
        assert {one["name"] for one in groups} <= {"bob"}
        assert not http.get("/anomalies?user_id=alice").json()["anomalies"]
        assert http.get("/export").status_code == 403
