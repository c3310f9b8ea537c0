"""The worst that a ladder can cost, and what gives when that is above the cap."""

from collections.abc import Iterator, Set
from typing import NamedTuple

from msgspec.structs import replace

from cascaded.policy.pricing.rates import worst_cost
from cascaded.types.decision import Plan, Refusal
from cascaded.types.limits import Choice
from cascaded.types.model import Ladder, Model, Rung
from cascaded.types.money import format_usd

OUTPUT_FLOOR = 256
"""An answer is not cut below this to save money: a truncated answer is worse than a refusal."""
REASONING_OUTPUT_FLOOR = 1_024
"""The same for models that think before they speak, and may spend the bound on that."""

CHECKS_NOT_COVERED = (
    "The cost limit leaves no room for samples or a judge: answers are checked without them."
)
JUDGE_INPUT_TOKENS = 16_384
"""A judge is shown no more than this of question and answer; what is longer is not judged."""
JUDGE_PROMPT_TOKENS = 512
"""What it is told beside them, counted by bytes."""
JUDGE_OUTPUT_TOKENS = 4

DOUBT_NOT_COVERED = (
    "The cost limit leaves no room for a fallback after a call that may have been billed."
)


class _Terms(NamedTuple):
    """What the caller's request fixes."""

    input_tokens: int
    asked: int | None
    bound: int
    """`asked`, or the configured default."""
    choices: int
    cap: int | None
    billed_retries: int


def plan(
    ladder: Ladder,
    *,
    input_tokens: int,
    asked_max_output: int | None,
    choices: int,
    max_cost_nano_usd: int | None,
    default_max_output: int,
    billed_retries: int = 0,
) -> Plan | Refusal:
    """Fit a ladder to a request: context windows first, then the cap on its worst path.

    `input_tokens` is an upper bound. `billed_retries`: further calls of each rung that a provider
    may charge for. To come under the cap, in this order: an output bound that the caller did not
    set is lowered (never below a floor), the last rung is asked again less often, the upper rungs
    are dropped. Everything that was changed is told in the notices.

    Refusals: `price_unknown`, `context_length_exceeded`, `max_cost_exceeded`.
    """
    for model in (*(rung.model for rung in ladder.rungs), ladder.judge):
        if model is not None and model.price is None:
            return _price_unknown(model)
    terms = _Terms(
        input_tokens,
        asked_max_output,
        default_max_output if asked_max_output is None else asked_max_output,
        choices,
        _tighter(max_cost_nano_usd, ladder.max_cost_nano_usd),
        billed_retries,
    )
    fitting = tuple(_with_useful(rung, terms) for rung in ladder.rungs if _holds(rung.model, terms))
    if not fitting:
        return _context_exceeded(ladder, terms)
    notices = [
        _left_out(rung.model, terms) for rung in ladder.rungs if not _holds(rung.model, terms)
    ]
    if asked_max_output is None:
        most = max(
            _sent(model, terms, default_max_output) for rung in fitting for model in rung.models
        )
        terms = terms._replace(bound=most)
    if fitting != ladder.rungs:
        ladder = replace(ladder, rungs=fitting)
    planned = _within_cap(ladder, terms)
    if isinstance(planned, Refusal):
        return planned
    notices += _clamps(planned.ladder, terms)
    return replace(planned, notices=(*notices, *planned.notices)) if notices else planned


def thinned(
    planned: Plan, kept: Set[str], *, input_tokens: int, asked: bool, choices: int
) -> Plan | None:
    """The plan with those of its models only that are kept; `None` where there is none. Never
    dearer: its path is a part of what it was. Where a rung's own model goes, its
    fallbacks go too. `asked`: the bound is the caller's own."""
    ladder = planned.ladder
    rungs = tuple(_only(rung, kept) for rung in ladder.rungs if rung.model.name in kept)
    if ladder.judge is not None and ladder.judge.name not in kept:
        ladder = replace(ladder, judge=None)
    if not rungs or (rungs == ladder.rungs and ladder is planned.ladder):
        return planned if rungs else None
    retries = ladder.top_retries if rungs[-1].model is ladder.rungs[-1].model else 0
    bound = planned.max_output_tokens
    terms = _Terms(input_tokens, bound if asked else None, bound, choices, None, 0)
    ladder = replace(ladder, rungs=rungs, top_retries=retries)
    return replace(planned, ladder=ladder, worst_nano_usd=_worst(ladder, terms, bound))


def _only(rung: Rung, kept: Set[str]) -> Rung:
    """The rung with those of its fallbacks that are kept."""
    spare = tuple(model for model in rung.fallbacks if model.name in kept)
    return replace(rung, fallbacks=spare)


def choice_of(planned: Plan, *, input_tokens: int, choices: int, cheap_models: Set[str]) -> Choice:
    """The plan as the ledger sees it: its worst cost, and the tokens of its longest path."""
    ladder = planned.ladder
    longest = list(ladder.rungs)
    longest += longest[-1:] * (ladder.top_retries if ladder.checked else 0)
    bound = planned.max_output_tokens

    def tokens(model: Model) -> int:
        return (1 + ladder.samples) * (input_tokens + choices * output_bound(model, bound))

    most = sum if ladder.doubt_covered else max
    judged = judge_tokens(input_tokens, bound) + JUDGE_OUTPUT_TOKENS if ladder.judge else 0
    cheap = planned.worst_nano_usd == 0 or all(
        model.name in cheap_models for rung in ladder.rungs for model in rung.models
    )
    return Choice(
        nano_usd=planned.worst_nano_usd,
        tokens=sum(most(map(tokens, rung.models)) + judged for rung in longest),
        cheap=cheap,
    )


def unquestioned(ladder: Ladder) -> Ladder:
    """The ladder without calls that only check answers."""
    return replace(ladder, samples=0, judge=None)


def judge_tokens(input_tokens: int, output_tokens: int) -> int:
    """How many tokens a judge may be shown of such a call."""
    return min(input_tokens + output_tokens, JUDGE_INPUT_TOKENS) + JUDGE_PROMPT_TOKENS


def output_bound(model: Model, max_output_tokens: int, *, beside_input: int | None = None) -> int:
    """The bound that is sent to this model: the plan's, or the model's own where that is less.

    `beside_input`: the input tokens that the context window must hold as well. Give it where the
    bound is ours to choose; a caller's own bound is the caller's to judge.
    """
    bound = min(max_output_tokens, model.max_output_tokens or max_output_tokens)
    if beside_input is None or model.context_window is None:
        return bound
    return max(1, min(bound, model.context_window - beside_input))


def _sent(model: Model, terms: _Terms, bound: int) -> int:
    """What `output_bound` will be for this request."""
    beside = terms.input_tokens if terms.asked is None else None
    return output_bound(model, bound, beside_input=beside)


def _tighter(one: int | None, other: int | None) -> int | None:
    caps = [cap for cap in (one, other) if cap is not None]
    return min(caps, default=None)


def _floor(model: Model, terms: _Terms) -> int:
    """The least output that makes a call worth its money."""
    least = REASONING_OUTPUT_FLOOR if "reasoning" in model.capabilities else OUTPUT_FLOOR
    return output_bound(model, min(least, terms.bound))


def _holds(model: Model, terms: _Terms) -> bool:
    """Whether the prompt and a useful answer fit into the model's context window."""
    if model.context_window is None:
        return True
    return terms.input_tokens + _floor(model, terms) <= model.context_window


def _with_useful(rung: Rung, terms: _Terms) -> Rung:
    """The rung with those of its fallbacks that hold the prompt and have a price."""
    useful = tuple(one for one in rung.fallbacks if one.price is not None and _holds(one, terms))
    return rung if len(useful) == len(rung.fallbacks) else replace(rung, fallbacks=useful)


def _worst(ladder: Ladder, terms: _Terms, bound: int) -> int:
    """Nano-dollars for every rung once, the last one's retries, what is asked to check each
    answer, and what providers may repeat."""
    judged = _worst_judged(ladder.judge, terms, bound)
    worst = once = 0
    for rung in ladder.rungs:
        once = _worst_once(rung.model, terms, bound)
        for model in rung.fallbacks:
            spare = _worst_once(model, terms, bound)
            once = once + spare if ladder.doubt_covered else max(once, spare)
        once = once * (1 + ladder.samples) + judged
        worst += once
    if ladder.checked:
        worst += once * ladder.top_retries
    return worst * (1 + terms.billed_retries)


def _worst_once(model: Model, terms: _Terms, bound: int) -> int:
    """Of one call, wherever it is served."""
    sent = _sent(model, terms, bound)
    return max(
        worst_cost(place.price, terms.input_tokens, sent, terms.choices)
        for place in model.places
        if place.price is not None  # checked first
    )


def _worst_judged(judge: Model | None, terms: _Terms, bound: int) -> int:
    if judge is None:
        return 0
    assert judge.price is not None  # checked first
    shown = judge_tokens(terms.input_tokens, bound)
    return worst_cost(judge.price, shown, JUDGE_OUTPUT_TOKENS, 1)


def _within_cap(ladder: Ladder, terms: _Terms) -> Plan | Refusal:
    """The first lesser form of the ladder whose worst path the cap allows."""
    for lesser, notice in _lesser_forms(ladder):
        affordable = _affordable(lesser, terms)
        if affordable is not None:
            bound, worst = affordable
            lowered = _lowered(terms.bound, bound) if bound < terms.bound else ""
            return Plan(
                ladder=lesser,
                max_output_tokens=bound,
                worst_nano_usd=worst,
                notices=tuple(told for told in (notice, lowered) if told),
            )
    return _cost_exceeded(lesser, terms)


def _lesser_forms(ladder: Ladder) -> Iterator[tuple[Ladder, str]]:
    """The ladder, then ever cheaper ones, each with what the caller is told about it."""
    yield ladder, ""
    if ladder.doubt_covered and any(rung.fallbacks for rung in ladder.rungs):
        ladder = replace(ladder, doubt_covered=False)
        yield ladder, DOUBT_NOT_COVERED
    if ladder.checked:
        for retries in range(ladder.top_retries - 1, -1, -1):
            yield (
                replace(ladder, top_retries=retries),
                f"The cost limit leaves room for {retries} instead of {ladder.top_retries}"
                " retries of the strongest model.",
            )
    if ladder.samples or ladder.judge is not None:
        ladder = unquestioned(ladder)
        yield replace(ladder, top_retries=0), CHECKS_NOT_COVERED
    for kept in range(len(ladder.rungs) - 1, 0, -1):
        dropped = ", ".join(rung.model.name for rung in ladder.rungs[kept:])
        yield (
            replace(ladder, rungs=ladder.rungs[:kept], top_retries=0),
            f"The cost limit rules out {dropped}: only cheaper models are asked.",
        )


def _affordable(ladder: Ladder, terms: _Terms) -> tuple[int, int] | None:
    """The largest output bound, up to the one wanted, that the cap allows, and its worst path in
    nano-dollars. `None`: too little would be left."""
    wanted = _worst(ladder, terms, terms.bound)
    if terms.cap is None or wanted <= terms.cap:
        return terms.bound, wanted
    low, high = _least_bound(ladder, terms), terms.bound
    worst = _worst(ladder, terms, low)
    if worst > terms.cap:
        return None
    while high - low > 1:  # `low` is affordable and `high` is not
        middle = (low + high) // 2
        path = _worst(ladder, terms, middle)
        if path <= terms.cap:
            low, worst = middle, path
        else:
            high = middle
    return low, worst


def _least_bound(ladder: Ladder, terms: _Terms) -> int:
    """How far the output bound may be lowered: not at all where the caller set it."""
    if terms.asked is not None:
        return terms.asked
    return max(_floor(model, terms) for rung in ladder.rungs for model in rung.models)


def _lowered(wanted: int, bound: int) -> str:
    return (
        f"The answer is bounded to {bound} instead of {wanted} tokens to stay under the cost"
        " limit. Set max_tokens to choose the bound yourself."
    )


def _clamps(ladder: Ladder, terms: _Terms) -> list[str]:
    """Notices for models that allow less output than the caller asked for."""
    if terms.asked is None:
        return []
    return [
        f"{rung.model.name} gives at most {rung.model.max_output_tokens} output tokens;"
        f" {terms.asked} were asked for."
        for rung in ladder.rungs
        if output_bound(rung.model, terms.asked) < terms.asked
    ]


def _left_out(model: Model, terms: _Terms) -> str:
    return (
        f"{model.name} is left out: up to {terms.input_tokens} input tokens and an answer do not"
        f" fit into its context of {model.context_window} tokens."
    )


def _price_unknown(model: Model) -> Refusal:
    return Refusal(
        code="price_unknown",
        message=(
            f"The price of model '{model.name}' (provider '{model.provider}') is not known, so no"
            " limit could be kept. In the configuration, give the model a price, or `free = true`"
            " if it costs nothing."
        ),
        param="model",
        details={"model": model.name, "provider": model.provider},
    )


def _context_exceeded(ladder: Ladder, terms: _Terms) -> Refusal:
    widest = max(rung.model.context_window or 0 for rung in ladder.rungs)
    return Refusal(
        code="context_length_exceeded",
        message=(
            f"The prompt may be {terms.input_tokens} tokens long; with room for an answer that is"
            f" more than any model of ladder '{ladder.name}' holds (at most {widest}). Shorten the"
            " prompt or choose a model with a larger context."
        ),
        param="messages",
        details={"input_tokens": terms.input_tokens, "context_window": widest},
    )


def _cost_exceeded(cheapest: Ladder, terms: _Terms) -> Refusal:
    assert terms.cap is not None
    bound = _least_bound(cheapest, terms)
    needed = _worst(cheapest, terms, bound)
    times = f", {terms.choices} times" if terms.choices > 1 else ""
    shorter = ", lower max_tokens" if terms.asked is not None else ""
    return Refusal(
        code="max_cost_exceeded",
        message=(
            f"Even the cheapest way to answer can cost {format_usd(needed)} USD"
            f" ({cheapest.rungs[0].model.name}: up to {terms.input_tokens} input tokens and"
            f" {bound} output tokens{times}), and the limit for this request is"
            f" {format_usd(terms.cap)} USD. Shorten the prompt{shorter} or raise the limit."
        ),
        details={
            "needed_nano_usd": needed,
            "max_cost_nano_usd": terms.cap,
            "input_tokens": terms.input_tokens,
            "max_output_tokens": bound,
        },
    )
