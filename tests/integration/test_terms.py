"""Limits and tiers set at run time: in force for the next call, kept, and never half done."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascaded.types.errors import StoreError
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.process import serving
from tests.support.upstream import Says, Upstream

FILED = """
[limits.users.default]
requests_per_hour = 1000

[limits.organizations.ids.acme]
daily_usd = 5
weekly_usd = 20

[limits.tags.feature]
"""


@pytest.fixture(scope="module")
def _daemon(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(CASCADE + FILED, url=_upstream.url) as daemon:
        yield daemon


@pytest.fixture
def daemon(_daemon: Daemon, upstream: Upstream) -> Daemon:
    upstream.on("strong", Says("The capital of France is Paris."))
    return _daemon


@pytest.fixture
def http(daemon: Daemon) -> Iterator[httpx2.Client]:
    """A client; afterwards nothing is set any more."""
    with daemon.http() as client:
        yield client
        for one in client.get("/limits").json()["limits"]:
            assert client.delete(at(one["scope"], one["id"])).status_code == 200
        for tier in client.get("/tiers").json()["tiers"]:
            if tier["origin"] == "api":
                assert client.delete(f"/tiers/{tier['name']}").status_code == 200


def at(scope: str, id: str) -> str:
    return f"/limits/{scope}/{quote(id, safe='')}"


def ask(http: httpx2.Client, user: str, **more: str) -> Any:
    body = {"model": "strong", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
    return http.post("/chat/completions", json=body, headers={"X-User-ID": user, **more})


def budgets(http: httpx2.Client, scope: str, id: str) -> dict[str, Any]:
    rows = http.get("/budgets", params={"scope": scope, "id": id}).json()["budgets"]
    return {row["window"]: row for row in rows}


def test_a_limit_holds_for_the_next_call_and_can_be_raised_lowered_and_taken_away(
    http: httpx2.Client,
) -> None:
    assert ask(http, "ann").status_code == 200
    told = http.put(at("user", "ann"), json={"total_usd": "0.000001", "enforcement": "block"})
    limits = {"total_usd": 0.000001, "enforcement": "block"}
    assert told.json() == {"scope": "user", "id": "ann", "limits": limits}
    assert budgets(http, "user", "ann")["total"]["origin"] == "api"
    refused = ask(http, "ann")
    assert refused.status_code == 429
    assert refused.json()["error"]["scope"] == "user"
    http.put(at("user", "ann"), json={"total_usd": 1})
    assert ask(http, "ann").status_code == 200
    spent = budgets(http, "user", "ann")["total"]["posted"]
    assert spent > 0
    http.put(at("user", "ann"), json={"total_usd": "0.00001"})
    low = ask(http, "ann").json()["error"]
    assert (low["budget_limit"], low["current_spend"]) == (0.00001, spent), "spend survives"
    http.put(at("user", "ann"), json={"requests_per_minute": 1, "burst_window_seconds": 0})
    assert [ask(http, "ann").status_code for _ in range(2)] == [200, 429]
    assert budgets(http, "user", "ann")["total"]["limit"] is None, "PUT replaces all that was set"
    assert http.get(at("user", "ann")).json()["limits"]["requests_per_minute"] == 1
    gone = http.delete(at("user", "ann"))
    assert (gone.status_code, gone.json()["limits"]) == (200, {})
    assert ask(http, "ann").status_code == 200
    for method in ("GET", "DELETE"):
        assert http.request(method, at("user", "ann")).status_code == 404


@pytest.mark.parametrize(
    ("scope", "id", "claim"),
    [
        ("global", "*", {}),
        ("organization", "globex/eu west", {"X-Organization-ID": "globex/eu west"}),
        ("workspace", "ws", {"X-Workspace-ID": "ws"}),
        ("team", "blue", {"X-Team-ID": "blue"}),
        ("tier", "pro", {"X-User-Tier": "pro"}),
        ("tag", "feature=search", {"x-cascaded-tags": "feature=search"}),
        ("run", "r-1", {"x-session-id": "r-1"}),
    ],
)
def test_any_scope(http: httpx2.Client, scope: str, id: str, claim: dict[str, str]) -> None:
    assert ask(http, "bob", **claim).status_code == 200
    body = {"daily_usd": 0, "zone": "Europe/Berlin"}
    assert http.put(at(scope, id), json=body).status_code == 200
    refused = ask(http, "bob", **claim)
    error = refused.json()["error"]
    assert (refused.status_code, error["scope"], error["scope_id"]) == (429, scope, id)
    assert budgets(http, scope, id)["day"]["zone"] == "Europe/Berlin"
    if scope != "global":
        assert ask(http, "bob").status_code == 200


def test_it_stands_over_the_file_field_by_field(http: httpx2.Client) -> None:
    http.put(at("organization", "acme"), json={"daily_usd": 9})
    now = budgets(http, "organization", "acme")
    assert {window: (row["limit"], row["origin"]) for window, row in now.items()} == {
        "day": (9, "api"),
        "week": (20, "file"),
    }
    http.delete(at("organization", "acme"))
    now = budgets(http, "organization", "acme")
    assert {window: (row["limit"], row["origin"]) for window, row in now.items()} == {
        "day": (5, "file"),
        "week": (20, "file"),
    }


WRONG: list[tuple[str, str, bytes, str]] = [
    ("planet", "x", b'{"daily_usd": 1}', "scope must be one of global, organization"),
    ("global", "x", b'{"daily_usd": 1}', "the id of scope global is *"),
    ("user", "*", b'{"daily_usd": 1}', "and of no other"),
    ("user", "x" * 257, b'{"daily_usd": 1}', "1 to 256 bytes"),
    ("user", "a\nb", b'{"daily_usd": 1}', "printable"),
    ("tier", "gold", b'{"daily_usd": 1}', "no tier 'gold'; there are: free, pro"),
    ("tag", "team=x", b'{"daily_usd": 1}', "there are: feature"),
    ("tag", "feature", b'{"daily_usd": 1}', "NAME=VALUE"),
    ("user", "u", b"{}", "at least one limit"),
    ("user", "u", b"", "truncated"),
    ("user", "u", b"[]", "Expected `object`"),
    ("user", "u", b'{"daily": 1}', "unknown field `daily`; there are daily_usd, weekly_usd"),
    ("user", "u", b'{"daily_usd": -1}', "below zero"),
    ("user", "u", b'{"daily_usd": "-0.01"}', "daily_usd: '-0.01' is below zero"),
    ("user", "u", b'{"daily_usd": "NaN"}', "not a finite amount"),
    ("user", "u", b'{"daily_usd": NaN}', "malformed"),
    ("user", "u", b'{"daily_usd": 1e400}', "more than this ledger can hold"),
    ("user", "u", b'{"daily_usd": 10000000000}', "more than this ledger can hold"),
    ("user", "u", b'{"daily_usd": 0.1000000000000000055}', "finer than a nano-dollar"),
    ("user", "u", b'{"daily_usd": true}', "Expected"),
    ("user", "u", b'{"requests_per_minute": 0}', ">= 1"),
    ("user", "u", b'{"requests_per_minute": 4294967296}', "<= 4294967295"),
    ("user", "u", b'{"requests_per_minute": 1.5}', "Expected `int"),
    ("user", "u", b'{"daily_usd": 1, "zone": "Mars/Olympus"}', "unknown time zone"),
    ("user", "u", b'{"daily_usd": 1, "zone": "../etc"}', "matching regex"),
    ("user", "u", b'{"daily_usd": 1, "enforcement": "hope"}', "Invalid enum value 'hope'"),
    ("user", "u", b'{"daily_usd": 1, "warn_threshold": 1.1}', "<= 1"),
    ("user", "u", b'{"daily_usd": 1, "degrade_at": 0.9, "block_at": 0.8}', "degrade_at 0.9 is"),
]


@pytest.mark.parametrize(("scope", "id", "body", "said"), WRONG, ids=lambda one: str(one)[:40])
def test_what_cannot_be_set(
    http: httpx2.Client, scope: str, id: str, body: bytes, said: str
) -> None:
    answer = http.put(at(scope, id), content=body)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]["message"]
    assert http.get("/limits").json()["limits"] == []


ALL_RATES = {
    f"{unit}_per_{window}": 10**6
    for unit in ("requests", "tokens")
    for window in ("second", "minute", "hour", "day")
    if (unit, window) != ("tokens", "second")
}


def test_a_call_is_never_charged_to_more_than_it_can_carry(http: httpx2.Client) -> None:
    assert http.put(at("global", "*"), json=ALL_RATES).status_code == 200
    eight = dict.fromkeys(ALL_RATES, 1)
    full = http.put(at("team", "red"), json=eight)
    assert full.status_code == 400
    assert "18 rates" in full.json()["error"]["message"]
    assert http.get(at("team", "red")).status_code == 404
    # A tier brings rates to each of its users, whoever they are.
    assert http.put(at("team", "red"), json={"requests_per_day": 9}).status_code == 200
    assert http.put("/tiers/gold", json=ALL_RATES).status_code == 400
    assert ask(http, "bob", **{"X-Team-ID": "red"}).status_code == 200


def test_a_disk_that_refuses_changes_nothing(
    daemon: Daemon, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    http.put(at("user", "eve"), json={"total_usd": 3})

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    stored = daemon.services.terms._stored
    with monkeypatch.context() as patch:
        patch.setattr(stored, "write_limits", full)
        patch.setattr(stored, "write_tier", full)
        for method, path, body in (
            ("PUT", at("user", "eve"), {"total_usd": 0}),
            ("DELETE", at("user", "eve"), None),
            ("PUT", "/tiers/gold", {}),
        ):
            answer = http.request(method, path, json=body)
            assert answer.status_code == 503, answer.text
            assert "the disk is full" in answer.json()["error"]["message"]
    assert http.get(at("user", "eve")).json()["limits"] == {"total_usd": 3}
    assert budgets(http, "user", "eve")["total"]["limit"] == 3
    assert http.get("/tiers/gold").status_code == 404


def test_changes_are_on_record(http: httpx2.Client) -> None:
    http.put(at("user", "fay"), json={"daily_usd": "1.50"})
    http.put("/tiers/silver", json={"daily_usd": 2, "max_tokens": 9})
    http.delete("/tiers/silver")
    http.delete(at("user", "fay"))
    wanted = ("limits:user:fay", "tier:silver")
    changes: list[Any] = []
    while len(changes) < 4:
        page = http.get("/audit?limit=100").json()["records"]
        changes = [one for one in page if one["subject"] in wanted]
    assert [(one["subject"], one["details"]) for one in reversed(changes)] == [
        ("limits:user:fay", {"before": None, "after": {"daily_usd": "1.5"}}),
        ("tier:silver", {"before": None, "after": {"daily_usd": "2", "max_tokens": 9}}),
        ("tier:silver", {"before": {"daily_usd": "2", "max_tokens": 9}, "after": None}),
        ("limits:user:fay", {"before": {"daily_usd": "1.5"}, "after": None}),
    ]
    assert {one["outcome"] for one in changes} == {"changed"}


def test_tiers_come_and_go(http: httpx2.Client) -> None:
    listed = {one["name"]: one for one in http.get("/tiers").json()["tiers"]}
    assert {name: one["origin"] for name, one in listed.items()} == {
        "free": "file",
        "pro": "file",
        "starter": "preset",
        "business": "preset",
        "enterprise": "preset",
    }
    assert listed["starter"]["limits"]["weekly_usd"] == 5
    body = {"preset": "starter", "daily_usd": 0, "allowed_models": ["cheap"], "custom": {"a": "b"}}
    made = http.put("/tiers/gold", json=body).json()
    assert made["origin"] == "api"
    assert made["limits"]["daily_usd"] == 0
    assert (made["max_tokens"], made["allowed_models"]) == (2000, ["cheap"])
    gold = {"X-User-Tier": "gold"}
    assert ask(http, "gil", **gold).json()["error"]["code"] == "model_forbidden"
    http.put("/tiers/gold", json={"daily_usd": 0})
    assert ask(http, "gil", **gold).status_code == 429
    assert http.put("/tiers/gold", json={}).json()["limits"] == {}
    assert ask(http, "gil", **gold).status_code == 200
    assert http.put(at("tier", "gold"), json={"daily_usd": 1}).status_code == 200
    used = http.delete("/tiers/gold")
    assert (used.status_code, used.json()["error"]["code"]) == (409, "conflict")
    assert "scope tier/gold" in used.json()["error"]["message"]
    http.delete(at("tier", "gold"))
    assert http.delete("/tiers/gold").json() == {"name": "gold", "deleted": True}
    assert ask(http, "gil", **gold).status_code == 403


@pytest.mark.parametrize(
    ("method", "name", "body", "status", "said"),
    [
        ("PUT", "pro", {}, 409, "configuration file"),
        ("DELETE", "pro", None, 409, "configuration file"),
        ("DELETE", "starter", None, 409, "always there"),
        ("DELETE", "none-such", None, 404, "no tier"),
        ("GET", "none-such", None, 404, "no tier"),
        ("PUT", "Gold!", {}, 400, "a-z"),
        ("PUT", "gold", {"price": 1}, 400, "unknown field"),
        ("PUT", "gold", {"daily_usd": "1e-12"}, 400, "finer"),
        ("PUT", "gold", {"zone": "Mars/Olympus", "daily_usd": 1}, 400, "time zone"),
        (
            "PUT",
            "gold",
            {"default_quality_threshold": 0.9, "max_quality_threshold": 0.8},
            400,
            "above",
        ),
    ],
)
def test_tiers_that_cannot_be(
    http: httpx2.Client, method: str, name: str, body: Any, status: int, said: str
) -> None:
    answer = http.request(method, f"/tiers/{quote(name)}", json=body)
    assert (answer.status_code, said in answer.text) == (status, True), answer.text


def test_others_see_names_and_limits_of_tiers(
    daemon: Daemon, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon.services.gate, "_administers", lambda uid, gid: False)
    with daemon.http() as other:
        for row in other.get("/tiers").json()["tiers"]:
            assert row.keys() == {"name", "origin", "limits"}
        assert other.get("/tiers/free").json()["limits"]["monthly_usd"] == 2


def test_a_reload_keeps_it(http: httpx2.Client) -> None:
    http.put(at("organization", "acme"), json={"daily_usd": 0})
    http.put("/tiers/gold", json={"daily_usd": 0})
    assert http.post("/reload").is_success
    now = budgets(http, "organization", "acme")
    assert (now["day"]["limit"], now["day"]["origin"], now["week"]["limit"]) == (0, "api", 20)
    assert ask(http, "bob", **{"X-Organization-ID": "acme"}).status_code == 429
    assert ask(http, "bob", **{"X-User-Tier": "gold"}).status_code == 429
    http.delete(at("organization", "acme"))
    assert ask(http, "bob", **{"X-Organization-ID": "acme"}).status_code == 200


def test_it_is_kept_over_restarts_and_in_backups(tmp_path: Path, upstream: Upstream) -> None:
    toml = (
        (CASCADE + FILED).replace("{url}", upstream.url).replace('file = "{folder}/log.jsonl"', "")
    )
    for start in range(3):
        with serving(tmp_path, toml) as served, _http(served.socket) as http:
            if start == 0:
                http.put("/tiers/gold", json={"daily_usd": 1})
                http.put(at("tier", "gold"), json={"daily_usd": "0.5"})
                http.put(at("user", "ann"), json={"total_usd": 0})
                http.put(at("organization", "acme"), json={"daily_usd": 0})
                assert http.post("/state/backup", json={"dir": f"{tmp_path}/copy"}).is_success
                served.process.kill()
                continue
            known = {(one["scope"], one["id"]) for one in http.get("/limits").json()["limits"]}
            rest = {("user", "ann")} if start == 1 else set[tuple[str, str]]()
            assert known == {("tier", "gold"), ("organization", "acme"), *rest}
            assert budgets(http, "organization", "acme")["day"]["limit"] == 0
            assert budgets(http, "tier", "gold")["day"]["origin"] == "api"
            assert ask(http, "ann").status_code == (429 if start == 1 else 200)
            http.delete(at("user", "ann"))
            served.process.kill()
    assert (tmp_path / "copy" / "overrides" / "data.mdb").is_file()


def _http(socket: Path) -> httpx2.Client:
    return httpx2.Client(
        transport=httpx2.HTTPTransport(uds=str(socket)), base_url="http://localhost", timeout=30
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("1e99"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(
    ["daily_usd", "zone", "requests_per_day", "block_at", "custom", "preset", "burst_multiplier"]
)
tables = st.dictionaries(fields | st.text(), values, max_size=4)
bodies = st.binary() | tables.map(lambda table: json.dumps(table).encode())
scopes = st.sampled_from(["user", "tag", "tier", "global", "run", "moon"])
ids = st.text(min_size=1).filter(lambda id: id not in (".", ".."))
paths = st.builds(at, scopes, ids) | ids.map(lambda name: f"/tiers/{quote(name, safe='')}")


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(["PUT", "PUT", "DELETE", "GET"]), paths, bodies)
def test_whatever_is_sent_it_is_set_whole_or_not_at_all(
    http: httpx2.Client, method: str, path: str, body: bytes
) -> None:
    before = http.get("/limits").json(), http.get("/tiers").json()
    answer = http.request(method, path, content=body)
    assert answer.status_code in (200, 400, 404, 409), answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]
        assert (http.get("/limits").json(), http.get("/tiers").json()) == before
    assert ask(http, "zoe").status_code in (200, 429)
