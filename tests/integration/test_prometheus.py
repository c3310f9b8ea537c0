"""Metrics, rules and dashboards before a real Prometheus."""

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.prometheus import ROOT, WAIT_S, needs_prometheus, prometheus, promtool
from tests.support.upstream import Fails, Says, Upstream

RULES = ROOT / "deploy/prometheus"
DASHBOARDS = sorted((ROOT / "dashboards").glob("*.json"))
GOOD = "Paris is the capital of France."
BAD = "I'm sorry, but I can't help with that."
WATCHED = (
    CASCADE.replace(
        "[server]",
        """[server]
tcp = "127.0.0.1:0"
tcp_keys = {prometheus = "env:SCRAPE_KEY"}
max_concurrency = 1
max_wait_s = 5""",
    )
    + """
[limits.global]
daily_usd = 100

[limits.users.default]
daily_usd = "0.10"
warn_threshold = 0.0001

[guardrails]
enabled = true

[limits.users.ids.hasty]
requests_per_minute = 1
"""
)
HOOK = '\n[hooks.budget_check]\nurl = "http://127.0.0.1:9/"\n'
ADDRESS = "Write to ann@example.org about France."
SCRAPE_KEY = "a-key-for-prometheus-alone"
SCRAPE = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 500ms}}
rule_files: ["{rules}/recording.yml", "{rules}/alerts.yml"]
scrape_configs:
  - job_name: cascaded
    authorization: {{credentials_file: {folder}/key}}
    static_configs: [{{targets: ["{target}"]}}]
"""
ROUNDS = 8


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_server(Upstream()) as upstream:
        yield upstream


def ask(http: httpx2.Client, number: int, user: str = "watched", **fields: Any) -> httpx2.Response:
    words = f"What is the capital of France, for the {number}. time?"
    body = {"model": "auto", "messages": [{"role": "user", "content": words}], **fields}
    return http.post("/v1/chat/completions", json=body, headers={"X-User-ID": user})


def some_of_everything(daemon: Daemon, upstream: Upstream, number: int) -> None:
    """Calls that are kept, escalated, flagged, recalled, refused, turned away, failed, waiting."""
    upstream.on("cheap", Says(BAD), Says(BAD), Says(GOOD, delay_s=0.05), Says(GOOD), Fails(503))
    upstream.on("strong", Says(GOOD), Says(BAD), Says(BAD), Says(BAD), Says(GOOD))
    with daemon.http() as http, ThreadPoolExecutor() as threads:
        ask(http, number, stream=True)
        ask(http, number)
        list(threads.map(lambda one: ask(http, one), (10_000 + number, 20_000 + number)))
        ask(http, number, model="cheap")
        ask(http, number, model="strong", temperature=0)
        ask(http, number, model="strong", temperature=0)
        ask(http, number, user="hasty")
        ask(http, number, messages=[{"role": "user", "content": ADDRESS}])
        http.post("/v1/chat/completions", content=b"{")


def scraped(daemon: Daemon) -> dict[tuple[str, ...], float]:
    """Samples by name and labels' values, in the order of the labels' names."""
    with daemon.http() as http:
        families = text_string_to_metric_families(http.get("/metrics").text)
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def nano(usd: str | Decimal) -> int:
    return int(Decimal(usd) * 10**9)


def test_money_agrees_with_the_ledger_and_the_records_to_the_last_nano_dollar(
    upstream: Upstream,
) -> None:
    with daemon_with(WATCHED, url=upstream.url, SCRAPE_KEY=SCRAPE_KEY) as daemon:
        for number in range(5):
            some_of_everything(daemon, upstream, number)
        seen = scraped(daemon)
        spend = daemon.spend
        with daemon.http() as http:
            exported = http.get("/export", params={"format": "jsonl"}).text
    records = [json.loads(line, parse_float=Decimal) for line in exported.splitlines()]
    assert sum(1 for one in records if one["status"] == "ok") > 20
    for state, nano_usd in spend.items():
        assert f"{seen['cascaded_spend_usd', state]:.9f}" == f"{nano_usd / 1e9:.9f}"
    by_model = {
        model: sum(
            nano(one["cost"])
            for record in records
            for one in record["attempts"]
            if one["model"] == model
        )
        for model in ("cheap", "strong")
    }
    assert sum(by_model.values()) == spend["posted"] > 0
    for model, nano_usd in by_model.items():
        told = seen["cascaded_cost_usd_total", "billed", model]
        assert f"{told:.9f}" == f"{nano_usd / 1e9:.9f}"
    saved = sum(nano(one["cost_saved"]) for one in records)
    assert f"{seen['cascaded_saved_usd',]:.9f}" == f"{saved / 1e9:.9f}"
    spent = seen["cascaded_global_budget_usd", "spent", "day"]
    assert f"{spent:.9f}" == f"{spend['posted'] / 1e9:.9f}"


@needs_prometheus
def test_promtool_finds_nothing_wrong_with_metrics_and_rules(upstream: Upstream) -> None:
    with daemon_with(WATCHED, url=upstream.url, SCRAPE_KEY=SCRAPE_KEY) as daemon:
        some_of_everything(daemon, upstream, 0)
        with daemon.http() as http:
            assert promtool("check", "metrics", told=http.get("/metrics").text) == ""
    promtool("check", "rules", *map(str, RULES.glob("[ar]*ing.yml")), str(RULES / "alerts.yml"))
    assert "SUCCESS" in promtool("test", "rules", str(RULES / "rules_test.yml"))


@needs_prometheus
def test_every_query_of_the_dashboards_and_rules_finds_data(
    upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(SCRAPE_KEY)
    with (
        daemon_with(WATCHED, url=upstream.url, SCRAPE_KEY=SCRAPE_KEY) as daemon,
        daemon.tcp() as door,
    ):
        assert door.get("/metrics").status_code == 401
        target = door.base_url.netloc.decode()
        config = SCRAPE.format(rules=RULES, folder=tmp_path, target=target)
        with prometheus(config, tmp_path) as server:
            until_scraped(server)
            for number in range(2 * ROUNDS):
                if number == ROUNDS:
                    daemon.toml += HOOK
                    assert daemon.reload().status_code == 200
                some_of_everything(daemon, upstream, number)
                time.sleep(0.1)
            empty = [query for query in queries() if not found(server, query)]
            assert empty == []
            assert found(server, "cascaded:requests:rate5m")
            groups = server.get("/api/v1/rules").json()["data"]["groups"]
            assert [
                rule["name"] for one in groups for rule in one["rules"] if rule.get("lastError")
            ] == []


def until_scraped(server: httpx2.Client) -> None:
    """It looks for its targets some five seconds after its start."""
    end = time.monotonic() + WAIT_S
    while [one["value"][1] for one in found(server, 'up{job="cascaded"}')] != ["1"]:
        assert time.monotonic() < end
        time.sleep(0.1)


def queries() -> list[str]:
    """Those of the dashboards, as Grafana would put them."""
    put_in = {"$__rate_interval": "1m", "$__range": "5m", "$instance": ".*"}
    found = []
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", ()):
                query = target["expr"]
                for name, value in put_in.items():
                    query = query.replace(name, value)
                found.append(query)
    assert len(found) > 40
    return found


def found(server: httpx2.Client, query: str) -> list[Mapping[str, Any]]:
    answer = server.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", (query, answer)
    samples: list[Mapping[str, Any]] = answer["data"]["result"]
    return samples
