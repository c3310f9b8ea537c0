"""What was spent and decided: `/summary`, `/audit`, and backups of it all."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.cli import cascaded as command
from cascaded.client import APIError, AuditEntry, Client, Summary
from cascaded.types.errors import StoreError
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.process import wait_for
from tests.support.upstream import Resets, Says, Upstream

ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
GOOD = "The capital of France is Paris."
COST = Decimal("0.000075")
"""10 input and 5 output tokens of `strong`."""
LIMITS = """
[limits.users.ids.tiny]
total_usd = "0.000001"

[limits.users.ids.warned]
total_usd = "0.000001"
enforcement = "warn"

[limits.users.ids.outside]
total_usd = "1"
enforcement = "block"

[limits.tags.feature]
"""


def config(state: Path) -> str:
    return (CASCADE + LIMITS).replace("{folder}/state", str(state))


@pytest.fixture(scope="module")
def _kept(_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    state = tmp_path_factory.mktemp("kept") / "state"
    with daemon_with(config(state), url=_upstream.url) as daemon:
        yield daemon


@pytest.fixture
def kept(_kept: Daemon, upstream: Upstream) -> Daemon:
    upstream.on("strong", Says(GOOD))
    upstream.on("cheap", Says(GOOD))
    return _kept


@pytest.fixture
def client(kept: Daemon) -> Iterator[Client]:
    with Client(kept.socket, timeout_s=10) as client:
        yield client


def call(daemon: Daemon, user: str, **headers: str) -> int:
    with daemon.http() as http:
        sent = {"X-User-ID": user, **headers}
        body = {"model": "strong", "messages": ASK, "max_tokens": 50}
        status: int = http.post("/v1/chat/completions", json=body, headers=sent).status_code
        return status


def summary_of(client: Client, user: str, requests: int) -> Summary:
    """The user's summary once so many requests are in it."""
    wait_for(lambda: client.summary(user).requests_today >= requests)
    return client.summary(user)


def records_of(
    client: Client, user: str, outcome: str, request_id: str | None = None
) -> list[AuditEntry]:
    """A user's records of that outcome, once there is one; the newest first."""
    found: list[AuditEntry] = []

    def there() -> bool:
        page = client.audit(limit=1_000).records
        named = [one for one in page if request_id in (None, one.request_id)]
        found[:] = [one for one in named if (one.user_id, one.outcome) == (user, outcome)]
        return bool(found)

    wait_for(there)
    return found


# --- /summary ------------------------------------------------------------------------------------


def test_a_summary(kept: Daemon, client: Client) -> None:
    before = client.summary()
    for _ in range(3):
        assert call(kept, "alice", **{"x-cascaded-tags": "feature=search"}) == 200
    told = summary_of(client, "alice", 3)
    assert told.user_id == "alice"
    assert told.daily_cost == told.weekly_cost == told.monthly_cost == 3 * COST
    assert (told.requests_today, told.requests_this_month) == (3, 3)
    assert told.monthly_saved == 0, "asked by name, so nothing was saved"
    assert [(one.name, one.cost, one.requests) for one in told.top_models] == [
        ("strong", 3 * COST, 3)
    ]
    assert [(one.name, one.requests) for one in told.top_features] == [("feature=search", 3)]
    everybody = client.summary()
    assert everybody.user_id is None
    assert everybody.monthly_cost >= before.monthly_cost + 3 * COST
    assert everybody.requests_today >= before.requests_today + 3


def test_money_of_a_summary_is_exact(kept: Daemon, client: Client, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, input_tokens=999_999_999, output_tokens=3))
    assert call(kept, "exact") == 200
    assert str(summary_of(client, "exact", 1).monthly_cost) == "2500.0000275"


def test_a_summary_of_nobody(client: Client) -> None:
    told = client.summary("ünbekannt & co")
    assert told.user_id == "ünbekannt & co"
    assert told.monthly_cost == told.requests_this_month == 0
    assert told.top_models == told.top_features == ()


def test_a_refused_request_counts_and_costs_nothing(kept: Daemon, client: Client) -> None:
    assert call(kept, "tiny") == 429
    told = summary_of(client, "tiny", 1)
    assert told.requests_today >= 1
    assert told.monthly_cost == 0


# --- /audit --------------------------------------------------------------------------------------


def test_a_denial_is_on_record(kept: Daemon, client: Client) -> None:
    assert call(kept, "tiny", **{"X-Request-ID": "the-denied"}) == 429
    [record] = records_of(client, "tiny", "denied", "the-denied")
    assert (record.action, record.subject, record.reason) == ("reserve", "user:tiny", "budget")
    assert record.actor.startswith("uid:")
    denial: Any = record.details["denial"]
    assert denial["limit"] == 1_000
    assert denial["asked"] > 1_000
    assert record.at.endswith("+00:00")


def test_a_warning_is_on_record(kept: Daemon, client: Client) -> None:
    assert [call(kept, "warned"), call(kept, "warned")] == [200, 200]
    record = records_of(client, "warned", "warned")[0]
    assert (record.action, record.subject) == ("reserve", "user:warned")
    assert record.reason == "budget_exceeded"


def test_what_nobody_knows_and_its_end_are_on_record(
    kept: Daemon, client: Client, upstream: Upstream
) -> None:
    upstream.on("strong", Resets())
    assert call(kept, "outside", **{"X-Request-ID": "the-unknown"}) == 502
    [record] = records_of(client, "outside", "unknown", "the-unknown")
    assert record.action == "settle"
    receipt: Any = record.details["receipt"]
    assert receipt["unknown"] > 0
    client.resolve(receipt["hold"], "0.00001")

    def adjusted() -> list[AuditEntry]:
        subject = f"hold:{receipt['hold']}"
        return [one for one in client.audit(limit=50).records if one.subject == subject]

    wait_for(adjusted)
    [evidence] = adjusted()
    assert (evidence.action, evidence.outcome) == ("adjust", "adjusted")
    assert evidence.reason == "the provider's bill"
    assert evidence.actor.startswith("uid:")


def test_a_refused_access_is_on_record(kept: Daemon, client: Client) -> None:
    assert call(kept, "poor", **{"X-User-Tier": "free"}) == 403
    record = records_of(client, "poor", "refused")[0]
    assert (record.action, record.subject) == ("access", "model:strong")
    assert "tier 'free'" in record.reason.lower()
    assert call(kept, "odd", **{"X-User-Tier": "no-such-tier"}) == 403

    def unknown_tier() -> bool:
        return any("no-such-tier" in one.reason for one in client.audit(limit=50).records)

    wait_for(unknown_tier)


def test_pages(kept: Daemon, client: Client) -> None:
    """Every record once, whatever is written meanwhile; the newest first."""
    for _ in range(4):
        assert call(kept, "tiny") == 429
    records_of(client, "tiny", "denied")
    numbers: list[int] = []
    page = client.audit(limit=3)
    while True:
        numbers += [one.sequence for one in page.records]
        assert call(kept, "tiny") == 429
        if page.after is None:
            break
        page = client.audit(limit=3, after=page.after)
    assert numbers == list(range(numbers[0], 0, -1))


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=-1", "limit=1001", "limit=x", "limit=", "limit=1.0"),
        *("limit=" + "9" * 5_000, "after=x", "after=", "after=00", "after=" + "0" * 34),
    ],
    ids=lambda query: query[:16],
)
def test_bad_questions(kept: Daemon, query: str) -> None:
    with kept.http() as http:
        answer = http.get("/audit?" + query)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "invalid_request"


def test_a_disk_that_cannot_be_read(
    kept: Daemon, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(*_: object, **__: object) -> None:
        raise StoreError("cannot read usage: Input/output error")

    monkeypatch.setattr(LmdbStore, "get_many", torn)
    monkeypatch.setattr(LmdbStore, "scan", torn)
    for ask in (client.summary, client.audit):
        with pytest.raises(APIError, match="Input/output error") as caught:
            ask()
        assert (caught.value.status, caught.value.code) == (503, "records_unavailable")


def test_numbers_go_on_after_a_restart(upstream: Upstream, tmp_path: Path) -> None:
    text = config(tmp_path / "state")
    for life in range(3):
        with daemon_with(text, url=upstream.url) as daemon, Client(daemon.socket) as client:
            for number in range(5):
                assert call(daemon, "tiny", **{"X-Request-ID": f"{life}-{number}"}) == 429
    with daemon_with(text, url=upstream.url) as daemon, Client(daemon.socket) as client:
        records = client.audit(limit=100).records
        assert [one.sequence for one in records] == list(range(15, 0, -1))
        told = [one.request_id for one in reversed(records)]
        assert told == [f"{life}-{number}" for life in range(3) for number in range(5)]
        assert client.summary("tiny").requests_this_month == 15


def test_the_audit_level(upstream: Upstream, tmp_path: Path) -> None:
    upstream.on("strong", Says(GOOD))
    for level, outcomes in (
        ("minimal", {"denied"}),
        ("comprehensive", {"denied", "warned", "settled"}),
    ):
        text = config(tmp_path / level) + f'\n[records]\naudit_level = "{level}"\n'
        with daemon_with(text, url=upstream.url) as daemon, Client(daemon.socket) as client:
            assert [call(daemon, "warned"), call(daemon, "warned")] == [200, 200]
            assert call(daemon, "tiny") == 429
            records_of(client, "tiny", "denied")
            told = {one.outcome for one in client.audit().records if one.action != "access"}
            assert told >= outcomes
            if level == "minimal":
                assert told == outcomes


def test_the_retention_setting_reaches_the_logs(upstream: Upstream, tmp_path: Path) -> None:
    text = config(tmp_path / "state") + "\n[records]\nretention_days = 7\n"
    with daemon_with(text, url=upstream.url) as daemon:
        records: Any = daemon.services.records
        for log in (records._usage, records._trail):
            assert log._retention_ns == 7 * 86_400 * 10**9


# --- backups -------------------------------------------------------------------------------------


def invoke(*words: str) -> Result:
    return CliRunner().invoke(command, words, prog_name="cascaded")


def test_a_backup_is_whole_and_says_what_is_in_it(
    kept: Daemon, client: Client, tmp_path: Path
) -> None:
    assert call(kept, "alice") == 200
    assert call(kept, "tiny") == 429
    made = client.backup(str(tmp_path / "copy"))
    assert made.dir == str(tmp_path / "copy")
    *others, last = [part.name for part in made.contents]
    assert set(others) == {"usage", "audit", "profiles", "overrides", "keys"}
    assert last == "ledger", "it knows of all money that the others speak of"
    assert all(part.bytes > 0 for part in made.contents)
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["copy"], "nothing unfinished is left"
    shown = invoke("state", "verify", str(tmp_path / "copy"), "--json")
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["ledger_gap"] == 1, "what was spent after the copy is not in it"
    assert found["ledger_entries"] + found["ledger_records"] > 0
    assert found["usage_keys"] > 0
    assert found["audit_keys"] > 0
    assert call(kept, "alice") == 200, "the daemon goes on"


def test_a_daemon_does_not_start_on_a_backup(
    kept: Daemon, client: Client, upstream: Upstream, tmp_path: Path
) -> None:
    """It has forgotten spend: somebody must say how much before anything is spent again."""
    from cascaded.daemon import StartError

    client.backup(str(tmp_path / "copy"))
    with (
        pytest.raises(StartError, match="gap"),
        daemon_with(config(tmp_path / "copy"), url=upstream.url),
    ):
        pass


def test_places_that_will_not_do(kept: Daemon, client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "left.unfinished").mkdir()
    assert kept.config.ledger.dir is not None
    inside = f"{kept.config.ledger.dir}/copy"
    bad = ["", "copy", "./copy", "~/copy", "/", str(tmp_path), inside]
    bad += [f"{tmp_path}/{name}" for name in ("file", "empty", "dangling", "a/b", "file/b", "left")]
    bad += [f"{tmp_path}/a\0b", f"{tmp_path}/a\nb", f"{tmp_path}/{'x' * 250}"]
    bad += [f"{tmp_path}/{'é' * 125}", f"{tmp_path}/{'x/' * 2_500}y"]
    before = sorted(tmp_path.rglob("*"))
    for folder in bad:
        with pytest.raises(APIError) as caught:
            client.backup(folder)
        assert caught.value.status == 400, folder
        assert (caught.value.code, caught.value.param) == ("invalid_request", "dir"), folder
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "mine"
    assert not Path(inside).exists()


def test_a_disk_that_fails_leaves_nothing(
    kept: Daemon, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(store: LmdbStore, folder: Path) -> None:
        folder.mkdir()
        (folder / "data.mdb").write_bytes(b"the first half")
        raise StoreError(f"cannot copy {folder}: No space left on device")

    monkeypatch.setattr(LmdbStore, "copy_to", full)
    with pytest.raises(APIError, match="No space left") as caught:
        client.backup(str(tmp_path / "copy"))
    assert (caught.value.status, caught.value.code) == (503, "backup_failed")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert client.backup(str(tmp_path / "copy")).contents


def test_the_state_of_a_working_daemon_is_not_verified(kept: Daemon) -> None:
    shown = invoke("state", "verify", str(kept.config.ledger.dir))
    assert shown.exit_code == 1
    assert "stop it first" in shown.stderr


def test_the_state_of_a_stopped_daemon(upstream: Upstream, tmp_path: Path) -> None:
    upstream.on("strong", Says(GOOD))
    state = tmp_path / "state"
    with daemon_with(config(state), url=upstream.url) as daemon:
        assert call(daemon, "alice") == 200
    toml = tmp_path / "c.toml"
    toml.write_text(f"[ledger]\ndir = '{state}'\n")
    shown = invoke("state", "verify", "--config", str(toml))
    assert shown.exit_code == 0, shown.output
    assert "nothing is damaged" in shown.stdout
    data = state / "audit" / "data.mdb"
    data.write_bytes(b"nonsense" + data.read_bytes()[8:64])
    broken = invoke("state", "verify", str(state))
    assert broken.exit_code == 1
    assert "audit" in broken.stderr
    assert "Traceback" not in broken.stderr
    for absent in (tmp_path / "nothing", tmp_path / "c.toml"):
        assert invoke("state", "verify", str(absent)).exit_code == 1


# --- the command line ----------------------------------------------------------------------------


def test_users_summary(kept: Daemon, client: Client) -> None:
    assert call(kept, "carol", **{"x-cascaded-tags": "feature=[red]x"}) == 200
    summary_of(client, "carol", 1)
    shown = invoke("users", "summary", "carol", "--socket", kept.socket)
    assert shown.exit_code == 0, shown.output
    assert "$0.000075 for 1 calls" in shown.stdout
    assert "strong" in shown.stdout
    assert "feature=[red]x" in shown.stdout, "a tag is text, not markup"
    told = json.loads(invoke("users", "summary", "carol", "--json", "--socket", kept.socket).stdout)
    assert (told["monthly_cost"], told["requests_this_month"]) == ("0.000075", 1)
    everybody = invoke("users", "summary", "--socket", kept.socket)
    assert everybody.stdout.startswith("everybody\n")


def test_audit_on_the_command_line(kept: Daemon, client: Client) -> None:
    for _ in range(2):
        assert call(kept, "tiny") == 429
    wait_for(lambda: len(records_of(client, "tiny", "denied")) > 1)
    shown = invoke("audit", "--limit", "1", "--socket", kept.socket)
    assert shown.exit_code == 0, shown.output
    assert "More: --after " in shown.stderr
    cursor = shown.stderr.split()[-1]
    page = json.loads(
        invoke("audit", "--limit", "1", "--after", cursor, "--json", "--socket", kept.socket).stdout
    )
    [record] = page["records"]
    newest = json.loads(invoke("audit", "--limit", "1", "--json", "--socket", kept.socket).stdout)
    assert record["sequence"] < newest["records"][0]["sequence"]
    assert invoke("audit", "--limit", "0", "--socket", kept.socket).exit_code == 2


def test_others_words_do_not_command_the_terminal(kept: Daemon, client: Client) -> None:
    """A model's name is whatever its caller says, and it stands in the audit log."""
    wild = "\x1b]0;owned\x07\x1b[2Jstrong"
    with kept.http() as http:
        body = {"model": wild, "messages": ASK, "user": "wild"}
        headers = {"X-User-Tier": "no-such-tier", "X-Request-ID": "the-wild"}
        assert http.post("/v1/chat/completions", json=body, headers=headers).status_code == 403
    wait_for(lambda: any(one.request_id == "the-wild" for one in client.audit().records))
    shown = invoke("audit", "--limit", "5", "--socket", kept.socket)
    assert shown.exit_code == 0, shown.output
    summary = invoke("users", "summary", "wild\x1b[31m", "--socket", kept.socket)
    for output in (shown.output, summary.output):
        assert "\x1b" not in output
        assert "\x07" not in output
        assert "\N{REPLACEMENT CHARACTER}" in output


def test_an_id_that_the_ledger_cannot_keep(kept: Daemon) -> None:
    """The bound is in bytes, as the ledger's is."""
    for user, status in (("é" * 128, 200), ("é" * 129, 400)):
        with kept.http() as http:
            body = {"model": "strong", "messages": ASK, "max_tokens": 50, "user": user}
            answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code == status, answer.text


def test_backup_on_the_command_line(
    kept: Daemon, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = invoke("state", "backup", "here", "--socket", kept.socket)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith(f"{tmp_path}/here\n")
    assert "ledger" in shown.stdout
    verified = invoke("state", "verify", "here")
    assert "nothing is damaged" in verified.stdout
    made = json.loads(invoke("state", "backup", "two", "--json", "--socket", kept.socket).stdout)
    names = {part["name"] for part in made["contents"]}
    assert names == {"ledger", "usage", "audit", "profiles", "overrides", "keys"}
