"""`cascaded check`, `budget` and `unknowns`."""

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from cascaded.cli import cascaded as command
from cascaded.client import APIError, Client
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Upstream

LIMITS = """
[limits.users.ids.alice]
total_usd = "1"
requests_per_minute = 100
enforcement = "block"
"""
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def spending(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(CASCADE + LIMITS, url=_upstream.url) as daemon:
        yield daemon


def invoke(daemon: Daemon, *words: str) -> Result:
    words = (*words, "--socket", daemon.socket)
    return CliRunner().invoke(command, words, prog_name="cascaded", env={"COLUMNS": "200"})


def test_check(spending: Daemon) -> None:
    shown = invoke(spending, "check", QUESTION, "--user", "alice", "--max-tokens", "10")
    assert shown.exit_code == 0, shown.output
    assert "allowed: cheap, strong, at most $0.00" in shown.stdout
    assert "total budget" in shown.stdout
    assert "requests in 60 s" in shown.stdout
    assert invoke(spending, "check", "--cost", "0.5", "--user", "alice").exit_code == 0
    refused = invoke(spending, "check", "--cost", "2", "--user", "alice")
    assert refused.exit_code == 3
    assert "refused: " in refused.stdout
    told = invoke(spending, "check", "--cost", "2", "--user", "alice", "--json")
    assert told.exit_code == 3
    assert json.loads(told.stdout)["reason"]["code"] == "insufficient_quota"
    for words in ((), (QUESTION, "--cost", "1")):
        assert "either a question or --cost" in invoke(spending, "check", *words).stderr


def test_budget_and_unknowns(spending: Daemon) -> None:
    with Client(spending.socket) as client, client.reserve("0.25", user_id="alice") as hold:
        shown = invoke(spending, "budget", "--scope", "user", "--id", "alice")
        assert shown.exit_code == 0, shown.output
        assert "$0.25" in shown.stdout
        assert "never" in shown.stdout
        hold.settle(None)
    [row] = json.loads(invoke(spending, "unknowns", "list", "--json").stdout)
    assert (row["hold"], row["unknown"]) == (hold.id, "0.25")
    assert str(hold.id) in invoke(spending, "unknowns", "list").stdout
    resolved = invoke(spending, "unknowns", "resolve", str(hold.id), "0.1")
    assert resolved.stdout == f"hold {hold.id}: $0.1 posted\n"
    assert json.loads(invoke(spending, "unknowns", "list", "--json").stdout) == []
    rows = json.loads(invoke(spending, "budget", "--json").stdout)
    assert [one["posted"] for one in rows if one["id"] == "alice"] == ["0.1"]
    gone = invoke(spending, "unknowns", "resolve", "999999", "0.1")
    assert isinstance(gone.exception, APIError)
    assert gone.exception.code == "not_found"
