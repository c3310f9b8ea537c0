"""Random ladders, providers that misbehave and callers that leave, with a clock of our own.

Whatever happens: every hold is settled, nothing that a provider billed is missing from the books,
and a caller sees the words of one attempt only.
"""

import asyncio
import contextlib
from collections.abc import Awaitable

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cascaded.pipeline.run import run
from cascaded.policy.outages import Thresholds
from cascaded.policy.pricing import cost
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Outcome, Result
from tests.support.fakes import (
    Answers,
    Bug,
    Collected,
    Faults,
    Script,
    World,
    ladder,
    model,
    request,
)
from tests.support.upstream import Says

NAMES = ("cheap", "middle", "strong")
SPARE = "spare"
SPEAKERS = (*NAMES, SPARE)
WORDS = {
    "cheap": "Cheap says that it is Paris.",
    "middle": "Middle says that it is Paris.",
    "strong": "Strong says that it is Paris.",
    "spare": "Spare says that it is Paris.",
}
REFUSALS = {name: f"I'm sorry, but I can't help with that. ({name})" for name in SPEAKERS}


@st.composite
def scripts(draw: st.DrawFn, name: str) -> Script:
    kind = draw(st.sampled_from(["good", "bad", "fault", "bug"]))
    if kind in ("good", "bad"):
        text = (WORDS if kind == "good" else REFUSALS)[name]
        where = draw(st.sampled_from(["own", "last", "none"]))
        return Answers(Says(text, chunks=draw(st.integers(1, 8)), usage_on=where))
    if kind == "bug":
        return Bug()
    return Faults(
        draw(st.sampled_from(["upstream_reset", "upstream_rate_limited", "upstream_timeout"])),
        draw(st.sampled_from(["unknown", "not_billed"])),
        after=draw(st.integers(0, 6)),
    )


@settings(max_examples=400)
@given(data=st.data())
def test_books_and_words(data: st.DataObject) -> None:
    names = NAMES[: data.draw(st.integers(1, 3))]
    climbed = ladder(
        *(model(name, 1 + 4 * index) for index, name in enumerate(names)),
        strict=data.draw(st.booleans()),
        stream_mode=data.draw(st.sampled_from(["auto", "stream", "buffer"])),
    )
    spare = (model(SPARE, data.draw(st.sampled_from([1, 20]))),)
    climbed = replace(
        climbed,
        rungs=tuple(
            replace(rung, fallbacks=spare if data.draw(st.booleans()) else ())
            for rung in climbed.rungs
        ),
    )
    world = World(
        climbed,
        cancel_stops_billing=data.draw(st.booleans()),
        thresholds=Thresholds(failures=data.draw(st.sampled_from([0, 1, 2]))),
    )
    for name in (*names, SPARE):
        world.provider.on(name, *data.draw(st.lists(scripts(name), min_size=1, max_size=3)))
    reply = Collected(data.draw(st.none() | st.integers(0, 8)))
    cancel_after = data.draw(st.none() | st.integers(1, 30))
    cap = data.draw(st.sampled_from([None, 1_000_000, 2_000_000, 4_000_000]))
    asked = request(stream=data.draw(st.booleans()), max_tokens=50, max_cost_nano_usd=cap)
    asyncio.run(_run(world, asked, reply, cancel_after))

    spend = world.ledger.spend()
    assert spend["held"] == 0
    [outcome] = world.sink.outcomes
    assert spend["posted"] + spend["unknown"] == outcome.total_nano_usd
    assert len(outcome.attempts) == len(world.provider.calls)
    hold = outcome.decision.hold
    if hold is not None:
        assert outcome.total_nano_usd <= hold.nano_usd
    for attempt in outcome.attempts:
        assert attempt.cost_nano_usd >= _least_bill(attempt)
    speakers = {name for name in SPEAKERS if name in reply.text.lower()}
    assert len(speakers) <= 1, "two models' words in one answer"
    if isinstance(outcome.end, Result):
        answered_by = outcome.end.answered_by
        assert answered_by is not None
        assert speakers == {answered_by.model.name}
        if not outcome.end.flagged:
            assert "sorry" not in reply.text


def _least_bill(attempt: Attempt) -> int:
    """What the provider has certainly billed."""
    price = attempt.model.price
    assert price is not None
    billed = attempt.error is None and not attempt.usage.estimated
    return cost(price, attempt.usage) if billed else 0


async def _run(world: World, asked: Request, reply: Collected, cancel_after: int | None) -> None:
    """The request as a task of its own, cancelled after so many turns of the loop."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_quietly(run(world.pipeline, asked, reply)))
        turns = 0
        while not task.done():
            if turns == cancel_after:
                task.cancel()
            turns += 1
            await asyncio.sleep(0)


async def _quietly(outcome: Awaitable[Outcome]) -> None:
    with contextlib.suppress(RuntimeError):  # the scripted bug
        await outcome
