"""The climb: draft, judge, keep or escalate.

When a stream commits: every rung that a better one could replace is held back whole, so a
rejected draft never reaches the caller. The last rung has nothing above it and may stream as it
speaks; its first event is then the commit point, and a later failure can only end the answer
with an error.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import msgspec
from msgspec.structs import replace

from cascaded.pipeline.attempt import HeldReply, Trial
from cascaded.pipeline.opinions import judging, samplers
from cascaded.pipeline.scrutiny import Scrutiny, scrutinise
from cascaded.pipeline.watch import Watch
from cascaded.policy.pricing import saving
from cascaded.policy.quality import assess
from cascaded.policy.routing.balance import Balance
from cascaded.policy.tokens import Vocabularies
from cascaded.ports import Clock, Objection, Provider, Reply, Screening
from cascaded.types.decision import Decision, Refusal
from cascaded.types.errors import BlockedError, ProviderError
from cascaded.types.model import Ladder, Model
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Completion, Result

RETRY_WORTHY = frozenset(
    {
        "upstream_connect",
        "upstream_reset",
        "upstream_rate_limited",
        "upstream_overloaded",
        "upstream_server_error",
    }
)
"""Faults that may be gone in a moment. A timeout has already cost its time."""


TOO_BUSY = frozenset({"upstream_rate_limited", "upstream_overloaded"})
"""Faults after which a place is left alone for as long as it says."""


class Climber(msgspec.Struct, frozen=True, kw_only=True):
    """What a climb needs of the world."""

    providers: Mapping[str, Provider]
    watches: Mapping[str, Watch]
    """Of the same names."""
    vocabularies: Vocabularies
    scrutiny: Scrutiny
    clock: Clock
    random: Callable[[], float]
    balance: Balance = msgspec.field(default_factory=Balance)
    """Of models that are served in several places."""
    screening: Screening | None = None
    """Who looks through the answers of the call under way."""


class Candidate(msgspec.Struct, frozen=True):
    """An answer that was judged, and its place in the book."""

    completion: Completion
    held: HeldReply
    line: int
    spoke_ns: int | None
    """When the caller was given the first of it; `None`: it is held."""


async def climb(
    climber: Climber, request: Request, decision: Decision, reply: Reply, book: list[Attempt]
) -> Result | Refusal:
    """Try the rungs until one's answer is kept, and hand that answer to the reply.

    Every attempt is added to `book` as it ends, also when this is cancelled.
    """
    ladder = decision.ladder
    assert ladder is not None
    outcome: Result | Refusal | None = None
    for index in range(len(ladder.rungs)):
        outcome = await _try_rung(climber, request, decision, reply, book, index)
        if isinstance(outcome, Result) or reply.committed:
            break
    assert outcome is not None  # a ladder has at least one rung
    return outcome


async def _try_rung(
    climber: Climber,
    request: Request,
    decision: Decision,
    reply: Reply,
    book: list[Attempt],
    index: int,
) -> Result | Refusal:
    """The answer of one rung, if it is kept; else why it is not."""
    ladder = decision.ladder
    assert ladder is not None
    last = index == len(ladder.rungs) - 1
    screening = climber.screening
    live = streams_live(request, ladder, last=last) and not (screening and screening.waits)
    failed: list[Candidate] = []
    objection: Objection | None = None
    for _ in range(_tries(request, ladder, last=last, live=live)):
        held = HeldReply()
        trial = await _attempt(climber, request, decision, reply if live else held, book, index)
        if trial.fault is not None:
            if failed:
                break
            return objection.refusal if objection else refused(trial.fault)
        spoke_ns = trial.spoke_ns if live else None
        answer = trial.completion
        objection = await _objection(screening, held)
        if objection is not None:
            continue
        candidate = Candidate(answer, held, len(book) - 1, spoke_ns)
        unjudged = not ladder.checked or (live and not request.validate_quality_on_complete)
        if unjudged or await _judge(
            climber, request, decision, candidate, book, questioned=not live
        ):
            return await _keep(climber, request, decision, reply, candidate, book)
        failed.append(candidate)
        if answer.finish_reason == "length" and request.asks.bounded:
            break  # another answer would be cut at the caller's bound as well
    if objection is not None and not failed:
        return objection.refusal
    if last and (live or not ladder.strict):
        best = max(failed, key=lambda candidate: _score(book, candidate))
        return await _keep(climber, request, decision, reply, best, book, flagged=True)
    return _not_good_enough(ladder, book[failed[-1].line])


async def _objection(screening: Screening | None, held: HeldReply) -> Objection | None:
    """What guardrails have against an answer that was held. Raises `BlockedError` where there is
    to be no other."""
    if screening is None or not held.events:
        return None
    objection = await screening.objection(held.events)
    if objection is not None and not objection.retry:
        raise BlockedError(objection.refusal)
    return objection


def streams_live(request: Request, ladder: Ladder, *, last: bool) -> bool:
    """Whether this rung's words may go out as they come."""
    mode = request.stream_mode or ladder.stream_mode
    if not request.stream or not last or mode == "buffer":
        return False
    return mode == "stream" or not ladder.checked or not ladder.strict


def _tries(request: Request, ladder: Ladder, *, last: bool, live: bool) -> int:
    """How often a rung is asked. Only the last is asked again, and only where a second answer
    can differ and can still be chosen."""
    again = last and ladder.checked and not live and not request.deterministic
    return 1 + (ladder.top_retries if again else 0)


async def _attempt(
    climber: Climber,
    request: Request,
    decision: Decision,
    gate: Reply,
    book: list[Attempt],
    index: int,
) -> Trial:
    """One rung called: its model, and while that one's provider fails its fallbacks."""
    assert decision.ladder is not None
    models = decision.ladder.rungs[index].models

    def make(model: Model) -> Trial:
        return Trial(index, model, request, decision, climber.vocabularies)

    for place, model in enumerate(models):
        spare = place + 1 < len(models)
        trial = await _ask(climber, model, make, gate, book, spare=spare)
        if gate.committed or not _may_fall_back(trial, decision.ladder):
            break
    return trial


async def _ask(
    climber: Climber,
    model: Model,
    make: Callable[[Model], Trial],
    gate: Reply,
    book: list[Attempt],
    *,
    spare: bool,
) -> Trial:
    """One model called where it is served; elsewhere while that fails and certainly costs nothing,
    for the hold covers one of its places."""
    if not model.others:
        return await _call(climber, model.provider, partial(make, model), gate, book, spare=spare)
    clock, balance, left = climber.clock, climber.balance, list(model.places)

    def is_well(place: Model) -> bool:
        return climber.watches[place.provider].asked

    while True:
        place = balance.choose(left, is_well, clock.monotonic_ns(), climber.random())
        left.remove(place)
        load, trying = balance.load(place), partial(make, place)
        load.in_flight += 1
        try:
            trial = await _call(
                climber,
                place.provider,
                trying,
                gate,
                book,
                spare=spare or bool(left),
                hasty=bool(left),
            )
        finally:
            load.in_flight -= 1
        fault = trial.fault
        if fault is not None and fault.code in TOO_BUSY:
            balance.rest(place, clock.monotonic_ns(), fault.retry_after_s)
        if not left or gate.committed or not (trial.unbilled and _is_theirs(trial)):
            return trial


def _may_fall_back(trial: Trial, ladder: Ladder) -> bool:
    """Whether another model may answer instead: after a call that may have been billed only where
    the hold covers both."""
    return _is_theirs(trial) and (trial.unbilled or ladder.doubt_covered)


def _is_theirs(trial: Trial) -> bool:
    """Whether there is a fault, and not the caller's."""
    fault = trial.fault
    if fault is None or fault.code == "upstream_refused":
        return False
    return fault.code != "upstream_authentication" or not trial.with_callers_key


async def _call(
    climber: Climber,
    name: str,
    make: Callable[[], Trial],
    gate: Reply,
    book: list[Attempt],
    *,
    spare: bool,
    hasty: bool = False,
) -> Trial:
    """One model called, and called again after faults that may pass, with growing pauses.

    With somebody to `spare` a provider that asks for a pause gets it, and is not waited for.
    `hasty`: nobody is, for the same model can be asked elsewhere at once.
    """
    provider, watch = climber.providers[name], climber.watches[name]
    trial = make()
    for retry in range(provider.traits.max_retries + 1):
        number = watch.enter()
        if number is None:
            trial.fault = trial.fault or watch.left_alone()
            break
        if retry:
            trial = make()
        if isinstance(gate, HeldReply):
            gate.events.clear()
        try:
            await trial.run(provider, gate, climber.clock, book)
        finally:
            watch.leave(number, trial.fault, ended=trial.ended)
        pause = _pause(provider, trial.fault, retry, climber.random, hasty=hasty)
        asked_to_wait = trial.fault is not None and trial.fault.retry_after_s is not None
        if pause is None or gate.committed or (spare and asked_to_wait):
            break
        await climber.clock.sleep(pause)
    return trial


def _pause(
    provider: Provider,
    fault: ProviderError | None,
    retry: int,
    random: Callable[[], float],
    *,
    hasty: bool,
) -> float | None:
    """Seconds until the next try; `None` when there is to be none.

    A try that may have been billed is not repeated: its hold covers one call.
    """
    traits = provider.traits
    if fault is not None and fault.another_key and retry < traits.max_retries:
        return 0.0
    if hasty or fault is None or fault.code not in RETRY_WORTHY or fault.billing == "unknown":
        return None
    if retry >= traits.max_retries:
        return None
    if fault.retry_after_s is not None:
        return fault.retry_after_s if fault.retry_after_s <= traits.backoff_max_s else None
    longest = min(traits.backoff_s * 2.0**retry, traits.backoff_max_s)
    return longest * (0.5 + random() / 2)


async def _judge(
    climber: Climber,
    request: Request,
    decision: Decision,
    candidate: Candidate,
    book: list[Attempt],
    *,
    questioned: bool,
) -> bool:
    """Whether the answer just booked is good enough; its verdict goes into the book. `questioned`:
    whether further calls may be made about it."""
    assert decision.ladder is not None
    line = book[candidate.line]
    threshold, quality = decision.ladder.rungs[line.rung].threshold, decision.quality
    if quality.rules_only or quality.validation_mode == "async":
        verdict = assess(decision.question, candidate.completion, request.asks)
    else:

        async def ask(model: Model, make: Callable[[Model], Trial]) -> Trial:
            return await _ask(climber, model, make, HeldReply(), book, spare=False)

        place = line.rung, line.model, request, decision, climber.vocabularies
        verdict = await scrutinise(
            climber.scrutiny,
            request,
            decision,
            candidate.completion,
            model=line.model.name,
            threshold=threshold,
            samplers=samplers(ask, *place) if questioned else (),
            judge=judging(ask, line.rung, *place[2:]) if questioned else None,
        )
    book[candidate.line] = replace(line, verdict=verdict)
    return verdict.score >= threshold


def _score(book: list[Attempt], candidate: Candidate) -> float:
    verdict = book[candidate.line].verdict
    return verdict.score if verdict else 0.0


async def _keep(
    climber: Climber,
    request: Request,
    decision: Decision,
    reply: Reply,
    kept: Candidate,
    book: list[Attempt],
    *,
    flagged: bool = False,
) -> Result:
    """Hand a judged answer over."""
    spoke_ns = kept.spoke_ns
    if request.stream and spoke_ns is None:
        spoke_ns = climber.clock.monotonic_ns()
    answered_by = book[kept.line] = replace(book[kept.line], accepted=True)
    for event in kept.held.events:
        await reply.send(event)
    assert decision.ladder is not None
    saved = saving(decision.ladder, answered_by.usage, book)
    return Result(
        answer=kept.completion,
        answered_by=answered_by,
        flagged=flagged,
        saved_nano_usd=saved.nano_usd,
        full_nano_usd=saved.full_nano_usd,
        reference_priced=saved.at_reference_prices,
        notices=tuple(_stand_ins(decision.ladder, answered_by, book)),
        spoke_ns=spoke_ns,
    )


def _stand_ins(ladder: Ladder, answered_by: Attempt, book: list[Attempt]) -> Iterator[str]:
    """Who did not answer because its provider fails."""
    for index, rung in enumerate(ladder.rungs[: answered_by.rung]):
        if all(line.rung != index for line in book):
            yield f"'{rung.model.name}' was not asked: provider '{rung.model.provider}' is failing."
    asked = ladder.rungs[answered_by.rung].model
    if answered_by.model.name != asked.name:
        yield (
            f"'{answered_by.model.name}' answered in place of '{asked.name}':"
            f" provider '{asked.provider}' is failing."
        )


def refused(fault: ProviderError) -> Refusal:
    """A provider's fault as the caller is told of it."""
    return Refusal(
        code=fault.code,
        message=fault.message,
        retry_after_s=fault.retry_after_s,
        details={"upstream_status": fault.status, "upstream_body": fault.body},
    )


def _not_good_enough(ladder: Ladder, line: Attempt) -> Refusal:
    found = ", ".join(line.verdict.failed) if line.verdict else ""
    return Refusal(
        code="quality_refused",
        message=(
            f"No model of ladder '{ladder.name}' gave an answer that passed its checks"
            f" (found: {found or 'too little certainty'}). Rephrase the question, or lower the"
            " ladder's thresholds."
        ),
    )
