"""Issued keys over the real doors: what they open, for whom, and that they stop at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascaded.policy.access.keys import SECRET_BYTES, compose
from cascaded.types.errors import StoreError
from tests.integration.test_access import DOORS, KEY
from tests.support.daemon import Daemon, daemon_with
from tests.support.process import serving
from tests.support.upstream import Says, Upstream

FORWARDING = DOORS.replace("logprobs = true", "logprobs = true\nforward_caller_key = true")
ASK = {"model": "strong", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}


@pytest.fixture(scope="module")
def _door(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(FORWARDING, url=_upstream.url, APP_KEY=KEY) as daemon:
        yield daemon


@pytest.fixture
def door(_door: Daemon, upstream: Upstream) -> Daemon:
    upstream.on("strong", Says("The capital of France is Paris."))
    return _door


@pytest.fixture
def admin(door: Daemon) -> Iterator[httpx2.Client]:
    with door.http() as client:
        yield client


def issue(client: httpx2.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/keys", json={"name": "app", **fields})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@contextmanager
def with_key(door: Daemon, key: str, over: str, header: str = "x-api-key") -> Iterator[Any]:
    with door.tcp() if over == "tcp" else door.http() as client:
        client.headers[header] = key if header == "x-api-key" else f"Bearer {key}"
        yield client


def who(client: httpx2.Client) -> tuple[int, str]:
    answer = client.get("/summary")
    body = answer.json()
    return answer.status_code, body["user_id"] if answer.is_success else body["error"]["message"]


def test_it_is_shown_once(admin: httpx2.Client) -> None:
    answer = admin.post("/keys", json={"name": "once", "user_id": "alice", "tier": "pro"})
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    key = told.pop("key")
    assert key.startswith("sk_pro_")
    assert told["hint"] == f"sk_pro_…{key[-4:]}"
    listed = admin.get("/keys", params={"user_id": "alice"}).json()
    assert told in listed["keys"]
    assert key not in admin.get("/keys").text
    assert key[7:40] not in admin.get("/audit").text
    assert listed["after"] is None


@pytest.mark.parametrize("over", ["tcp", "socket"])
@pytest.mark.parametrize("header", ["x-api-key", "Authorization"])
def test_it_identifies_its_holder_and_beats_claims(
    door: Daemon, admin: httpx2.Client, over: str, header: str
) -> None:
    key = issue(admin, user_id="kim", tier="pro", organization_id="acme", workspace_id="lab")
    with with_key(door, key["key"], over, header) as client:
        assert who(client) == (200, "kim")
        claims = {"X-User-ID": "mallory", "X-User-Tier": "free", "X-Organization-ID": "other"}
        told = client.post("/infer", json={"query": "Hi", "model": "strong"}, headers=claims)
        assert told.status_code == 200, told.text
        assert told.json()["metadata"]["user_id"] == "kim"
        assert told.json()["metadata"]["user_tier"] == "pro"
        assert client.get("/keys").status_code == 403, "it does not administer"
    listed = admin.get("/keys", params={"user_id": "kim"}).json()["keys"]
    assert [one["last_used_at"] is None for one in listed if one["id"] == key["id"]] == [False]


def test_a_key_without_a_user_is_one_itself(door: Daemon, admin: httpx2.Client) -> None:
    key = issue(admin)
    assert key["key"].startswith("sk_key_")
    with with_key(door, key["key"], "tcp") as client:
        assert who(client) == (200, f"key:{key['id']}")


def test_its_own_limits_hold(door: Daemon, admin: httpx2.Client) -> None:
    key = issue(admin, user_id="lou", organization_id="tiny")
    admin.put("/limits/organization/tiny", json={"total_usd": 0})
    with with_key(door, key["key"], "tcp") as client:
        refused = client.post("/chat/completions", json=ASK)
        assert (refused.status_code, refused.json()["error"]["scope"]) == (429, "organization")
        rows = client.get("/budgets?scope=organization&id=tiny").json()["budgets"]
        assert rows == [], "others' budgets are not shown"
    admin.delete("/limits/organization/tiny")


def test_an_admin_key_administers_over_tcp(door: Daemon, admin: httpx2.Client) -> None:
    key = issue(admin, admin=True)
    with with_key(door, key["key"], "tcp") as client:
        made = issue(client, user_id="ned")
        assert client.put("/limits/user/ned", json={"daily_usd": 1}).status_code == 200
        assert client.delete("/limits/user/ned").status_code == 200
        assert client.delete(f"/keys/{made['id']}").status_code == 200
        browser = client.get("/keys", headers={"Origin": "http://localhost"})
        assert browser.status_code == 403


@pytest.mark.parametrize("over", ["tcp", "socket"])
def test_a_revoked_key_opens_nothing_from_then_on(
    door: Daemon, admin: httpx2.Client, over: str
) -> None:
    key = issue(admin, user_id="pia")
    with with_key(door, key["key"], over) as client:
        assert who(client) == (200, "pia")
        gone = admin.delete(f"/keys/{key['id']}")
        assert (gone.status_code, gone.json()["state"]) == (200, "revoked")
        status, why = who(client)
        assert (status, "revoked" in why) == (401, True)
        assert client.post("/chat/completions", json=ASK).status_code == 401
    again = admin.delete(f"/keys/{key['id']}")
    assert again.json()["revoked_at"] == gone.json()["revoked_at"]


@pytest.mark.parametrize("over", ["tcp", "socket"])
def test_an_expired_key_opens_nothing(
    door: Daemon, admin: httpx2.Client, monkeypatch: pytest.MonkeyPatch, over: str
) -> None:
    key = issue(admin, user_id="quin", expires_in_s=60)
    with with_key(door, key["key"], over) as client:
        assert who(client) == (200, "quin")
        clock: Any = door.services.clock
        later = clock.wall_ns() + 61 * 10**9
        monkeypatch.setattr(type(clock), "wall_ns", lambda _: later)
        status, why = who(client)
        assert (status, "expired" in why) == (401, True)
        listed = admin.get("/keys", params={"user_id": "quin"}).json()["keys"]
        assert {one["state"] for one in listed} == {"expired"}


def test_a_forged_key_is_never_a_tier(door: Daemon) -> None:
    """The prefix is a hint, the hash is the proof: also with a checksum that is right."""
    forged = compose("enterprise", b"f" * SECRET_BYTES)
    for over, key, status in (
        ("tcp", forged, 401),
        ("socket", forged, 401),
        ("tcp", "sk_enterprise_123", 401),
        ("socket", "sk_enterprise_123", 200),
        ("socket", "unused", 200),
    ):
        with with_key(door, key, over) as client:
            told = client.post("/infer", json={"query": "Hi", "model": "strong"})
            assert told.status_code == status, (over, key)
            if status == 200:
                metadata = told.json()["metadata"]
                assert metadata["user_tier"] is None
                assert metadata["user_id"].startswith("uid:")


def test_our_keys_never_go_upstream(door: Daemon, admin: httpx2.Client, upstream: Upstream) -> None:
    ours = issue(admin)["key"]
    for over, key, forwarded in (
        ("socket", "sk-theirs", True),
        ("socket", ours, False),
        ("tcp", ours, False),
        ("socket", KEY, False),
        ("tcp", KEY, False),
    ):
        upstream.received.clear()
        with with_key(door, key, over) as client:
            assert client.post("/chat/completions", json=ASK).status_code == 200
        [received] = upstream.received
        sent = received.headers["Authorization"]
        assert (sent == f"Bearer {key}") == forwarded, (over, key)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "name has 1 to 128"),
        ({"name": "a\nb"}, "printable"),
        ({"user_id": "x" * 257}, "user_id has 1 to 256"),
        ({"organization_id": ""}, "organization_id"),
        ({"workspace_id": "\u202e"}, "workspace_id"),
        ({"tier": "gold"}, "no tier 'gold'; there are: free, pro"),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"expires_in_s": 10**12}, "expires_in_s"),
        ({"expires_in_s": 0.5}, "Expected `int"),
        ({"admin": "yes"}, "Expected `bool`"),
        ({"key": "sk_pro_mine"}, "unknown field"),
    ],
)
def test_keys_that_are_not_issued(admin: httpx2.Client, fields: Any, said: str) -> None:
    before = admin.get("/keys").json()
    answer = admin.post("/keys", json={"name": "app", **fields})
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (400, True), (
        answer.text
    )
    assert admin.get("/keys").json() == before


def test_keys_that_are_not_there(admin: httpx2.Client) -> None:
    assert admin.delete("/keys/0123456789ab").status_code == 404


def test_a_tier_in_use_by_a_key_stays(admin: httpx2.Client) -> None:
    assert admin.put("/tiers/gold", json={}).status_code == 200
    key = issue(admin, name="shop", tier="gold")
    used = admin.delete("/tiers/gold")
    assert (used.status_code, "key 'shop'" in used.json()["error"]["message"]) == (409, True)
    admin.delete(f"/keys/{key['id']}")
    assert admin.put("/users/vic", json={"tier": "gold"}).is_success
    used = admin.delete("/tiers/gold")
    assert (used.status_code, "user 'vic'" in used.json()["error"]["message"]) == (409, True)
    assert admin.delete("/users/vic").is_success
    assert admin.delete("/tiers/gold").status_code == 200


def test_a_disk_that_refuses(
    door: Daemon, admin: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = issue(admin, user_id="rex")
    before = admin.get("/keys").json()["keys"]

    def full(_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(door.services.keys._ring, "write", full)
    assert admin.post("/keys", json={"name": "app"}).status_code == 503
    assert admin.get("/keys").json()["keys"] == before
    assert admin.delete(f"/keys/{key['id']}").status_code == 503
    with with_key(door, key["key"], "tcp") as client:
        assert who(client)[0] == 401, "what an administrator revoked opens nothing"


def test_issuing_and_revoking_are_on_record(admin: httpx2.Client) -> None:
    key = issue(admin, user_id="sue")
    admin.delete(f"/keys/{key['id']}")
    found: list[Any] = []
    while len(found) < 2:
        page = admin.get("/audit?limit=100").json()["records"]
        found = [one for one in page if one["subject"] == f"key:{key['id']}"]
    revoked, issued = found
    assert issued["details"]["before"] is None
    assert issued["details"]["after"]["user_id"] == "sue"
    assert "key" not in issued["details"]["after"]
    assert [revoked["details"][at]["state"] for at in ("before", "after")] == ["active", "revoked"]


def test_keys_outlive_a_restart_and_are_in_backups(tmp_path: Path, upstream: Upstream) -> None:
    toml = FORWARDING.replace("{url}", upstream.url).replace('file = "{folder}/log.jsonl"', "")
    keys: list[dict[str, Any]] = []
    for start in range(2):
        with serving(tmp_path, toml, APP_KEY=KEY) as served:
            transport = httpx2.HTTPTransport(uds=str(served.socket))
            with httpx2.Client(transport=transport, base_url="http://localhost") as admin:
                if start == 0:
                    keys = [issue(admin, user_id=user) for user in ("tom", "una")]
                    admin.delete(f"/keys/{keys[0]['id']}")
                    copy = admin.post("/state/backup", json={"dir": f"{tmp_path}/copy"})
                    assert "keys" in {one["name"] for one in copy.json()["contents"]}
                else:
                    seen = []
                    for key in keys:
                        headers = {"x-api-key": key["key"]}
                        seen.append(admin.get("/summary", headers=headers).status_code)
                    assert seen == [401, 200]
            served.process.kill()


fields = st.sampled_from(["name", "user_id", "tier", "admin", "expires_in_s", "organization_id"])
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("pro")
bodies = st.binary() | st.dictionaries(fields | st.text(), values, max_size=5)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(bodies)
def test_whatever_is_sent_a_key_is_issued_or_not(admin: httpx2.Client, body: Any) -> None:
    before = len(admin.get("/keys").json()["keys"])
    sent = {"content": body} if isinstance(body, bytes) else {"json": {"name": "fuzz", **body}}
    try:
        answer = admin.post("/keys", **sent)
    except ValueError:  # NaN is no JSON: it cannot even be sent
        return
    assert answer.status_code in (200, 400), answer.text
    assert len(admin.get("/keys").json()["keys"]) == before + (answer.status_code == 200)
    if answer.status_code == 200:
        admin.delete(f"/keys/{answer.json()['id']}")
