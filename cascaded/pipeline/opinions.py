"""Opinions: further calls about one answer, each an attempt of its own under the same hold."""

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from cascaded.pipeline.attempt import Trial
from cascaded.policy.pricing import JUDGE_OUTPUT_TOKENS, judge_tokens
from cascaded.policy.quality.judge import judge_messages, judged_chance
from cascaded.policy.tokens import Vocabularies
from cascaded.types.decision import Decision
from cascaded.types.model import Model
from cascaded.types.request import Asks, Request
from cascaded.types.result import Completion
from cascaded.wire.between.forms import OTHERS
from cascaded.wire.openai_chat import last_question

SAMPLED_AT = Raw(b"0.7")
"""The temperature of samples of a call that has 0: equal answers would prove nothing."""
JUDGED_CHARS_MAX = 40_000
FRAMING_TOKENS = 64
"""Of the roles and marks around what a judge is shown."""

Ask = Callable[[Model, Callable[[Model], Trial]], Awaitable[Trial]]
"""Makes a trial of a model where it is served and runs it, held back and booked."""


def samplers(
    ask: Ask,
    index: int,
    model: Model,
    request: Request,
    decision: Decision,
    vocabularies: Vocabularies,
) -> list[Callable[[], Awaitable[str | None]]]:
    """Who asks the model that answered for the same again, as often as the ladder says."""
    assert decision.ladder is not None
    samples = decision.ladder.samples
    if request.deterministic:
        request, decision = _warmer(request, decision)

    def make(place: Model) -> Trial:
        return Trial(index, place, request, decision, vocabularies, "sample")

    async def sample() -> str | None:
        trial = await ask(model, make)
        return None if trial.fault else trial.completion.text

    return [sample] * samples


def judging(
    ask: Ask, index: int, request: Request, decision: Decision, vocabularies: Vocabularies
) -> Callable[[Completion], Awaitable[float | None]] | None:
    """Who asks the ladder's judge of an answer, if it has one."""
    assert decision.ladder is not None
    judge = decision.ladder.judge
    if judge is None:
        return None

    async def ask_judge(answer: Completion) -> float | None:
        # As it went upstream: a guardrail may have taken something out of what the caller said.
        messages = judge_messages(last_question(request.messages), answer.text)
        shown = sum(len(message["content"]) for message in messages)
        if shown > JUDGED_CHARS_MAX:
            return None
        counted = FRAMING_TOKENS + sum(
            vocabularies.count_text(judge.vocabulary, message["content"]) for message in messages
        )
        if counted > judge_tokens(decision.input_tokens, decision.max_output_tokens):
            return None  # more than was set aside for it
        put = _to_judge(judge, messages, request, decision, counted)

        def make(place: Model) -> Trial:
            return Trial(index, place, *put, vocabularies, "judge")

        trial = await ask(judge, make)
        return None if trial.fault else judged_chance(trial.completion)

    return ask_judge


def _to_judge(
    judge: Model,
    messages: list[dict[str, str]],
    request: Request,
    decision: Decision,
    counted: int,
) -> tuple[Request, Decision]:
    """The call as it is put to a judge: nothing of the caller's but the words."""
    told = tuple(Raw(msgspec.json.encode(message)) for message in messages)
    fields = {
        "messages": Raw(msgspec.json.encode(messages)),
        "temperature": Raw(b"0"),
        "max_tokens": Raw(b"%d" % JUDGE_OUTPUT_TOKENS),
    }
    bodies = {} if judge.form == "chat" else {judge.form: OTHERS[judge.form].from_chat(fields)}
    request = replace(
        request,
        fields=fields,
        original=None,
        messages=told,
        stream=False,
        include_usage=False,
        wants_logprobs=False,
        max_output_tokens=JUDGE_OUTPUT_TOKENS,
        choices=1,
        deterministic=True,
        asks=Asks(),
    )
    decision = replace(
        decision, input_tokens=counted, max_output_tokens=JUDGE_OUTPUT_TOKENS, bodies=bodies
    )
    return request, decision


def _warmer(request: Request, decision: Decision) -> tuple[Request, Decision]:
    """The same call with a temperature, in whatever form it is put."""
    original = request.original
    if original is not None:
        original = replace(original, fields=_warm(original.fields))
    bodies = {form: _warm(body) for form, body in decision.bodies.items()}
    request = replace(request, fields=_warm(request.fields), original=original)
    return request, replace(decision, bodies=bodies)


def _warm(fields: Mapping[str, Raw]) -> dict[str, Raw]:
    return {**fields, "temperature": SAMPLED_AT}
