"""A thousand queries through a daemon that is killed in the middle, and a provider that keeps its
own bill."""

import json
import signal
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cascaded.client import Client
from tests.support.billing import INPUT_TOKENS, BillingUpstream
from tests.support.daemon import CASCADE, upstream_server
from tests.support.process import Served, serving, wait_for
from tests.support.upstream import JSON, Behaviour, Says

QUERIES = 1_000
FEW = 200
PARALLEL = 16
PRICES = {"cheap": (150, 600)}
NANO = 10**9
CONFIG = (
    CASCADE
    + """
[limits]
enforcement = "block"

[limits.users.default]
total_usd = 5
"""
)


class SteadyUpstream(BillingUpstream):
    """Answers everything, after a moment; bills every call when it arrives."""

    def _draw(self, most: int) -> tuple[Behaviour, int | None]:
        return Says(input_tokens=INPUT_TOKENS, output_tokens=5, delay_s=0.02), 5


def lines(count: int) -> bytes:
    def line(number: int) -> str:
        # Longer than the tokens that are billed for it: no hold is below the bill.
        said = {
            "role": "user",
            "content": f"What is the capital of country number {number}, please?",
        }
        asked: JSON = {"model": "cheap", "messages": [said]}
        head = {"custom_id": f"q{number}", "method": "POST", "url": "/v1/chat/completions"}
        return json.dumps({**head, "body": {**asked, "max_tokens": 5}})

    return "\n".join(map(line, range(count))).encode()


def begin_openai(client: Client, count: int = QUERIES) -> str:
    with client.openai() as sdk:
        file = sdk.files.create(file=("in.jsonl", lines(count)), purpose="batch")
        window: Any = "24h"
        return sdk.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window=window
        ).id


def kill_in_the_middle(daemon: Served, batch: str, upstream: BillingUpstream) -> None:
    with daemon.client() as client:
        wait_for(lambda: client.batch_info(batch).completed > QUERIES // 3, 30)
    assert len(upstream.bill()) < QUERIES
    daemon.end(signal.SIGKILL)


def test_a_thousand_queries_outlive_a_kill(tmp_path: Path) -> None:
    with upstream_server(SteadyUpstream(7, PRICES)) as upstream:
        config = CONFIG.replace("{url}", upstream.url)
        with serving(tmp_path, config) as daemon, daemon.client() as client:
            batch = begin_openai(client)
            kill_in_the_middle(daemon, batch, upstream)
        with serving(tmp_path, config) as daemon, daemon.client() as client:
            for _ in client.watch_batch(batch):
                pass
            told = client.batch_info(batch)
            with client.openai() as sdk:
                done = sdk.batches.retrieve(batch)
                assert done.error_file_id is None
                content = sdk.files.content(str(done.output_file_id)).text
            unknowns = {hold.request_id for hold in client.unknowns() if not hold.lost}
            [budget] = [one for one in client.budgets() if one.scope == "user"]
        bill = {id: cost for (id, _), cost in upstream.bill().items()}

    answers = [json.loads(row) for row in content.splitlines()]
    assert (told.state, told.completed, told.failed) == ("completed", QUERIES, 0)
    assert [one["custom_id"] for one in answers] == [f"q{number}" for number in range(QUERIES)]

    # Each query is answered once, and asked once but for those that the kill cut off.
    counted = {one["response"]["request_id"] for one in answers}
    paid_twice = set(bill) - counted
    assert len(paid_twice) <= PARALLEL
    assert paid_twice <= set(told.repeated), "each of them is listed"
    assert len(told.repeated) <= PARALLEL
    assert counted <= set(bill)
    assert unknowns <= set(told.repeated)

    # What the provider bills is in the ledger.
    spent = int((budget.posted + budget.unknown) * NANO)
    assert sum(bill.values()) <= spent
    assert budget.held == 0
    assert Decimal(sum(bill[id] for id in counted)) / NANO == told.cost


def test_kill_upon_kill_while_it_is_checked_and_asked(tmp_path: Path) -> None:
    """Killed at any moment, it goes on; nothing is counted twice."""
    with upstream_server(SteadyUpstream(7, PRICES)) as upstream:
        config = CONFIG.replace("{url}", upstream.url)
        with serving(tmp_path, config) as daemon, daemon.client() as client:
            batch = begin_openai(client, FEW)
            daemon.end(signal.SIGKILL)
        for _ in range(2):
            with serving(tmp_path, config) as daemon:
                time.sleep(0.2)
                daemon.end(signal.SIGKILL)
        with serving(tmp_path, config) as daemon, daemon.client() as client:
            for _ in client.watch_batch(batch):
                pass
            told = client.batch_info(batch)
        asked = Counter(id.partition(".")[0] for id, _ in upstream.bill())
    assert (told.completed, told.failed) == (FEW, 0)
    assert len(asked) == FEW
    assert sum(asked.values()) - FEW <= len(told.repeated) <= 3 * PARALLEL


@pytest.mark.parametrize("moment", ["before", "after"])
def test_our_own_batches_and_their_clients_wait_for_the_next_daemon(
    tmp_path: Path, moment: str
) -> None:
    with upstream_server(SteadyUpstream(7, PRICES)) as upstream:
        config = CONFIG.replace("{url}", upstream.url)
        with serving(tmp_path, config) as daemon, daemon.client() as client:
            begun = client.start_batch(["a"] * 60, model="cheap", idempotency_key="k")
            if moment == "after":
                [*_] = client.watch_batch(begun.id)
            else:
                wait_for(lambda: len(upstream.bill()) > 9)
            daemon.end(signal.SIGKILL)
        with serving(tmp_path, config) as daemon, daemon.client() as client:
            again = client.start_batch(["a"] * 60, model="cheap", idempotency_key="k")
            assert again.id == begun.id
            [*_] = client.watch_batch(begun.id)
            result = client.batch_info(begun.id).result
    assert result is not None
    assert (result.success_count, result.failure_count) == (60, 0)
