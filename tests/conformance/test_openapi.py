"""The OpenAPI document against a real daemon: no 5xx, no answer that is not described."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cascaded.api.errors import ERRORS
from cascaded.api.openapi import document
from cascaded.api.routes import Route
from cascaded.api.table import ROUTES
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Upstream

EXAMPLES = int(os.environ.get("CASCADED_OPENAPI_EXAMPLES", "12"))
"""Of each route. `make openapi` takes more."""
WRITES_WHERE_IT_IS_TOLD = {"/state/backup"}
"""Routes that a made-up body must not reach."""
NOT_OF_A_ROUTE = {"method_not_allowed", "unsupported_protocol"}
"""Of none, and of all."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(document(ROUTES))
TRIED = [route for route in ROUTES if route.path not in WRITES_WHERE_IT_IS_TOLD]


@contextmanager
def on_tcp(path: str) -> Iterator[str]:
    """A loopback port that leads to a Unix socket, for what cannot dial one."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=_lead, args=(door, path), daemon=True).start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}"


def _lead(door: socket.socket, path: str) -> None:
    while True:
        try:
            caller, _ = door.accept()
        except OSError:
            return
        daemon = socket.socket(socket.AF_UNIX)
        daemon.connect(path)
        for one, other in ((caller, daemon), (daemon, caller)):
            threading.Thread(target=_pour, args=(one, other), daemon=True).start()


def _pour(one: socket.socket, other: socket.socket) -> None:
    with closing(one):
        try:
            while data := one.recv(65_536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            return


@pytest.fixture(scope="module")
def daemon(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(CASCADE, url=_upstream.url) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def base_url(daemon: Daemon) -> Iterator[str]:
    with on_tcp(daemon.socket) as url:
        yield url


@pytest.mark.parametrize("route", TRIED, ids=lambda route: f"{route.method} {route.path}")
def test_every_answer_is_described(route: Route, base_url: str) -> None:
    operation = SCHEMA[route.path][route.method]
    health = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

    @settings(max_examples=EXAMPLES, suppress_health_check=health, database=None)
    @given(st.data())
    def tried(data: st.DataObject) -> None:
        modes = [GenerationMode.POSITIVE] * 2
        if route.body or route.parameters:
            modes.append(GenerationMode.NEGATIVE)
        mode = data.draw(st.sampled_from(modes))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        case.call_and_validate(base_url=base_url, checks=CHECKS, timeout=10)

    tried()


MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
WHOM = {"user_id": "alice", "metadata": {"feature": "x"}}
GOOD: dict[str, list[dict[str, Any]]] = {
    "/chat/completions": [{"model": "auto", "messages": MESSAGES}],
    "/completions": [{"model": "cheap", "prompt": ["Once", "Twice"], "n": 2}],
    "/embeddings": [{"model": "cheap", "input": "Once"}, {"model": "cheap", "input": [[1, 2]]}],
    "/infer": [
        {"query": "Why?", "max_cost": "0.01", **WHOM},
        {"messages": MESSAGES, "model": "strong", "max_tokens": 5, "options": {"temperature": 0}},
    ],
    "/check": [{"query": "Why?"}, {"cost": 5}, {"cost": "10000"}],
    "/reserve": [{"cost": "0.25", "tokens": 10, **WHOM}],
}


SET: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("/limits/{scope}/{id}", {"scope": "user", "id": "alice"}, {"daily_usd": 5}),
    ("/users/{id}", {"id": "zoe"}, {"user_id": "zoe", "budget_overrides": {"daily": 5}}),
    ("/organizations/{id}", {"id": "acme"}, {"organization_id": "acme"}),
    ("/workspaces/{id}", {"id": "lab"}, {"workspace_id": "lab", "organization_id": "acme"}),
    ("/tiers/{name}", {"name": "gold"}, {"preset": "pro", "requests_per_minute": 5}),
]
"""What can be set, looked at, and taken away."""


def test_good_calls_and_what_follows_from_them(daemon: Daemon, base_url: str) -> None:
    holds = []
    for path, bodies in GOOD.items():
        for body in bodies:
            answer = valid(path, "POST", base_url, body=body)
            assert answer.status_code == 200, answer.text
            holds += [answer.json()["hold"]] if path == "/reserve" else []
    holds.append(valid("/reserve", "POST", base_url, body={"cost": 1}).json()["hold"])
    for path in ("/budgets", "/summary", "/unknowns", "/audit", "/models"):
        assert valid(path, "GET", base_url).status_code == 200
    first, second = holds
    valid("/settle", "POST", base_url, body={"hold": first})
    corrected = valid(
        "/unknowns/{hold}", "POST", base_url, body={"cost": 0}, path_parameters={"hold": first}
    )
    assert corrected.status_code == 200, corrected.text
    assert valid("/release", "POST", base_url, body={"hold": second}).json()["state"] == "released"
    for path, place, body in SET:
        for method in ("PUT", "GET", "DELETE"):
            given = {"body": body} if method == "PUT" else {}
            answer = valid(path, method, base_url, path_parameters=place, **given)
            assert answer.status_code == 200, answer.text
        gone = valid(path, "DELETE", base_url, path_parameters=place)
        assert gone.status_code == 404, gone.text
    assert valid("/tiers", "GET", base_url).json()["tiers"]
    many = valid("/users", "POST", base_url, body={"users": [{"user_id": "a"}, {"user_id": "b"}]})
    assert many.json()["created"] == 2
    assert valid("/users", "POST", base_url, body={"user_id": "a"}).status_code == 409
    assert len(valid("/users", "GET", base_url).json()["users"]) == 2
    backup = {"dir": str(daemon.folder / "backup")}
    assert valid("/state/backup", "POST", base_url, body=backup).status_code == 200
    assert valid("/state/backup", "POST", base_url, body=backup).status_code == 400


def valid(path: str, method: str, base_url: str, **given: Any) -> Any:
    """An answer that the document describes."""
    case = SCHEMA[path][method].Case(**given)
    answer = case.call(base_url=base_url, timeout=10)
    case.validate_response(answer, checks=CHECKS)
    return answer


def test_the_daemon_serves_it(daemon: Daemon) -> None:
    with daemon.http() as http:
        for path in ("/openapi.json", "/v1/openapi.json"):
            answer = http.get(path)
            assert answer.headers["content-type"] == "application/json"
            assert answer.content == msgspec.json.encode(document(ROUTES))


def test_every_error_belongs_to_a_route() -> None:
    told = {code for route in ROUTES for code in route.errors}
    assert told | NOT_OF_A_ROUTE == set(ERRORS)


def test_every_route_says_all() -> None:
    written: dict[str, Any] = document(ROUTES)
    for route in ROUTES:
        operation = written["paths"][route.path][route.method.lower()]
        assert operation["summary"]
        assert "**Who:**" in operation["description"]
        named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert named == {part[1:-1] for part in route.path.split("/") if part.startswith("{")}
        assert ("requestBody" in operation) == (route.body is not None)
        assert (route.who == "anyone") or "403" in operation["responses"]
    names = [one["operationId"] for path in written["paths"].values() for one in path.values()]
    assert len(set(names)) == len(names)


def test_no_second_table() -> None:
    """Routes are added in one place; LiteLLM's worker is a server of its own."""
    package = Path(document.__code__.co_filename).parents[1]
    adds = [path.name for path in package.rglob("*.py") if "router.add_" in path.read_text()]
    assert sorted(adds) == ["server.py", "worker.py"]
