"""The stages that decide before any model is asked, each alone."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from msgspec.structs import replace

from cascaded.pipeline.rules import Rulebook, Rules
from cascaded.pipeline.stages.measure import measure
from cascaded.pipeline.stages.peek import peek
from cascaded.pipeline.stages.permit import permit
from cascaded.pipeline.stages.price import price
from cascaded.pipeline.stages.reserve import DEGRADED, reserve, secure
from cascaded.pipeline.stages.resolve import resolve, standing
from cascaded.policy.access.identity import AccessRules
from cascaded.policy.limits import LimitBook, limits_for
from cascaded.policy.tokens import Vocabularies
from cascaded.ports import Stage
from cascaded.state.ledger import DurableLedger
from cascaded.types.decision import Decision, Plan, Refusal
from cascaded.types.errors import StoreError, TooManyLimitsError
from cascaded.types.limits import BudgetLimit, Caller, Choice, Demand, Denial, Limits, RateLimit
from cascaded.types.money import to_usd
from cascaded.types.overrides import Overrides
from cascaded.types.profile import (
    BudgetConfig,
    OrganizationConfig,
    QualityPreferences,
    RateLimitConfig,
    UserProfile,
    WorkspaceConfig,
)
from cascaded.types.quotas import OwnQuotas, Quotas
from cascaded.types.request import Claims, Principal, Request
from cascaded.types.tiers import TierConfig
from tests.support.fakes import Audited, Known, LimitsFor, ladder, model, request, rulebook

T = TypeVar("T")
CHEAP, MIDDLE, STRONG = model("cheap", 1), model("middle", 5), model("strong", 10)
LADDER = ladder(CHEAP, MIDDLE, STRONG, top_retries=0)
ALICE = Caller(user_id="alice", tier="pro")
ASKED = request()
NANO_PER_TOKEN = {"cheap": 1_000, "middle": 5_000, "strong": 10_000}
INPUT_NANO = 1_000


def budget(limit: int | None, **fields: Any) -> Limits:
    one: dict[str, Any] = {"scope": "user", "id": "alice", "window": "total", **fields}
    return Limits(budgets=(BudgetLimit(limit_nano_usd=limit, **one),))


RATE = Limits(
    rates=(
        RateLimit(scope="user", id="alice", unit="requests", window_ns=60 * 1_000_000_000, limit=1),
    )
)


async def decided(stage: Stage, decision: Decision, asked: Request = ASKED) -> Decision:
    step = await stage(asked, decision)
    assert isinstance(step, Decision), step
    return step


async def refused(stage: Stage, decision: Decision, asked: Request = ASKED) -> Refusal:
    step = await stage(asked, decision)
    assert isinstance(step, Refusal), step
    return step


def explain(denial: Denial, caller: Caller) -> Refusal:
    return Refusal(code="budget_exceeded", message=f"{caller.user_id}: {denial.reason}")


# --- resolve -------------------------------------------------------------------------------------


class Overriding:
    """Overrides that a test changes."""

    now = Overrides()


class TestResolve:
    ACCESS = AccessRules(trusted=frozenset({"app"}), tiers=frozenset({"pro"}))
    PRO = TierConfig(name="pro", limits=Quotas(daily_nano_usd=5))
    BY_APP = replace(
        ASKED,
        principal=Principal(kind="key", id="app"),
        claims=Claims(user_id="alice", user_tier="pro"),
    )

    def stage(self, limits_for: LimitsFor, *kept: Any) -> Stage:
        return resolve(standing(self.rules(limits_for), Known(*kept)))

    def rules(self, limits_for: LimitsFor) -> Rulebook:
        return rulebook(limits_for, self.ACCESS, pro=self.PRO)

    async def test_it_sets_the_caller_and_its_limits(self) -> None:
        limits = budget(5)
        stage = self.stage(lambda caller, _: limits if caller == ALICE else Limits())
        found = await decided(stage, Decision(), self.BY_APP)
        assert (found.caller, found.profile, found.limits) == (ALICE, None, limits)

    async def test_limits_are_worked_out_once_for_each_caller(self) -> None:
        asked: list[str] = []

        def limits_for(caller: Caller, _: OwnQuotas) -> Limits:
            asked.append(caller.user_id)
            return Limits()

        stage = self.stage(limits_for)
        for user in ("alice", "bob", "alice", "bob", "alice"):
            await decided(stage, Decision(), replace(self.BY_APP, claims=Claims(user_id=user)))
        assert asked == ["alice", "bob"]

    async def test_who_is_refused_has_no_limits(self) -> None:
        def never(caller: Caller, _: OwnQuotas) -> Limits:
            raise AssertionError

        wrong = replace(self.BY_APP, claims=Claims(user_tier="gold"))
        assert (await refused(self.stage(never), Decision(), wrong)).code == "forbidden"

    async def test_what_is_stored_goes_into_the_limits_and_a_change_acts_at_once(self) -> None:
        asked: list[OwnQuotas] = []

        def limits_for(_: Caller, own: OwnQuotas) -> Limits:
            asked.append(own)
            return Limits()

        profile = UserProfile(
            user_id="alice",
            tier="pro",
            budget_overrides=BudgetConfig(daily=Decimal(1)),
            organization=OrganizationConfig(
                organization_id="acme",
                shared_rate_limits=RateLimitConfig(requests_per_day=9),
            ),
        )
        known = Known(profile)
        stage = resolve(standing(self.rules(limits_for), known))
        found = await decided(stage, Decision(), self.BY_APP)
        assert found.profile is profile
        assert found.caller == replace(ALICE, organization_id="acme")
        await decided(stage, Decision(), self.BY_APP)
        assert asked == [
            OwnQuotas(user=Quotas(daily_nano_usd=10**9), organization=Quotas(requests_per_day=9))
        ]
        known.kept = [replace(profile, budget_overrides=None)]
        await decided(stage, Decision(), self.BY_APP)
        assert asked[1].user == Quotas()

    async def test_shared_limits_hold_for_whoever_is_said_to_belong_there(self) -> None:
        acme = OrganizationConfig(
            organization_id="acme", shared_budget=BudgetConfig(daily=Decimal(2))
        )
        lab = WorkspaceConfig(workspace_id="lab", workspace_budget=BudgetConfig(total=Decimal(3)))
        claims = Claims(user_id="alice", organization_id="acme", workspace_id="lab")
        asked = replace(self.BY_APP, claims=claims)
        stage = self.stage(lambda caller, own: limits_for(caller, LimitBook(), own), acme, lab)
        found = await decided(stage, Decision(), asked)
        amounts = [(one.scope, one.id, one.limit_nano_usd) for one in found.limits.budgets]
        assert amounts == [
            ("organization", "acme", 2 * 10**9),
            ("workspace", "lab", 3 * 10**9),
        ]

    async def test_a_store_that_cannot_be_read_refuses(self) -> None:
        known = Known()
        known.fails = StoreError("the disk is gone")
        stage = resolve(standing(self.rules(lambda *_: Limits()), known))
        refusal = await refused(stage, Decision(), self.BY_APP)
        assert (refusal.code, "the disk is gone" in refusal.message) == (
            "profiles_unavailable",
            True,
        )

    async def test_more_limits_than_a_call_takes_refuse(self) -> None:
        def too_many(*_: object) -> Limits:
            raise TooManyLimitsError("17 rates")

        refusal = await refused(self.stage(too_many), Decision(), self.BY_APP)
        assert (refusal.code, refusal.message) == ("limits_unusable", "17 rates")

    async def test_what_is_set_at_run_time_holds_for_the_next_call(self) -> None:
        def build(overrides: Overrides) -> Rules:
            book = LimitBook(tiers={"pro": self.PRO}, overrides=overrides.limits)
            return Rules(self.ACCESS, book)

        overriding = Overriding()
        stage = resolve(standing(Rulebook(build, overriding), Known()))
        before = await decided(stage, Decision(), self.BY_APP)
        assert before.tier == self.PRO
        overriding.now = Overrides(limits={("user", "alice"): Quotas(daily_nano_usd=2)})
        after = await decided(stage, Decision(), self.BY_APP)
        assert [one.limits.budgets[0].limit_nano_usd for one in (before, after)] == [5, 2]
        assert after.limits.budgets[0].origin == "api"
        overriding.now = Overrides()
        assert (await decided(stage, Decision(), self.BY_APP)).limits == before.limits


# --- peek ----------------------------------------------------------------------------------------


class TestPeek:
    async def test_without_limits_the_ledger_is_not_asked(self) -> None:
        nobody: Any = None
        decision = Decision(caller=ALICE)
        assert await decided(peek(nobody, explain), decision) is decision

    async def test_it_takes_nothing(self) -> None:
        ledger = DurableLedger.in_memory()
        decision = Decision(
            caller=ALICE, ladder=LADDER, limits=replace(budget(1), rates=RATE.rates)
        )
        for _ in range(3):
            assert await decided(peek(ledger, explain), decision) is decision
        assert ledger.spend() == {"posted": 0, "held": 0, "unknown": 0}
        ledger.close()

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [(budget(100, enforcement="block"), "budget"), (RATE, "rate")],
        ids=["budget", "rate"],
    )
    async def test_what_is_used_up_is_refused_at_once(self, limits: Limits, reason: str) -> None:
        ledger = DurableLedger.in_memory()
        ledger.admit(Demand(menu=(Choice(nano_usd=100, tokens=1),), limits=limits))
        found = await refused(
            peek(ledger, explain), Decision(caller=ALICE, ladder=LADDER, limits=limits)
        )
        assert found.message == f"alice: {reason}"
        ledger.close()

    async def test_what_is_nearly_used_up_is_not(self) -> None:
        """Cheap models may still have room: `reserve` decides."""
        limits = budget(100)
        ledger = DurableLedger.in_memory()
        ledger.admit(Demand(menu=(Choice(nano_usd=95, tokens=1),), limits=limits))
        await decided(peek(ledger, explain), Decision(caller=ALICE, ladder=LADDER, limits=limits))
        ledger.close()

    async def test_a_free_model_is_asked_whatever_was_spent(self) -> None:
        limits = budget(100, enforcement="block")
        ledger = DurableLedger.in_memory()
        ledger.admit(Demand(menu=(Choice(nano_usd=100, tokens=1),), limits=limits))
        free = ladder(model("local", price=flat(0)), model("strong"))
        await decided(peek(ledger, explain), Decision(caller=ALICE, ladder=free, limits=limits))
        ledger.close()


# --- permit --------------------------------------------------------------------------------------


class TestPermit:
    @staticmethod
    def before(**fields: Any) -> Decision:
        tier = TierConfig(name="pro", **fields)
        return Decision(caller=ALICE, tier=tier, ladder=LADDER, notices=("before",))

    async def test_a_tier_that_allows_everything_changes_nothing(self) -> None:
        assert await decided(permit(), self.before()) == self.before()

    async def test_without_a_tier_there_are_no_bounds(self) -> None:
        nobody = replace(self.before(), tier=None)
        assert await decided(permit(), nobody) is nobody

    async def test_a_longer_answer_is_clamped_and_said(self) -> None:
        found = await decided(permit(), self.before(max_tokens=100), request(max_tokens=101))
        assert found.output_cap == 100
        assert found.notices[0] == "before"
        assert "101 to 100" in found.notices[1]

    @pytest.mark.parametrize(("asked", "cap"), [({"max_tokens": 99}, 99), ({}, 100)])
    async def test_a_shorter_answer_is_as_asked(self, asked: dict[str, Any], cap: int) -> None:
        found = await decided(permit(), self.before(max_tokens=100), request(**asked))
        assert (found.output_cap, found.notices) == (cap, ("before",))

    async def test_rungs_that_the_tier_may_not_use(self) -> None:
        found = await decided(permit(), self.before(allowed_models=("cheap", "str*")))
        assert found.ladder is not None
        assert [rung.model.name for rung in found.ladder.rungs] == ["cheap", "strong"]
        assert "middle" in found.notices[-1]
        none = await refused(permit(), self.before(allowed_models=("gpt-*",)))
        assert none.code == "model_forbidden"

    async def test_a_tier_that_does_not_escalate(self) -> None:
        found = await decided(permit(), self.before(escalates=False))
        assert found.ladder is not None
        assert [rung.model.name for rung in found.ladder.rungs] == ["cheap"]
        assert "does not escalate" in found.notices[-1]

    async def test_streams(self) -> None:
        before = self.before(streaming=False)
        found = await refused(permit(), before, request(stream=True))
        assert found.code == "feature_forbidden"
        assert await decided(permit(), before) == before


class TestPermitOfAProfile:
    BEFORE = Decision(caller=ALICE, ladder=LADDER)

    async def permitted(self, tier: dict[str, Any] | None = None, **fields: Any) -> Decision:
        return await decided(*self.case(tier, **fields))

    async def refused(self, tier: dict[str, Any] | None = None, **fields: Any) -> Refusal:
        return await refused(*self.case(tier, **fields))

    def case(self, tier: dict[str, Any] | None, **fields: Any) -> tuple[Stage, Decision]:
        profile = UserProfile(user_id="alice", **fields)
        pro = TierConfig(name="pro", **(tier or {}))
        return permit(), replace(self.BEFORE, profile=profile, tier=pro)

    @staticmethod
    def names(decision: Decision) -> list[str]:
        assert decision.ladder is not None
        return [rung.model.name for rung in decision.ladder.rungs]

    @staticmethod
    def thresholds(decision: Decision) -> list[float]:
        assert decision.ladder is not None
        return [rung.threshold for rung in decision.ladder.rungs]

    async def test_one_that_asks_for_nothing_changes_nothing(self) -> None:
        found = await self.permitted()
        assert found.ladder == LADDER
        assert (await decided(permit(), replace(found, tier=None))).ladder == LADDER

    async def test_blocked_models(self) -> None:
        found = await self.permitted(blocked_models=("mid*",))
        assert self.names(found) == ["cheap", "strong"]
        assert found.notices == ("Model 'middle' left out: it is blocked for user 'alice'.",)
        none = await self.refused(blocked_models=("*",))
        assert none.code == "model_forbidden"
        assert "'cheap': it is blocked for user 'alice'" in none.message

    async def test_what_is_blocked_is_no_longer_the_first_that_a_tier_is_bound_to(self) -> None:
        tier = {"escalates": False}
        assert self.names(await self.permitted(tier, blocked_models=("cheap",))) == ["middle"]

    async def test_an_organisations_own_models_are_beside_those_of_the_tier(self) -> None:
        tier = {"allowed_models": ("cheap",)}
        acme = OrganizationConfig(organization_id="acme", custom_models=("strong",))
        assert self.names(await self.permitted(tier, organization=acme)) == ["cheap", "strong"]
        none = await self.refused({"allowed_models": ("x",)}, blocked_models=("y",))
        assert none.message.startswith("Tier 'pro' may not use 'cheap' or 'middle' or 'strong'.")

    @pytest.mark.parametrize(
        ("regions", "left"),
        [
            (("eu",), ["cheap", "middle"]),
            (("EU-West-1",), ["middle"]),
            (("eu-west",), ["middle"]),
            (("us", "eu"), ["cheap", "middle", "strong"]),
            (("e",), []),
            (("local",), []),
        ],
    )
    async def test_data_stays_where_it_must(
        self, regions: tuple[str, ...], left: list[str]
    ) -> None:
        acme = OrganizationConfig(organization_id="acme", data_residency_requirements=regions)
        where = {"cheap": "eu", "middle": "eu-west-1", "strong": "us"}
        models = [model(name, region=region) for name, region in where.items()]
        stage, decision = self.case(None, organization=acme)
        decision = replace(decision, ladder=ladder(*models, model("nowhere")))
        step = await stage(ASKED, decision)
        if left:
            assert isinstance(step, Decision)
            assert self.names(step) == left
            assert f"lets its data go to {', '.join(regions)} only" in step.notices[-1]
        else:
            assert isinstance(step, Refusal)

    async def test_models_of_this_host_are_everywhere(self) -> None:
        acme = OrganizationConfig(organization_id="acme", data_region="ch")
        stage, decision = self.case(None, organization=acme)
        decision = replace(decision, ladder=ladder(model("here", region="local"), STRONG))
        assert self.names(await decided(stage, decision)) == ["here"]

    @pytest.mark.parametrize(
        ("tier", "wanted", "thresholds"),
        [
            ({}, None, [0.6, 0.6, 0.6]),
            ({"default_quality_threshold": 0.8}, None, [0.8, 0.8, 0.8]),
            ({"default_quality_threshold": 0.5}, None, [0.6, 0.6, 0.6]),
            ({"default_quality_threshold": 0.8}, {}, [0.85, 0.85, 0.7]),
            ({"max_quality_threshold": 0.75}, {}, [0.75, 0.75, 0.7]),
            ({}, {"cost_sensitivity": "aggressive"}, [0.7, 0.7, 0.7]),
            ({}, {"cost_sensitivity": "quality_first"}, [0.95, 0.95, 0.7]),
            ({}, {"minimum_quality": 0.1}, [0.85, 0.85, 0.6]),
        ],
    )
    async def test_how_good_answers_must_be(
        self, tier: dict[str, Any], wanted: dict[str, Any] | None, thresholds: list[float]
    ) -> None:
        preferences = None if wanted is None else QualityPreferences(**wanted)
        found = await self.permitted(tier, quality_preferences=preferences)
        assert self.thresholds(found) == thresholds

    async def test_a_tier_alone_is_worked_out_once_for_a_ladder(self) -> None:
        stage, pro = permit(), TierConfig(name="pro", default_quality_threshold=0.8)
        before = replace(self.BEFORE, tier=pro)
        first = await decided(stage, before)
        assert self.thresholds(first) == [0.8] * 3
        assert (await decided(stage, before)).ladder is first.ladder
        changed = replace(before, tier=replace(pro, default_quality_threshold=0.7))
        assert self.thresholds(await decided(stage, changed)) == [0.7] * 3
        other = replace(before, ladder=ladder(STRONG))
        assert self.names(await decided(stage, other)) == ["strong"]
        named = replace(before, ladder=ladder(STRONG, checked=False))
        assert self.thresholds(await decided(stage, named)) == [0.6]

    @pytest.mark.parametrize(
        ("wanted", "retries"),
        [
            ({}, 2),
            ({"max_retries": 1}, 1),
            ({"retry_on_low_quality": False}, 0),
        ],
    )
    async def test_how_often_the_top_is_asked_again(
        self, wanted: dict[str, Any], retries: int
    ) -> None:
        stage, decision = self.case(None, quality_preferences=QualityPreferences(**wanted))
        found = await decided(stage, replace(decision, ladder=replace(LADDER, top_retries=2)))
        assert found.ladder is not None
        assert found.ladder.top_retries == retries

    @pytest.mark.parametrize(("own", "cap"), [(None, 5), (9, 5), (3, 3)])
    async def test_what_a_request_may_cost(self, own: int | None, cap: int) -> None:
        wanted = QualityPreferences(max_cost_per_query=None if own is None else to_usd(own))
        stage, decision = self.case(None, quality_preferences=wanted)
        found = await decided(stage, replace(decision, ladder=replace(LADDER, max_cost_nano_usd=5)))
        assert found.ladder is not None
        assert found.ladder.max_cost_nano_usd == cap

    @pytest.mark.parametrize(("strict", "checked"), [(False, False), (True, True)])
    async def test_a_tier_whose_answers_are_not_judged(self, strict: bool, checked: bool) -> None:
        stage, decision = self.case({"quality_validation": False})
        found = await decided(stage, replace(decision, ladder=replace(LADDER, strict=strict)))
        assert found.ladder is not None
        assert found.ladder.checked == checked

    async def test_what_is_preferred(self) -> None:
        tier = {"preferred_models": ("strong",)}
        assert (await self.permitted(tier)).preferred == ("strong",)
        assert (await self.permitted(tier, preferred_models=("cheap",))).preferred == ("cheap",)


# --- price ---------------------------------------------------------------------------------------


class TestPrice:
    STAGE = staticmethod(price(400, frozenset({"cheap"})))
    BEFORE = Decision(caller=ALICE, ladder=LADDER, input_tokens=10, limits=budget(10**12))

    @staticmethod
    def worst(*models: str, output: int, choices: int = 1) -> int:
        return sum(10 * INPUT_NANO + choices * output * NANO_PER_TOKEN[name] for name in models)

    async def test_the_menu_is_the_ladder_and_then_its_first_rung(self) -> None:
        found = await decided(self.STAGE, self.BEFORE, request(max_tokens=20))
        assert [[rung.model.name for rung in one.ladder.rungs] for one in found.menu] == [
            ["cheap", "middle", "strong"],
            ["cheap"],
        ]
        whole, first = found.choices
        assert whole.nano_usd == self.worst("cheap", "middle", "strong", output=20)
        assert first.nano_usd == self.worst("cheap", output=20)
        assert [one.worst_nano_usd for one in found.menu] == [whole.nano_usd, first.nano_usd]
        assert (whole.tokens, first.tokens) == (3 * 30, 30)
        assert (whole.cheap, first.cheap) == (False, True)

    async def test_retries_of_the_last_rung_are_in_the_worst_case(self) -> None:
        again = replace(self.BEFORE, ladder=replace(LADDER, top_retries=2))
        found = await decided(self.STAGE, again, request(max_tokens=20))
        whole, first = found.choices
        rungs = ("cheap", "middle", "strong", "strong", "strong")
        assert (whole.nano_usd, whole.tokens) == (self.worst(*rungs, output=20), 5 * 30)
        assert (first.nano_usd, first.tokens) == (self.worst("cheap", output=20), 30)

    async def test_every_choice_of_several_is_counted(self) -> None:
        found = await decided(self.STAGE, self.BEFORE, request(max_tokens=20, n=3))
        assert found.choices[1].nano_usd == self.worst("cheap", output=20, choices=3)
        assert found.choices[1].tokens == 10 + 3 * 20

    @pytest.mark.parametrize(
        "decision",
        [
            replace(BEFORE, limits=Limits()),
            replace(BEFORE, limits=RATE),
            replace(BEFORE, ladder=ladder(STRONG)),
        ],
        ids=["no limits", "rates alone", "one rung"],
    )
    async def test_where_there_is_nothing_to_choose(self, decision: Decision) -> None:
        found = await decided(self.STAGE, decision)
        assert len(found.menu) == len(found.choices) == 1

    @pytest.mark.parametrize(
        ("preferred", "whole", "first"),
        [
            (("middle",), ["middle", "strong"], ["cheap"]),
            (("strong",), ["strong"], ["cheap"]),
            (("cheap", "strong"), ["cheap", "strong"], ["cheap"]),
            (("cheap",), ["cheap", "middle", "strong"], ["cheap"]),
            (("nobody",), ["cheap", "middle", "strong"], ["cheap"]),
            (("*",), ["cheap", "middle", "strong"], ["cheap"]),
        ],
    )
    async def test_preferred_models_come_first_unless_money_is_short(
        self, preferred: tuple[str, ...], whole: list[str], first: list[str]
    ) -> None:
        found = await decided(self.STAGE, replace(self.BEFORE, preferred=preferred))
        menu = [[rung.model.name for rung in one.ladder.rungs] for one in found.menu]
        assert menu == [whole, first]

    async def test_preferred_models_that_cost_too_much_are_passed_over(self) -> None:
        cap = self.worst("cheap", output=20)
        asked = replace(request(max_tokens=20), max_cost_nano_usd=cap)
        liked = replace(self.BEFORE, preferred=("strong",))
        found = await decided(self.STAGE, liked, asked)
        assert [rung.model.name for rung in found.menu[0].ladder.rungs] == ["cheap"]

    async def test_a_model_asked_for_by_name_is_as_asked(self) -> None:
        named = replace(self.BEFORE, ladder=ladder(STRONG, checked=False), preferred=("cheap",))
        found = await decided(self.STAGE, named)
        assert [rung.model.name for rung in found.menu[0].ladder.rungs] == ["strong"]

    async def test_what_counts_as_cheap(self) -> None:
        """Every model of the plan must be, or all of it be free."""
        cases = {
            "strong alone": (ladder(STRONG), False),
            "cheap alone": (ladder(CHEAP), True),
            "free": (ladder(model("free", price=flat(0))), True),
        }
        for name, (climbed, cheap) in cases.items():
            found = await decided(self.STAGE, replace(self.BEFORE, ladder=climbed))
            assert found.choices[0].cheap is cheap, name

    @pytest.mark.parametrize(
        ("asked", "cap", "bound"),
        [
            (None, None, 400),
            (None, 100, 100),
            (None, 1_000, 400),
            (2_000, None, 2_000),
            (2_000, 1_000, 1_000),
            (50, 1_000, 50),
        ],
    )
    async def test_the_bound_on_the_answer(
        self, asked: int | None, cap: int | None, bound: int
    ) -> None:
        said: dict[str, Any] = {} if asked is None else {"max_tokens": asked}
        capped = replace(self.BEFORE, output_cap=cap)
        found = await decided(self.STAGE, capped, request(**said))
        assert [one.max_output_tokens for one in found.menu] == [bound, bound]

    async def test_a_cap_on_the_cost(self) -> None:
        most = self.worst("cheap", output=20)
        asked = request(max_tokens=20, max_cost_nano_usd=most)
        found = await decided(self.STAGE, self.BEFORE, asked)
        [only] = found.menu
        assert [rung.model.name for rung in only.ladder.rungs] == ["cheap"]
        assert only.notices
        less = request(max_tokens=20, max_cost_nano_usd=most - 1)
        assert (await refused(self.STAGE, self.BEFORE, less)).code == "max_cost_exceeded"

    async def test_a_price_that_nobody_knows(self) -> None:
        unknown = replace(self.BEFORE, ladder=ladder(CHEAP, model("new", price=None)))
        assert (await refused(self.STAGE, unknown)).code == "price_unknown"


def flat(pico: int) -> Any:
    """A price of so much a token, whichever."""
    price = CHEAP.price
    assert price is not None
    return replace(price, rates=replace(price.rates, input=pico, output=pico))


# --- reserve -------------------------------------------------------------------------------------


def priced(limits: Limits, *worst: int) -> Decision:
    """A decision with this menu; all but the first are cheap."""
    plans = [
        Plan(ladder=one, max_output_tokens=number, worst_nano_usd=cost, notices=(f"plan {number}",))
        for number, (one, cost) in enumerate(zip((LADDER, ladder(CHEAP)), worst, strict=False))
    ]
    choices = [
        Choice(nano_usd=cost, tokens=1, cheap=number > 0) for number, cost in enumerate(worst)
    ]
    return Decision(
        caller=ALICE, limits=limits, menu=tuple(plans), choices=tuple(choices), notices=("before",)
    )


class TestReserve:
    async def test_the_first_that_fits(self) -> None:
        ledger, audit = DurableLedger.in_memory(), Audited()
        stage = reserve(ledger, audit, explain, 0)
        found = await decided(stage, priced(budget(1_000), 100, 10))
        assert found.ladder is LADDER
        assert (found.max_output_tokens, found.notices) == (0, ("before", "plan 0"))
        assert found.hold is not None
        assert found.hold.nano_usd == ledger.spend()["held"] == 100
        assert len(audit.told) == 1
        ledger.close()

    @pytest.mark.parametrize(("used", "costs"), [(0, (2_000, 10)), (920, (50, 10))])
    async def test_the_cheaper_plan_where_the_first_has_no_room(
        self, used: int, costs: tuple[int, int]
    ) -> None:
        """Because it costs too much, or because only cheap models may be asked still."""
        ledger = DurableLedger.in_memory()
        limits = budget(1_000)
        if used:
            ledger.admit(Demand(menu=(Choice(nano_usd=used, tokens=1),), limits=limits))
        found = await decided(reserve(ledger, Audited(), explain, 0), priced(limits, *costs))
        assert found.ladder is not None
        assert [rung.model.name for rung in found.ladder.rungs] == ["cheap"]
        assert found.max_output_tokens == 1
        assert found.notices == ("before", "plan 1", DEGRADED)
        assert ledger.spend()["held"] == used + 10
        ledger.close()

    async def test_nothing_fits(self) -> None:
        ledger, audit = DurableLedger.in_memory(), Audited()
        decision = priced(budget(5), 100, 10)
        found = await refused(reserve(ledger, audit, explain, 0), decision)
        assert found.message == "alice: budget"
        assert ledger.spend()["held"] == 0
        [(who, told)] = audit.told
        assert "alice" in who
        assert isinstance(told, Denial)
        ledger.close()

    async def test_a_warning_goes_into_the_decision(self) -> None:
        ledger = DurableLedger.in_memory()
        limits = budget(100, enforcement="warn")
        spent = ledger.admit(Demand(menu=(Choice(nano_usd=90, tokens=1),), limits=limits))
        ledger.post(spent.hold, 90, "billed")  # type: ignore[union-attr]
        found = await decided(reserve(ledger, Audited(), explain, 0), priced(limits, 50))
        assert [(one.id, one.spent) for one in found.warnings] == [("alice", 90)]
        ledger.close()

    async def test_a_ledger_that_is_at_fault(self) -> None:
        """It says so itself; nobody is to blame, and nobody is put on record."""

        class Down:
            def admit(self, demand: Demand) -> Refusal:
                return Refusal(code="ledger_unavailable", message="the disk is gone")

        down: Any = Down()
        audit = Audited()
        found = await refused(reserve(down, audit, explain, 0), priced(budget(5), 1))
        assert found.code == "ledger_unavailable"
        assert audit.told == []

    @pytest.mark.parametrize(
        ("limits", "waits"),
        [
            (budget(1_000, enforcement="block"), True),
            (budget(1_000), True),
            (budget(1_000, enforcement="warn"), False),
            (budget(1_000, enforcement="shadow"), False),
            (budget(None), False),
            (Limits(), False),
        ],
        ids=["block", "degrade", "warn", "shadow", "counted", "none"],
    )
    async def test_behind_the_strict_gate_only_what_may_refuse_waits_for_the_disk(
        self, limits: Limits, waits: bool, tmp_path: Path
    ) -> None:
        ledger = DurableLedger.open(tmp_path, asyncio.get_running_loop(), segment_bytes=1 << 20)
        found = await decided(reserve(ledger, Audited(), explain, 0), priced(limits, 1))
        waited: list[int] = []

        class Disk:
            async def durable(self, seq: int) -> None:
                waited.append(seq)

        disk: Any = Disk()
        assert await decided(secure(disk), found) is found
        assert found.hold is not None
        assert waited == ([found.hold.seq] if waits else [])
        ledger.close()


class TestMeasure:
    """What may be put into a prompt beside its messages is held for."""

    async def tokens(self, **members: object) -> int:
        async def at_once(work: Callable[[], T]) -> T:
            return work()

        stage = measure(Vocabularies(), at_once, 100_000)
        fields = {name: msgspec.Raw(msgspec.json.encode(one)) for name, one in members.items()}
        asked = replace(ASKED, fields={**ASKED.fields, **fields})
        return (await decided(stage, Decision(ladder=LADDER), asked)).input_tokens

    async def test_a_schema_functions_and_unknown_members_count_as_their_bytes(self) -> None:
        alone = await self.tokens()
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"a": "b" * 500}}}
        for name in ("response_format", "functions", "documents"):
            assert await self.tokens(**{name: schema}) == alone + len(msgspec.json.encode(schema))

    async def test_what_no_model_reads_counts_nothing(self) -> None:
        quiet = {"temperature": 0.5, "metadata": {"a": "b"}, "stop": ["x"], "seed": 1, "user": "u"}
        assert await self.tokens(**quiet) == await self.tokens()
