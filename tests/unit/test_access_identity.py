"""Whom a call is charged to."""

from typing import Any

import pytest
from msgspec.structs import replace

from cascaded.policy.access.identity import AccessRules, identify
from cascaded.state.ledger import DurableLedger
from cascaded.types.decision import Refusal
from cascaded.types.ids import MAX_ID_BYTES
from cascaded.types.limits import BudgetLimit, Caller, Choice, Demand, Limits
from cascaded.types.request import Claims, Principal

APP = Principal(kind="key", id="app")
RULES = AccessRules(
    trusted=frozenset({"app"}),
    tiers=frozenset({"free", "pro"}),
    known_users=frozenset({"alice"}),
    declared_tags=frozenset({"feature", "team"}),
)
CLAIMS = Claims(
    user_id="alice",
    user_tier="pro",
    organization_id="acme",
    workspace_id="w",
    team_id="t",
    run_id="r",
    tags={"team": "blue", "feature": "search", "secret": "x"},
)


def caller(claims: Claims = CLAIMS, rules: AccessRules = RULES, by: Principal = APP) -> Caller:
    found = identify(by, claims, rules)
    assert isinstance(found, Caller), found
    return found


def refusal(claims: Claims, rules: AccessRules = RULES, by: Principal = APP) -> Refusal:
    found = identify(by, claims, rules)
    assert isinstance(found, Refusal), found
    return found


def test_everything_that_a_trusted_caller_says() -> None:
    assert caller() == Caller(
        user_id="alice",
        tier="pro",
        organization_id="acme",
        workspace_id="w",
        team_id="t",
        run_id="r",
        tags=(("feature", "search"), ("team", "blue")),
    ), "declared tags only, in an order that does not depend on the caller"


def test_nothing_of_what_others_say() -> None:
    """Whatever it claims, a call is its principal's own."""
    for stranger in (
        Principal(kind="key", id="other"),
        Principal(kind="peer", id="uid:1000"),
        Principal(kind="peer", id="uid:0", admin=True),
    ):
        assert caller(by=stranger) == Caller(user_id=stranger.id)
        wild = Claims(user_id="x" * 9_999, user_tier="no such", tags={"feature": "x" * 9_999})
        assert caller(wild, by=stranger) == Caller(user_id=stranger.id)


@pytest.mark.parametrize("name", ["App", "app ", "app2", "ap", "uid:app"])
def test_trust_is_in_the_exact_name(name: str) -> None:
    assert caller(by=Principal(kind="key", id=name)) == Caller(user_id=name)


def test_what_is_not_said() -> None:
    assert caller(Claims()) == Caller(user_id="app")
    rules = replace(RULES, default_tier="free")
    assert caller(Claims(), rules) == Caller(user_id="app", tier="free")
    assert caller(CLAIMS, rules).tier == "pro", "what is said stands over the default"
    assert caller(by=Principal(kind="key", id="other"), rules=rules).tier == "free"
    assert caller(Claims(user_id="", user_tier="")).user_id == "app"


def test_tiers_that_are_not_there() -> None:
    found = refusal(Claims(user_tier="Pro"))
    assert (found.code, found.param) == ("forbidden", "user_tier")
    assert "free, pro" in found.message
    long = refusal(Claims(user_tier="x" * 100_000))
    assert len(long.message) < 200
    none = refusal(CLAIMS, replace(RULES, tiers=frozenset()))
    assert "there are: none" in none.message


def test_users_who_are_not_known() -> None:
    strict = replace(RULES, unknown_user="refuse")
    assert caller(CLAIMS, strict).user_id == "alice"
    found = refusal(Claims(user_id="mallory"), strict)
    assert found.code == "forbidden"
    assert "mallory" in found.message
    assert "access.unknown_user" in found.message
    assert refusal(Claims(), strict).code == "forbidden", "nor is the principal itself"
    own = replace(strict, known_users=frozenset({"uid:1000"}))
    assert caller(by=Principal(kind="peer", id="uid:1000"), rules=own).user_id == "uid:1000"


FITS = ["x" * 256, "é" * 128, "漢" * 85, "🙂" * 64]
TOO_LONG = ["x" * 257, "é" * 129, "漢" * 86, "🙂" * 65]


@pytest.mark.parametrize(
    "field", ["user_id", "organization_id", "workspace_id", "team_id", "run_id"]
)
def test_ids_are_bounded_in_bytes(field: str) -> None:
    for one in FITS:
        assert getattr(caller(replace(CLAIMS, **{field: one})), field) == one
    for one in TOO_LONG:
        found = refusal(replace(CLAIMS, **{field: one}))
        assert found.code == "invalid_request"
        assert "256 bytes" in found.message
        assert one not in found.message
    if field != "user_id":
        assert refusal(replace(CLAIMS, **{field: ""})).code == "invalid_request"
    for one in ("\ud800" * 100, "a\nb", "\x1b[2J", "a\0", "ab\u202edc", "\u200b"):
        assert refusal(replace(CLAIMS, **{field: one})).code == "invalid_request"


def test_a_tag_is_bounded_with_its_name() -> None:
    """`feature=` takes 8 bytes of the 256."""
    for one in (text[: len(text) - 8] for text in FITS):
        assert caller(Claims(tags={"feature": one})).tags == (("feature", one),)
    for value in ("x" * 249, "é" * 125, ""):
        assert refusal(Claims(tags={"feature": value})).code == "invalid_request"
        assert caller(Claims(tags={"undeclared": value})).tags == ()


def test_the_ledger_takes_whatever_passes() -> None:
    ledger = DurableLedger.in_memory()
    scopes: list[Any] = ["user", "organization", "workspace", "team", "run"]
    for one in FITS:
        found = caller(replace(CLAIMS, user_id=one, tags={"feature": "x" * 248}))
        (name, value), *_ = found.tags
        named = [(scope, found.user_id) for scope in scopes] + [("tag", f"{name}={value}")]
        assert counted(ledger, named) == 0
    with pytest.raises(ValueError, match=f"{MAX_ID_BYTES} bytes"):
        counted(ledger, [("user", "x" * (MAX_ID_BYTES + 1))])
    ledger.close()


def counted(ledger: DurableLedger, named: list[tuple[Any, str]]) -> int | None:
    """Ask the ledger about these scopes; which choice it would take."""
    budgets = (
        BudgetLimit(scope=scope, id=id, window="total", limit_nano_usd=None) for scope, id in named
    )
    limits = Limits(budgets=tuple(budgets))
    return ledger.peek(Demand(menu=(Choice(nano_usd=1, tokens=1),), limits=limits)).choice
