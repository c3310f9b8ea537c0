"""Providers' own batches: the price, the books, restarts, and what goes wrong upstream."""

import signal
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cascaded import APIError, BatchConfig, BatchInfo, Client
from tests.support.bulk import BulkUpstream, bulk_server
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.process import serving, wait_for
from tests.support.upstream import Says

DAY = BatchConfig(total_timeout=86_400)
NATIVE = BatchConfig(total_timeout=86_400, strategy="native")
HALF = Decimal("0.00000225")
"""Of a call of 10 tokens for 5, by `cheap`, at half the price."""
CONFIG = (
    CASCADE.replace("logprobs = true", "logprobs = true\nbatch_percent = 50")
    + """
[providers.other]
kind = "openai_compatible"
base_url = "{url}/v1"

[models.plain]
provider = "other"
input_usd_per_mtok = "0.15"
output_usd_per_mtok = "0.60"

[batch]
poll_s = 0.1

[limits]
enforcement = "block"

[limits.users.default]
total_usd = 5

[limits.users.ids.poor]
total_usd = "0.000008"
"""
)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascaded.jobs.bulk.LINGER_S", 0.1)


@pytest.fixture
def upstream() -> Iterator[BulkUpstream]:
    with bulk_server() as upstream:
        upstream.on("cheap", Says())
        upstream.on("plain", Says())
        yield upstream


@pytest.fixture
def daemon(upstream: BulkUpstream) -> Iterator[Daemon]:
    with daemon_with(CONFIG, url=upstream.url) as daemon:
        yield daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.socket) as client:
        yield client


def begin(client: Client, count: int = 6, config: BatchConfig = DAY, **asked: Any) -> BatchInfo:
    asked = {"model": "cheap", "max_tokens": 5, **asked}
    return client.start_batch([f"What is {n}?" for n in range(count)], config, **asked)


def ended(client: Client, batch: BatchInfo) -> BatchInfo:
    [*_] = client.watch_batch(batch.id)
    return client.batch_info(batch.id)


def test_a_day_costs_half(client: Client, daemon: Daemon, upstream: BulkUpstream) -> None:
    begun = begin(client)
    wait_for(lambda: upstream.batches)
    assert daemon.spend["held"] > 6 * HALF * 10**9, "the hold is kept meanwhile"
    upstream.release()
    told = ended(client, begun)
    assert told.result is not None
    assert told.result.strategy_used == "native"
    assert [one.content for one in told.result.results if one] == ["Paris."] * 6
    assert told.cost == told.result.total_cost == 6 * HALF
    [budget] = client.budgets("user")
    assert (budget.posted, budget.held + budget.unknown) == (6 * HALF, Decimal(0))
    assert not upstream.received, "nothing was asked beside"
    [batch] = upstream.batches.values()
    assert (batch["endpoint"], batch["completion_window"]) == ("/v1/chat/completions", "24h")
    assert set(upstream.billed.values()) == {1}
    [first, *_] = [one for one in told.result.results if one]
    assert first.metadata.attempts[0].provider == "fake batches"


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        (BatchConfig(), {}),
        (BatchConfig(total_timeout=86_400, strategy="parallel"), {}),
        (DAY, {"model": "plain"}),
    ],
)
def test_what_is_not_worth_it_is_asked_at_once(
    client: Client, upstream: BulkUpstream, config: BatchConfig, asked: Any
) -> None:
    """There is no time, the caller does not want it, or the provider is not used so."""
    told = ended(client, begin(client, 3, config, **asked))
    assert told.result is not None
    assert told.result.strategy_used == "parallel"
    assert len(upstream.received) == 3
    assert not upstream.batches


def test_native_is_native_or_refused(client: Client, upstream: BulkUpstream) -> None:
    with pytest.raises(APIError, match="total_timeout of at least"):
        begin(client, 1, BatchConfig(strategy="native"))
    told = ended(client, begin(client, 2, NATIVE, model="plain"))
    assert told.result is not None
    assert {one.code for one in told.result.errors} == {"invalid_request"}
    assert not upstream.received
    upstream.release()
    assert ended(client, begin(client, 2, NATIVE)).completed == 2


def test_errors_of_the_provider_cost_nothing(client: Client, upstream: BulkUpstream) -> None:
    upstream.failing = {"1"}
    upstream.release()
    told = ended(client, begin(client))
    assert told.result is not None
    assert [(one.index, one.code) for one in told.result.errors] == [(1, "upstream_refused")]
    assert told.cost == 5 * HALF


def test_what_was_left_out_is_handed_over_again(
    client: Client, upstream: BulkUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cascaded.jobs.run.LATER_S", 0.1)
    upstream.missing = {"2"}
    upstream.release()
    told = ended(client, begin(client))
    assert (told.completed, told.cost) == (6, 6 * HALF)
    assert len(upstream.batches) == 2
    assert set(upstream.billed.values()) == {1}


def test_a_batch_that_is_not_taken_is_tried_again(
    client: Client, upstream: BulkUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cascaded.jobs.run.LATER_S", 0.1)
    upstream.refuses = 1
    upstream.release()
    told = ended(client, begin(client))
    assert (told.completed, told.cost) == (6, 6 * HALF)
    assert set(upstream.billed.values()) == {1}


def test_a_submission_without_an_answer_is_found(client: Client, upstream: BulkUpstream) -> None:
    """By the name that the provider was told; nothing is handed over twice."""
    upstream.mute = 1
    upstream.release()
    told = ended(client, begin(client))
    assert (told.completed, told.cost) == (6, 6 * HALF)
    assert len(upstream.batches) == 1


def test_a_budget_bounds_it_beforehand(client: Client, upstream: BulkUpstream) -> None:
    upstream.release()
    told = ended(client, begin(client, user_id="poor"))
    assert told.result is not None
    assert {one.code for one in told.result.errors} == {"insufficient_quota"}
    assert 0 < told.completed < 6
    assert sum(upstream.billed.values()) == told.completed


def test_a_cancel_goes_upstream(client: Client, upstream: BulkUpstream) -> None:
    begun = begin(client)
    wait_for(lambda: upstream.batches)
    wait_for(lambda: client.cancel_batch(begun.id).state != "in_progress")
    told = ended(client, begun)
    [batch] = upstream.batches.values()
    assert (told.state, batch["status"]) == ("cancelled", "cancelled")
    assert (told.completed, told.failed) == (1, 5)
    [budget] = client.budgets("user")
    assert (budget.posted, budget.held + budget.unknown) == (HALF, Decimal(0))


def test_a_daemon_that_ends_in_good_order(upstream: BulkUpstream, tmp_path: Path) -> None:
    """Meanwhile all of it is charged as unknown; the next daemon gets the answers, and settles."""
    config = CONFIG.replace("{folder}", str(tmp_path)).replace("{socket}", f"{tmp_path}/d.sock")
    with daemon_with(config, url=upstream.url), Client(f"{tmp_path}/d.sock") as client:
        begun = begin(client)
        wait_for(lambda: upstream.batches)
    upstream.release()
    with daemon_with(config, url=upstream.url), Client(f"{tmp_path}/d.sock") as client:
        check_books(client, begun, upstream)


@pytest.mark.parametrize("moment", ["handed over", "submitting"])
def test_a_daemon_that_is_killed(upstream: BulkUpstream, tmp_path: Path, moment: str) -> None:
    upstream.mute = moment == "submitting"
    config = CONFIG.replace("{url}", upstream.url)
    with serving(tmp_path, config) as daemon, daemon.client() as client:
        begun = begin(client)
        wait_for(lambda: upstream.batches)
        daemon.end(signal.SIGKILL)
    upstream.release()
    with serving(tmp_path, config) as daemon, daemon.client() as client:
        check_books(client, begun, upstream)


def check_books(client: Client, begun: BatchInfo, upstream: BulkUpstream) -> None:
    """Each is answered and paid once; what the provider bills is in the books, and no more but
    what a crash before the hand-over left open."""
    told = ended(client, begun)
    assert (told.completed, told.failed, told.cost) == (6, 0, 6 * HALF)
    assert len(upstream.batches) == 1
    assert sum(upstream.billed.values()) == 6
    wait_for(lambda: client.budgets("user")[0].held == 0)
    [budget] = client.budgets("user")
    assert budget.posted == 6 * HALF
    # Without a request's id: what the ceiling charges for calls that may be lost.
    left = {hold.request_id for hold in client.unknowns()}
    assert left - {None} <= set(told.repeated)
    assert bool(budget.unknown) == bool(left)
