"""Users, organisations and workspaces over the real socket: how they are kept, who may, and that
calls are bound by them from the next one on."""

import json
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

import cascaded
from cascaded.cli import cascaded as cascaded_command
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Says, Upstream

ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
GOOD = "The capital of France is Paris."
CONFIG = (
    CASCADE.replace('[models.cheap]\nprovider = "fake"', '[models.cheap]\nprovider = "near"')
    + """
[providers.near]
kind = "openai_compatible"
base_url = "{url}/v1"
api_key = "env:FAKE_KEY"
region = "eu-west-1"
logprobs = true

[tiers.slow]
requests_per_minute = 1
burst_window_seconds = 0
"""
)


@pytest.fixture(scope="module")
def _kept(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(CONFIG, url=_upstream.url) as daemon:
        yield daemon


@pytest.fixture
def kept(_kept: Daemon, upstream: Upstream) -> Iterator[Daemon]:
    upstream.on("strong", Says(GOOD))
    upstream.on("cheap", Says(GOOD))
    yield _kept
    assert _kept.spend["held"] == 0


@pytest.fixture
def http(kept: Daemon) -> Iterator[httpx2.Client]:
    with kept.http() as client:
        yield client


def ask(http: httpx2.Client, user: str, path: str = "/infer", **more: Any) -> Any:
    body = {"messages": ASK, "max_tokens": 50, **more}
    return http.post(path, json=body, headers={"X-User-ID": user})


def test_a_user_is_kept_changed_and_forgotten(http: httpx2.Client) -> None:
    made = http.post(
        "/users", json={"user_id": "ann", "tier": "pro", "budget_overrides": {"daily": 0.1}}
    )
    assert made.status_code == 200, made.text
    assert '"daily":0.1,' in made.text, "an exact number"
    version = made.json()["version"]
    assert made.headers["etag"] == f'"{version}"'
    got = http.get("/users/ann").json()
    assert got["effective_budget"]["weekly"] == 50
    assert got["effective_rate_limits"]["requests_per_hour"] == 1000
    assert http.put("/users/ann", json=got["user"]).status_code == 428
    stale = http.put("/users/ann", json=got["user"], headers={"If-Match": f'"{version + 9}"'})
    assert stale.status_code == 412
    assert stale.json()["error"]["code"] == "version_conflict"
    put = http.put("/users/ann", json={"tags": ["x"]}, headers={"If-Match": f'"{version}"'})
    assert put.json()["user"]["tier"] is None
    patched = http.patch(
        "/users/ann",
        content='{"budget_overrides": {"daily": 0.123456789, "total": 7}, "tags": null}',
    )
    assert '"daily":0.123456789,' in patched.text
    assert patched.json()["user"]["tags"] == []
    assert http.patch("/users/ann", json={"budget_overrides": {"total": None}}).json()["user"][
        "budget_overrides"
    ]["daily"] == pytest.approx(0.123456789)
    assert http.put("/users/ann/tier", json={"tier": "free"}).json()["user"]["tier"] == "free"
    assert http.delete("/users/ann").json()["user"]["user_id"] == "ann"
    for gone in (
        http.get("/users/ann"),
        http.patch("/users/ann", json={}),
        http.delete("/users/ann"),
        http.put("/users/ann/tier", json={"tier": "pro"}),
    ):
        assert gone.status_code == 404


def test_organisations_and_workspaces(http: httpx2.Client) -> None:
    for names, name in (("organizations", "organization"), ("workspaces", "workspace")):
        made = http.post(f"/{names}", json={f"{name}_id": "a/b c"})
        assert made.json()[name][f"{name}_id"] == "a/b c"
        assert http.post(f"/{names}", json={f"{name}_id": "a/b c"}).status_code == 409
        path = f"/{names}/a%2Fb%20c"
        assert http.get(path).json() == made.json()
        assert http.patch(path, json={f"{name}_name": "AB"}).json()[name][f"{name}_name"] == "AB"
        assert http.put(path, json={}, headers={"If-Match": "*"}).status_code == 200
        other = http.patch(path, json={f"{name}_id": "z"})
        assert (other.status_code, "id cannot be changed" in other.text) == (400, True)
        [row] = http.get(f"/{names}").json()[f"{name}s"]
        assert row[name][f"{name}_id"] == "a/b c"
        assert http.delete(path).status_code == 200
        assert http.get(f"/{names}").json() == {f"{name}s": [], "after": None}


def test_many_at_once_all_or_none_and_page_by_page(http: httpx2.Client) -> None:
    users: list[Any] = [{"user_id": f"many-{n:04}", "tier": "pro"} for n in range(1000)]
    refused = http.post("/users", json={"users": [*users, {"user_id": "x", "tier": "gold"}]})
    assert refused.status_code == 400
    assert refused.json()["error"]["rows"] == [
        {"row": 1000, "message": "there is no tier 'gold'; there are: free, pro, slow"}
    ]
    refused = http.post("/users", json={"users": [*users, {"user_id": 7}, 8]})
    assert [row["row"] for row in refused.json()["error"]["rows"]] == [1000, 1001]
    assert http.get("/users/many-0000").status_code == 404
    made = http.post("/users", json={"users": users})
    assert made.json()["created"] == 1000
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = http.get("/users", params={"limit": 300, **after}).json()
        found += [row["user"]["user_id"] for row in page["users"]]
        if page["after"] is None:
            break
        after = {"after": page["after"]}
    assert [user["user_id"] for user in users] == [id for id in found if id.startswith("many-")]
    assert "row 0: 'many-0000' is there already" in http.post(
        "/users", json={"users": users}
    ).text.replace("Row", "row")


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"),
    [
        ("POST", "/users", b"[]", {}),
        ("POST", "/users", b"{", {}),
        ("POST", "/users", b'{"user_id": "\xff"}', {}),
        ("POST", "/users", b'{"users": {}}', {}),
        ("POST", "/users", b'{"users": [], "user_id": "x"}', {}),
        ("POST", "/users", b"[" * 100_000, {}),
        ("POST", "/users", b'{"user_id": "bad", "metadata": {"a": {}}}', {}),
        ("POST", "/users", b'{"user_id": "bad", "budget_overrides": {"daily": -1}}', {}),
        ("POST", "/users", b'{"user_id": "bad", "budget_overrides": {"daily": 1e99999}}', {}),
        ("POST", "/users", b'{"user_id": "bad", "budget_overrides": {"daily": "NaN"}}', {}),
        ("POST", "/users", b'{"user_id": "bad\\u0000"}', {}),
        ("POST", "/users", b'{"user_id": "bad", "tier": "gold"}', {}),
        ("PUT", "/users/bad", b'{"user_id": "worse"}', {}),
        ("PUT", "/users/bad", b"{}", {"If-Match": "x"}),
        ("PUT", "/users/bad", b"{}", {"If-None-Match": '"3"'}),
        ("PATCH", "/users/bad", b'{"a":' * 2000 + b"1" + b"}" * 2000, {}),
        ("PUT", "/users/bad/tier", b"{}", {}),
        ("GET", "/users?limit=0", b"", {}),
        ("GET", "/users?limit=x", b"", {}),
        ("GET", "/users?after=" + "x" * 300, b"", {}),
    ],
)
def test_bad_input_is_told_and_changes_nothing(
    http: httpx2.Client, method: str, path: str, body: bytes, headers: dict[str, str]
) -> None:
    answer = http.request(method, path, content=body, headers=headers)
    expected = 404 if method == "PATCH" else 400
    assert answer.status_code in (expected, 400), answer.text
    assert answer.json()["error"]["message"]
    assert http.get("/users/bad").status_code == 404


def test_what_is_changed_is_put_on_record(http: httpx2.Client, kept: Daemon) -> None:
    http.post("/users", json={"user_id": "recorded"})
    http.put("/users/recorded/tier", json={"tier": "pro"})
    kept.services.audit.flushed().result(10)  # type: ignore[attr-defined]
    records = http.get("/audit", params={"limit": 50}).json()["records"]
    found = [record for record in records if record["subject"] == "user:recorded"]
    changed, made = found
    assert made["details"]["before"] is None
    assert (changed["details"]["before"]["tier"], changed["details"]["after"]["tier"]) == (
        None,
        "pro",
    )
    assert (made["action"], made["outcome"]) == ("change", "changed")
    assert (made["reason"], changed["reason"]) == ("POST", "PUT")


def test_ones_own_profile_and_nobody_elses(
    http: httpx2.Client, kept: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = f"uid:{os.getuid()}"
    http.post("/users", json={"user_id": me})
    http.post("/users", json={"user_id": "secret"})
    monkeypatch.setattr(kept.services.gate, "_administers", lambda uid, gid: False)
    with kept.http() as peer:
        assert peer.get(f"/users/{me}").json()["user"]["user_id"] == me
        for other in ("secret", "nobody"):
            assert peer.get(f"/users/{other}").status_code == 403
        assert peer.patch(f"/users/{me}", json={"tier": "pro"}).status_code == 403
        assert peer.get("/users").status_code == 403
    http.delete(f"/users/{me}")


class TestCalls:
    def test_a_stored_tier_stands_above_a_claimed_one(self, http: httpx2.Client) -> None:
        http.post("/users", json={"user_id": "tiered", "tier": "free"})
        claimed = {"X-User-ID": "tiered", "X-User-Tier": "pro"}
        body = {"model": "auto", "messages": ASK, "stream": True}
        refused = http.post("/v1/chat/completions", json=body, headers=claimed)
        assert refused.json()["error"]["code"] == "feature_forbidden"
        told = http.post("/infer", json={"messages": ASK}, headers=claimed).json()["metadata"]
        assert told["user_tier"] == "free"
        http.put("/users/tiered/tier", json={"tier": "pro"})
        told = http.post("/infer", json={"messages": ASK}, headers=claimed).json()["metadata"]
        assert told["user_tier"] == "pro"

    def test_budgets_act_from_the_next_call_on(self, http: httpx2.Client) -> None:
        assert ask(http, "spender").status_code == 200
        http.post("/users", json={"user_id": "spender", "budget_overrides": {"daily": "0.000001"}})
        refused = ask(http, "spender")
        assert refused.status_code == 429
        assert refused.json()["error"]["budget_limit"] == pytest.approx(0.000001)
        http.patch("/users/spender", json={"budget_overrides": {"daily": 1}})
        told = ask(http, "spender").json()["metadata"]
        left = told["user_budget_remaining"]
        assert 0.99 < left < 1
        http.delete("/users/spender")
        assert ask(http, "spender").json()["metadata"]["user_budget_remaining"] is None

    def test_rates_are_merged_over_the_tier(self, http: httpx2.Client) -> None:
        http.post("/users", json={"user_id": "rated", "tier": "slow"})
        assert [ask(http, "rated").status_code for _ in range(2)] == [200, 429]
        http.patch("/users/rated", json={"rate_limit_overrides": {"requests_per_minute": 100}})
        assert ask(http, "rated").status_code == 200

    def test_an_organisations_budget_is_shared(self, http: httpx2.Client) -> None:
        http.post(
            "/organizations",
            json={"organization_id": "acme", "shared_budget": {"total": 0.000001}},
        )
        http.post("/workspaces", json={"workspace_id": "lab", "organization_id": "acme"})
        users = [
            {"user_id": "org-1", "organization": {"organization_id": "acme"}},
            {"user_id": "org-2", "workspace": {"workspace_id": "lab"}},
        ]
        assert http.post("/users", json={"users": users}).status_code == 200
        refusals = [ask(http, user) for user in ("org-1", "org-2")]
        refusals.append(
            http.post(
                "/infer",
                json={"messages": ASK},
                headers={"X-User-ID": "org-3", "X-Organization-ID": "acme"},
            )
        )
        for refused in refusals:
            assert refused.status_code == 429, refused.text
            assert refused.json()["error"]["scope"] == "organization"
        http.patch("/organizations/acme", json={"shared_budget": {"total": 1}})
        assert ask(http, "org-2").status_code == 200
        http.delete("/organizations/acme")
        assert ask(http, "org-1").status_code == 200

    def test_models(self, http: httpx2.Client) -> None:
        http.post("/users", json={"user_id": "picky", "blocked_models": ["cheap"]})
        assert ask(http, "picky").json()["metadata"]["model_used"] == "strong"
        assert ask(http, "picky", model="cheap").json()["error"]["code"] == "model_forbidden"
        check = ask(http, "picky", "/check").json()
        assert check["models"] == ["strong"]
        http.put("/users/picky", json={"preferred_models": ["strong"]}, headers={"If-Match": "*"})
        assert ask(http, "picky").json()["metadata"]["model_used"] == "strong"
        assert ask(http, "picky", model="cheap").json()["metadata"]["model_used"] == "cheap"

    def test_data_stays_in_its_region(self, http: httpx2.Client) -> None:
        http.post(
            "/organizations",
            json={"organization_id": "eu-org", "data_residency_requirements": ["eu"]},
        )
        http.post("/users", json={"user_id": "eu", "organization": {"organization_id": "eu-org"}})
        told = ask(http, "eu").json()["metadata"]
        assert (told["model_used"], told["attempts"][0]["provider"]) == ("cheap", "near")
        refused = ask(http, "eu", model="strong")
        assert refused.json()["error"]["code"] == "model_forbidden"
        claimed = {"X-User-ID": "eu-2", "X-Organization-ID": "eu-org"}
        body = {"messages": ASK, "model": "strong"}
        assert http.post("/infer", json=body, headers=claimed).status_code == 403

    def test_quality_and_cost(self, http: httpx2.Client, upstream: Upstream) -> None:
        upstream.on("cheap", Says("The capital of France is Paris.", logprob=-0.7))
        assert ask(http, "easy").json()["metadata"]["model_used"] == "cheap"
        http.post(
            "/users",
            json={
                "user_id": "demanding",
                "quality_preferences": {"cost_sensitivity": "quality_first"},
            },
        )
        assert ask(http, "demanding").json()["metadata"]["model_used"] == "strong"
        http.post(
            "/users",
            json={
                "user_id": "thrifty",
                "quality_preferences": {"max_cost_per_query": "0.000001"},
            },
        )
        assert ask(http, "thrifty").json()["error"]["code"] == "max_cost_exceeded"
        amount = {"cost": "0.01", "user_id": "thrifty"}
        assert http.post("/check", json=amount).json()["allowed"] is False
        assert http.post("/reserve", json=amount).status_code == 400
        held = http.post("/reserve", json={"cost": "0.000001", "user_id": "thrifty"}).json()
        assert http.post("/release", json={"hold": held["hold"]}).status_code == 200


def test_stored_users_are_known_where_unknown_ones_are_refused(upstream: Upstream) -> None:
    upstream.on("cheap", Says(GOOD))
    config = CASCADE.replace("[access]\n", '[access]\nunknown_user = "refuse"\n')
    with daemon_with(config, url=upstream.url) as daemon, daemon.http() as http:
        assert ask(http, "stranger").status_code == 403
        http.post("/users", json={"user_id": "stranger"})
        assert ask(http, "stranger").status_code == 200
        http.delete("/users/stranger")
        assert ask(http, "stranger").status_code == 403


def test_too_many_limits_refuse_and_say_so(upstream: Upstream) -> None:
    rates = {f"{unit}_per_{window}": 9 for unit in ("requests", "tokens")
             for window in ("minute", "hour", "day")}  # fmt: skip
    config = CASCADE + "[limits.global]\n" + "\n".join(f"{name} = 9" for name in rates)
    with daemon_with(config, url=upstream.url) as daemon, daemon.http() as http:
        http.post("/organizations", json={"organization_id": "o", "shared_rate_limits": rates})
        user = {"user_id": "u", "organization": {"organization_id": "o"}}
        http.post("/users", json={**user, "rate_limit_overrides": rates})
        refused = ask(http, "u")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "limits_unusable")
        assert json.loads(refused.text)["error"]["message"].startswith("0 budgets and 21 rates")


class TestClientAndCommands:
    def test_the_client(self, kept: Daemon) -> None:
        with cascaded.Client(kept.socket) as client:
            bob = cascaded.UserProfile(
                user_id="bob/1",
                tier="pro",
                budget_overrides=cascaded.BudgetConfig(daily=Decimal("0.000000001")),
            )
            made = client.create_users([bob])
            assert made.created == 1
            stored = client.user("bob/1")
            assert (stored.user, stored.version) == (bob, made.versions[0])
            assert stored.effective_budget is not None
            assert stored.effective_budget.weekly == 50
            moved = client.set_tier("bob/1", "free", version=stored.version)
            with pytest.raises(cascaded.APIError) as caught:
                client.put_user(bob, version=stored.version)
            assert (caught.value.status, caught.value.code) == (412, "version_conflict")
            assert client.put_user(bob, version=moved.version).user == bob
            assert client.change_user("bob/1", {"tags": ["x"], "tier": None}).user.tags == ("x",)
            assert [one.user.id for one in client.users(limit=1, after="bob").users] == ["bob/1"]
            with pytest.raises(cascaded.APIError) as caught:
                client.create_users([bob])
            assert caught.value.details["rows"] == [
                {"row": 0, "message": "'bob/1' is there already"}
            ]
            assert client.delete_user("bob/1").user.tags == ("x",)
            acme = cascaded.OrganizationConfig(organization_id="c-acme", data_region="eu")
            assert client.put_organization(acme).organization == acme
            lab = cascaded.WorkspaceConfig(workspace_id="c-lab", organization_id="c-acme")
            assert client.put_workspace(lab).workspace == lab
            assert acme in [one.organization for one in client.organizations().organizations]
            assert lab in [one.workspace for one in client.workspaces().workspaces]
            assert client.delete_organization("c-acme").organization == acme
            assert client.delete_workspace("c-lab").workspace == lab

    def test_the_commands(self, kept: Daemon, tmp_path: Path) -> None:
        def users(*words: str, code: int = 0) -> str:
            done = CliRunner().invoke(cascaded_command, ["users", *words, "--socket", kept.socket])
            assert done.exit_code == code, (done.output, done.exception)
            return done.output

        created = users("create", "cli-1", "--tier", "pro", "--daily", "2.50", "--workspace", "w")
        assert created == "cli-1 is stored\n"
        shown = json.loads(users("show", "cli-1"))
        assert (shown["user"]["tier"], shown["user"]["budget_overrides"]["daily"]) == ("pro", "2.5")
        assert users("set-tier", "cli-1", "free") == "cli-1 is on tier free\n"
        assert "cli-1  free" in users("list", "--after", "cli-0", "--limit", "1")
        assert json.loads(users("list", "--json", "--limit", "1"))["users"]
        whole, lines = tmp_path / "whole.json", tmp_path / "lines.jsonl"
        whole.write_text('[{"user_id": "cli-2", "budget_overrides": {"daily": 0.123456789}}]')
        lines.write_text('{"user_id": "cli-3"}\n{"user_id": "cli-4"}\n')
        assert users("import", str(whole)) == "1 users are stored\n"
        assert json.loads(users("import", str(lines), "--json"))["created"] == 2
        stored = json.loads(users("show", "cli-2"))["user"]
        assert stored["budget_overrides"]["daily"] == "0.123456789"
        for text, code, why in (
            ("[", 1, "is not JSON"),
            ("[7]", 2, "row 0: a profile is a JSON object"),
            ('{"user_id": "x"}\n{"user_id": ""}', 2, "row 1: "),
        ):
            lines.write_text(text)
            assert why in users("import", str(lines), code=code)
        assert "is below zero" in users("create", "x", "--daily=-1", code=2)
        for user in ("cli-1", "cli-2", "cli-3"):
            assert json.loads(users("delete", user, "--json"))["user"]["user_id"] == user
        assert '"user_id": "cli-4"' in users("delete", "cli-4")
        assert "cli-1" in users("summary", "cli-1")
