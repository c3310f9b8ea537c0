"""Tiers and budgets that another system keeps: read in the background, looked up by calls."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Literal

import msgspec
from msgspec.structs import replace

from cascaded.ports import Clock, Directory
from cascaded.types.errors import PlansUnreadError
from cascaded.types.ids import is_id
from cascaded.types.money import MoneyError, parse_usd, to_usd
from cascaded.types.plans import Plan, PlanRow
from cascaded.types.profile import BudgetConfig, UserProfile
from cascaded.types.times import NS_PER_S

MEMOISED_USERS = 65_536
RETRY_S = 1.0
"""First wait after a reading that failed; it doubles, up to the interval."""
MAX_DOUBLINGS = 20
JITTER = 0.1
"""Share of a wait by which it is shorter or longer, so that daemons do not come all at once."""

Take = Callable[[Sequence[PlanRow]], None]
Read = Callable[[Take], Awaitable[None]]
Report = Callable[..., object]
"""Writes a line: level, event and its fields."""


class PlanRules(msgspec.Struct, frozen=True, kw_only=True):
    """How rows are understood."""

    tiers: tuple[str, ...]
    """The tiers there are, the least first."""
    default_tier: str | None = None
    unknown_tier: Literal["default", "refuse"] = "refuse"
    """What becomes of a user whose tier is none of them."""
    max_rows: int = 100_000


class Plans:
    """The last good reading, and how it is kept fresh."""

    def __init__(
        self,
        read: Read,
        rules: PlanRules,
        clock: Clock,
        *,
        random: Callable[[], float],
        report: Report,
        refresh_s: float,
        stale_after_s: float,
    ) -> None:
        self._read = read
        self._rules = rules
        self._clock = clock
        self._random = random
        self._report = report
        self._refresh_s = refresh_s
        self._stale_after_s = stale_after_s
        self._plans: dict[str, Plan] = {}
        self._oddities: Counter[str] | None = None
        self._read_at_ns = clock.monotonic_ns()
        self._failing = 0
        self.failures = 0
        """Readings that failed."""

    def __len__(self) -> int:
        return len(self._plans)

    def plan(self, user_id: str) -> Plan | None:
        """What was said of this user; `None` of one that is not in the table."""
        return self._plans.get(user_id)

    def age_s(self) -> float:
        """Seconds since the last good reading; without one, since the start."""
        return (self._clock.monotonic_ns() - self._read_at_ns) / NS_PER_S

    async def refresh(self) -> None:
        """Read the table now, all of it: raises `PlansUnreadError` and keeps what was."""
        reading = _Reading(self._rules)
        await self._read(reading.add)
        if self._failing or reading.oddities != self._oddities:
            level = "warning" if reading.oddities else "info"
            self._report(level, "tiers_read", users=len(reading.plans), **reading.oddities)
        self._plans, self._oddities = reading.plans, reading.oddities
        self._read_at_ns = self._clock.monotonic_ns()
        self._failing = 0

    async def start(self, *, required: bool) -> None:
        """The first reading. Raises `PlansUnreadError` where it is `required` and fails."""
        try:
            await self.refresh()
        except PlansUnreadError as error:
            if required:
                raise
            self._failed(str(error))

    async def keep_fresh(self) -> None:
        """Read again and again, until it is cancelled. A reading that fails changes nothing."""
        while True:
            await self._clock.sleep(self._wait_s())
            try:
                await self.refresh()
            except PlansUnreadError as error:
                self._failed(str(error))
            except Exception as fault:  # a fault here must not end the daemon
                self._failed(f"{type(fault).__name__}: {fault}")

    def _wait_s(self) -> float:
        doubled = RETRY_S * 2 ** min(self._failing - 1, MAX_DOUBLINGS)
        wait = min(self._refresh_s, doubled) if self._failing else self._refresh_s
        return wait * (1 + JITTER * (2 * self._random() - 1))

    def _failed(self, why: str) -> None:
        self.failures += 1
        self._failing += 1
        age_s = round(self.age_s(), 1)
        level = "error" if age_s > self._stale_after_s else "warning"
        self._report(level, "tiers_unread", message=why, age_s=age_s, users=len(self._plans))


@lru_cache(1024)
def _amount(budget: Decimal) -> int | None:
    """Nano-dollars; `None` for what is no amount. Many users share few budgets."""
    try:
        return parse_usd(budget)
    except MoneyError:
        return None


class PlannedUsers:
    """A directory of users of whom the plans may tell: what is stored of a user goes over its
    plan, field by field."""

    def __init__(
        self,
        stored: Directory,
        plan: Callable[[str], Plan | None],
        window: Literal["daily", "weekly", "monthly", "total"],
    ) -> None:
        """`window`: what the plans' budgets are for."""
        self.organization = stored.organization
        self.workspace = stored.workspace
        self._stored = stored
        self._plan = plan
        self._window = window
        self._alone = lru_cache(MEMOISED_USERS)(self._over)
        self._joined: dict[str, tuple[UserProfile, Plan, UserProfile]] = {}

    async def find(self, user_id: str) -> UserProfile | None:
        """See `ports.Profiles.find`."""
        stored, plan = await self._stored.find(user_id), self._plan(user_id)
        if plan is None:
            return stored
        if stored is None:
            return self._alone(user_id, plan)
        known = self._joined.get(user_id)
        # A profile works its limits out once: the same one is given as long as nothing changes.
        if known is None or known[0] is not stored or known[1] != plan:
            if len(self._joined) >= MEMOISED_USERS:
                self._joined.clear()
            known = self._joined[user_id] = stored, plan, self._over(user_id, plan, stored)
        return known[2]

    def _over(self, user_id: str, plan: Plan, stored: UserProfile | None = None) -> UserProfile:
        user = stored or UserProfile(user_id=user_id)
        budgets = user.budget_overrides or BudgetConfig()
        if plan.budget_nano_usd is not None and getattr(budgets, self._window) is None:
            budgets = replace(budgets, **{self._window: to_usd(plan.budget_nano_usd)})
        return replace(user, tier=user.tier or plan.tier, budget_overrides=budgets)


class _Reading:
    """One table on its way in."""

    def __init__(self, rules: PlanRules) -> None:
        self._rules = rules
        self._ranks = {tier: rank for rank, tier in enumerate(rules.tiers)}
        # Without a default tier, who has none may do everything.
        self._rank_of_none = self._ranks.get(rules.default_tier or "", len(self._ranks))
        self._kept: dict[Plan, Plan] = {}
        self._rows = 0
        self.plans: dict[str, Plan] = {}
        self.oddities: Counter[str] = Counter()
        """How often which: `null_user`, `invalid_user`, `duplicate_user`, `unknown_tier`,
        `invalid_budget`."""

    def add(self, rows: Sequence[PlanRow]) -> None:
        """Understand these rows. Raises `PlansUnreadError` when there are too many."""
        self._rows += len(rows)
        if self._rows > self._rules.max_rows:
            raise PlansUnreadError(
                f"the table has more than {self._rules.max_rows} rows"
                " (tiers_from_database.max_rows)"
            )
        for row in rows:
            user_id = self._user(row.user_id)
            if user_id is None:
                continue
            plan = Plan(self._tier(row.tier), self._budget(row.budget))
            other = self.plans.get(user_id)
            if other is not None:
                self.oddities["duplicate_user"] += 1
                plan = self._least(plan, other)
            # Few plans are shared by many users.
            self.plans[user_id] = self._kept.setdefault(plan, plan)

    def _user(self, user_id: str | None) -> str | None:
        if user_id is None:
            self.oddities["null_user"] += 1
            return None
        if not is_id(user_id):
            self.oddities["invalid_user"] += 1
            return None
        return user_id

    def _tier(self, tier: str | None) -> str | None:
        if tier is None or tier in self._ranks:
            return tier
        self.oddities["unknown_tier"] += 1
        return None if self._rules.unknown_tier == "default" else tier

    def _budget(self, budget: Decimal | None) -> int | None:
        """In nano-dollars. What is no amount counts as 0: too little can be asked about, and too
        much is spent."""
        if budget is None:
            return None
        amount = _amount(budget)
        if amount is None:
            self.oddities["invalid_budget"] += 1
        return amount or 0

    def _least(self, one: Plan, other: Plan) -> Plan:
        """Of two rows of one user the lesser tier and the lesser budget."""
        tier = min(one.tier, other.tier, key=self._rank)
        budgets = [b for b in (one.budget_nano_usd, other.budget_nano_usd) if b is not None]
        return Plan(tier, min(budgets, default=None))

    def _rank(self, tier: str | None) -> tuple[int, str]:
        """A tier that there is not is the least of all: its calls are refused."""
        if tier is None:
            return self._rank_of_none, ""
        return self._ranks.get(tier, -1), tier
