"""One model in several places: who is asked, what is held and charged, who may not be asked."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cascaded.pipeline.run import run
from cascaded.policy.limits.access import trim_ladder
from cascaded.policy.pricing import plan, worst_cost
from cascaded.policy.routing.balance import BUSY_REST_S, Balance
from cascaded.types.decision import Plan, Refusal
from cascaded.types.limits import BudgetLimit, Limits
from cascaded.types.model import Ladder, Model, Rung
from cascaded.types.profile import OrganizationConfig, UserProfile
from cascaded.types.result import Outcome, Result
from tests.support.fakes import Answers, Collected, Faults, ScriptedProvider, World, model, request
from tests.support.upstream import Says

GOOD = Answers(Says("The capital of France is Paris."))
INSTEAD = Answers(Says("Paris is the capital of France."))
S = 10**9


def place(provider: str, output_usd: int = 10, **more: Any) -> Model:
    made = model("main", output_usd)
    return replace(made, provider=provider, upstream_name=f"main-{provider}", **more)


def spread(*places: Model) -> Model:
    return replace(places[0], others=places[1:])


A, B, C = place("a", 10), place("b", 30), place("c", 20)


# --- who is asked --------------------------------------------------------------------------------


def well(_: Model) -> bool:
    return True


@given(
    weights=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    chances=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=200),
)
def test_calls_that_last_are_spread_by_weight(weights: list[int], chances: list[float]) -> None:
    balance = Balance()
    places = [place(f"p{i}", weight=weight) for i, weight in enumerate(weights)]
    for chance in chances:
        balance.load(balance.choose(places, well, 0, chance)).in_flight += 1
    for one in places:
        share = len(chances) * one.weight / sum(weights)
        assert abs(balance.load(one).in_flight - share) <= len(places)


def test_calls_that_are_over_at_once_are_spread_by_chance_and_weight() -> None:
    balance, places = Balance(), [place("a", weight=3), place("b", weight=1)]
    taken = Counter(balance.choose(places, well, 0, step / 100).provider for step in range(100))
    assert taken == {"a": 75, "b": 25}
    assert balance.choose(places, well, 0, 1.0).provider == "b"


def test_who_rests_or_is_not_well_is_passed_over() -> None:
    balance = Balance()
    balance.rest(A, 0, 3)
    assert balance.choose([A, B], well, 0, 0) is B
    assert balance.choose([A, B], well, 3 * S, 0) is A
    assert balance.choose([A, B], lambda one: one is A, 0, 0) is A, "rather who rests"
    assert balance.choose([A, B], lambda _: False, 0, 0) is B
    balance.rest(B, 0, None)
    assert BUSY_REST_S > 3
    assert balance.choose([A, B], well, 0, 0) is A, "whose rest ends first"
    assert balance.state(A, 0, well=True) == "resting"
    assert balance.state(A, 3 * S, well=True) == "ready"
    assert balance.state(A, 3 * S, well=False) == "left_alone"


# --- in the pipeline -----------------------------------------------------------------------------


def world(
    *places: Model, fallbacks: tuple[Model, ...] = (), limit: int = 10**12, **more: Any
) -> Any:
    providers: dict[str, Any] = {name: ScriptedProvider(max_retries=1) for name in "abcd"}
    rung = Rung(model=spread(*places), fallbacks=fallbacks)
    climbed = Ladder(name="default", rungs=(rung,), checked=False)
    limits = Limits(
        budgets=(BudgetLimit(scope="global", id="*", window="total", limit_nano_usd=limit),)
    )
    made: Any = World(climbed, providers=providers, limits=limits, **more)
    for name, one in providers.items():
        one.name = name
        setattr(made, name, one)
        one.on("main", GOOD)
        one.on("spare", INSTEAD)
    return made


async def ask(world: Any, reply: Collected | None = None, **members: Any) -> Outcome:
    asked = request(**{"model": "auto", "max_tokens": 50, **members})
    return await run(world.pipeline, asked, reply or Collected())


def settled(world: Any, outcome: Outcome) -> None:
    spend = world.ledger.spend()
    assert spend["held"] == 0
    assert spend["posted"] + spend["unknown"] == outcome.total_nano_usd
    assert outcome.decision.hold is not None
    assert outcome.total_nano_usd <= outcome.decision.hold.nano_usd


def worst(one: Model, outcome: Outcome) -> int:
    assert one.price is not None
    return worst_cost(one.price, outcome.decision.input_tokens, 50, 1)


async def test_the_hold_covers_the_dearest_and_the_bill_is_the_places_own() -> None:
    one = world(A, B, C)
    outcome = await ask(one)
    assert isinstance(outcome.end, Result)
    assert outcome.end.answered_by is not None
    hold = outcome.decision.hold
    assert hold is not None
    assert hold.nano_usd == worst(B, outcome)
    used = outcome.end.answered_by
    assert used.model.name == "main"
    assert used.model.provider == "b", "a chance of 0.5 among three"
    assert used.cost_nano_usd == 10 * 1_000 + 5 * 30_000
    assert outcome.notices == ()
    settled(one, outcome)


@pytest.mark.parametrize(
    "code", ["upstream_connect", "upstream_rate_limited", "upstream_authentication"]
)
async def test_it_is_asked_elsewhere_at_once(code: str) -> None:
    one = world(A, B)
    one.b.on("main", Faults(code, retry_after_s=3))
    for _ in range(4):
        outcome = await ask(one)
        assert isinstance(outcome.end, Result)
        assert outcome.notices == (), "it is the same model"
    assert one.clock.slept == []
    busy = code == "upstream_rate_limited"
    assert len(one.b.calls) == (1 if busy else 4)
    one.clock.now_ns += 3 * S
    await ask(one)
    assert len(one.b.calls) == (2 if busy else 5)


async def test_the_last_place_has_the_usual_patience() -> None:
    one = world(A, B)
    for each in (one.a, one.b):
        each.on("main", Faults("upstream_server_error"))
    outcome = await ask(one)
    assert isinstance(outcome.end, Refusal)
    assert (len(one.b.calls), len(one.a.calls)) == (1, 2)
    settled(one, outcome)


async def test_after_a_call_that_may_be_billed_only_a_fallback_is_asked() -> None:
    spare = replace(model("spare", 5), provider="d")
    for fallbacks, code in (((), "upstream_timeout"), ((spare,), None)):
        one = world(A, B, fallbacks=fallbacks)
        one.b.on("main", Faults("upstream_timeout", "unknown"))
        outcome = await ask(one)
        assert one.a.calls == []
        if code:
            assert isinstance(outcome.end, Refusal)
            assert outcome.end.code == code
        else:
            assert isinstance(outcome.end, Result)
            assert outcome.notices == (
                "'spare' answered in place of 'main': provider 'a' is failing.",
            )
        settled(one, outcome)


async def test_what_the_provider_refuses_is_asked_nowhere_else() -> None:
    one = world(A, B)
    one.b.on("main", Faults("upstream_refused"))
    assert isinstance((await ask(one)).end, Refusal)
    assert one.a.calls == []


async def test_a_stream_that_has_begun_stays_where_it_is() -> None:
    one = world(A, B)
    one.b.on("main", Faults("upstream_reset", "not_billed", after=2))
    assert isinstance((await ask(one, stream=True)).end, Refusal)
    assert one.a.calls == []


async def test_loads_are_given_back_whatever_happens() -> None:
    one = world(A, B)
    await ask(one, Collected(hang_up_after=0))
    one.b.on("main", Faults())
    await ask(one)
    balance = one.pipeline.climber.balance
    assert [balance.load(each).in_flight for each in (A, B)] == [0, 0]


def test_the_plan_counts_each_fallbacks_dearest_place() -> None:
    spare = replace(model("spare", 1), others=(replace(model("spare", 40), provider="d"),))
    ladder = Ladder(name="l", rungs=(Rung(model=spread(A, B), fallbacks=(spare,)),), checked=False)
    planned = plan(
        ladder, input_tokens=10, asked_max_output=50, choices=1, max_cost_nano_usd=None,
        default_max_output=50,
    )  # fmt: skip
    assert isinstance(planned, Plan)
    dearest = [B.price, spare.others[0].price]
    assert planned.worst_nano_usd == sum(
        worst_cost(price, 10, 50, 1) for price in dearest if price is not None
    )


# --- who may not be asked ------------------------------------------------------------------------


def test_regions_leave_the_places_that_are_there() -> None:
    there = spread(
        replace(A, region="us-east"), replace(B, region="eu-west"), replace(C, region="eu-north")
    )
    ladder = Ladder(name="l", rungs=(Rung(model=there),))

    def left(*regions: str) -> Any:
        organization = OrganizationConfig(organization_id="o", data_residency_requirements=regions)
        return trim_ladder(ladder, None, UserProfile(user_id="u", organization=organization))

    assert [one.provider for one in left("eu").ladder.rungs[0].model.places] == ["b", "c"]
    assert [one.provider for one in left("us").ladder.rungs[0].model.places] == ["a"]
    assert left("eu", "us").ladder is ladder
    refusal = left("ch")
    assert isinstance(refusal, Refusal)
    assert "lets its data go to" in refusal.message
