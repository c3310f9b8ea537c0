"""Our own batches over the socket: every switch of `BatchConfig`, whose they are, their cost."""

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import cascaded
from cascaded import APIError, AsyncClient, BatchConfig, BatchInfo, Client
from cascaded.cli import cascaded as command
from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.process import wait_for
from tests.support.upstream import Fails, Hangs, Says, Upstream

GOOD = "The capital of France is Paris."
POOR = "I'm sorry, but I can't help with that."
COST = Decimal("0.0000045")
"""Of a call of 10 tokens for 5, by `cheap`."""
LIMITED = (
    CASCADE
    + """
[batch]
max_open = 2
max_lines = 50
max_user_bytes = 1_048_576

[limits]
enforcement = "block"

[limits.users.ids.poor]
total_usd = "0.0000100"

[limits.users.ids.slow]
requests_per_second = 2
"""
)


@pytest.fixture(scope="module")
def _limited(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(LIMITED, url=_upstream.url) as daemon:
        yield daemon


@pytest.fixture
def limited(_limited: Daemon, upstream: Upstream) -> Daemon:
    upstream.on("cheap", Says())
    return _limited


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.socket) as client:
        yield client


def questions(count: int) -> list[str]:
    return [f"What is {number}?" for number in range(count)]


def test_every_query_has_its_answer_in_its_place(client: Client, upstream: Upstream) -> None:
    told: list[BatchInfo] = []
    config = BatchConfig(max_parallel=5, metadata={"run": "7"})
    done = client.batch(questions(30), config, on_progress=told.append, model="cheap")
    assert [one.content for one in done.results if one] == ["Paris."] * 30
    assert (done.success_count, done.failure_count, done.errors) == (30, 0, ())
    assert done.total_cost == 30 * COST
    assert (done.average_cost, done.success_rate) == (COST, 1.0)
    assert 0 < done.average_time * 30 == pytest.approx(done.total_time)
    assert (done.strategy_used, done.metadata) == ("parallel", {"run": "7"})
    ids = [one.metadata.request_id for one in done.results if one]
    assert [id.rpartition("-")[2] for id in ids] == [str(number) for number in range(30)]
    assert len(upstream.received) == 30
    assert told[-1].ended
    assert [now.completed for now in told] == sorted(now.completed for now in told)


async def test_the_asynchronous_client_does_the_same(daemon: Daemon, upstream: Upstream) -> None:
    async with AsyncClient(daemon.socket) as client:
        told: list[BatchInfo] = []
        done = await client.batch(["a", "b"], model="cheap", on_progress=told.append)
        assert done.success_count == 2
        assert told[-1].state == "completed"
        begun = await client.start_batch(["c"], model="cheap")
        states = [now async for now in client.watch_batch(begun.id)]
        assert states[-1].completed == 1
        assert states[-1].result is None
        page = await client.batches(limit=1)
        assert [one.id for one in page.batches] == [begun.id]
        assert page.after == begun.id
    assert len(upstream.received) == 3


def test_queries_come_in_every_form_and_defaults_stand_behind_them(
    client: Client, upstream: Upstream
) -> None:
    queries: list[Any] = [
        "a text",
        [{"role": "user", "content": "a list"}],
        {"query": "a body", "model": "strong", "max_tokens": 7},
    ]
    done = client.batch(queries, model="cheap", max_tokens=9)
    assert done.success_count == 3
    sent = {call.body["messages"][0]["content"]: call.body for call in upstream.received}
    assert {text: (body["model"], body["max_tokens"]) for text, body in sent.items()} == {
        "a text": ("cheap", 9),
        "a list": ("cheap", 9),
        "a body": ("strong", 7),
    }


def test_errors_stand_beside_results(client: Client, upstream: Upstream) -> None:
    upstream.on("strong", Fails(400))
    queries: list[Any] = [
        {"query": "a", "model": "cheap"},
        {"query": "b", "model": "strong"},
        {"query": "c", "model": "cheap", "max_tokens": 0},
        {"query": "d", "nonsense": 1},
    ]
    done = client.batch(queries)
    assert [one is not None for one in done.results] == [True, False, False, False]
    found = {error.index: (error.code, error.status) for error in done.errors}
    assert found == {
        1: ("upstream_refused", 400),
        2: ("invalid_request", 400),
        3: ("invalid_request", 400),
    }
    assert "nonsense" in done.errors[2].message
    assert (done.success_rate, done.failure_count) == (0.25, 3)


def test_what_fails_is_asked_once_more_and_no_more(client: Client, upstream: Upstream) -> None:
    upstream.on("cheap", Fails(500), Fails(500), Says(GOOD))  # the daemon itself tries twice
    [one] = client.batch(["a"], model="cheap").results
    assert one is not None
    assert one.metadata.request_id.endswith("-0.2")
    upstream.on("cheap", Fails(500))
    done = client.batch(["a"], model="cheap")
    assert done.errors[0].code == "upstream_server_error"
    assert len(upstream.calls("cheap")) == 3 + 4
    done = client.batch(["a"], BatchConfig(retry_failed=False), model="cheap")
    assert done.failure_count == 1
    assert len(upstream.calls("cheap")) == 3 + 4 + 2


def test_it_stops_at_the_first_error_if_it_is_told_to(client: Client, upstream: Upstream) -> None:
    upstream.on("cheap", Says(), Fails(400))
    config = BatchConfig(stop_on_error=True, max_parallel=1)
    done = client.batch(questions(5), config, model="cheap")
    assert (done.success_count, done.failure_count) == (1, 4)
    assert [one.code for one in done.errors] == ["upstream_refused", *["batch_stopped"] * 3]
    assert len(upstream.received) == 2


def test_what_is_finished_when_the_time_is_up_is_kept(client: Client, upstream: Upstream) -> None:
    upstream.on("cheap", Says(), Hangs())
    config = BatchConfig(max_parallel=1, total_timeout=0.4)
    done = client.batch(questions(3), config, model="cheap")
    assert done.success_count == 1
    assert [one.code for one in done.errors] == ["batch_expired"] * 2
    assert client.batches().batches[0].state == "expired"
    assert len(upstream.received) == 2


def test_one_query_has_its_time_too(client: Client, upstream: Upstream) -> None:
    upstream.on("cheap", Hangs(), Says())
    config = BatchConfig(max_parallel=1, timeout_per_query=0.2, retry_failed=False)
    done = client.batch(["a", "b"], config, model="cheap")
    assert [one.code for one in done.errors] == ["call_timeout"]
    assert done.success_count == 1


def test_answers_are_judged_unless_it_is_told_not_to(client: Client, upstream: Upstream) -> None:
    upstream.on("cheap", Says(POOR))
    upstream.on("strong", Says(GOOD))
    question = ["What is the capital of France?"]
    [judged] = client.batch(question).results
    [taken] = client.batch(question, BatchConfig(validate_quality=False)).results
    assert judged is not None
    assert taken is not None
    assert (judged.content, taken.content) == (GOOD, POOR)
    assert taken.metadata.quality_score is None


def test_order_and_cost_are_told_as_asked(client: Client, upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD, delay_s=0.2))
    config = BatchConfig(preserve_order=False, track_cost=False)
    slow_first: list[Any] = [{"query": "a"}, {"query": "b", "model": "strong"}, {"query": "c" * 3}]
    slow_first[2]["max_tokens"] = 0
    done = client.batch(slow_first, config, model="cheap")
    assert [one.metadata.model_used for one in done.results if one] == ["strong", "cheap"]
    assert (done.total_cost, done.average_cost) == (None, None)


def test_a_cancelled_batch_finishes_what_is_under_way(client: Client, upstream: Upstream) -> None:
    upstream.on("cheap", Says(delay_s=0.3))
    begun = client.start_batch(questions(20), BatchConfig(max_parallel=2), model="cheap")
    wait_for(lambda: len(upstream.received) == 2)
    assert client.cancel_batch(begun.id).state == "cancelling"
    states = [now.state for now in client.watch_batch(begun.id)]
    assert states[-1] == "cancelled"
    result = client.batch_info(begun.id).result
    assert result is not None
    assert (result.success_count, result.failure_count) == (2, 18)
    assert {one.code for one in result.errors} == {"batch_cancelled"}
    assert len(upstream.received) == 2
    assert client.cancel_batch(begun.id).state == "cancelled"
    client.delete_batch(begun.id)
    with pytest.raises(APIError, match="There is no batch"):
        client.batch_info(begun.id)


def test_the_same_key_gives_the_same_batch(client: Client, upstream: Upstream) -> None:
    first = client.start_batch(["a"], model="cheap", idempotency_key="k1")
    again = client.start_batch(["a"], model="cheap", idempotency_key="k1")
    assert again.id == first.id
    with pytest.raises(APIError) as refused:
        client.start_batch(["b"], model="cheap", idempotency_key="k1")
    assert refused.value.code == "idempotency_conflict"
    [*_] = client.watch_batch(first.id)
    assert len(upstream.received) == 1


def test_who_waits_gets_the_result_at_once(daemon: Daemon) -> None:
    """As curl would ask."""
    with daemon.http() as http:
        told = http.post("/infer/batch", json={"queries": ["a"], "defaults": {"model": "cheap"}})
    assert told.status_code == 200
    assert told.json()["result"]["results"][0]["content"] == "Paris."


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"queries": []}, "queries"),
        ({"queries": [7]}, "queries[0]"),
        ({"queries": ["a", {"query": "b", "stream": True}]}, "queries[1].stream"),
        ({"queries": ["a"], "defaults": {"stream": True}}, "defaults.stream"),
        ({"queries": ["a"], "config": {"max_parallel": 0}}, "config.max_parallel"),
        ({"queries": ["a"], "config": {"batch_size": "x"}}, "config.batch_size"),
        ({"queries": ["a"], "config": {"unheard": 1}}, "config.unheard"),
        ({"queries": ["a"], "config": {"strategy": "native"}}, "config.total_timeout"),
        ({"queries": ["a"], "config": {"metadata": {"k": "v" * 513}}}, "config.metadata[...]"),
        ({"queries": ["a"] * 51}, "queries"),
        ({"quarries": ["a"]}, "quarries"),
    ],
)
def test_what_cannot_be_a_batch_is_refused(limited: Daemon, body: Any, param: str) -> None:
    with limited.http() as http:
        told = http.post("/infer/batch", json=body)
        assert (told.status_code, told.json()["error"]["param"]) == (400, param)
        assert http.post("/infer/batch", content=b"{").status_code == 400


def test_nobody_sees_or_stops_another_users_batch(limited: Daemon) -> None:
    with Client(limited.socket) as client:
        mine = client.start_batch(["a"], model="cheap", user_id="alice")
    with limited.http() as http:
        for method, path in (
            ("GET", ""),
            ("GET", "/events"),
            ("POST", "/cancel"),
            ("DELETE", ""),
        ):
            path = f"/infer/batch/{mine.id}{path}"
            assert http.request(method, path, headers={"X-User-ID": "bob"}).status_code == 404
        assert http.get(f"/v1/batches/{mine.id}", headers={"X-User-ID": "bob"}).status_code == 404
        assert http.get("/infer/batch", headers={"X-User-ID": "bob"}).json()["batches"] == []
        for own in ({}, {"X-User-ID": "alice"}):  # the principal that made it, and its user
            assert http.get(f"/infer/batch/{mine.id}", headers=own).status_code == 200
            told = http.get("/infer/batch", headers=own).json()["batches"]
            assert mine.id in [one["id"] for one in told]


@pytest.mark.parametrize(("tier", "status"), [("free", 403), ("pro", 200)])
def test_a_tier_without_batches_has_none(limited: Daemon, tier: str, status: int) -> None:
    with limited.http() as http:
        headers = {"X-User-ID": f"of-{tier}", "X-User-Tier": tier}
        body = {"queries": ["a"], "defaults": {"model": "cheap"}}
        told = http.post("/infer/batch", json=body, headers=headers)
        assert told.status_code == status
        if status == 403:
            assert told.json()["error"]["code"] == "feature_forbidden"
        assert http.get("/v1/files", headers=headers).status_code == status


def test_a_budget_refuses_what_it_has_no_room_for(limited: Daemon) -> None:
    """Every query is charged as any call is, to whom the batch is of."""
    with Client(limited.socket) as client:
        done = client.batch(["a", "b", "c", "d"], model="cheap", max_tokens=5, user_id="poor")
        assert 1 <= done.success_count <= 2
        assert {one.code for one in done.errors} == {"insufficient_quota"}
        [budget] = client.budgets("user", "poor")
    assert budget.posted == done.total_cost == done.success_count * COST
    assert budget.held == 0


def test_a_rate_is_waited_for(limited: Daemon, upstream: Upstream) -> None:
    with Client(limited.socket) as client:
        done = client.batch(questions(5), model="cheap", user_id="slow")
    assert (done.success_count, done.failure_count) == (5, 0)
    assert done.total_time >= 1.5
    ids = [one.metadata.request_id for one in done.results if one]
    assert all("." not in id for id in ids), "an id that nobody saw is used again"
    assert len(upstream.received) == 5


def test_a_rate_that_is_free_too_late_is_an_error(limited: Daemon) -> None:
    with Client(limited.socket) as client:
        config = BatchConfig(total_timeout=0.3)
        done = client.batch(questions(4), config, model="cheap", user_id="slow")
    assert done.failure_count >= 2
    assert {one.code for one in done.errors} <= {"rate_limited", "batch_expired"}


def test_a_user_has_so_many_batches_and_bytes(limited: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(delay_s=0.5))
    with Client(limited.socket) as client:
        begun = [client.start_batch([name], model="cheap", user_id="eager") for name in "ab"]
        with pytest.raises(APIError) as refused:
            client.start_batch(["c"], model="cheap", user_id="eager")
        assert (refused.value.status, refused.value.code) == (507, "batches_full")
        assert "max_open" in str(refused.value)
        with pytest.raises(APIError, match="max_user_bytes"):
            client.start_batch(["x" * 1_100_000], model="cheap", user_id="greedy")
        for one in begun:
            client.cancel_batch(one.id)


def test_a_key_that_is_taken_back_asks_nothing_more(limited: Daemon, upstream: Upstream) -> None:
    upstream.on("cheap", Says(delay_s=0.3))
    with Client(limited.socket) as admin, limited.http() as http:
        key = admin.issue_key("app", user_id="ida")
        own = {"Authorization": f"Bearer {key.key}"}
        body = {
            "queries": questions(4),
            "config": {"max_parallel": 1},
            "defaults": {"model": "cheap"},
            "background": True,
        }
        id = http.post("/infer/batch", json=body, headers=own).json()["id"]
        wait_for(lambda: upstream.received)
        admin.revoke_key(key.id)
        ida = {"X-User-ID": "ida"}
        wait_for(lambda: http.get(f"/infer/batch/{id}", headers=ida).json()["ended_at"])
        told = http.get(f"/infer/batch/{id}", headers=ida).json()
    assert told["completed"] == len(upstream.received) == 1
    assert {one["code"] for one in told["result"]["errors"]} == {"unauthenticated"}


def test_every_query_is_on_record_as_its_principals(daemon: Daemon, client: Client) -> None:
    done = client.batch(["a"], model="cheap", user_id="alice", metadata={"feature": "x"})
    assert done.success_count == 1
    wait_for(lambda: _id(done) in daemon.log_lines())
    lines = [json.loads(line) for line in daemon.log_lines().splitlines()]
    [line] = [line for line in lines if line.get("request_id") == _id(done)]
    assert (line["user_id"], line["status"]) == ("alice", "ok")
    assert client.summary("alice").requests_today == 1


def _id(done: cascaded.BatchResult) -> str:
    [one] = done.results
    assert one is not None
    return one.metadata.request_id


def test_the_daemon_drains_and_the_batch_goes_on(upstream: Upstream, tmp_path: Path) -> None:
    """Stopped in good order, nothing is paid twice; the client waits for the next daemon."""
    upstream.on("cheap", Says(delay_s=0.1))
    config = CASCADE.replace("{folder}", str(tmp_path)).replace("{socket}", f"{tmp_path}/d.sock")
    told: list[BatchInfo] = []

    async def go_on() -> cascaded.BatchResult:
        async with AsyncClient(f"{tmp_path}/d.sock") as client:
            return await client.batch(questions(12), model="cheap", on_progress=told.append)

    with daemon_with(config, url=upstream.url), Client(f"{tmp_path}/d.sock") as client:
        begun = client.start_batch(questions(12), model="cheap")
        wait_for(lambda: len(upstream.received) >= 4)
    first = len(upstream.received)
    assert first < 12
    with daemon_with(config, url=upstream.url), Client(f"{tmp_path}/d.sock") as client:
        [*_, last] = client.watch_batch(begun.id)
        assert (last.completed, last.failed, last.repeated) == (12, 0, ())
        assert asyncio.run(go_on()).success_count == 12
    assert len(upstream.received) == 24
    assert len({call.headers["X-Request-ID"] for call in upstream.received}) == 24


# --- the command line ----------------------------------------------------------------------------


def run(daemon: Daemon, *words: str, input: str | None = None) -> Result:
    return CliRunner().invoke(command, ["batch", *words, "--socket", daemon.socket], input=input)


def test_the_command_line(daemon: Daemon, upstream: Upstream, tmp_path: Path) -> None:
    lines = tmp_path / "questions.txt"
    lines.write_text("What is 1?\n\nWhat is 2?\n")
    told = run(daemon, "run", str(lines), "--model", "cheap", "--max-tokens", "9")
    assert (told.exit_code, told.stdout) == (0, "Paris.\nParis.\n")
    assert "completed, 2 answered, 0 failed  $0.000009" in told.stderr
    rows = tmp_path / "questions.jsonl"
    rows.write_text('"a"\n{"query": "b", "max_tokens": 0}\n[{"role": "user", "content": "c"}]\n')
    told = run(daemon, "run", str(rows), "--model", "cheap", "--max-cost", "0.01", "--json")
    assert told.exit_code == 1
    said = json.loads(told.stdout)
    assert [one["index"] for one in said["result"]["errors"]] == [1]
    told = run(daemon, "run", "-", "--model", "cheap", "--detach", input="What is 3?")
    id = told.stdout.strip()
    assert run(daemon, "status", id, "--wait").stdout.count("completed") == 1
    assert run(daemon, "results", id).stdout == "Paris.\n"
    assert json.loads(run(daemon, "status", id, "--json").stdout)["state"] == "completed"
    assert json.loads(run(daemon, "list", "--json").stdout)[0]["id"] == id
    assert id in run(daemon, "list").stdout
    assert "completed" in run(daemon, "cancel", id).stdout


def test_the_command_line_explains_itself(
    daemon: Daemon, upstream: Upstream, tmp_path: Path
) -> None:
    empty, broken = tmp_path / "empty.txt", tmp_path / "broken.jsonl"
    empty.write_text("\n")
    broken.write_text('"a"\n{\n')
    assert "has no queries" in run(daemon, "run", str(empty)).stderr
    assert "No such file" in run(daemon, "run", str(tmp_path / "none")).stderr
    assert "line 2" in run(daemon, "run", str(broken)).stderr
    upstream.on("cheap", Says(delay_s=0.5))
    told = run(daemon, "run", "-", "--model", "cheap", "--detach", "--json", input="What is 3?")
    id = json.loads(told.stdout)["id"]
    assert "there are no results to show" in run(daemon, "results", id).stderr
    run(daemon, "status", id, "--wait")


def test_a_page_after_another(daemon: Daemon, client: Client) -> None:
    begun = [client.start_batch(["a"], model="cheap").id for _ in range(3)]
    for id in begun:
        [*_] = client.watch_batch(id)
    first = client.batches(limit=2)
    assert [one.id for one in first.batches] == begun[:0:-1]
    second = client.batches(limit=100, after=first.after)
    assert second.batches[0].id == begun[0]
    assert second.after is None
    with pytest.raises(APIError, match="id of the page before"):
        client.batches(after="nobody")
    with pytest.raises(APIError, match="limit must be"):
        client.batches(limit=101)


@pytest.fixture
def own_upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as upstream:
        yield upstream


def test_a_waiting_caller_is_told_when_the_daemon_ends(own_upstream: Upstream) -> None:
    own_upstream.on("cheap", Says(delay_s=0.3))

    async def ask(daemon: Daemon) -> Any:
        async with AsyncClient(daemon.socket) as client:
            return await client.start_batch(questions(9), model="cheap")

    with daemon_with(CASCADE, url=own_upstream.url) as daemon:
        batches = daemon.services.batches._bench.batches
        begun = asyncio.run(ask(daemon))
        batches.stop()
        with daemon.http() as http:
            told = http.get(f"/infer/batch/{begun.id}")
            assert told.json()["state"] == "in_progress"
            body = {"queries": ["a"], "defaults": {"model": "cheap"}}
            told = http.post("/infer/batch", json=body)
    assert (told.status_code, told.json()["error"]["code"]) == (503, "draining")
