"""Who may call what: every route, as every kind of caller."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import httpx2
import pytest

from cascaded.api.server import application
from cascaded.api.table import ROUTES as TABLE
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Upstream

Who = Literal["anybody", "callers", "administrators"]
KEY = "sk-app-1-0123456789"
DOORS = CASCADE.replace(
    "[server]\n", '[server]\ntcp = "127.0.0.1:0"\ntcp_keys = { app = "env:APP_KEY" }\n'
)

MAY: dict[tuple[str, str], Who] = {
    ("POST", "/chat/completions"): "callers",
    ("POST", "/infer"): "callers",
    ("POST", "/check"): "callers",
    ("POST", "/reserve"): "callers",
    ("POST", "/settle"): "callers",
    ("POST", "/release"): "callers",
    ("GET", "/budgets"): "callers",
    ("GET", "/summary"): "callers",
    ("GET", "/tiers"): "callers",
    ("GET", "/tiers/{name}"): "callers",
    ("PUT", "/tiers/{name}"): "administrators",
    ("DELETE", "/tiers/{name}"): "administrators",
    ("GET", "/limits"): "administrators",
    ("GET", "/limits/{scope}/{id}"): "administrators",
    ("PUT", "/limits/{scope}/{id}"): "administrators",
    ("DELETE", "/limits/{scope}/{id}"): "administrators",
    ("GET", "/unknowns"): "administrators",
    ("POST", "/unknowns/{hold}"): "administrators",
    ("GET", "/audit"): "administrators",
    ("POST", "/state/backup"): "administrators",
    ("POST", "/reload"): "administrators",
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
    ("GET", "/openapi.json"): "callers",
    ("HEAD", "/openapi.json"): "callers",
}
"""Every route, and who may use it. A new route needs a line here: somebody must have decided."""

ROUTES = [
    (method, prefix + path, who) for prefix in ("", "/v1") for (method, path), who in MAY.items()
]
ALLOWED: dict[str, set[Who]] = {
    "administrator": {"anybody", "callers", "administrators"},
    "peer": {"anybody", "callers"},
    "key": {"anybody", "callers"},
    "wrong key": {"anybody"},
    "nobody": {"anybody"},
}
OWN_ID = {"peer": f"uid:{os.getuid()}", "key": "app"}
"""Whose calls are charged to them, and whose profile they may read."""
PROVEN = {"administrator", "peer", "key"}
"""They are known; the others are not even that."""


@pytest.fixture(scope="module")
def door(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(DOORS, url=_upstream.url, APP_KEY=KEY) as daemon:
        yield daemon


@contextmanager
def calling_as(kind: str, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client over TCP, or over the socket, as an administrator or not."""
    if kind in ("administrator", "peer"):
        monkeypatch.setattr(
            daemon.services.gate, "_administers", lambda uid, gid: kind == "administrator"
        )
        with daemon.http() as client:
            yield client
        return
    headers = {"key": {"x-api-key": KEY}, "wrong key": {"x-api-key": KEY + "x"}}.get(kind, {})
    with daemon.tcp() as client:
        client.headers.update(headers)
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
def test_who_may_what(kind: str, door: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """An allowed caller may still be told that its body is wrong, but not that it may not call."""
    with calling_as(kind, door, monkeypatch) as client:
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
    kind: str, door: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    with calling_as(kind, door, monkeypatch) as client:
        for method, path, who in ROUTES:
            if who != "anybody":
                filled = re.sub(r"\{.*?\}", "1", path)
                answer = client.request(method, filled, headers={"Origin": "http://localhost"})
                assert answer.status_code == 403, (method, path)


def test_those_who_try_are_on_record(door: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("peer", "key"):
        with calling_as(kind, door, monkeypatch) as client:
            answer = client.get("/unknowns", headers={"X-Request-ID": f"try-of-{kind}"})
            assert answer.status_code == 403
    with calling_as("administrator", door, monkeypatch) as client:
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
    door: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name in the query does not help who is no administrator."""
    with calling_as("key", door, monkeypatch) as client:
        assert client.get("/summary?user_id=somebody").json()["user_id"] == "app"
        assert client.get("/summary").json()["user_id"] == "app"
        held = client.post("/reserve", json={"cost": "0.01"}).json()["hold"]
    with calling_as("peer", door, monkeypatch) as client:
        for query in ("", "?scope=user&id=app", "?scope=global"):
            shown = client.get("/budgets" + query).json()["budgets"]
            assert {(one["scope"], one["id"]) for one in shown} <= {("user", who(client))}
        stolen = client.post("/release", json={"hold": held})
        assert (stolen.status_code, stolen.json()["error"]["code"]) == (404, "not_found")
    with calling_as("administrator", door, monkeypatch) as client:
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
