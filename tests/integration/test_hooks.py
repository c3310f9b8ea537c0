"""Hooks over the socket: real servers that are slow, dead or worse, and the examples."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web

from cascaded.policy.outages import NEVER
from tests.support.daemon import CASCADE, Daemon, daemon_with, upstream_server
from tests.support.process import environ, wait_for
from tests.support.upstream import Says, Upstream, in_thread

EXAMPLES = Path(__file__).parents[2] / "examples" / "hooks"
BUDGET = """
[limits.users.default]
daily_usd = 10
"""
ALICE = {"x-user-id": "alice"}
QUESTION = {"role": "user", "content": "Capital of France?"}
ASKS = {"model": "auto", "messages": [QUESTION], "max_tokens": 100}


class HookServer:
    """Answers each path with what a test sets; keeps what came."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[str, dict[str, Any], dict[str, str]]] = []

    async def handle(self, http: web.Request) -> web.StreamResponse:
        self.calls.append((http.path, await http.json(), dict(http.headers)))
        answer = self.answers.get(http.path)
        if callable(answer):
            response: web.StreamResponse = await answer(http)
            return response
        return web.json_response(answer)

    def asked(self, path: str) -> list[dict[str, Any]]:
        return [body for at, body, _ in self.calls if at == path]


@pytest.fixture
def server() -> Iterator[HookServer]:
    hooks = HookServer()

    @asynccontextmanager
    async def serve(_: asyncio.Event) -> AsyncIterator[HookServer]:
        app = web.Application()
        app.router.add_route("*", "/{at:.*}", hooks.handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        hooks.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield hooks
        finally:
            await runner.cleanup()

    with in_thread(serve):
        yield hooks


@contextmanager
def daemon_of(toml: str, **env: str) -> Iterator[Daemon]:
    with (
        upstream_server(Upstream()) as upstream,
        daemon_with(CASCADE + toml, url=upstream.url, **env) as daemon,
    ):
        upstream.on("cheap", *[Says("The capital of France is Paris.")] * 99)
        upstream.on("strong", *[Says("The capital of France is Paris.")] * 99)
        yield daemon


def infer(daemon: Daemon, user: str = "alice", **fields: Any) -> httpx2.Response:
    with daemon.http() as client:
        return client.post("/infer", json={**ASKS, **fields}, headers={"x-user-id": user})


def check(daemon: Daemon, user: str = "alice", **body: Any) -> Any:
    with daemon.http() as client:
        answer = client.post("/check", json=body or ASKS, headers={"x-user-id": user})
    return answer.json()


def metrics(daemon: Daemon) -> str:
    with daemon.http() as client:
        return client.get("/metrics").text


def asks(url: str, point: str = "budget_check", **settings: object) -> str:
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    return "\n".join([f"[hooks.{point}]", f'url = "{url}/{point}"', *lines, ""])


def test_a_budget_check_warns_degrades_and_blocks(server: HookServer) -> None:
    toml = BUDGET + asks(server.url, secret="env:HOOK_SECRET")
    with daemon_of(toml, HOOK_SECRET="s3cret-of-the-hook") as daemon:
        server.answers["/budget_check"] = {"action": "allow"}
        assert infer(daemon).json()["metadata"]["notices"] == []
        server.answers["/budget_check"] = {"action": "warn", "message": "card\r\nexpires"}
        notices = infer(daemon).json()["metadata"]["notices"]
        assert notices == ["The operator's budget check warns: card expires"]
        assert "warns" in check(daemon)["notices"][0]
        server.answers["/budget_check"] = {"action": "degrade", "message": "unpaid"}
        assert check(daemon)["models"] == ["cheap"]
        degraded = infer(daemon)
        assert "only cheaper models: unpaid" in str(degraded.json()["metadata"]["notices"])
        refused = infer(daemon, model="strong")
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "budget_exceeded")
        server.answers["/budget_check"] = {"action": "block", "message": "no subscription"}
        refused = infer(daemon)
        assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
        assert "no subscription" in refused.json()["error"]["message"]
        told = check(daemon)
        assert (told["allowed"], "no subscription" in told["reason"]["message"]) == (False, True)
        assert check(daemon, cost="0.01")["allowed"] is False
        with daemon.http() as client:
            reserved = client.post("/reserve", json={"cost": "0.01"}, headers=ALICE)
            assert reserved.status_code == 429
        assert daemon.spend["held"] == 0
    path, body, headers = server.calls[0]
    assert (path, body["hook"]) == ("/budget_check", "on_budget_check")
    context = body["context"]
    assert (context["user_id"], context["budget_limit"]) == ("alice", 10)
    assert 0 < context["current_cost"] < 1
    assert headers["X-Cascaded-Signature"].startswith("t=")
    assert "s3cret" not in str(server.calls)


async def slow(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return web.json_response({"action": "block"})


async def redirecting(http: web.Request) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": "/elsewhere"})


async def huge(http: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(http)
    for _ in range(64):
        await response.write(b" " * 65_536)
    return response


async def garbage(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"\xff\x00{]" + b"[" * 5_000, content_type="application/json")


async def unwell(_: web.Request) -> web.StreamResponse:
    return web.json_response({"action": "block"}, status=500)


async def cut(http: web.Request) -> web.StreamResponse:
    assert http.transport is not None
    http.transport.abort()
    return web.Response()


BAD: dict[str, tuple[Any, str]] = {
    "slow": (slow, "late"),
    "redirecting": (redirecting, "nonsense"),
    "huge": (huge, "nonsense"),
    "garbage": (garbage, "nonsense"),
    "of another form": ([1, 2, 3], "nonsense"),
    "unwell": (unwell, "nonsense"),
    "cut off": (cut, "failed"),
}


def test_a_bad_server_has_the_stated_default(
    server: HookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cascaded.pipeline.hooks.OUTAGE", NEVER)  # it is asked each time
    server.answers["/elsewhere"] = {"action": "block"}
    toml = BUDGET + asks(server.url, deadline_ms=150)
    closed = asks(server.url, deadline_ms=150, on_failure="block")
    with daemon_of(toml) as daemon:
        seen: dict[str, int] = {}
        for answer, outcome in BAD.values():
            server.answers["/budget_check"] = answer
            assert infer(daemon).status_code == 200
            seen[outcome] = seen.get(outcome, 0) + 1
            labels = f'kind="http",outcome="{outcome}",point="budget_check"'
            line = f"cascaded_hooks_total{{{labels}}} {seen[outcome]:.1f}"
            assert line in metrics(daemon)
        assert daemon.log_lines().count('"hook_failed"') == 1
        daemon.toml = daemon.toml.replace(asks(server.url, deadline_ms=150), closed)
        assert daemon.reload().status_code == 200
        for answer, _ in BAD.values():
            server.answers["/budget_check"] = answer
            refused = infer(daemon)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "hook_unavailable"
        server.answers["/budget_check"] = {"action": "allow"}
        assert infer(daemon).status_code == 200
        assert "hook_recovered" in daemon.log_lines()
        assert daemon.spend["held"] == 0
    assert server.asked("/elsewhere") == []


def test_a_dead_server_and_no_hooks_at_all() -> None:
    with daemon_of(asks("http://127.0.0.1:9")) as daemon:
        stages = len(daemon.services.pipeline.stages)
        assert infer(daemon).status_code == 200
        daemon.toml = daemon.toml.replace("[hooks.budget_check]", "[hooks]").replace(
            'url = "http://127.0.0.1:9/budget_check"', ""
        )
        assert daemon.reload().status_code == 200
        assert len(daemon.services.pipeline.stages) == stages - 1
        assert infer(daemon).status_code == 200


def test_a_filter_takes_models_away_and_its_answers_hold(server: HookServer) -> None:
    with daemon_of(asks(server.url, "model_filter", cache_s=60)) as daemon:
        server.answers["/model_filter"] = {"models": ["strong", "gpt-9"]}
        for _ in range(3):
            answer = infer(daemon).json()["metadata"]
            assert answer["model_used"] == "strong"
            assert "leaves out cheap" in answer["notices"][0]
        assert server.asked("/model_filter")[0]["models"] == ["cheap", "strong"]
        assert len(server.calls) == 1
        server.answers["/model_filter"] = {"models": []}
        assert infer(daemon, user="bob").status_code == 403
        assert "ignored" in daemon.log_lines()


def test_a_warning_is_told_off_the_calls_way(server: HookServer) -> None:
    toml = BUDGET.replace("10", '"0.00001"\nenforcement = "warn"')
    with daemon_of(toml + asks(server.url, "budget_warning")) as daemon:
        server.answers["/budget_warning"] = slow
        for _ in range(4):
            assert infer(daemon).status_code == 200
        wait_for(lambda: server.calls)
    told = [body["context"]["threshold_pct"] for body in server.asked("/budget_warning")]
    assert told
    assert len(told) == len(set(told))
    assert server.asked("/budget_warning")[0]["context"]["user_id"] == "alice"


# --- The examples --------------------------------------------------------------------------------


def listens(port: int) -> bool:
    with socket.socket() as dialled:
        return dialled.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def example(script: str, *arguments: str, **env: str) -> Iterator[str]:
    """One of the servers, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(EXAMPLES / script), *arguments, str(port)]
    process = subprocess.Popen(command, env=environ(**env))
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: listens(port), 10)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def test_the_stripe_example(tmp_path: Path) -> None:
    customers = tmp_path / "customers.json"
    known = {"alice": "active", "bob": "past_due", "carol": "canceled", "dan": "trialing"}
    customers.write_text(json.dumps({user: {"status": known[user]} for user in known}))
    with example("stripe_check.py", str(customers), HOOK_SECRET="a-long-secret") as url:
        toml = BUDGET + asks(url, secret="env:HOOK_SECRET", deadline_ms=5_000, on_failure="block")
        with daemon_of(toml, HOOK_SECRET="a-long-secret") as daemon:
            assert check(daemon, "alice")["models"] == ["cheap", "strong"]
            assert check(daemon, "bob")["models"] == ["cheap"]
            assert "has ended" in check(daemon, "carol")["reason"]["message"]
            assert "trial" in check(daemon, "dan")["notices"][0]
            assert "no subscription" in check(daemon, "eve")["reason"]["message"]
        with daemon_of(toml, HOOK_SECRET="another-secret") as daemon:
            assert infer(daemon).status_code == 503  # 401: the signature is wrong


def test_the_firebase_example(tmp_path: Path) -> None:
    store = tmp_path / "store.json"
    store.write_text(json.dumps({"users": {"bob": {"disabled": True}}}))
    with example("firebase_functions.py", str(store)) as url:
        toml = BUDGET.replace("10", '"0.00001"\nenforcement = "warn"')
        toml += f'[hooks.budget_check]\nurl = "{url}/check"\ndeadline_ms = 5000\n'
        toml += f'[hooks.budget_warning]\nurl = "{url}/warned"\n'
        with daemon_of(toml) as daemon:
            assert infer(daemon, "bob").status_code == 429
            for _ in range(3):
                assert infer(daemon).status_code == 200
        budget = json.loads(store.read_text())["users"]["alice"]["budget"]
        assert budget["reached_pct"] >= 70


def test_the_auth0_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cascaded_auth0_roles-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: cascaded-auth0-roles\nVersion: 1\n"
    )
    (info / "entry_points.txt").write_text(
        "[cascaded.hooks]\nauth0-roles = auth0_roles:Auth0Roles\n"
    )
    assert "auth0_roles:Auth0Roles" in (EXAMPLES / "auth0" / "pyproject.toml").read_text()
    roles = tmp_path / "roles.json"
    roles.write_text('{"alice": ["engineer"]}')
    monkeypatch.setenv("AUTH0_ROLES", os.fspath(roles))
    monkeypatch.syspath_prepend(str(EXAMPLES / "auth0"))
    monkeypatch.syspath_prepend(str(tmp_path))
    toml = '[hooks]\nplugins = ["auth0-roles"]\ndeadline_ms = 5000\n'
    with daemon_of(toml) as daemon:
        assert check(daemon)["models"] == ["cheap", "strong"]
        assert check(daemon, "bob")["models"] == ["cheap"]
        assert infer(daemon, "bob", model="strong").status_code == 403
        roles.unlink()
        assert check(daemon, "bob")["models"] == ["cheap", "strong"]  # on_failure = "allow"
        daemon.toml = daemon.toml.replace("auth0-roles", "no-such-plugin")
        refused = daemon.reload()
        assert refused.status_code == 422
        assert "no installed package offers" in refused.text
