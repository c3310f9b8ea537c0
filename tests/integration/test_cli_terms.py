"""`cascaded budget set`, `budget unset`, `tiers` and `keys`, and the client's calls behind them."""

import json
from collections.abc import Iterator
from decimal import Decimal

import pytest

from cascaded.client import APIError, Client
from tests.integration.test_cli_money import invoke
from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.upstream import Upstream


@pytest.fixture(scope="module")
def daemon(_upstream: Upstream) -> Iterator[Daemon]:
    with daemon_with(CASCADE, url=_upstream.url) as daemon:
        yield daemon


def test_limits_come_and_go(daemon: Daemon) -> None:
    told = invoke(daemon, "budget", "set", "user", "ann/1", "daily_usd=2.50", "rolling=true")
    assert told.stdout == "user ann/1: daily_usd 2.5, rolling yes\n", told.output
    more = invoke(daemon, "budget", "set", "user", "ann/1", "requests_per_minute=30", "--json")
    assert json.loads(more.stdout)["limits"] == {
        "daily_usd": "2.5",
        "rolling": True,
        "requests_per_minute": 30,
    }
    assert "ann/1" in invoke(daemon, "budget").stdout
    with Client(daemon.socket) as client:
        assert client.limits_of("user", "ann/1").limits["daily_usd"] == Decimal("2.5")
        [known] = client.limits()
        assert known.id == "ann/1"
    less = invoke(daemon, "budget", "unset", "user", "ann/1", "rolling", "requests_per_minute")
    assert less.stdout == "user ann/1: daily_usd 2.5\n"
    assert "nothing is set" in invoke(daemon, "budget", "unset", "user", "ann/1").stdout
    gone = invoke(daemon, "budget", "unset", "user", "ann/1")
    assert isinstance(gone.exception, APIError)
    assert gone.exception.status == 404


def test_limits_that_cannot_be_set(daemon: Daemon) -> None:
    assert "is not NAME=VALUE" in invoke(daemon, "budget", "set", "user", "u", "daily_usd").stderr
    wrong = invoke(daemon, "budget", "set", "user", "u", "daily=1")
    assert "unknown field `daily`" in str(wrong.exception)
    float_money = invoke(daemon, "budget", "set", "user", "u", "daily_usd=1e-12")
    assert "finer than a nano-dollar" in str(float_money.exception)


def test_tiers(daemon: Daemon) -> None:
    with Client(daemon.socket) as client:
        made = client.put_tier("gold", daily_usd="7", max_tokens=9, custom={"plan": "x"})
        assert (made.origin, made.limits, made.max_tokens) == ("api", {"daily_usd": 7}, 9)
        assert {one.name: one.origin for one in client.tiers()}["starter"] == "preset"
    listed = invoke(daemon, "tiers", "list").stdout
    assert "gold" in listed
    assert "daily_usd 0.1" in listed
    assert json.loads(invoke(daemon, "tiers", "list", "--json").stdout)[0]["name"] == "free"
    shown = invoke(daemon, "tiers", "show", "gold").stdout
    for words in ("daily_usd", "plan=x", "allowed_models", "max_tokens"):
        assert words in shown
    assert json.loads(invoke(daemon, "tiers", "show", "gold", "--json").stdout)["max_tokens"] == 9
    with Client(daemon.socket) as client:
        client.delete_tier("gold")
        with pytest.raises(APIError, match="no tier 'gold'"):
            client.tier("gold")


def test_keys(daemon: Daemon) -> None:
    made = invoke(daemon, "keys", "issue", "shop", "--user", "bob", "--tier", "pro", "--days", "7")
    key = made.stdout.strip()
    assert key.startswith("sk_pro_")
    assert "not shown again" in made.stderr
    told = json.loads(invoke(daemon, "keys", "issue", "ci", "--admin", "--json").stdout)
    assert told["key"].startswith("sk_key_")
    assert told["admin"]
    listed = invoke(daemon, "keys", "list").stdout
    assert "shop" in listed
    assert key not in listed
    [bobs] = json.loads(invoke(daemon, "keys", "list", "--user", "bob", "--json").stdout)
    assert (bobs["tier"], bobs["state"], "key" in bobs) == ("pro", "active", False)
    revoked = invoke(daemon, "keys", "revoke", bobs["id"])
    assert revoked.stdout == f"key {bobs['id']} (shop) is revoked\n"
    gone = json.loads(invoke(daemon, "keys", "revoke", told["id"], "--json").stdout)
    assert gone["state"] == "revoked"
