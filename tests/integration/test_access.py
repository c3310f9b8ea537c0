"""Who may call what: every route, as every kind of caller."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import httpx2
import pytest
from msgspec.structs import replace

from cascaded.api.server import application
from cascaded.api.table import ROUTES as TABLE
from cascaded.policy.access.keys import compose
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Upstream

Who = Literal["anybody", "callers", "administrators"]
KEY = "sk-app-1-0123456789"
DOORS = CASCADE.replace(
    "[server]\n", '[server]\ntcp = "127.0.0.1:0"\ntcp_keys = { app = "env:APP_KEY" }\n'
)

MAY: dict[tuple[str, str], Who] = {
    ("POST", "/chat/completions"): "callers",
    ("POST", "/completions"): "callers",
    ("POST", "/embeddings"): "callers",
    ("POST", "/messages"): "callers",
    ("POST", "/messages/count_tokens"): "callers",
    ("POST", "/responses"): "callers",
    ("POST", "/responses/input_tokens"): "callers",
    ("GET", "/responses/{id}"): "callers",
    ("DELETE", "/responses/{id}"): "callers",
    ("GET", "/responses/{id}/input_items"): "callers",
    ("POST", "/responses/{id}/cancel"): "callers",
    ("POST", "/infer"): "callers",
    ("POST", "/infer/batch"): "callers",
    ("GET", "/infer/batch"): "callers",
    ("GET", "/infer/batch/{id}"): "callers",
    ("GET", "/infer/batch/{id}/events"): "callers",
    ("POST", "/infer/batch/{id}/cancel"): "callers",
    ("DELETE", "/infer/batch/{id}"): "callers",
    ("POST", "/messages/batches"): "callers",
    ("GET", "/messages/batches"): "callers",
    ("GET", "/messages/batches/{id}"): "callers",
    ("GET", "/messages/batches/{id}/results"): "callers",
    ("POST", "/messages/batches/{id}/cancel"): "callers",
    ("DELETE", "/messages/batches/{id}"): "callers",
    ("POST", "/files"): "callers",
    ("GET", "/files"): "callers",
    ("GET", "/files/{id}"): "callers",
    ("GET", "/files/{id}/content"): "callers",
    ("DELETE", "/files/{id}"): "callers",
    ("POST", "/batches"): "callers",
    ("GET", "/batches"): "callers",
    ("GET", "/batches/{id}"): "callers",
    ("POST", "/batches/{id}/cancel"): "callers",
    ("POST", "/check"): "callers",
    ("POST", "/route"): "callers",
    ("POST", "/reserve"): "callers",
    ("POST", "/settle"): "callers",
    ("POST", "/release"): "callers",
    ("GET", "/budgets"): "callers",
    ("GET", "/summary"): "callers",
    ("GET", "/forecast"): "callers",
    ("GET", "/anomalies"): "callers",
    ("GET", "/recommendations"): "callers",
    ("GET", "/breakdown"): "callers",
    ("GET", "/tiers"): "callers",
    ("GET", "/tiers/{name}"): "callers",
    ("PUT", "/tiers/{name}"): "administrators",
    ("DELETE", "/tiers/{name}"): "administrators",
    ("POST", "/keys"): "administrators",
    ("GET", "/keys"): "administrators",
    ("DELETE", "/keys/{id}"): "administrators",
    ("GET", "/limits"): "administrators",
    ("GET", "/limits/{scope}/{id}"): "administrators",
    ("PUT", "/limits/{scope}/{id}"): "administrators",
    ("DELETE", "/limits/{scope}/{id}"): "administrators",
    ("GET", "/unknowns"): "administrators",
    ("POST", "/unknowns/{hold}"): "administrators",
    ("GET", "/audit"): "administrators",
    ("GET", "/export"): "administrators",
    ("POST", "/import"): "administrators",
    ("POST", "/state/backup"): "administrators",
    ("POST", "/reload"): "administrators",
    ("GET", "/cache"): "administrators",
    ("DELETE", "/cache"): "administrators",
    ("POST", "/cache/verify"): "administrators",
    ("GET", "/users/{id}"): "callers",
    ("GET", "/users"): "administrators",
    ("POST", "/users"): "administrators",
    ("PUT", "/users/{id}"): "administrators",
    ("PATCH", "/users/{id}"): "administrators",
    ("DELETE", "/users/{id}"): "administrators",
    ("PUT", "/users/{id}/tier"): "administrators",
    ("GET", "/organizations"): "administrators",
    ("POST", "/organizations"): "administrators",
    ("GET", "/organizations/{id}"): "administrators",
    ("PUT", "/organizations/{id}"): "administrators",
    ("PATCH", "/organizations/{id}"): "administrators",
    ("DELETE", "/organizations/{id}"): "administrators",
    ("GET", "/workspaces"): "administrators",
    ("POST", "/workspaces"): "administrators",
    ("GET", "/workspaces/{id}"): "administrators",
    ("PUT", "/workspaces/{id}"): "administrators",
    ("PATCH", "/workspaces/{id}"): "administrators",
    ("DELETE", "/workspaces/{id}"): "administrators",
    ("GET", "/health"): "anybody",
    ("HEAD", "/health"): "anybody",
    ("GET", "/ready"): "callers",
    ("HEAD", "/ready"): "callers",
    ("GET", "/metrics"): "callers",
    ("HEAD", "/metrics"): "callers",
    ("GET", "/models"): "callers",
    ("HEAD", "/models"): "callers",
    ("GET", "/models/{id}"): "callers",
    ("HEAD", "/models/{id}"): "callers",
    ("GET", "/openapi.json"): "callers",
    ("HEAD", "/openapi.json"): "callers",
}
"""Every route, and who may use it. A new route needs a line here: somebody must have decided."""

ROUTES = [
    (method, prefix + path, who) for prefix in ("", "/v1") for (method, path), who in MAY.items()
]
ALL: set[Who] = {"anybody", "callers", "administrators"}
CALLS: set[Who] = {"anybody", "callers"}
NOTHING: set[Who] = {"anybody"}
ALLOWED: dict[str, set[Who]] = {
    "administrator": ALL,
    "peer": CALLS,
    "key": CALLS,
    "wrong key": NOTHING,
    "nobody": NOTHING,
    "issued key": CALLS,
    "issued key, socket": CALLS,
    "admin key": ALL,
    "admin key, socket": ALL,
    "revoked key": NOTHING,
    "revoked key, socket": NOTHING,
    "expired key": NOTHING,
    "expired key, socket": NOTHING,
    "forged key": NOTHING,
    "forged key, socket": NOTHING,
}
OWN_ID = {
    "peer": f"uid:{os.getuid()}",
    "key": "app",
    "issued key": "ida",
    "issued key, socket": "ida",
}
"""Whose calls are charged to them, and whose profile they may read."""
PROVEN = {kind for kind, allowed in ALLOWED.items() if allowed != NOTHING}
"""They are known; the others are not even that."""
ISSUED = ("issued key", "admin key", "revoked key", "expired key")


@pytest.fixture(scope="module")
def door(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(DOORS, url=_upstream.url, APP_KEY=KEY) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def sent(door: Daemon) -> dict[str, str]:
    """What each kind of caller sends as its key."""
    ring = door.services.keys._ring
    keys = {"key": KEY, "wrong key": KEY + "x", "forged key": compose("enterprise", b"0" * 24)}
    with door.http() as client:
        for kind in ISSUED:
            asked = {"name": kind, "user_id": "ida", "admin": kind != "issued key"}
            told = client.post("/keys", json=asked).json()
            keys[kind] = told["key"]
            key = ring.get(told["id"])
            assert key is not None
            if kind == "revoked key":
                assert client.delete(f"/keys/{key.id}").status_code == 200
            if kind == "expired key":
                ring.put_in_force(replace(key, expires_ns=key.created_ns + 1))
    return keys


@contextmanager
def calling_as(
    kind: str, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, sent: Mapping[str, str]
) -> Iterator[Any]:
    """A client over TCP, or over the socket, as an administrator's process or not. One that was
    refused an issued key gains nothing by being the administrator's."""
    name, _, over = kind.partition(", ")
    owns = name not in ("peer", "issued key", "admin key")
    monkeypatch.setattr(daemon.services.gate, "_administers", lambda uid, gid: owns)
    socket = over == "socket" or kind in ("administrator", "peer")
    with daemon.http() if socket else daemon.tcp() as client:
        if name in sent:
            client.headers["x-api-key"] = sent[name]
        yield client


def test_somebody_has_decided_of_every_route(door: Daemon) -> None:
    routes = {
        (route.method, route.resource.canonical)
        for route in application(door.generations.current, TABLE).router.routes()
        if route.resource is not None
    }
    catch_all = ("*", "/{path}")
    assert routes - {catch_all} == {(method, path) for method, path, _ in ROUTES}
    assert catch_all in routes


@pytest.mark.parametrize("kind", ALLOWED)
def test_who_may_what(
    kind: str, door: Daemon, monkeypatch: pytest.MonkeyPatch, sent: dict[str, str]
) -> None:
    """An allowed caller may still be told that its body is wrong, but not that it may not call."""
    with calling_as(kind, door, monkeypatch, sent) as client:
        for method, path, who in ROUTES:
            filled = re.sub(r"\{.*?\}", "1", path.replace("{id}", OWN_ID.get(kind, "1")))
            answer = client.request(method, filled, content=b"{" if method == "POST" else None)
            told = (kind, method, path, answer.status_code, answer.text)
            if who in ALLOWED[kind]:
                assert answer.status_code not in (401, 403, 405, 500), told
                assert answer.status_code != 404 or "{" in path, told
            else:
                assert answer.status_code == (403 if kind in PROVEN else 401), told
                assert answer.headers["x-request-id"], told
                if method != "HEAD":
                    code = "forbidden" if kind in PROVEN else "unauthenticated"
                    assert answer.json()["error"]["code"] == code, told


@pytest.mark.parametrize("kind", ALLOWED)
def test_a_browser_may_nothing_but_look_whether_it_lives(
    kind: str, door: Daemon, monkeypatch: pytest.MonkeyPatch, sent: dict[str, str]
) -> None:
    with calling_as(kind, door, monkeypatch, sent) as client:
        for method, path, who in ROUTES:
            if who != "anybody":
                filled = re.sub(r"\{.*?\}", "1", path)
                answer = client.request(method, filled, headers={"Origin": "http://localhost"})
                assert answer.status_code == 403, (method, path)


def test_those_who_try_are_on_record(
    door: Daemon, monkeypatch: pytest.MonkeyPatch, sent: dict[str, str]
) -> None:
    for kind in ("peer", "key"):
        with calling_as(kind, door, monkeypatch, sent) as client:
            answer = client.get("/unknowns", headers={"X-Request-ID": f"try-of-{kind}"})
            assert answer.status_code == 403
    with calling_as("administrator", door, monkeypatch, sent) as client:
        records: list[dict[str, Any]] = []
        while len(records) < 2:
            page = client.get("/audit?limit=100").json()["records"]
            records = [one for one in page if str(one["request_id"]).startswith("try-of-")]
        by_key, by_peer = records[:2]
    assert by_key["actor"] == "app"
    assert by_peer["actor"].startswith("uid:")
    for record in (by_key, by_peer):
        assert (record["subject"], record["action"], record["outcome"]) == (
            "route:/unknowns",
            "access",
            "refused",
        )
        assert "administrators" in record["reason"]


def test_others_budgets_and_summaries_are_not_shown(
    door: Daemon, monkeypatch: pytest.MonkeyPatch, sent: dict[str, str]
) -> None:
    """A name in the query does not help who is no administrator."""
    with calling_as("key", door, monkeypatch, sent) as client:
        assert client.get("/summary?user_id=somebody").json()["user_id"] == "app"
        assert client.get("/summary").json()["user_id"] == "app"
        held = client.post("/reserve", json={"cost": "0.01"}).json()["hold"]
    with calling_as("peer", door, monkeypatch, sent) as client:
        for query in ("", "?scope=user&id=app", "?scope=global"):
            shown = client.get("/budgets" + query).json()["budgets"]
            assert {(one["scope"], one["id"]) for one in shown} <= {("user", who(client))}
        stolen = client.post("/release", json={"hold": held})
        assert (stolen.status_code, stolen.json()["error"]["code"]) == (404, "not_found")
    with calling_as("administrator", door, monkeypatch, sent) as client:
        assert client.get("/summary?user_id=somebody").json()["user_id"] == "somebody"
        assert client.get("/summary").json()["user_id"] is None
        assert client.post("/release", json={"hold": held}).status_code == 200


def who(client: httpx2.Client) -> str:
    """The caller as the daemon sees it."""
    user: str = client.get("/summary").json()["user_id"]
    return user


def test_a_group_that_is_not_there_stops_the_start() -> None:
    from cascaded.daemon import StartError

    text = CASCADE.replace("[access]", '[access]\nadmin_group = "no-such-group"')
    with (
        pytest.raises(StartError, match=r"access\.admin_group: there is no group 'no-such-group'"),
        daemon_with(text, url="http://x"),
    ):
        pass
