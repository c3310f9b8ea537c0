"""The calls that both clients share: what they send, and that neither client forgot one."""

import inspect
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from cascaded.client import AsyncClient, Client, HoldResolvedError, aio, calls, sync
from cascaded.client.calls import Call
from cascaded.types.profile import OrganizationConfig, UserProfile, WorkspaceConfig

DESCRIBED: dict[str, Callable[..., Call[Any]]] = {
    name: value
    for name, value in vars(calls).items()
    if inspect.isfunction(value) and value.__module__ == calls.__name__ and name[0] != "_"
}
WRITTEN_OUT = {"stream", "reserve", "export", "watch_batch"}
"""Methods that are more than one call and its answer."""


ALICE = UserProfile(user_id="alice", tier="pro")


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_both_clients_can_ask_for_everything(client: type) -> None:
    offered = {
        name: value._describe
        for name, value in vars(client).items()
        if isinstance(value, sync.Method | aio.Method)
    }
    wanted = {name: call for name, call in DESCRIBED.items() if name not in WRITTEN_OUT}
    assert offered == wanted
    assert all(callable(getattr(client, name)) for name in WRITTEN_OUT)
    for name, value in offered.items():
        assert getattr(client, name).__doc__ == value.__doc__
        assert value.__doc__


@pytest.mark.parametrize("client", [Client("/d.sock"), AsyncClient("/d.sock")])
def test_methods_explain_themselves(client: Client | AsyncClient) -> None:
    """As `help(client.audit)` and editors see them."""
    assert inspect.signature(client.audit) == inspect.signature(calls.audit)
    assert client.audit.__name__ == "audit"
    assert inspect.iscoroutinefunction(client.audit) == isinstance(client, AsyncClient)


def test_the_clients_take_the_same_words() -> None:
    for name in WRITTEN_OUT:
        words = [
            list(inspect.signature(getattr(client, name)).parameters.items())[1:]
            for client in (Client, AsyncClient)
        ]
        assert words[0] == words[1] == list(inspect.signature(DESCRIBED[name]).parameters.items())
    assert (
        inspect.signature(Client.batch).parameters
        == inspect.signature(AsyncClient.batch).parameters
    )


KEY_BODY = {"name": "shop", "tier": "pro", "admin": False}


@pytest.mark.parametrize(
    ("call", "method", "path", "body"),
    [
        (calls.budgets(), "GET", "/budgets", None),
        (calls.budgets("user", "a&b=c ü"), "GET", "/budgets?scope=user&id=a%26b%3Dc+%C3%BC", None),
        (calls.users(limit=3, after="a"), "GET", "/users?limit=3&after=a", None),
        (calls.user("a/b ü"), "GET", "/users/a%2Fb%20%C3%BC", None),
        (calls.put_user(ALICE), "PUT", "/users/alice", {"user_id": "alice", "tier": "pro"}),
        (calls.change_user("u", {"tier": None}), "PATCH", "/users/u", {"tier": None}),
        (calls.set_tier("u", None), "PUT", "/users/u/tier", {"tier": None}),
        (calls.delete_user("u"), "DELETE", "/users/u", None),
        (
            calls.create_users([ALICE]),
            "POST",
            "/users",
            {"users": [{"user_id": "alice", "tier": "pro"}]},
        ),
        (
            calls.start_batch(["Hi", {"query": "Ho"}], model="m", max_cost=Decimal("0.10")),
            "POST",
            "/infer/batch",
            {
                "queries": ["Hi", {"query": "Ho"}],
                "defaults": {"model": "m", "max_cost": "0.10"},
                "background": True,
            },
        ),
        (calls.cancel_batch("b"), "POST", "/infer/batch/b/cancel", {}),
        (calls.watch_batch("b"), "GET", "/infer/batch/b/events", None),
        (calls.audit(limit=0), "GET", "/audit?limit=0", None),
        (calls.settle(7, None), "POST", "/settle", {"hold": 7}),
        (calls.settle(7, 0), "POST", "/settle", {"hold": 7, "cost": "0"}),
        (calls.resolve(7, Decimal("1E-2")), "POST", "/unknowns/7", {"cost": "0.01"}),
        (
            calls.set_limits("user", "a/b c", daily_usd=Decimal("0.10"), rolling=True),
            "PUT",
            "/limits/user/a%2Fb%20c",
            {"daily_usd": "0.10", "rolling": True},
        ),
        (calls.unset_limits("global", "*"), "DELETE", "/limits/global/%2A", None),
        (calls.issue_key("shop", tier="pro"), "POST", "/keys", KEY_BODY),
        (calls.check(cost="0.5"), "POST", "/check", {"cost": "0.5"}),
        (
            calls.run("Hi", user_id="u", max_cost=Decimal("0.10")),
            "POST",
            "/infer",
            {"query": "Hi", "user_id": "u", "max_cost": "0.10"},
        ),
        (
            calls.stream([{"role": "user"}]),
            "POST",
            "/infer",
            {"messages": [{"role": "user"}], "stream": True, "stream_mode": "auto"},
        ),
    ],
)
def test_what_is_sent(call: Call[Any], method: str, path: str, body: object) -> None:
    assert (call.method, call.path) == (method, path)
    assert body == (None if call.body is None else msgspec.json.decode(call.body))


def test_what_may_be_sent_twice() -> None:
    """Looks, questions that take nothing, and what carries a key; nothing that costs."""
    given: dict[str, list[Any]] = {
        "run": ["Hi"],
        "stream": ["Hi"],
        "check": ["Hi"],
        "route": ["Hi"],
    }
    given |= {"reserve": [1], "settle": [7, 1], "release": [7], "resolve": [7, 1], "backup": ["/b"]}
    given |= {"user": ["u"], "change_user": ["u", {}], "set_tier": ["u", "pro"]}
    given |= {"create_users": [[ALICE]], "put_user": [ALICE], "delete_user": ["u"]}
    given |= {"put_organization": [OrganizationConfig(organization_id="o")]}
    given |= {"put_workspace": [WorkspaceConfig(workspace_id="w")]}
    given |= {"delete_organization": ["o"], "delete_workspace": ["w"]}
    once = {"run", "stream", "reserve", "settle", "release", "resolve", "backup", "set_tier"}
    once |= {name for name in DESCRIBED if name.split("_")[0] in ("create", "put", "change")}
    once |= {name for name in DESCRIBED if name.startswith("delete")}
    given |= {name: ["user", "u"] for name in ("limits_of", "set_limits", "unset_limits")}
    given |= {name: ["x"] for name in ("tier", "put_tier", "delete_tier", "issue_key")}
    given |= {"revoke_key": ["x"], "import_records": [[]]}
    once |= {"issue_key", "start_batch"}
    given |= {"start_batch": [["Hi"]]}
    given |= {f"{name}_batch": ["b"] for name in ("watch", "cancel", "delete")}
    given |= {"batch_info": ["b"]}
    once -= {"put_tier", "delete_tier", "delete_batch"}
    for name, describe in DESCRIBED.items():
        assert describe(*given.get(name, [])).repeatable == (name not in once), name
    keyed = calls.reserve(1, idempotency_key="k")
    assert keyed.repeatable
    assert keyed.headers == {"Idempotency-Key": "k"}


@pytest.mark.parametrize("state", ["settled", "released", "unknown", "adjusted"])
def test_a_key_whose_hold_is_over_covers_no_call(state: str) -> None:
    read = calls.reserve(1, idempotency_key="k").read
    assert read(b'{"hold":7,"cost":1,"state":"open"}').hold == 7
    with pytest.raises(HoldResolvedError, match=f"hold 7 of this idempotency key is {state}"):
        read(f'{{"hold":7,"cost":1,"state":"{state}"}}'.encode())


@pytest.mark.parametrize(
    "ask",
    [
        lambda: calls.run("Hi", max_cost=not_exact()),
        lambda: calls.reserve(not_exact()),
        lambda: calls.settle(1, not_exact()),
        lambda: calls.resolve(1, not_exact()),
        lambda: calls.check(cost=not_exact()),
        lambda: calls.set_limits("user", "u", daily_usd=not_exact()),
    ],
)
def test_a_float_is_no_amount(ask: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="Decimal, a string or an int"):
        ask()


def not_exact() -> Any:
    return 0.01


@pytest.mark.parametrize("asked", [{}, {"query": "Hi", "cost": 1}])
def test_a_check_is_of_one_thing(asked: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="either a query or a cost"):
        calls.check(**asked)


def test_the_version_that_is_replaced() -> None:
    assert calls.put_user(ALICE).headers == {"If-Match": "*"}
    assert calls.delete_user("u", version=7).headers == {"If-Match": '"7"'}
