"""Answers looked at more closely: what is asked, what it costs, what becomes of them."""

import asyncio
import json
import struct
from collections.abc import Callable
from typing import TypeVar

import msgspec
import pytest
from msgspec.structs import replace

from cascaded.adapters.nothing import NoGuardrail
from cascaded.pipeline.afterwards import MAX_WAITING, Afterwards
from cascaded.pipeline.run import run
from cascaded.pipeline.scrutiny import Scrutiny
from cascaded.policy.quality.weighing import Weighing
from cascaded.ports import Call
from cascaded.types.decision import Decision, Refusal
from cascaded.types.model import Ladder
from cascaded.types.profile import QualityPreferences, UserProfile
from cascaded.types.quality import QualityConfig
from cascaded.types.request import Asks, Request
from cascaded.types.result import Attempt, Completion, Outcome, Result, Verdict
from cascaded.types.vectors import Unavailable, Vector
from tests.support.fakes import (
    Answers,
    Collected,
    Faults,
    Known,
    World,
    ladder,
    model,
    request,
    shipped_judgement,
)
from tests.support.upstream import Says

CHEAP, STRONG, JUDGE = model("cheap", 1), model("strong", 10), model("judge", 2)
QUESTION = "Tom has 17 boxes of 23 pens each. How many pens has he?"
RIGHT = Answers(Says("Each box has 23 pens, so 17 * 23 = 391. The answer is 391."))
WRONG = Answers(Says("Each box has 23 pens, so 17 * 23 = 381. The answer is 381."))
YES, NO = Answers(Says("Yes")), Answers(Says("No"))

ASKED = ("domain", "quality_mode", "wants_logprobs")
STRICT = replace(QualityConfig.strict(), similarity_min=None, toxicity_max=None)
BALANCED = replace(QualityConfig.balanced(), similarity_min=None, toxicity_max=None)


def said_of(answer: Answers) -> float:
    """What the shipped judgement says of it."""
    weighing = Weighing(
        BALANCED, shipped_judgement(), QUESTION, Completion(text=answer.says.text), Asks()
    )
    return weighing.verdict().score


MIDDLE = (said_of(RIGHT) + said_of(WRONG)) / 2
"""A threshold that tells them apart."""


class Near:
    """An embedder that finds every answer as near, or none."""

    name = "near"

    def __init__(self, *vectors: tuple[float, ...]) -> None:
        self.vectors = vectors

    async def embed(self, texts: list[str]) -> tuple[Vector, ...] | Unavailable:
        if not self.vectors:
            return Unavailable("absent", "near", "no model")
        both = [struct.pack("<2f", *vector) for vector in self.vectors]
        return tuple(both[min(n, len(both) - 1)] for n in range(len(texts)))


class Rude:
    """A classifier of one mind."""

    name, labels = "rude", ("fine", "toxic")

    def __init__(self, toxic: float) -> None:
        self.toxic = toxic

    async def classify(self, texts: list[object]) -> tuple[tuple[float, ...], ...]:
        return tuple((1 - self.toxic, self.toxic) for _ in texts)


T = TypeVar("T")


async def inline(work: Callable[[], T]) -> T:
    return work()


def world(
    quality: QualityConfig = BALANCED, climbed: Ladder | None = None, **parts: object
) -> World:
    return World(climbed or ladder(CHEAP, STRONG), quality=quality, **parts)  # type: ignore[arg-type]


async def ask(world: World, text: str = QUESTION, **members: object) -> Outcome:
    known = {name: members.pop(name) for name in ASKED if name in members}
    asked = replace(request(text, **members), **known)
    return await run(world.pipeline, asked, Collected())


def verdict(outcome: Outcome, line: int = 0) -> Verdict:
    found = outcome.attempts[line].verdict
    assert found is not None
    return found


def roles(outcome: Outcome) -> list[str]:
    return [attempt.role for attempt in outcome.attempts]


def body(call: Call) -> dict[str, object]:
    found: dict[str, object] = json.loads(msgspec.json.encode(call.fields))
    return found


class TestBalanced:
    async def test_a_wrong_sum_is_escalated_and_a_right_one_is_kept(self) -> None:
        judging = world(climbed=ladder(CHEAP, STRONG, threshold=MIDDLE))
        judging.provider.on("cheap", RIGHT)
        kept = await ask(judging)
        assert kept.attempts[0].accepted
        assert MIDDLE < verdict(kept).confidence < 1
        assert verdict(kept).parts["sums"] > 0
        judging.provider.on("cheap", WRONG)
        judging.provider.on("strong", RIGHT)
        climbed = await ask(judging)
        assert [attempt.accepted for attempt in climbed.attempts] == [False, True]

    async def test_fast_looks_at_form_alone(self) -> None:
        rules = world(QualityConfig.fast())
        rules.provider.on("cheap", WRONG)
        outcome = await ask(rules)
        assert outcome.attempts[0].accepted
        assert verdict(outcome).parts == {}

    async def test_a_call_says_its_own_mode(self) -> None:
        fast = world(QualityConfig.fast())
        assert verdict(await ask(fast, quality_mode="balanced")).parts
        slow = world()
        assert not verdict(await ask(slow, quality_mode="fast")).parts

    async def test_alternatives_are_asked_for_only_where_they_are_used(self) -> None:
        for quality, expected in ((QualityConfig.fast(), None), (BALANCED, 5)):
            asking = world(quality)
            await ask(asking)
            assert body(asking.provider.calls[-1]).get("top_logprobs") == expected
            await ask(asking, logprobs=True, wants_logprobs=True)
            assert "top_logprobs" not in body(asking.provider.calls[-1])


class TestSmallModels:
    LONG = Answers(Says("The river rose in spring and twelve boats went down to the sea."))

    def scrutiny(self, **parts: object) -> Scrutiny:
        return Scrutiny(offload=inline, judgement=shipped_judgement, **parts)  # type: ignore[arg-type]

    async def looked_at(self, scrutiny: Scrutiny, **known: object) -> Verdict:
        quality = replace(QualityConfig.balanced(), combined=False)
        asking = world(quality, scrutiny=scrutiny, climbed=ladder(CHEAP))
        asking.provider.on("cheap", self.LONG)
        return verdict(await ask(asking, "When did the river rise?", **known))

    async def test_an_answer_far_from_its_question_falls(self) -> None:
        near = await self.looked_at(self.scrutiny(embedder=Near((1, 0), (0.8, 0.6))))
        assert near.similarity is not None
        assert near.similarity > 0.9
        assert near.failed == ()
        far = await self.looked_at(self.scrutiny(embedder=Near((1, 0), (0.05, 1))))
        assert far.failed == ("similarity",)

    async def test_a_toxic_answer_falls(self) -> None:
        scrutiny = self.scrutiny(embedder=Near((1, 0)), toxicity=Rude(0.9), toxic_labels=(1,))
        assert (await self.looked_at(scrutiny)).failed == ("toxicity",)

    async def test_what_cannot_be_asked_is_told(self) -> None:
        absent = await self.looked_at(self.scrutiny(embedder=Near()))
        assert absent.unseen == ("similarity: no model",)
        assert absent.failed == ()
        assert (await self.looked_at(self.scrutiny())).unseen == (
            "similarity: there is no embedder",
        )

    async def test_a_profile_may_ask_for_similarity(self) -> None:
        wanted = QualityPreferences(enable_semantic_validation=True, minimum_quality=0.3)
        profile = UserProfile(user_id="uid:0", quality_preferences=wanted)
        asking = world(
            QualityConfig.fast(),
            scrutiny=self.scrutiny(embedder=Near((1, 0), (0.05, 1))),
            directory=Known(profile),
        )
        asking.provider.on("cheap", self.LONG)
        assert verdict(await ask(asking)).failed == ("similarity",)


class TestSamples:
    async def test_where_the_stakes_are_high_samples_must_agree(self) -> None:
        asking = world(STRICT, ladder(CHEAP, STRONG, threshold=MIDDLE))
        asking.provider.on("cheap", RIGHT)
        outcome = await ask(asking, domain="medical")
        assert roles(outcome) == ["answer", "sample", "sample", "sample"]
        assert verdict(outcome).agreement == 1.0
        assert outcome.attempts[0].accepted
        assert asking.ledger.spend()["posted"] == outcome.total_nano_usd

    async def test_samples_that_say_something_else_reject_it(self) -> None:
        asking = world(STRICT, ladder(CHEAP, STRONG, threshold=MIDDLE))
        asking.provider.on("cheap", RIGHT, WRONG)
        asking.provider.on("strong", RIGHT)
        outcome = await ask(asking, domain="legal")
        assert roles(outcome) == ["answer", *["sample"] * 3] * 2
        assert "self_consistency" in verdict(outcome).failed
        assert outcome.attempts[4].accepted

    async def test_elsewhere_there_are_none(self) -> None:
        asking = world(STRICT)
        assert "sample" not in roles(await ask(asking, domain="travel"))
        everywhere = world(replace(STRICT, selfcheck_domains=()))
        everywhere.provider.on("cheap", RIGHT)
        assert "sample" in roles(await ask(everywhere))

    async def test_a_call_of_temperature_0_is_sampled_warm(self) -> None:
        asking = world(replace(STRICT, selfcheck_domains=()))
        asking.provider.on("cheap", RIGHT)
        await ask(asking, temperature=0)
        assert [body(call)["temperature"] for call in asking.provider.calls[:2]] == [0, 0.7]

    async def test_samples_that_fail_are_told_and_paid(self) -> None:
        asking = world(replace(STRICT, selfcheck_domains=()), ladder(CHEAP, threshold=0.4))
        asking.provider.on("cheap", RIGHT, Faults("upstream_timeout", "unknown"))
        outcome = await ask(asking)
        assert verdict(outcome).unseen == ("self-consistency: no sample was answered",)
        assert asking.ledger.spend()["unknown"] > 0

    async def test_a_rejected_draft_is_not_worth_a_sample(self) -> None:
        asking = world(replace(STRICT, selfcheck_domains=()))
        asking.provider.on("cheap", Answers(Says("I'm sorry, but I can't help with that.")))
        asking.provider.on("strong", RIGHT)
        assert roles(await ask(asking))[:2] == ["answer", "answer"]

    async def test_the_worst_path_has_them(self) -> None:
        plain, sampled = world(BALANCED), world(replace(STRICT, selfcheck_domains=()))
        one = (await ask(plain, max_tokens=100)).decision.menu[0]
        four = (await ask(sampled, max_tokens=100)).decision.menu[0]
        assert four.worst_nano_usd == 4 * one.worst_nano_usd

    async def test_under_a_tight_cap_they_are_left_out_and_told(self) -> None:
        plain = (await ask(world(BALANCED), max_tokens=100)).decision.menu[0].worst_nano_usd
        asking = world(replace(STRICT, selfcheck_domains=()))
        asking.provider.on("cheap", RIGHT)
        outcome = await ask(asking, max_tokens=100, max_cost_nano_usd=plain)
        assert "sample" not in roles(outcome)
        assert any("no room for samples" in told for told in outcome.notices)

    async def test_one_who_leaves_has_paid_for_all_that_were_begun(self) -> None:
        asking = world(replace(STRICT, selfcheck_domains=()), ladder(CHEAP, threshold=0.4))
        asking.provider.on("cheap", RIGHT)
        task = asyncio.create_task(ask(asking))  # noqa: TID251  awaited below
        while len(asking.provider.calls) < 3:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        spend = asking.ledger.spend()
        assert spend["held"] == 0
        [outcome] = asking.sink.outcomes
        assert len(outcome.attempts) == len(asking.provider.calls)
        assert spend["posted"] + spend["unknown"] == outcome.total_nano_usd


class TestJudge:
    async def test_its_no_counts_and_is_paid(self) -> None:
        providers = world(BALANCED, ladder(CHEAP, STRONG, threshold=MIDDLE), judge=JUDGE)
        providers.provider.on("cheap", RIGHT)
        providers.provider.on("judge", YES)
        good = await ask(providers)
        assert roles(good) == ["answer", "judge"]
        providers.provider.on("judge", NO)
        bad = await ask(providers)
        assert verdict(bad).confidence < verdict(good).confidence
        call = providers.provider.calls[1]
        assert body(call)["max_tokens"] == 4
        assert QUESTION in json.dumps(body(call)["messages"])
        total = good.total_nano_usd + bad.total_nano_usd
        assert providers.ledger.spend()["posted"] == total

    async def test_it_is_shown_what_went_upstream(self) -> None:
        class Redacting(NoGuardrail):
            async def inspect(self, request: Request, decision: Decision) -> Decision:
                messages = (msgspec.Raw(b'{"role": "user", "content": "What is [SECRET]?"}'),)
                fields = {**request.fields, "messages": msgspec.Raw(msgspec.json.encode(messages))}
                return replace(decision, asked=replace(request, fields=fields, messages=messages))

        asking = world(BALANCED, ladder(CHEAP, threshold=0.1), judge=JUDGE, guardrail=Redacting())
        asking.provider.on("judge", YES)
        await ask(asking, "What is hunter2?")
        shown = json.dumps([body(call) for call in asking.provider.calls])
        assert "[SECRET]" in json.dumps(body(asking.provider.calls[-1])["messages"])
        assert "hunter2" not in shown

    async def test_one_that_mumbles_is_told(self) -> None:
        asking = world(BALANCED, ladder(CHEAP, threshold=0.3), judge=JUDGE)
        asking.provider.on("cheap", RIGHT)
        asking.provider.on("judge", Answers(Says("Well, that depends")))
        assert verdict(await ask(asking)).unseen == ("judge: it gave no verdict",)

    async def test_it_is_not_shown_what_was_not_set_aside(self) -> None:
        asking = world(BALANCED, ladder(CHEAP, threshold=0.0), judge=JUDGE)
        asking.provider.on("cheap", Answers(Says("word " * 30_000)))
        outcome = await ask(asking, max_tokens=100)
        assert "judge" not in roles(outcome)

    async def test_a_model_that_the_caller_may_not_have_does_not_judge(self) -> None:
        profile = UserProfile(user_id="uid:0", blocked_models=("judge",))
        asking = world(BALANCED, judge=JUDGE, directory=Known(profile))
        asking.provider.on("cheap", RIGHT)
        assert "judge" not in roles(await ask(asking))

    async def test_without_a_price_nothing_is_asked(self) -> None:
        asking = world(BALANCED, judge=replace(JUDGE, price=None))
        end = (await ask(asking)).end
        assert isinstance(end, Refusal)
        assert end.code == "price_unknown"


class TestAfterwards:
    async def outcome_of(self, answer: Answers, quality: QualityConfig) -> tuple[Request, Outcome]:
        asking = world(quality, ladder(CHEAP, threshold=MIDDLE))
        asking.provider.on("cheap", answer)
        asked = request(QUESTION)
        return asked, await run(asking.pipeline, asked, Collected())

    async def test_answers_go_out_by_rules_and_are_marked_later(self) -> None:
        told: list[tuple[Request, Attempt, Verdict]] = []
        later = Afterwards(lambda *heard: told.append(heard))
        quality = replace(BALANCED, validation_mode="async")
        for answer in (RIGHT, WRONG):
            asked, outcome = await self.outcome_of(answer, quality)
            assert isinstance(outcome.end, Result)
            assert verdict(outcome).parts == {}
            later.record(asked, outcome)
        scrutiny = Scrutiny(offload=inline, judgement=shipped_judgement)
        work = asyncio.create_task(later.work(lambda: scrutiny))  # noqa: TID251  ended below
        while later.figures.good + later.figures.low < 2:
            await asyncio.sleep(0)
        work.cancel()
        assert (later.figures.good, later.figures.low) == (1, 1)
        [(_, line, said)] = told
        assert line.model.name == "cheap"
        assert said.score < MIDDLE

    async def test_others_are_left_alone(self) -> None:
        later = Afterwards(lambda *_: None)
        for quality in (BALANCED, QualityConfig.fast()):
            later.record(*await self.outcome_of(RIGHT, quality))
        assert later._waiting.empty()

    async def test_too_many_are_dropped_and_counted(self) -> None:
        later = Afterwards(lambda *_: None)
        asked, outcome = await self.outcome_of(RIGHT, replace(BALANCED, validation_mode="async"))
        for _ in range(MAX_WAITING + 3):
            later.record(asked, outcome)
        assert later.figures.dropped == 3

    async def test_a_fault_is_counted_and_ends_nothing(self) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError("a bug")

        later = Afterwards(broken)
        asked, outcome = await self.outcome_of(WRONG, replace(BALANCED, validation_mode="async"))
        later.record(asked, outcome)
        scrutiny = Scrutiny(offload=inline, judgement=shipped_judgement)
        work = asyncio.create_task(later.work(lambda: scrutiny))  # noqa: TID251  ended below
        while not later.figures.failed:
            await asyncio.sleep(0)
        assert not work.done()
        work.cancel()
