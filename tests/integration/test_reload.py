"""Another configuration for a daemon that is at work."""

import json
import os
import pty
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from msgspec.structs import replace

from cascaded.config import Config
from cascaded.daemon.answerers import Answerer
from cascaded.daemon.generations import FIXED_OF_SERVER, FIXED_TABLES, fixed_changes
from cascaded.state.ledger import DurableLedger
from cascaded.types.limits import BudgetLimit, Limits
from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.process import cascaded, serving, wait_for
from tests.support.upstream import Says, Upstream

GOOD = "The capital of France is Paris."
NOT_TOML = "\n[server\n"
BUDGET = '\n[limits.global]\ndaily_usd = "{usd}"\nenforcement = "block"\n'


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as running:
        running.on("cheap", Says(GOOD))
        running.on("strong", Says(GOOD))
        yield running


@pytest.fixture
def daemon(upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(CASCADE, url=upstream.url) as running:
        yield running


def ask(daemon: Daemon, model: str = "strong", **headers: str) -> httpx2.Response:
    body = {"query": "What is the capital of France?", "model": model, "max_tokens": 20}
    with daemon.http() as client:
        return client.post("/infer", json=body, headers=headers)


def events(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in daemon.log_lines().splitlines()]
    return [line for line in lines if line["event"] == name]


def budget_limits(daemon: Daemon) -> dict[str, str]:
    with daemon.http() as client:
        rows = client.get("/budgets").json()["budgets"]
    return {f"{row['scope']}:{row['id']}": str(row["limit"]) for row in rows if row["limit"]}


# What it changes.


def test_models_ladders_and_aliases(daemon: Daemon) -> None:
    assert ask(daemon, "quick").status_code == 400, "a name whose price nobody knows"
    daemon.toml += '\n[aliases]\nquick = "cheap"\n'
    answer = daemon.reload()
    assert (answer.status_code, answer.json()) == (200, {"generation": 2, "changed": ["aliases"]})
    assert ask(daemon, "quick").status_code == 200
    with daemon.http() as client:
        assert "quick" in {row["id"] for row in client.get("/v1/models").json()["data"]}
    assert [line["changed"] for line in events(daemon, "reloaded")] == [["aliases"]]


def test_prices(daemon: Daemon) -> None:
    before = ask(daemon).json()["metadata"]["total_cost"]
    daemon.toml = daemon.toml.replace('"2.50"', '"25"').replace('"10"', '"100"')
    assert daemon.reload().status_code == 200
    after = ask(daemon).json()["metadata"]["total_cost"]
    assert float(after) == pytest.approx(10 * float(before))


def test_trust_tiers_and_access(daemon: Daemon) -> None:
    claims = {"X-User-ID": "alice", "X-User-Tier": "mini"}
    assert ask(daemon, **claims).status_code != 200, "there is no such tier yet"
    daemon.toml += '\n[tiers.mini]\nallowed_models = ["cheap"]\n'
    assert daemon.reload().status_code == 200
    assert ask(daemon, **claims).json()["error"]["code"] == "model_forbidden"
    assert ask(daemon, "cheap", **claims).status_code == 200
    daemon.toml = daemon.toml.replace("trusted = [", "trusted = [] # ")
    assert daemon.reload().status_code == 200
    assert ask(daemon, **claims).status_code == 200, "the claim is not believed any more"


def test_the_log_and_its_file(daemon: Daemon) -> None:
    file, moved = daemon.folder / "log.jsonl", daemon.folder / "log.1"
    file.rename(moved)
    assert daemon.reload().status_code == 200
    ask(daemon)
    wait_for(lambda: events(daemon, "request"))
    assert "reloaded" not in moved.read_text()
    daemon.toml = daemon.toml.replace("[log]\n", '[log]\nlevel = "error"\n')
    assert daemon.reload().status_code == 200
    ask(daemon)
    with daemon.http() as client:
        client.get("/metrics")  # every call that ended is told first
    assert len(events(daemon, "request")) == 1


def test_limits_of_the_file_are_replaced_and_those_of_the_api_kept(daemon: Daemon) -> None:
    plain = daemon.toml
    daemon.toml = plain + BUDGET.format(usd="5") + '\n[limits.teams.ids.ops]\ndaily_usd = "1"\n'
    assert daemon.reload().status_code == 200
    with daemon.http() as client:
        assert client.put("/limits/team/dev", json={"daily_usd": "7"}).status_code == 200
    assert budget_limits(daemon) == {"global:*": "5", "team:ops": "1", "team:dev": "7"}
    daemon.toml = plain + BUDGET.format(usd="0.0001")
    assert daemon.reload().status_code == 200
    limits = budget_limits(daemon)
    assert (limits["global:*"], limits["team:dev"]) == ("0.0001", "7")
    assert "team:ops" not in limits
    assert ask(daemon).json()["error"]["code"] == "insufficient_quota"
    daemon.toml = plain
    assert daemon.reload().status_code == 200
    assert ask(daemon).status_code == 200


# What it refuses.


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text + NOT_TOML, "test.toml:"),
        (lambda text: text.replace('rungs = ["cheap"', 'rungs = ["chaep"'), 'did you mean "cheap"'),
        (lambda text: re.sub("(in|out)put_usd_per_mtok", "# ", text), "the price of"),
        (lambda text: text + '\n[limits]\nzone = "Mars/Base"\n', "Mars"),
        (lambda text: text.replace("log.jsonl", "no/such/log"), "cannot open the log"),
        (lambda text: text.replace("d.sock", "e.sock"), "server.socket holds until a restart"),
        (lambda text: text.replace("/state", "/other"), "ledger.dir holds until a restart"),
    ],
)
def test_a_bad_one_changes_nothing_and_says_why(
    change: Callable[[str], str], told: str, daemon: Daemon
) -> None:
    before = daemon.services
    daemon.toml = change(daemon.toml)
    answer = daemon.reload()
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "config_invalid"
    assert any(told in mistake for mistake in error["mistakes"]), error
    assert daemon.services is before
    assert ask(daemon).status_code == 200
    assert events(daemon, "reload_refused")[0]["mistakes"] == error["mistakes"]


def test_a_fault_of_ours_changes_nothing(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("cascaded.daemon.generations.make_generation", broken)
    assert "see its log" in daemon.reload().json()["error"]["message"]
    assert ask(daemon).status_code == 200
    assert len(events(daemon, "fault")) == 1


def test_every_setting_of_the_state_is_fixed(daemon: Daemon) -> None:
    changed = {"ledger": "dir", "records": "retention_days", "batch": "max_open", "otel": "users"}
    assert set(changed) == set(FIXED_TABLES)
    config: Any = daemon.config
    for table, key in changed.items():
        other = daemon_config(config, table, key)
        assert fixed_changes(config, other) == [f"{table}.{key}"]


def daemon_config(config: Config, table: str, key: str) -> Config:
    part = getattr(config, table)
    return replace(config, **{table: replace(part, **{key: type(getattr(part, key))(7)})})


# Calls under way.


def in_background(work: Callable[[], Any]) -> "Future[Any]":
    future: Future[Any] = Future()
    threading.Thread(target=lambda: future.set_result(work())).start()
    return future


def answerer(daemon: Daemon) -> Answerer:
    return daemon.generations.now.answerers["fake"]


def test_a_call_under_way_keeps_what_it_began_with(daemon: Daemon, upstream: Upstream) -> None:
    upstream.on("strong", Says(GOOD, delay_s=0.8))
    former = answerer(daemon)
    asked = in_background(lambda: ask(daemon))
    wait_for(lambda: upstream.calls("strong"))
    # Neither its model nor its provider is there any more.
    daemon.toml = (
        daemon.toml.replace('"cheap", "strong"', '"cheap"')
        .replace("[models.strong]", "[models.other]")
        .replace("max_retries = 1", "max_retries = 0")
    )
    assert daemon.reload().status_code == 200
    assert answerer(daemon) is not former
    provider: Any = former.provider
    assert provider._lines is not None, "its call is under way"
    assert asked.result(5).status_code == 200
    wait_for(lambda: provider._lines is None)
    assert ask(daemon).status_code == 400, "a name whose price nobody knows"
    assert ask(daemon, "other").status_code == 200
    assert daemon.spend["held"] == 0


def test_an_unchanged_provider_lives_on(daemon: Daemon) -> None:
    ask(daemon)
    former: Any = answerer(daemon).provider
    lines = former._lines
    daemon.toml += '\n[aliases]\nquick = "cheap"\n'
    daemon.reload()
    assert id(answerer(daemon).provider) == id(former)
    wait_for(lambda: len(daemon.generations._living) == 1)
    assert former._lines is lines is not None


def test_a_body_that_is_still_arriving_belongs_to_the_former(daemon: Daemon) -> None:
    former, going_on = daemon.services, threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b'{"query": "x", '
        going_on.wait(5)
        yield b'"model": "strong"}'

    with daemon.http() as client:
        asked = in_background(lambda: client.post("/infer", content=slowly()))
        wait_for(lambda: former.tally.in_flight == 1)
        daemon.toml = daemon.toml.replace("max_retries = 1", "max_retries = 0")
        assert daemon.reload().status_code == 200
        assert len(daemon.generations._living) == 2
        going_on.set()
        assert asked.result(5).status_code == 200
    wait_for(lambda: len(daemon.generations._living) == 1)


def test_limits_that_a_former_call_brought_do_not_stay(daemon: Daemon, upstream: Upstream) -> None:
    """A call that was admitted under the former limit must not leave it in force."""
    daemon.toml += BUDGET.format(usd="5")
    daemon.reload()
    former = daemon.services
    former.tally.in_flight += 1  # as if it had come in, and not yet asked for its money
    daemon.toml = daemon.toml.replace('"5"', '"3"')
    daemon.reload()
    ledger = cast(DurableLedger, former.pipeline.ledger)
    stale = BudgetLimit(
        scope="global",
        id="*",
        window="day",
        limit_nano_usd=5_000_000_000,
        enforcement="block",
        origin="file",
    )
    ledger.set_limits(Limits((stale,), ()), reload=False)
    assert budget_limits(daemon) == {"global:*": "5"}
    former.tally.in_flight -= 1
    wait_for(lambda: budget_limits(daemon) == {"global:*": "3"})


def test_hundreds_of_calls_while_it_changes_again_and_again(
    daemon: Daemon, upstream: Upstream
) -> None:
    """Good and bad ones in turn; a provider that changes, a budget that changes."""
    upstream.on("cheap", Says("No.", delay_s=0.01))  # every call climbs
    plain = daemon.toml
    variants = [
        plain.replace("max_retries = 1", "max_retries = 0") + BUDGET.format(usd="50"),
        plain.replace("trusted", "tursted"),
        plain + BUDGET.format(usd="40") + "\n[limits.users.default]\nrequests_per_minute = 9999\n",
        plain + NOT_TOML,
        plain,
    ]
    statuses: list[int] = []
    codes: list[int] = []
    done = threading.Event()

    def calls(number: int) -> None:
        headers = {"X-User-ID": f"user-{number % 3}"}
        body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
        with daemon.http() as client:
            for _ in range(40):
                answer = client.post("/v1/chat/completions", json=body, headers=headers)
                statuses.append(answer.status_code)

    def reloads() -> None:
        while not done.is_set():
            daemon.toml = variants[len(codes) % len(variants)]
            codes.append(daemon.reload().status_code)

    reloading = threading.Thread(target=reloads)
    callers = [threading.Thread(target=calls, args=(number,)) for number in range(8)]
    for thread in (reloading, *callers):
        thread.start()
    for thread in callers:
        thread.join()
    done.set()
    reloading.join()
    assert statuses == [200] * 320
    assert codes[:5] == [200, 422, 200, 422, 200]
    assert daemon.spend["held"] == daemon.spend["unknown"] == 0
    wait_for(lambda: len(daemon.generations._living) == 1)
    assert daemon.services.tally.in_flight == daemon.services.status.in_flight == 0
    assert not events(daemon, "fault")


def test_a_caller_that_leaves_does_not_split_a_reload(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, going_on = threading.Event(), threading.Event()

    def slowly() -> Config:
        reading.set()
        going_on.wait(5)
        return daemon.config

    monkeypatch.setattr(daemon.generations, "_reread", slowly)
    with pytest.raises(httpx2.ReadTimeout), daemon.http() as client:
        client.post("/reload", timeout=0.2)
    assert reading.is_set()
    going_on.set()
    wait_for(lambda: events(daemon, "reloaded"))


def test_former_ones_are_bounded(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascaded.daemon.generations.MAX_FORMER", 1)
    former = daemon.services
    former.tally.in_flight += 1
    assert daemon.reload().status_code == 200
    assert "still have calls" in daemon.reload().json()["error"]["message"]
    former.tally.in_flight -= 1
    wait_for(lambda: len(daemon.generations._living) == 1)
    assert daemon.reload().status_code == 200


# Signals.


def test_a_terminal_that_closes_ends_it(
    tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> None:
    folder = tmp_path_factory.mktemp("t")
    toml = CASCADE.replace("{url}", upstream.url).replace('[log]\nfile = "{folder}/log.jsonl"', "")
    ours, its = pty.openpty()
    with serving(folder, toml, stdin=its) as daemon:
        os.close(its)
        daemon.send(signal.SIGHUP)
        wait_for(lambda: "reloaded" in daemon.events())
        os.close(ours)
        assert daemon.end(signal.SIGHUP) == 0


def test_a_hangup_reloads_and_a_daemon_stops_all_the_same(
    tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> None:
    folder = tmp_path_factory.mktemp("d")
    toml = CASCADE.replace("{url}", upstream.url).replace('[log]\nfile = "{folder}/log.jsonl"', "")
    with serving(folder, toml) as daemon:
        file = folder / "d.toml"
        good = file.read_text()
        file.write_text(good + NOT_TOML)
        daemon.send(signal.SIGHUP)
        wait_for(lambda: "reload_refused" in daemon.events())
        file.write_text(good + '\n[aliases]\nquick = "cheap"\n')
        daemon.send(signal.SIGHUP)
        wait_for(lambda: "reloaded" in daemon.events())
        with daemon.client() as client:
            assert client.run("x", model="quick").content == GOOD
        reload = ("reload", "--socket", str(daemon.socket))
        again = cascaded(*reload)
        assert (again.returncode, again.stdout) == (0, b"changed: nothing\n")
        assert json.loads(cascaded(*reload, "--json").stdout)["changed"] == []
        file.write_text(good + NOT_TOML)
        bad = cascaded(*reload)
        assert bad.returncode == 78
        assert f"{file}:".encode() in bad.stderr
        assert b"still in force" in bad.stderr
        file.unlink()
        daemon.send(signal.SIGHUP)
        wait_for(lambda: daemon.events().count("reload_refused") == 3)
        assert "cannot read" in daemon.lines[-1]["mistakes"][0]
        daemon.send(signal.SIGHUP)
        assert daemon.end() == 0
    assert not list(folder.glob("d.sock*")), "neither lock nor socket"


def test_the_operations_guide_names_everything_that_is_fixed() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    for name in (*(f"`server.{key}`" for key in FIXED_OF_SERVER), "`[ledger]`", "`[records]`"):
        assert name in guide
