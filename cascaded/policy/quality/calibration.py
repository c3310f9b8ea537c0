"""Calibration: a `Judgement` of the operator's own traffic, and what it is worth.

With some dozens of rows only the level of the shipped judgement is set right; with some hundreds
its weights are moved as well, as far as rows that were held out say that it helps; with many it may
be fitted anew. Every figure of the report is of rows that were held out.
"""

from collections.abc import Iterator, Sequence
from math import ceil, exp, sqrt
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from cascaded.policy.quality.fitting import (
    Row,
    area,
    fit,
    log_loss,
    logits,
    out_of_fold,
    scales_of,
    straightened,
)
from cascaded.policy.quality.judgement import Evidence, Judgement, Scales, squashed, traits
from cascaded.policy.quality.signals import NAMES
from cascaded.policy.quality.verdict import read_answer
from cascaded.types.request import Asks
from cascaded.types.result import Completion

ROWS_MIN: Final = 50
EITHER_MIN: Final = 15
"""Good ones, and bad ones: of fewer nothing can be said."""
MOVED_FROM: Final = 200
"""Rows from which weights may be moved."""
ANEW_FROM: Final = 1_000
"""Rows from which they may be fitted without the shipped ones."""
COSTS: Final = (0.003, 0.03, 0.1)
ROWS_MAX: Final = 200_000
BINS: Final = 10
RATES: Final = (0.01, 0.02, 0.05, 0.10, 0.20)
CLOSE: Final = 0.05
"""How narrow the interval of the area under the curve should be, to either side."""
NORMAL_95: Final = 1.96
_RULES: Final = NAMES.index("a_rules")

Text = Annotated[str, Meta(max_length=1_000_000)]


class CalibrationError(ValueError):
    """It cannot be calibrated on this; the message says why."""


class Labelled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the operator's file."""

    query: Text
    answer: Text
    good: bool
    model: str = ""
    domain: str = ""
    logprobs: list[float] = []
    """Of the answer's tokens."""
    entropy: float | None = None
    agreement: Annotated[float, Meta(ge=0, le=1)] | None = None
    judge: Annotated[float, Meta(ge=0, le=1)] | None = None
    group: str = ""
    """Lines of one group are never on both sides of a test; by default those of one query."""


class Bin(msgspec.Struct, frozen=True):
    """Answers of about one probability."""

    said: float
    """The mean of what was said."""
    good: float
    """The share that is good."""
    rows: int


class Limit(msgspec.Struct, frozen=True):
    """What a threshold does."""

    false_accepts: float
    """The share of the bad answers that is wanted to be kept, at most."""
    threshold: float
    kept: float
    """Of all answers."""
    good_kept: float
    bad_among_kept: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How good a calibration is, by rows that were held out."""

    rows: int
    good_share: float
    how: str
    area_before: float
    area: float
    area_within: float
    """Half of the 95% interval."""
    log_loss_before: float
    log_loss: float
    reliability: tuple[Bin, ...]
    limits: tuple[Limit, ...]
    rows_for_close: int
    """About how many rows it takes for an interval of ±0.05."""


def read_labelled(lines: Sequence[bytes]) -> Iterator[Row]:
    """The rows of a JSON-lines file. Raises `CalibrationError` naming the line."""
    decode = msgspec.json.Decoder(Labelled).decode
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if number > ROWS_MAX:
            raise CalibrationError(f"more than {ROWS_MAX} lines; a sample of them will do")
        try:
            yield row_of(decode(line))
        except msgspec.MsgspecError as error:
            raise CalibrationError(f"line {number}: {error}") from None


def row_of(labelled: Labelled) -> Row:
    """It in numbers."""
    completion = Completion(text=labelled.answer, finish_reason="stop")
    reading, rules, _ = read_answer(labelled.query, completion, Asks())
    sure = labelled.logprobs
    evidence = Evidence(
        mean_logprob=sum(sure) / len(sure) if sure else None,
        least_logprob=min(sure) if sure else None,
        entropy=labelled.entropy,
        agreement=labelled.agreement,
        judge=labelled.judge,
        model=labelled.model,
        domain=labelled.domain,
    )
    group = labelled.group or labelled.query
    return Row(traits(reading, rules, evidence), labelled.good, group)


class Candidate(msgspec.Struct, frozen=True):
    """One way to fit, and what it says of rows that it has not seen."""

    how: str
    scales: Scales
    prior: tuple[float, ...]
    cost: float
    """0: the prior as it is."""
    held: list[float]
    slope: float
    offset: float

    @property
    def straight(self) -> list[float]:
        """The held-out logits, made probabilities' own."""
        return [self.offset + self.slope * logit for logit in self.held]


def calibrate(
    rows: Sequence[Row], start: Judgement, *, source: str = "", false_accepts: float | None = None
) -> tuple[Judgement, Report]:
    """The best of several fits, and its report. Raises `CalibrationError`."""
    good = [row.good for row in rows]
    _check_enough(good)
    tried = list(_candidates(rows, start))
    best = min(tried, key=lambda one: log_loss(one.straight, good))
    weights = best.prior
    if best.cost:
        vectors = [best.scales.vector(row.traits) for row in rows]
        weights = tuple(fit(vectors, good, prior=best.prior, cost=best.cost))
    made = replace(
        start,
        source=source,
        rows=len(rows),
        good_share=sum(good) / len(good),
        scales=best.scales,
        weights=weights,
        slope=best.slope,
        offset=best.offset,
    )
    return made, _report(rows, start, tried[0], best, false_accepts)


def _check_enough(good: Sequence[bool]) -> None:
    count, well = len(good), sum(good)
    if count < ROWS_MIN or min(well, count - well) < EITHER_MIN:
        raise CalibrationError(
            f"{count} answers, {well} good and {count - well} bad: too few to fit anything on. At"
            f" least {ROWS_MIN} are needed, {EITHER_MIN} of either kind; {MOVED_FROM} and more are"
            " worth having."
        )


def _candidates(rows: Sequence[Row], start: Judgement) -> Iterator[Candidate]:
    good = [row.good for row in rows]
    vectors = [start.scales.vector(row.traits) for row in rows]

    def made(how: str, scales: Scales, prior: tuple[float, ...], cost: float) -> Candidate:
        if cost:
            own = [scales.vector(row.traits) for row in rows]
            held = out_of_fold(rows, own, prior=prior, cost=cost)
        else:
            held = logits(prior, vectors)
        return Candidate(how, scales, prior, cost, held, *straightened(held, good))

    yield made("the level alone", start.scales, start.weights, 0.0)
    if len(rows) >= MOVED_FROM:
        for cost in COSTS:
            yield made(f"weights moved (cost {cost:g})", start.scales, start.weights, cost)
    if len(rows) >= ANEW_FROM:
        scales = scales_of(rows)
        prior = [0.0] * scales.size
        prior[scales.evidence : scales.words] = start.weights[
            start.scales.evidence : start.scales.words
        ]
        for cost in COSTS[1:]:
            yield made(f"fitted anew (cost {cost:g})", scales, tuple(prior), cost)


def _report(
    rows: Sequence[Row],
    start: Judgement,
    first: Candidate,
    best: Candidate,
    false_accepts: float | None,
) -> Report:
    good = [row.good for row in rows]
    after = area(best.held, good)
    within = _within(after, sum(good), len(good) - sum(good))
    chances = [squashed(logit) for logit in best.straight]
    scores = [
        chance * exp(row.traits.signals[_RULES]) for chance, row in zip(chances, rows, strict=True)
    ]
    wanted = RATES if false_accepts is None else (false_accepts,)
    before = [start.offset + start.slope * logit for logit in first.held]
    return Report(
        rows=len(rows),
        good_share=sum(good) / len(good),
        how=best.how,
        area_before=area(first.held, good),
        area=after,
        area_within=within,
        log_loss_before=log_loss(before, good),
        log_loss=log_loss(best.straight, good),
        reliability=tuple(_bins(chances, good)),
        limits=tuple(_limit(scores, good, rate) for rate in wanted),
        rows_for_close=ceil(len(rows) * max(within / CLOSE, 0.0) ** 2),
    )


def _within(area_under: float, goods: int, bads: int) -> float:
    """Half of the 95% interval of an area under the curve (Hanley and McNeil 1982)."""
    one = area_under / (2 - area_under)
    two = 2 * area_under**2 / (1 + area_under)
    spread = area_under * (1 - area_under)
    spread += (goods - 1) * (one - area_under**2) + (bads - 1) * (two - area_under**2)
    return NORMAL_95 * sqrt(max(spread, 0.0) / (goods * bads))


def _bins(chances: Sequence[float], good: Sequence[bool]) -> Iterator[Bin]:
    """Tenths of the rows, from the least probable up."""
    pairs = sorted(zip(chances, good, strict=True))
    for number in range(BINS):
        part = pairs[len(pairs) * number // BINS : len(pairs) * (number + 1) // BINS]
        if part:
            said, well = sum(chance for chance, _ in part), sum(good for _, good in part)
            yield Bin(round(said / len(part), 4), round(well / len(part), 4), len(part))


def _limit(scores: Sequence[float], good: Sequence[bool], rate: float) -> Limit:
    """The least threshold that keeps no more of the bad answers than this share."""
    bad = sorted((s for s, well in zip(scores, good, strict=True) if not well), reverse=True)
    above = bad[int(rate * len(bad))]  # the first bad answer that must not be kept
    threshold = min((score for score in scores if score > above), default=1.0)
    kept = [well for score, well in zip(scores, good, strict=True) if score >= threshold]
    return Limit(
        rate,
        round(threshold, 4),
        round(len(kept) / len(scores), 4),
        round(sum(kept) / sum(good), 4),
        round((len(kept) - sum(kept)) / max(len(kept), 1), 4),
    )
