"""Exports: every format, to the nano-dollar of the ledger; filters; what breaks off."""

import csv
import io
import json
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cascaded.cli import cascaded as command
from cascaded.client import APIError, AsyncClient, Client
from cascaded.wire.exports import NAMES
from cascaded.wire.focus import FOCUS_COLUMNS
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Resets, Says, Upstream

ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
GOOD = "The capital of France is Paris."
CALLS = 12
LIMITS = """
[limits.users.ids."=poor"]
total_usd = "0.0000001"

[limits.tags.feature]
"""


@pytest.fixture(scope="module")
def spent(_upstream: Upstream) -> Iterator[Daemon]:
    """A daemon with some calls: cascades, a call whose bill is unknown, a refusal, and names that a
    spreadsheet would execute."""
    with daemon_with(CASCADE + LIMITS, url=_upstream.url) as daemon:
        _upstream.on("cheap", Says(GOOD))
        _upstream.on("strong", Says(GOOD))
        for number in range(CALLS):
            model = "auto" if number % 3 else "strong"
            call(daemon, model, f"user-{number % 2}", "search" if number % 2 else "chat")
        _upstream.on("strong", Resets())
        call(daemon, "strong", "user-0", "chat")
        call(daemon, "strong", "=poor", "-1+1")
        yield daemon


def call(daemon: Daemon, model: str, user: str, feature: str) -> None:
    headers = {
        "X-User-ID": user,
        "X-Organization-ID": 'acme, "Inc"',
        "x-cascaded-tags": f"feature={feature}",
    }
    with daemon.http() as http:
        http.post(
            "/v1/chat/completions",
            json={"model": model, "messages": ASK, "max_tokens": 50},
            headers=headers,
        )


def charged(daemon: Daemon) -> int:
    """Nano-dollars that the ledger has charged."""
    spend = daemon.spend
    return spend["posted"] + spend["unknown"]


def run(daemon: Daemon, *args: str) -> Result:
    return CliRunner().invoke(command, [*args, "--socket", daemon.socket], catch_exceptions=False)


def nano(amounts: "Iterator[Any] | list[Any]") -> int:
    return sum(int(Decimal(str(one)).scaleb(9)) for one in amounts)


def test_every_format_agrees_with_the_ledger(spent: Daemon, tmp_path: Path) -> None:
    total = charged(spent)
    assert total > 0
    for name in ("a.jsonl", "a.json", "a.csv", "a.sqlite", "a.parquet"):
        result = run(spent, "export", str(tmp_path / name), "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.output)["file"] == str(tmp_path / name)
    result = run(spent, "export", str(tmp_path / "focus.csv"), "--format", "focus")
    assert result.exit_code == 0

    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_float=Decimal) for line in lines]
    assert len(rows) == CALLS + 2
    assert nano([row["cost"] for row in rows]) == total
    assert nano([one["cost"] for row in rows for one in row["attempts"]]) == total
    assert json.loads((tmp_path / "a.json").read_text(), parse_float=Decimal) == rows

    table = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text(), newline="")))
    assert nano([row["cost"] for row in table]) == total
    assert {row["user_id"] for row in table} == {"user-0", "user-1", "'=poor"}

    focus = list(csv.DictReader(io.StringIO((tmp_path / "focus.csv").read_text(), newline="")))
    assert tuple(focus[0]) == FOCUS_COLUMNS
    assert nano([row["BilledCost"] for row in focus]) == total
    assert {row["BillingCurrency"] for row in focus} == {"USD"}

    with sqlite3.connect(tmp_path / "a.sqlite") as file:
        assert file.execute("SELECT sum(cost_nano_usd), count(*) FROM usage").fetchone() == (
            total,
            CALLS + 2,
        )
    file.close()

    from pyarrow import compute, parquet

    columns = parquet.read_table(tmp_path / "a.parquet")
    assert tuple(columns.column_names) == NAMES
    assert nano([compute.sum(columns["cost"]).as_py()]) == total
    assert {path.name for path in tmp_path.iterdir()} == {
        *("a.jsonl", "a.json", "a.csv", "a.sqlite", "a.parquet"),
        "focus.csv",
    }, "no draft may stay"


def test_filters(spent: Daemon) -> None:
    with Client(spent.socket) as client:
        every = rows(client)
        assert len(rows(client, user_id="user-1")) == CALLS // 2
        assert len(rows(client, organization_id='acme, "Inc"')) == len(every)
        assert not rows(client, organization_id="other")
        assert len(rows(client, feature="feature=search")) == CALLS // 2
        assert len(rows(client, status="budget_exceeded")) == 1
        assert len(rows(client, status="ok", model="cheap")) == CALLS * 2 // 3
        assert len(rows(client, provider="fake")) == CALLS + 1
        assert not rows(client, provider="other")
        assert not rows(client, imported=True)
        assert rows(client, imported=False) == every
        middle = every[5].at
        assert rows(client, since=middle) == every[5:]
        assert rows(client, until=middle) == every[:5]
        assert not rows(client, until="2001-01-01")
        assert rows(client, since="2001-01-01T00:00:00+02:00") == every
        with client.export() as export:
            assert export.records == len(every)


def rows(client: Client, **wanted: Any) -> list[Any]:
    with client.export(**wanted) as export:
        return list(export.rows())


def test_own_calls_and_evidence_are_in_the_sum(upstream: Upstream) -> None:
    """Whatever the ledger charges, of calls that applications make themselves too, and whatever a
    bill says later: the export sums up to it, for everybody, each user and each model."""
    with daemon_with(CASCADE, url=upstream.url) as daemon, Client(daemon.socket) as client:
        upstream.on("cheap", Resets())
        upstream.on("strong", Resets())
        call(daemon, "auto", "alice", "chat")  # two calls, and the bill of neither is known
        call(daemon, "strong", "bob", "chat")
        with client.reserve("0.5", user_id="alice") as hold:
            hold.settle("0.123456789")
        with client.reserve("0.25", user_id="bob"):
            pass  # nobody knows
        with client.reserve("0.25", user_id="bob") as hold:
            hold.release()
        assert exported(client) == charged(daemon)
        costs = iter((Decimal("0.000000007"), Decimal(0), Decimal("0.31")))
        for one in sorted(client.unknowns(), key=lambda one: one.hold):
            client.resolve(one.hold, next(costs))
        assert daemon.spend["unknown"] == 0
        assert exported(client) == charged(daemon)
        assert client.summary().total_cost == Decimal(charged(daemon)).scaleb(-9)
        assert client.summary().entries == 4
        by_user = {one.name: one.cost for one in client.breakdown("user")}
        assert by_user == {"alice": Decimal("0.123456796"), "bob": Decimal("0.31")}
        found = rows(client, status="adjusted")
        assert sum(row.unknown_cost for row in found) < 0
        assert {row.kind for row in rows(client, user_id="bob")} == {"chat", "own"}
        alice = next(one for one in found if one.user_id == "alice")
        assert [one.model for one in alice.attempts] == ["cheap", "strong"][: len(alice.attempts)]


def exported(client: Client) -> int:
    """Nano-dollars."""
    return nano([row.cost for row in rows(client)])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("format=xls", "format must be one of jsonl, json, csv, focus"),
        ("usr=alice", "there is no 'usr' here"),
        ("since=yesterday", "since must be a day or a time"),
        ("since=2026-02-01&until=2026-01-01", "since must be before until"),
        ("since=99999-01-01", "since must be a day or a time"),
        ("imported=maybe", "imported must be true or false"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(spent: Daemon, query: str, words: str) -> None:
    with spent.http() as http:
        answer = http.get(f"/export?{query}")
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


async def test_the_asynchronous_client(spent: Daemon) -> None:
    async with AsyncClient(spent.socket) as client:
        async with client.export(user_id="user-1") as export:
            found = [row async for row in export.rows()]
        assert len(found) == CALLS // 2
        assert nano([row.cost for row in found]) == nano(
            [one.cost for row in found for one in row.attempts]
        )
        async with client.export("csv") as export:
            pieces = [piece async for piece in export]
        assert b"".join(pieces).startswith(b"request_id,at,")
        with pytest.raises(APIError, match="since must be"):
            await client.export(since="x").__aenter__()
        assert (await client.health()).status == "ok"


def test_to_standard_output(spent: Daemon) -> None:
    result = run(spent, "export")
    assert len(result.stdout.splitlines()) == CALLS + 2
    result = run(spent, "export", "--format", "csv", "--user", "nobody")
    assert len(result.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("export", "x.doc"), "what should x.doc be?"),
        (("export", "--format", "sqlite"), "sqlite needs a FILE"),
        (("export", "/no/such/folder/x.csv"), "cannot be written: No such file"),
    ],
)
def test_what_cannot_be_written(spent: Daemon, args: tuple[str, ...], words: str) -> None:
    result = run(spent, *args)
    assert result.exit_code != 0
    assert words in result.output


def test_an_export_that_breaks_off_leaves_the_old_file(
    spent: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that reads dies in the middle: nobody may take what came for whole."""
    from cascaded.client import StreamBrokenError

    dying = tmp_path / "dying.py"
    dying.write_text(
        "import sys\nprint('{\"records\": 2}')\nprint('{}', flush=True)\nsys.exit(3)\n"
    )
    old = tmp_path / "a.jsonl"
    old.write_text("old")
    analysts: Any = spent.generations.now.services.insight._ask.__self__.exporters  # type: ignore[attr-defined]
    monkeypatch.setattr(analysts, "_command", (*analysts._command[:-1], str(dying)))
    with pytest.raises(StreamBrokenError):
        run(spent, "export", str(old))
    assert old.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"dying.py", "a.jsonl"}
    dying.write_text('import sys\nprint(\'{"error": "the disk is gone"}\')\nsys.exit(1)\n')
    with Client(spent.socket) as client, pytest.raises(APIError, match="the disk is gone") as no:
        rows(client)
    assert no.value.code == "records_unavailable"
    dying.write_text("import sys\nsys.exit(1)\n")
    with Client(spent.socket) as client, pytest.raises(APIError, match="before it answered"):
        rows(client)
