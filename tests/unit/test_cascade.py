"""The climb, by example: who is asked, what is kept, what is charged."""

import pytest

from cascaded.pipeline.run import run
from cascaded.types.decision import Refusal
from cascaded.types.result import Outcome, Result
from tests.support.fakes import Answers, Bug, Collected, Faults, World, ladder, model, request
from tests.support.upstream import Says

CHEAP, MIDDLE, STRONG = model("cheap", 1), model("middle", 5), model("strong", 10)
GOOD = Answers(Says("The capital of France is Paris."))
BETTER = Answers(Says("Paris is the capital of France."))
BAD = Answers(Says("I'm sorry, but I can't help with that."))


async def climb(world: World, reply: Collected | None = None, **members: object) -> Outcome:
    return await run(world.pipeline, request(**members), reply or Collected())  # type: ignore[arg-type]


def answered(outcome: Outcome) -> Result:
    assert isinstance(outcome.end, Result), outcome.end
    return outcome.end


def refused(outcome: Outcome) -> Refusal:
    assert isinstance(outcome.end, Refusal), outcome.end
    return outcome.end


def asked(world: World) -> list[str]:
    return [call.model.name for call in world.provider.calls]


@pytest.fixture
def world() -> World:
    return World(ladder(CHEAP, MIDDLE, STRONG))


async def test_the_first_good_answer_is_kept(world: World) -> None:
    world.provider.on("cheap", GOOD)
    outcome = await climb(world)
    assert answered(outcome).answered_by == outcome.attempts[0]
    assert outcome.attempts[0].accepted
    assert asked(world) == ["cheap"]


async def test_bad_answers_climb_to_the_top(world: World) -> None:
    for name in ("cheap", "middle"):
        world.provider.on(name, BAD)
    world.provider.on("strong", GOOD)
    outcome = await climb(world)
    assert asked(world) == ["cheap", "middle", "strong"]
    assert [attempt.accepted for attempt in outcome.attempts] == [False, False, True]
    assert outcome.draft_nano_usd == outcome.attempts[0].cost_nano_usd
    full = 10 * 1_000 + 5 * 10_000
    assert answered(outcome).saved_nano_usd == full - outcome.total_nano_usd
    assert answered(outcome).saved_nano_usd < 0
    assert world.ledger.spend() == {"posted": outcome.total_nano_usd, "held": 0, "unknown": 0}


async def test_a_failing_top_is_asked_again_then_flagged(world: World) -> None:
    for name in ("cheap", "middle", "strong"):
        world.provider.on(name, BAD)
    reply = Collected()
    outcome = await climb(world, reply)
    assert asked(world) == ["cheap", "middle", "strong", "strong", "strong"]
    assert answered(outcome).flagged
    assert "sorry" in reply.text


async def test_a_retry_at_the_top_may_succeed(world: World) -> None:
    for name in ("cheap", "middle"):
        world.provider.on(name, BAD)
    world.provider.on("strong", BAD, GOOD)
    outcome = await climb(world)
    assert asked(world)[-2:] == ["strong", "strong"]
    assert not answered(outcome).flagged


async def test_the_same_answer_is_not_bought_twice(world: World) -> None:
    for name in ("cheap", "middle", "strong"):
        world.provider.on(name, BAD)
    await climb(world, temperature=0)
    assert asked(world) == ["cheap", "middle", "strong"]


async def test_a_strict_ladder_refuses_what_fails_at_the_top() -> None:
    world = World(ladder(CHEAP, STRONG, strict=True, top_retries=0))
    for name in ("cheap", "strong"):
        world.provider.on(name, BAD)
    for stream in (False, True):
        reply = Collected()
        outcome = await climb(world, reply, stream=stream)
        assert refused(outcome).code == "quality_refused"
        assert "refusal" in refused(outcome).message
        assert not reply.committed


async def test_the_better_of_two_failing_answers_is_given() -> None:
    world = World(ladder(STRONG, threshold=1.0, top_retries=1))
    hedged = Answers(Says("Perhaps it might be Paris, but I am not sure, I could be wrong."))
    world.provider.on("strong", hedged, BAD)
    reply = Collected()
    outcome = await climb(world, reply)
    assert answered(outcome).flagged
    assert "Paris" in reply.text


async def test_a_faulty_rung_is_passed_over(world: World) -> None:
    world.provider.on("cheap", Faults("upstream_timeout", "unknown"))
    world.provider.on("middle", GOOD)
    outcome = await climb(world)
    assert asked(world) == ["cheap", "middle"]
    assert outcome.attempts[0].error == "upstream_timeout"
    charged = outcome.attempts[0].cost_nano_usd
    assert world.ledger.spend()["unknown"] == charged > 100 * 1_000


async def test_unbilled_faults_are_tried_again_with_growing_pauses() -> None:
    world = World(ladder(CHEAP), max_retries=3)
    fault = Faults("upstream_overloaded")
    world.provider.on("cheap", fault, fault, fault, GOOD)
    outcome = await climb(world)
    assert answered(outcome)
    assert world.clock.slept == [0.1875, 0.375, 0.75]
    assert outcome.total_nano_usd == outcome.attempts[-1].cost_nano_usd


async def test_retry_after_is_waited_for_if_it_is_short() -> None:
    world = World(ladder(CHEAP))
    world.provider.on("cheap", Faults("upstream_rate_limited", retry_after_s=3), GOOD)
    assert answered(await climb(world))
    assert world.clock.slept == [3]
    world.provider.on("cheap", Faults("upstream_rate_limited", retry_after_s=60), GOOD)
    assert refused(await climb(world)).retry_after_s == 60
    assert world.clock.slept == [3]


@pytest.mark.parametrize("code", ["upstream_refused", "upstream_authentication"])
async def test_some_faults_are_not_worth_repeating(code: str) -> None:
    world = World(ladder(CHEAP))
    world.provider.on("cheap", Faults(code))
    assert refused(await climb(world)).code == code
    assert asked(world) == ["cheap"]


@pytest.mark.parametrize(
    ("ladder_mode", "request_mode", "strict", "live"),
    [
        ("auto", None, False, True),
        ("auto", None, True, False),
        ("stream", None, True, True),
        ("buffer", None, False, False),
        ("buffer", "stream", False, True),
        ("stream", "buffer", False, False),
    ],
)
async def test_when_the_last_rung_streams_live(
    ladder_mode: str, request_mode: str | None, strict: bool, live: bool
) -> None:
    """Live: what was said before the fault is out. Held: nothing is."""
    world = World(ladder(STRONG, stream_mode=ladder_mode, strict=strict))
    world.provider.on("strong", Faults("upstream_reset", "unknown", after=2))
    reply = Collected()
    outcome = await climb(world, reply, stream=True, stream_mode=request_mode)
    assert refused(outcome).code == "upstream_reset"
    assert reply.committed is live


async def test_a_live_answer_that_fails_is_flagged_and_not_asked_again() -> None:
    world = World(ladder(CHEAP, STRONG))
    world.provider.on("cheap", BAD)
    world.provider.on("strong", BAD)
    outcome = await climb(world, stream=True)
    assert asked(world) == ["cheap", "strong"]
    assert answered(outcome).flagged


async def test_a_model_by_name_is_not_judged(world: World) -> None:
    world.provider.on("strong", BAD)
    outcome = await climb(world, model="strong")
    assert answered(outcome).answered_by is not None
    assert outcome.attempts[0].verdict is None
    assert not answered(outcome).flagged


async def test_a_bug_is_settled_at_the_worst_and_raised(world: World) -> None:
    world.provider.on("cheap", Bug())
    with pytest.raises(RuntimeError):
        await climb(world)
    assert world.ledger.spend()["held"] == 0
    assert world.ledger.spend()["unknown"] > 0
    assert refused(world.sink.outcomes[0]).code == "internal_error"


async def test_max_cost_trims_the_ladder_and_says_so(world: World) -> None:
    world.provider.on("cheap", GOOD)
    outcome = await climb(world, max_cost_nano_usd=500_000, max_tokens=300)
    assert outcome.decision.ladder is not None
    assert [rung.model.name for rung in outcome.decision.ladder.rungs] == ["cheap"]
    assert any("strong" in notice for notice in outcome.decision.notices)


async def test_a_cost_cap_that_nothing_fits_is_a_refusal(world: World) -> None:
    outcome = await climb(world, max_cost_nano_usd=10)
    assert refused(outcome).code == "max_cost_exceeded"
    assert not world.provider.calls
    assert world.ledger.spend() == {"posted": 0, "held": 0, "unknown": 0}


async def test_only_a_configured_provider_gets_the_callers_key() -> None:
    for forward in (False, True):
        world = World(ladder(CHEAP), forward_caller_key=forward)
        await climb(world, caller_key="sk-caller")
        assert world.provider.calls[0].caller_key == ("sk-caller" if forward else None)


async def test_what_was_streamed_is_charged_where_cancelling_stops_the_bill() -> None:
    world = World(ladder(CHEAP), cancel_stops_billing=True)
    world.provider.on("cheap", Faults("upstream_reset", "unknown", after=3))
    outcome = await climb(world, stream=True, model="cheap")
    usage = outcome.attempts[0].usage
    assert usage.estimated
    assert 0 < usage.output_tokens < 20
    assert outcome.attempts[0].cost_nano_usd < 100 * 1_000


async def test_usage_before_the_end_is_not_the_bill() -> None:
    """A provider that counts as it goes, and breaks off: nobody knows what it charges."""
    world = World(ladder(CHEAP))
    says = Says("The capital of France is Paris.", chunks=5, usage_on="every")
    world.provider.on("cheap", Faults("upstream_reset", "unknown", after=3, says=says))
    outcome = await climb(world, stream=True, model="cheap")
    assert outcome.attempts[0].billing == "unknown"
    assert outcome.attempts[0].cost_nano_usd >= 100 * 1_000


async def test_what_was_never_sent_is_free() -> None:
    world = World(ladder(CHEAP))
    world.provider.on("cheap", Faults("upstream_timeout", "not_billed"))
    outcome = await climb(world)
    assert outcome.total_nano_usd == 0


async def test_tool_calls_without_usage_are_counted() -> None:
    words = '{"text": "' + "word " * 200 + '"}'
    call = {"id": "1", "type": "function", "function": {"name": "say", "arguments": words}}
    tools = [{"type": "function", "function": {"name": "say", "parameters": {}}}]
    for stream in (False, True):
        world = World(ladder(CHEAP))
        says = Says("", tool_calls=[call], usage_on="none", finish_reason="tool_calls")
        world.provider.on("cheap", Answers(says))
        outcome = await climb(world, stream=stream, model="cheap", tools=tools)
        assert outcome.attempts[0].usage.output_tokens >= 200


async def test_hidden_thoughts_without_usage_are_charged_at_the_worst() -> None:
    thinker = model("thinker", 10, capabilities=frozenset({"reasoning"}))
    world = World(ladder(thinker))
    world.provider.on("thinker", Answers(Says("Paris.", usage_on="none")))
    outcome = await climb(world, model="thinker")
    assert outcome.attempts[0].billing == "unknown"


async def test_two_bounds_are_sent_as_one() -> None:
    world = World(ladder(CHEAP))
    await climb(world, model="cheap", max_tokens=100_000, max_completion_tokens=5)
    fields = world.provider.calls[0].fields
    assert bytes(fields["max_tokens"]) == b"5"
    assert "max_completion_tokens" not in fields
