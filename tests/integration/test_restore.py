"""Backups put back, journals cut, and what is charged for the spend that both forget."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cascaded.cli import cascaded as command
from cascaded.client import Client
from tests.integration.test_hostile_state import (
    BLOCK,
    COST,
    NOTHING,
    ask,
    corrupt,
    refused,
    standing,
)
from tests.support.daemon import CASCADE, upstream_server
from tests.support.process import serving, wait_for
from tests.support.upstream import Says, Upstream

GLOBAL = """
[limits.global]
total_usd = "5"
enforcement = "block"
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    upstream = Upstream()
    upstream.on("strong", Says("The capital of France is Paris."))
    with upstream_server(upstream):
        yield upstream.url


@pytest.fixture
def toml(url: str) -> str:
    # Exact amounts: a ceiling would be charged beside them after a crash.
    strict = CASCADE.replace("[ledger]", '[ledger]\ngate = "strict"')
    return (strict + BLOCK + GLOBAL).replace("{url}", url)


def state(tmp_path: Path, *words: str) -> Result:
    """A `cascaded state` command about the daemon of this folder."""
    words = (*words, "--config", str(tmp_path / "d.toml"))
    env = {"FAKE_KEY": "sk-upstream-secret", "COLUMNS": "200"}
    return CliRunner().invoke(command, ("state", *words), prog_name="cascaded", env=env)


def spend(client: Client, amount: str) -> None:
    with client.reserve(amount, user_id="u") as hold:
        hold.settle(amount)


@pytest.fixture
def forgotten(tmp_path: Path, toml: str) -> Path:
    """A daemon's folder: it spent 0.25, was backed up, spent 0.125 and answered one call more."""
    with serving(tmp_path, toml) as served, served.client() as client:
        spend(client, "0.25")
        client.backup(str(tmp_path / "copy"))
        running = state(tmp_path, "restore", str(tmp_path / "copy"))
        assert (running.exit_code, str(served.process.pid) in running.stderr) == (1, True)
        spend(client, "0.125")
        assert ask(served).status_code == 200
        wait_for(lambda: client.summary("u").daily_cost == Decimal("0.375") + COST)
        served.end()
    return tmp_path


def put_back(folder: Path) -> Path:
    """Restores the backup; where the folder's own state is then."""
    done = state(folder, "restore", str(folder / "copy"), "--json")
    assert done.exit_code == 3, done.output
    return Path(json.loads(done.stdout)["replaced"])


class TestRestore:
    def test_the_daemon_starts_once_the_gap_is_charged(self, forgotten: Path, toml: str) -> None:
        replaced = put_back(forgotten)
        code, said = refused(forgotten, toml)
        assert (code, f"cascaded state gap --state {forgotten / 'state'}" in said) == (1, True)
        looked = state(forgotten, "gap")
        assert (looked.exit_code, "knows of nothing" in looked.stdout) == (3, True), looked.output
        # The usage log knows of the call and of the application's own; the operator of another.
        words = ("--from-usage", str(replaced / "usage"), "--charge", "user:u=0.0625")
        done = state(forgotten, "gap", *words, "--charge", "global=0.0625", "--json")
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        subjects = [(one["subject"], Decimal(one["nano_usd"]) / 10**9) for one in told["charged"]]
        known, named = Decimal("0.125") + COST, Decimal("0.0625")
        assert subjects == [("user:u", named), ("global", named), ("user:u", known)]
        assert state(forgotten, "gap").exit_code == 0, "there is no gap any more"
        with serving(forgotten, toml) as served, served.client() as client:
            assert standing(client) == (Decimal("0.25"), NOTHING, named + known)
            [whole] = client.budgets("global")
            assert (whole.posted, whole.unknown) == (Decimal("0.25"), named + known)
            unknowns = client.unknowns()
            assert {one.hold for one in unknowns} == {one["hold"] for one in told["charged"]}
            assert all((one.request_id or "").startswith("gap after") for one in unknowns)
            assert [one.user_id for one in unknowns] == ["u", None, "u"]
            client.resolve(unknowns[0].hold, "0.05")
            assert standing(client) == (Decimal("0.30"), NOTHING, known)
            [entry] = [one for one in client.audit().records if one.subject == "ledger"]
            assert "forgotten after record" in entry.reason

    def test_limits_are_filled_where_nothing_is_known(self, forgotten: Path, toml: str) -> None:
        put_back(forgotten)
        done = state(forgotten, "gap", "--charge-limits")
        assert done.exit_code == 0, done.output
        assert "2 unknowns of $5.5" in done.stdout, done.stdout
        with serving(forgotten, toml) as served, served.client() as client:
            assert standing(client) == (Decimal("0.25"), NOTHING, Decimal("0.75"))
            assert ask(served).status_code == 429
            assert ask(served, "other").status_code == 429, "the global budget is full as well"

    def test_nothing_may_be_charged_knowingly(self, forgotten: Path, toml: str) -> None:
        put_back(forgotten)
        assert state(forgotten, "gap", "--charge-nothing", "--charge-limits").exit_code == 2
        done = state(forgotten, "gap", "--charge-nothing")
        assert done.exit_code == 0, done.output
        with serving(forgotten, toml) as served, served.client() as client:
            assert standing(client) == (Decimal("0.25"), NOTHING, NOTHING)
            assert client.unknowns() == []
            assert any(one.subject == "ledger" for one in client.audit().records)

    @pytest.mark.parametrize(
        "charge", ["u=1", "user=1", "global:x=1", "user:u=-1", "user:u=NaN", "planet:x=1", ""]
    )
    def test_words_that_are_no_charge(self, forgotten: Path, charge: str) -> None:
        put_back(forgotten)
        wrong = state(forgotten, "gap", "--charge", charge)
        assert wrong.exit_code == 2, wrong.output
        assert state(forgotten, "gap").exit_code == 3, "the folder still asks"

    def test_what_cannot_be_charged_is_said(self, forgotten: Path) -> None:
        put_back(forgotten)
        wrong = state(forgotten, "gap", "--charge", "team:red=1")
        assert (wrong.exit_code, "team:red has no budget" in wrong.stderr) == (1, True)
        wrong = state(forgotten, "gap", "--from-usage", str(forgotten))
        assert (wrong.exit_code, "is no usage log" in wrong.stderr) == (2, True)

    def test_a_restore_that_was_cut_off_starts_no_empty_books(
        self, forgotten: Path, toml: str
    ) -> None:
        folder = forgotten / "state"
        (folder / "restoring").mkdir()
        (folder / "ledger").rename(folder / "aside")
        code, said = refused(forgotten, toml)
        assert (code, "a restore was cut off" in said) == (1, True), said
        put_back(forgotten)
        assert state(forgotten, "gap", "--charge-nothing").exit_code == 0
        with serving(forgotten, toml) as served, served.client() as client:
            assert standing(client)[0] == Decimal("0.25")

    def test_backups_that_will_not_do(self, forgotten: Path) -> None:
        before = sorted(forgotten.glob("state/*"))
        inside = forgotten / "state" / "usage"
        for bad, words in ((inside, "inside"), (forgotten / "none", "none")):
            wrong = state(forgotten, "restore", str(bad))
            assert (wrong.exit_code, words in wrong.stderr) == (1, True), wrong.output
        data = forgotten / "copy" / "audit" / "data.mdb"
        data.write_bytes(data.read_bytes()[:100])
        assert state(forgotten, "restore", str(forgotten / "copy")).exit_code == 1
        assert sorted(forgotten.glob("state/*")) == before


class TestCut:
    def test_a_damaged_journal_is_cut_and_its_gap_charged(self, tmp_path: Path, toml: str) -> None:
        with serving(tmp_path, toml) as served, served.client() as client:
            for _ in range(50):
                spend(client, "0.001")
            assert ask(served).status_code == 200
            wait_for(lambda: client.summary("u").daily_cost == Decimal("0.05") + COST)
            served.process.kill()
        corrupt(tmp_path / "state" / "ledger")
        _, said = refused(tmp_path, toml)
        assert f"cascaded state cut --state {tmp_path / 'state'}" in said, said
        looked = state(tmp_path, "cut")
        assert (looked.exit_code, "cannot be read" in looked.stderr) == (1, True), looked.output
        done = state(tmp_path, "cut", "--yes")
        assert (done.exit_code, "are lost" in done.stdout) == (3, True), done.output
        assert state(tmp_path, "cut", "--yes").exit_code == 0, "nothing is damaged any more"
        known = state(tmp_path, "gap", "--json")
        assert known.exit_code == 3, known.output
        assert [one["subject"] for one in json.loads(known.stdout)["known"]] == ["user:u"]
        usage = ("--from-usage", str(tmp_path / "state" / "usage"))
        assert state(tmp_path, "gap", *usage).exit_code == 0
        with serving(tmp_path, toml) as served, served.client() as client:
            posted, _, unknown = standing(client)
            assert posted + unknown >= Decimal("0.05") + COST

    def test_what_is_whole_is_left_alone(self, forgotten: Path) -> None:
        for words in (("cut",), ("cut", "--yes"), ("cut", "--json")):
            assert state(forgotten, *words).exit_code == 0


class TestVersions:
    def test_a_state_says_how_it_is_laid_out(self, forgotten: Path, toml: str) -> None:
        stamp = forgotten / "state" / "version"
        assert stamp.read_text() == (forgotten / "copy" / "version").read_text() == "1\n"
        done = state(forgotten, "migrate", "--json")
        assert json.loads(done.stdout)["version"] == 1
        assert "nothing to do" in state(forgotten, "migrate").stdout
        for version, word in (("2", "newer one"), ("0", "migrate"), ("x", "cannot be read")):
            stamp.write_text(version)
            code, said = refused(forgotten, toml)
            assert (code, word in said) == (1, True), said
            assert state(forgotten, "migrate").exit_code == 1
        (forgotten / "copy" / "version").write_text("2")
        newer = state(forgotten, "restore", str(forgotten / "copy"))
        assert (newer.exit_code, "newer one" in newer.stderr) == (1, True)
        stamp.unlink()
        assert state(forgotten, "migrate").exit_code == 0


def test_a_running_daemon_is_verified_by_a_copy(tmp_path: Path, toml: str) -> None:
    with serving(tmp_path, toml) as served, served.client() as client:
        spend(client, "0.25")
        words = ("--live", "--socket", str(served.socket), "--scratch", str(tmp_path))
        shown = state(tmp_path, "verify", *words)
        assert (shown.exit_code, "nothing is damaged" in shown.stdout) == (0, True), shown.output
        assert not list(tmp_path.glob("cascaded-verify-*"))
