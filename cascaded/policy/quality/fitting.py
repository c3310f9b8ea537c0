"""Fitting a `Judgement`: weights pulled to a prior, made straight by rows that were held out."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from math import exp, log1p
from operator import itemgetter, mul
from typing import Final, NamedTuple
from zlib import crc32

from cascaded._core import fit_logistic
from cascaded.policy.quality.judgement import Scales, Traits, Vector, squashed

PARTS: Final = 8
"""Of each signal's range."""
FOLDS: Final = 5
PLATT_ROUNDS: Final = 30
TINY: Final = 1e-9
WEIGHT_DIGITS: Final = 3


class Row(NamedTuple):
    """One answer of known quality."""

    traits: Traits
    good: bool
    group: str = ""
    """Rows of one group (a question) are never on both sides of a test."""


def scales_of(rows: Sequence[Row]) -> Scales:
    """Means, deviations and cuts of the rows' signals."""
    columns = list(zip(*(row.traits.signals for row in rows), strict=True))
    means = tuple(sum(column) / len(column) for column in columns)
    deviations = tuple(
        max(sum((value - mean) ** 2 for value in column) / len(column), 1e-6) ** 0.5
        for column, mean in zip(columns, means, strict=True)
    )
    return Scales(
        mean=tuple(round(mean, 5) for mean in means),
        deviation=tuple(round(deviation, 5) for deviation in deviations),
        edges=tuple(map(_cuts, columns)),
    )


def _cuts(column: Sequence[float]) -> tuple[float, ...]:
    ordered = sorted(column)
    return tuple(sorted({round(ordered[len(ordered) * n // PARTS], 5) for n in range(1, PARTS)}))


def fit(
    vectors: Sequence[Vector], good: Sequence[bool], *, prior: Sequence[float], cost: float
) -> list[float]:
    """The weights. `cost`: how much a row counts against the pull to the prior."""
    return [round(w, WEIGHT_DIGITS) for w in fit_logistic(vectors, good, prior, cost)]


def logits(weights: Sequence[float], vectors: Iterable[Vector]) -> list[float]:
    """The sums of the terms."""
    return [sum(map(mul, itemgetter(*places)(weights), values)) for places, values in vectors]


def out_of_fold(
    rows: Sequence[Row], vectors: Sequence[Vector], *, prior: Sequence[float], cost: float
) -> list[float]:
    """Each row's logit, by weights that were fitted without its fold."""
    folds = [fold_of(row.group) for row in rows]
    said = [0.0] * len(rows)
    for fold in sorted(set(folds)):
        known = [number for number, own in enumerate(folds) if own != fold]
        held = [number for number, own in enumerate(folds) if own == fold]
        good = [rows[number].good for number in known]
        weights = fit([vectors[number] for number in known], good, prior=prior, cost=cost)
        values = logits(weights, (vectors[number] for number in held))
        for number, value in zip(held, values, strict=True):
            said[number] = value
    return said


def fold_of(group: str) -> int:
    """Which fold a group is in, always the same."""
    return crc32(group.encode("utf-8", "replace")) % FOLDS


def straightened(said: Sequence[float], good: Sequence[bool]) -> tuple[float, float]:
    """(slope, offset) that make logits probabilities (Platt), by Newton's method. As if there were
    one bad row more at the top and one good one at the bottom, so that few rows claim little."""
    pairs = [*zip(said, good, strict=True), (max(said), False), (min(said), True)]
    slope, offset = 1.0, 0.0
    for _ in range(PLATT_ROUNDS):
        up, tilt = _newton(pairs, slope, offset)
        offset, slope = offset + up, slope + tilt
        if abs(up) + abs(tilt) < TINY:
            break
    return max(slope, 0.0), offset


def _newton(
    pairs: Sequence[tuple[float, bool]], slope: float, offset: float
) -> tuple[float, float]:
    g0 = g1 = h01 = 0.0
    h00 = h11 = TINY
    for logit, said in pairs:
        chance = squashed(offset + slope * logit)
        error, weight = said - chance, chance * (1 - chance)
        g0, g1 = g0 + error, g1 + error * logit
        h00, h01, h11 = h00 + weight, h01 + weight * logit, h11 + weight * logit * logit
    determinant = h00 * h11 - h01 * h01
    if determinant <= TINY:
        return 0.0, 0.0
    return (h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant


def log_loss(said: Sequence[float], good: Sequence[bool]) -> float:
    """Mean, in nats, of logits; 0.693 is a coin's."""
    signed = (logit if well else -logit for logit, well in zip(said, good, strict=True))
    return sum(log1p(exp(-abs(one))) + max(-one, 0.0) for one in signed) / len(said)


def area(said: Sequence[float], good: Sequence[bool]) -> float:
    """The chance that a good one is above a bad one, ties at half (the area under the curve)."""
    order = sorted(zip(said, good, strict=True))
    goods = bads = 0
    wins = 0.0
    for _, tied in groupby(order, key=itemgetter(0)):
        well = [one for _, one in tied]
        new = sum(well)
        wins += new * (bads + (len(well) - new) / 2)
        goods, bads = goods + new, bads + len(well) - new
    return wins / (goods * bads) if goods and bads else float("nan")
