"""Rows of somebody else's table: what they mean, and what happens when it cannot be read."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded.state import plans as plans_module
from cascaded.state.plans import PlannedUsers, PlanRules, Plans, Take
from cascaded.types.errors import PlansUnreadError
from cascaded.types.ids import MAX_ID_BYTES
from cascaded.types.plans import Plan, PlanRow
from cascaded.types.profile import (
    BudgetConfig,
    OrganizationConfig,
    UserProfile,
    WorkspaceConfig,
)
from cascaded.types.quotas import Quotas
from tests.support.fakes import FakeClock

USD = 1_000_000_000
RULES = PlanRules(tiers=("free", "pro"), default_tier="free")


class Table:
    """A table that can be changed, or fail."""

    def __init__(self, *rows: tuple[str | None, str | None, str | None]) -> None:
        self.rows = rows
        self.fault: Exception | None = None
        self.readings = 0

    async def read(self, take: Take) -> None:
        self.readings += 1
        for user_id, tier, budget in self.rows:
            take([PlanRow(user_id, tier, None if budget is None else Decimal(budget))])
        if self.fault is not None:
            raise self.fault


def plans(
    table: Table,
    rules: PlanRules = RULES,
    *,
    said: list[tuple[str, str, dict[str, Any]]] | None = None,
    clock: FakeClock | None = None,
    random: Callable[[], float] = lambda: 0.5,
) -> Plans:
    lines = [] if said is None else said
    return Plans(
        table.read,
        rules,
        clock or FakeClock(),
        random=random,
        report=lambda level, event, **fields: lines.append((level, event, fields)),
        refresh_s=60,
        stale_after_s=300,
    )


async def known(table: Table, rules: PlanRules = RULES) -> tuple[dict[str, Plan], dict[str, Any]]:
    said: list[tuple[str, str, dict[str, Any]]] = []
    kept = plans(table, rules, said=said)
    await kept.refresh()
    users = {row[0] for row in table.rows if row[0] is not None}
    found = {user: plan for user in users if (plan := kept.plan(user)) is not None}
    assert len(kept) == len(found)
    [(_, event, fields)] = said
    assert event == "tiers_read"
    return found, fields


async def test_rows() -> None:
    found, told = await known(
        Table(("ann", "pro", "1.5"), ("bob", None, None), ("cy", "free", "0.000000001"))
    )
    assert found == {
        "ann": Plan("pro", 1_500_000_000),
        "bob": Plan(None, None),
        "cy": Plan("free", 1),
    }
    assert told == {"users": 3}


async def test_users_that_are_none() -> None:
    long, longest = "ü" * (MAX_ID_BYTES // 2) + "x", "ü" * (MAX_ID_BYTES // 2)
    rows = (None, "pro", "1"), ("", "pro", "1"), (long, "pro", "1"), ("a\nb", "pro", "1")
    found, told = await known(Table(*rows, (longest, "pro", "1")))
    assert found == {longest: Plan("pro", USD)}
    assert told == {"users": 1, "null_user": 1, "invalid_user": 3}


@pytest.mark.parametrize("amount", ["-0.01", "NaN", "Infinity", "-Infinity", "1e30", "1e-30"])
async def test_a_budget_that_is_no_amount_allows_nothing(amount: str) -> None:
    found, told = await known(Table(("ann", "pro", amount)))
    assert found == {"ann": Plan("pro", 0)}
    assert told == {"users": 1, "invalid_budget": 1}


@pytest.mark.parametrize(("rule", "tier"), [("refuse", "gold"), ("default", None)])
async def test_a_tier_that_is_not_there(rule: Any, tier: str | None) -> None:
    rules = PlanRules(tiers=("free",), unknown_tier=rule)
    found, told = await known(Table(("ann", "gold", None)), rules)
    assert found == {"ann": Plan(tier, None)}
    assert told == {"users": 1, "unknown_tier": 1}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("one", "other", "least"),
    [
        (("pro", "5"), ("free", "9"), Plan("free", 5 * USD)),
        (("pro", None), ("pro", "9"), Plan("pro", 9 * USD)),
        (("gold", "1"), ("free", None), Plan("gold", USD)),
        ((None, None), ("pro", None), Plan(None, None)),
    ],
)
async def test_of_several_rows_the_least_counts(
    one: tuple[str | None, str | None], other: tuple[str, str], least: Plan, turned: bool
) -> None:
    rows = [("ann", *one), ("ann", *other)]
    found, told = await known(Table(*(rows[::-1] if turned else rows)))
    assert found == {"ann": least}
    assert told["duplicate_user"] == 1


async def test_without_a_default_tier_none_is_the_most() -> None:
    rules = PlanRules(tiers=("free", "pro"))
    found, _ = await known(Table(("ann", None, None), ("ann", "pro", None)), rules)
    assert found == {"ann": Plan("pro", None)}


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["free", "pro", "gold", None]),
            st.none() | st.integers(-1, 5).map(str),
        )
    ),
    order=st.randoms(),
)
def test_the_order_of_rows_does_not_matter(rows: list[Any], order: Any) -> None:
    shuffled = list(rows)
    order.shuffle(shuffled)
    if rows:
        assert asyncio.run(known(Table(*rows))) == asyncio.run(known(Table(*shuffled)))


async def test_a_table_that_is_too_long_is_not_read_at_all() -> None:
    table = Table(("ann", "pro", None))
    kept = plans(table, PlanRules(tiers=("pro",), max_rows=2))
    await kept.refresh()
    table.rows = tuple((name, "pro", None) for name in "xyz")
    with pytest.raises(PlansUnreadError, match="more than 2 rows"):
        await kept.refresh()
    assert kept.plan("ann") == Plan("pro", None)
    assert kept.plan("x") is None


async def test_it_is_kept_fresh_and_failures_are_told() -> None:
    table = Table(("ann", "free", None))
    said: list[tuple[str, str, dict[str, Any]]] = []
    clock = FakeClock()
    kept = plans(table, said=said, clock=clock)
    await kept.refresh()
    task = asyncio.get_running_loop().create_task(kept.keep_fresh())
    await _until(lambda: table.readings == 3)
    assert clock.slept[:2] == [60, 60]
    assert [line[1] for line in said] == ["tiers_read"]  # nothing new: nothing said
    before = len(clock.slept)
    table.fault, table.rows = PlansUnreadError("it is away"), (("ann", "pro", None),)
    await _until(lambda: kept.failures == 12)
    assert clock.slept[before : before + 8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert kept.plan("ann") == Plan("free", None)
    assert kept.age_s() > 300
    levels = [line[0] for line in said[1:]]
    assert levels == sorted(levels, reverse=True)
    assert set(levels) == {"warning", "error"}
    assert said[-1][2]["message"] == "it is away"
    table.fault = ZeroDivisionError("a fault of ours")
    await _until(lambda: said[-1][2].get("message") == "ZeroDivisionError: a fault of ours")
    table.fault = None
    await _until(lambda: kept.plan("ann") == Plan("pro", None))
    assert said[-1] == ("info", "tiers_read", {"users": 1})
    assert kept.age_s() <= 60
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("random", "wait"), [(0.0, 54), (1.0, 66)])
async def test_waits_are_not_all_alike(random: float, wait: float) -> None:
    clock = FakeClock()
    table = Table()
    kept = plans(table, clock=clock, random=lambda: random)
    task: Awaitable[None] = asyncio.get_running_loop().create_task(kept.keep_fresh())
    await _until(lambda: table.readings > 0)
    assert clock.slept[0] == pytest.approx(wait)
    task.cancel()  # type: ignore[attr-defined]


class Stored:
    """A directory with these users."""

    def __init__(self, *users: UserProfile) -> None:
        self.users = {user.user_id: user for user in users}

    async def find(self, user_id: str) -> UserProfile | None:
        return self.users.get(user_id)

    async def organization(self, id: str) -> OrganizationConfig | None:
        return OrganizationConfig(organization_id=id)

    async def workspace(self, id: str) -> WorkspaceConfig | None:
        return None


async def test_what_is_stored_goes_over_the_plan_field_by_field() -> None:
    own = BudgetConfig(daily=Decimal(7), monthly=Decimal(70))
    stored = Stored(
        UserProfile(user_id="ann", budget_overrides=BudgetConfig(daily=Decimal(7))),
        UserProfile(user_id="bob", tier="pro", budget_overrides=own, roles=("owner",)),
        UserProfile(user_id="eve"),
    )
    table = {name: Plan("free", 5 * USD) for name in ("ann", "bob", "cy")}
    users = PlannedUsers(stored, table.get, "monthly")
    ann, bob, cy = [await users.find(name) for name in ("ann", "bob", "cy")]
    assert ann is not None
    assert bob is not None
    assert cy is not None
    assert (ann.tier, ann.quotas.user.daily_nano_usd) == ("free", 7 * USD)
    assert ann.quotas.user.monthly_nano_usd == 5 * USD
    assert bob == stored.users["bob"]
    assert (cy.user_id, cy.tier, cy.quotas.user) == ("cy", "free", Quotas(monthly_nano_usd=5 * USD))
    assert await users.find("eve") is stored.users["eve"]
    assert await users.find("nobody") is None
    assert await users.organization("acme") == OrganizationConfig(organization_id="acme")


async def test_a_user_is_put_together_once_for_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans_module, "MEMOISED_USERS", 2)
    stored = Stored(*(UserProfile(user_id=name) for name in "abc"))
    table = {name: Plan("free", None) for name in "abcd"}
    users = PlannedUsers(stored, table.get, "daily")
    first = await users.find("a")
    assert await users.find("a") is first
    assert await users.find("d") is await users.find("d")
    table["a"] = Plan("pro", 0)
    second = await users.find("a")
    assert second is not None
    assert (second.tier, second.quotas.user.daily_nano_usd) == ("pro", 0)
    stored.users["a"] = UserProfile(user_id="a", tier="free")
    third = await users.find("a")
    assert third is not None
    assert third.tier == "free"
    for name in "bc":
        assert await users.find(name) is not None
    assert (await users.find("a")) == third


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)
