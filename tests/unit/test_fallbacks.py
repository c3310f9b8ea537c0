"""Providers that fail: who answers instead, what is held and charged for it, what is told."""

from typing import Any

import pytest

from cascaded.pipeline.run import run
from cascaded.policy.outages import Thresholds
from cascaded.policy.pricing import plan, worst_cost
from cascaded.types.decision import Plan, Refusal
from cascaded.types.limits import BudgetLimit, Limits
from cascaded.types.model import Ladder, Model, Rung
from cascaded.types.result import Outcome, Result
from tests.support.fakes import (
    Answers,
    Bug,
    Collected,
    FakeClock,
    Faults,
    ScriptedProvider,
    World,
    model,
    request,
)
from tests.support.upstream import Says

GOOD = Answers(Says("The capital of France is Paris."))
INSTEAD = Answers(Says("Paris is the capital of France."))
BAD = Answers(Says("I'm sorry, but I can't help with that."))
MAIN = model("main", 10)
SPARE = model("spare", 20)
THIRD = model("third", 5)
BUDGET = 10**12


def at(one: Model, provider: str) -> Model:
    return Model(
        **{**{name: getattr(one, name) for name in one.__struct_fields__}, "provider": provider}
    )


def world(*spare: Model, checked: bool = False, limit: int = BUDGET, **more: Any) -> World:
    """`main` at provider `a`, its fallbacks at `b`, `c` …; a budget over everything."""
    providers: dict[str, Any] = {name: ScriptedProvider(**more.pop("traits", {})) for name in "abc"}
    spares = tuple(at(one, name) for one, name in zip(spare, "bc", strict=False))
    climbed = Ladder(
        name="default",
        rungs=(Rung(model=at(MAIN, "a"), threshold=0.6, fallbacks=spares),),
        checked=checked,
    )
    limits = Limits(
        budgets=(BudgetLimit(scope="global", id="*", window="total", limit_nano_usd=limit),)
    )
    made = World(climbed, providers=providers, limits=more.pop("limits", limits), **more)
    for name, one in providers.items():
        one.name = name
        setattr(made, name, one)
        for each in ("main", "spare", "third"):
            one.on(each, GOOD if each == "main" else INSTEAD)
    return made


async def ask(world: Any, reply: Collected | None = None, **members: Any) -> Outcome:
    asked = request(**{"model": "main", "max_tokens": 50, **members})
    return await run(world.pipeline, asked, reply or Collected())


def answered(outcome: Outcome) -> tuple[str, tuple[str, ...]]:
    assert isinstance(outcome.end, Result), outcome.end
    assert outcome.end.answered_by is not None
    return outcome.end.answered_by.model.name, outcome.notices


def refused(outcome: Outcome) -> str:
    assert isinstance(outcome.end, Refusal), outcome.end
    return outcome.end.code


def settled(world: World, outcome: Outcome) -> None:
    spend = world.ledger.spend()
    assert spend["held"] == 0
    assert spend["posted"] + spend["unknown"] == outcome.total_nano_usd
    hold = outcome.decision.hold
    assert hold is None or outcome.total_nano_usd <= hold.nano_usd


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("billing", ["not_billed", "unknown"])
@pytest.mark.parametrize(
    "code",
    [
        "upstream_connect",
        "upstream_timeout",
        "upstream_reset",
        "upstream_rate_limited",
        "upstream_overloaded",
        "upstream_server_error",
        "upstream_garbage",
        "upstream_authentication",
    ],
)
async def test_another_answers(code: str, billing: str, stream: bool) -> None:
    one: Any = world(SPARE)
    one.a.on("main", Faults(code, billing))
    reply = Collected()
    outcome = await ask(one, reply, stream=stream)
    name, notices = answered(outcome)
    assert name == "spare"
    assert reply.text == "Paris is the capital of France."
    assert notices == ("'spare' answered in place of 'main': provider 'a' is failing.",)
    assert [line.model.name for line in outcome.attempts][-1] == "spare"
    settled(one, outcome)
    assert (one.ledger.spend()["unknown"] > 0) == (billing == "unknown")


async def test_a_request_that_is_refused_is_refused_by_nobody_else() -> None:
    one: Any = world(SPARE)
    one.a.on("main", Faults("upstream_refused"))
    assert refused(await ask(one)) == "upstream_refused"
    assert not one.b.calls


async def test_the_callers_own_bad_key_is_not_made_good_by_ours() -> None:
    one: Any = world(SPARE, traits={"forward_caller_key": True})
    one.a.on("main", Faults("upstream_authentication"))
    assert refused(await ask(one, caller_key="sk-mine")) == "upstream_authentication"
    assert answered(await ask(one))[0] == "spare", "our own key that is refused is our trouble"


async def test_the_first_that_can() -> None:
    one: Any = world(SPARE, THIRD)
    one.a.on("main", Faults("upstream_connect"))
    one.b.on("spare", Faults("upstream_overloaded"))
    outcome = await ask(one)
    assert answered(outcome)[0] == "third"
    settled(one, outcome)


async def test_nobody_can() -> None:
    one: Any = world(SPARE)
    one.a.on("main", Faults("upstream_connect"))
    one.b.on("spare", Faults("upstream_overloaded"))
    outcome = await ask(one)
    assert refused(outcome) == "upstream_overloaded"
    settled(one, outcome)
    assert one.ledger.spend() == {"posted": 0, "held": 0, "unknown": 0}


async def test_a_stream_that_has_begun_is_never_spliced() -> None:
    one: Any = world(SPARE)
    one.a.on("main", Faults("upstream_reset", "unknown", after=3))
    reply = Collected()
    outcome = await ask(one, reply, stream=True)
    assert refused(outcome) == "upstream_reset"
    assert reply.committed
    assert not one.b.calls
    settled(one, outcome)


async def test_a_held_stream_that_breaks_is_replaced_whole() -> None:
    one: Any = world(SPARE, checked=True)
    one.a.on("main", Faults("upstream_reset", "unknown", after=3))
    reply = Collected()
    outcome = await ask(one, reply, model="auto", stream=True, stream_mode="buffer")
    assert answered(outcome)[0] == "spare"
    assert reply.text == "Paris is the capital of France."
    settled(one, outcome)


async def test_a_provider_that_asks_for_a_pause_is_not_waited_for() -> None:
    one: Any = world(SPARE)
    one.a.on("main", Faults("upstream_rate_limited", retry_after_s=3))
    assert answered(await ask(one))[0] == "spare"
    assert one.clock.slept == []
    alone: Any = world()
    alone.a.on("main", Faults("upstream_rate_limited", retry_after_s=3), GOOD)
    assert answered(await ask(alone)) == ("main", ())
    assert alone.clock.slept == [3]


async def test_a_bug_is_not_papered_over() -> None:
    one: Any = world(SPARE)
    one.a.on("main", Bug())
    with pytest.raises(RuntimeError):
        await ask(one)
    assert not one.b.calls
    assert one.ledger.spend()["held"] == 0


# What is held.


def planned(climbed: Ladder, cap: int | None = None) -> Plan:
    found = plan(
        climbed,
        input_tokens=1_000,
        asked_max_output=100,
        choices=1,
        max_cost_nano_usd=cap,
        default_max_output=100,
    )
    assert isinstance(found, Plan), found
    return found


def worst(one: Model) -> int:
    assert one.price is not None
    return worst_cost(one.price, 1_000, 100, 1)


def test_the_worst_path_has_every_fallback() -> None:
    climbed = Ladder(name="l", rungs=(Rung(model=MAIN, fallbacks=(SPARE, THIRD)),), checked=False)
    whole = worst(MAIN) + worst(SPARE) + worst(THIRD)
    assert planned(climbed).worst_nano_usd == whole
    lesser = planned(climbed, whole - 1)
    assert lesser.worst_nano_usd == worst(SPARE), "the dearest of them"
    assert not lesser.ladder.doubt_covered
    assert "no room for a fallback after a call that may have been billed" in lesser.notices[0]


def test_fallbacks_that_cannot_hold_the_prompt_or_have_no_price_are_left_out() -> None:
    small, unpriced = model("small", context_window=1_050), model("unpriced", price=None)
    rung = Rung(model=MAIN, fallbacks=(small, unpriced, SPARE))
    assert planned(Ladder(name="l", rungs=(rung,))).ladder.rungs[0].fallbacks == (SPARE,)


@pytest.mark.parametrize(("billing", "who"), [("not_billed", "spare"), ("unknown", None)])
async def test_near_a_budgets_end_a_fallback_serves_only_what_was_not_billed(
    billing: str, who: str | None
) -> None:
    """Room for either model, and not for both."""
    first: Any = world(SPARE)
    whole, one_alone = [choice.nano_usd for choice in (await ask(first)).decision.choices][:2]
    one: Any = world(SPARE, limit=(whole + one_alone) // 2)
    one.a.on("main", Faults("upstream_reset", billing))
    outcome = await ask(one)
    settled(one, outcome)
    if who:
        name, notices = answered(outcome)
        assert name == who
        assert "no fallback is asked after a call that may have been billed" in notices[0]
    else:
        assert refused(outcome) == "upstream_reset"
        assert not one.b.calls


# Providers that are left alone.

OPENS_AT_3 = Thresholds(failures=3, open_ns=60 * 10**9)


async def test_an_outage_of_a_minute() -> None:
    one: Any = world(SPARE, thresholds=OPENS_AT_3, clock=FakeClock())
    one.a.on("main", Faults("upstream_connect"))
    for _ in range(10):
        assert answered(await ask(one))[0] == "spare"
    assert len(one.a.calls) == 3, "two tries of the first call, one of the second"
    assert one.told == [("a", "open")]
    one.clock.now_ns += 60 * 10**9
    one.a.on("main", GOOD)
    assert answered(await ask(one)) == ("main", ())
    assert one.told == [("a", "open"), ("a", "half_open"), ("a", "closed")]
    assert one.ledger.spend()["unknown"] == 0


async def test_left_alone_without_a_fallback() -> None:
    one: Any = world(thresholds=OPENS_AT_3, clock=FakeClock())
    one.a.on("main", Faults("upstream_server_error"))
    for _ in range(2):
        await ask(one)
    outcome = await ask(one)
    assert refused(outcome) == "upstream_unavailable"
    assert isinstance(outcome.end, Refusal)
    assert 0 < (outcome.end.retry_after_s or 0) <= 60
    assert outcome.attempts == ()
    settled(one, outcome)


async def test_a_rung_whose_provider_is_left_alone_is_passed_over() -> None:
    providers: dict[str, Any] = {name: ScriptedProvider() for name in "ab"}
    climbed = Ladder(name="default", rungs=(Rung(model=at(MAIN, "a")), Rung(model=at(SPARE, "b"))))
    one = World(climbed, providers=providers, thresholds=OPENS_AT_3)
    providers["a"].on("main", Faults("upstream_garbage", "unknown"))
    providers["b"].on("spare", GOOD)
    for _ in range(3):
        await ask(one, model="auto")
    name, notices = answered(await ask(one, model="auto"))
    assert name == "spare"
    assert notices == ("'main' was not asked: provider 'a' is failing.",)


async def test_a_call_that_is_heard_out_for_a_caller_who_left_tells_of_its_provider() -> None:
    one: Any = world(thresholds=OPENS_AT_3, clock=FakeClock())
    one.a.on("main", Faults("upstream_connect"))
    for _ in range(2):
        await ask(one)
    one.clock.now_ns += 60 * 10**9
    one.a.on("main", GOOD)
    await ask(one, Collected(hang_up_after=0), stream=True)
    assert one.told[-1] == ("a", "closed")
    assert answered(await ask(one))[0] == "main"


async def test_what_it_refuses_is_no_outage() -> None:
    one: Any = world(thresholds=OPENS_AT_3)
    for code in ("upstream_refused", "upstream_authentication", "upstream_rate_limited"):
        one.a.on("main", Faults(code))
        for _ in range(5):
            assert refused(await ask(one)) == code
    assert one.told == []
