"""Days and hours on which far more was spent than what came before lets expect. Pure.

A value is compared with those before it only, never with itself. How far it is out is told in units
of how far values are out that only one in a hundred exceeds: of many values that is counted, of
few (days) it is three robust standard deviations.
"""

from collections.abc import Sequence

import msgspec

from cascaded.policy.analytics.robust import Window, median, spread
from cascaded.policy.analytics.week import WEEK, weekly_pattern, without_pattern
from cascaded.types.insight import Sensitivity

THRESHOLDS: dict[Sensitivity, float] = {"low": 4.0, "medium": 2.5, "high": 1.25}
"""How far out, in those units."""
RATIOS: dict[Sensitivity, float] = {"low": 2.0, "medium": 1.6, "high": 1.25}
"""And at least so many times what was to be expected."""
SEVERE, GRAVE = 2.0, 4.0
"""Times what was to be expected, from which a spike is of medium and of high severity."""
FIRST_DAY = 7
"""Days that must have been before."""
BASELINE_DAYS = 56
LEVEL_DAYS = 14
RARE_SIGMAS = 3.0
DOUBT = 6.0
"""Days at which what few days say of the spread is stretched twofold."""
LEAST_SIGMA = 0.06
"""Of the level: steadier spend than this is taken for so steady."""
RARE = 0.99
STREAM_DAYS = 14
STREAM_WARM = 6
"""A stream is judged once a sixth of its baseline is there."""
LEAST_SIDE, LEAST_SHARE = 0.25, 0.02
"""The unit is at least this share of the range of both sides, and of the middle."""
MOST = 1e4


class Spike(msgspec.Struct, frozen=True):
    """A value that is out."""

    index: int
    expected: float
    actual: float
    score: float
    """How far, in units of what is rare."""

    @property
    def severity(self) -> Sensitivity:
        """By how many times what was to be expected it is."""
        times = self.actual / self.expected if self.expected > 0 else MOST
        return "high" if times >= GRAVE else "medium" if times >= SEVERE else "low"


def daily_spikes(
    values: Sequence[float],
    weekday: int,
    sensitivity: Sensitivity = "medium",
    *,
    last: int | None = None,
    least: float = 0.0,
) -> list[Spike]:
    """Of days, the first of which was this weekday (0 for Monday): those of the `last` that are
    spikes by more than `least`. Weekends are compared with weekends."""
    start = FIRST_DAY if last is None else max(FIRST_DAY, len(values) - last)
    found = []
    for index in range(start, len(values)):
        before = max(0, index - BASELINE_DAYS)
        spike = _judged(index, values[before : index + 1], (weekday + before) % WEEK)
        beyond = spike.actual - spike.expected
        if (
            spike.score > THRESHOLDS[sensitivity]
            and spike.actual > RATIOS[sensitivity] * spike.expected
            and beyond > least
        ):
            found.append(spike)
    return found


def _judged(index: int, values: Sequence[float], weekday: int) -> Spike:
    """The last of these days, by those before it."""
    before, actual = values[:-1], values[-1]
    pattern = weekly_pattern(before, weekday)
    plain = without_pattern(before, weekday, pattern)
    level = median(plain[-LEVEL_DAYS:])
    off = [
        one - median(plain[max(0, day - LEVEL_DAYS) : day + LEVEL_DAYS])
        for day, one in enumerate(plain)
    ]
    sigma = max(spread(off, 0.0), LEAST_SIGMA * level)
    share = max(pattern[(weekday + len(before)) % WEEK], 1 / WEEK)
    expected = level * pattern[(weekday + len(before)) % WEEK]
    unit = RARE_SIGMAS * sigma * share * (1 + DOUBT / len(before))
    score = (actual - expected) / unit if unit > 0 else MOST * (actual > expected)
    return Spike(index, expected, actual, min(score, MOST))


def stream_scores(values: Sequence[float], per_day: int) -> list[tuple[float, float]]:
    """How far out each value of a stream of so many a day is: what was to be expected, and the
    score, below zero for what is too little. Values are averaged over an hour before."""
    hour = max(1, round(per_day / 24))
    length, found = STREAM_DAYS * per_day, []
    window = Window(length)
    for index in range(len(values)):
        recent = values[max(0, index + 1 - hour) : index + 1]
        value = sum(recent) / len(recent)
        warm = STREAM_WARM * len(window) >= length
        found.append(_placed(value, window) if warm else (value, 0.0))
        window.add(value)
    return found


def _placed(value: float, window: Window) -> tuple[float, float]:
    middle = window.quantile(0.5)
    above, below = window.quantile(RARE) - middle, middle - window.quantile(1 - RARE)
    side = above if value > middle else below
    unit = max(side, LEAST_SIDE * (above + below), LEAST_SHARE * abs(middle))
    if unit <= 0:
        return middle, MOST * ((value > middle) - (value < middle))
    return middle, max(-MOST, min((value - middle) / unit, MOST))


def stream_spikes(
    values: Sequence[float],
    per_day: int,
    sensitivity: Sensitivity = "medium",
    *,
    least: float = 0.0,
) -> list[Spike]:
    """Where a stream begins to be out for spend: above, and not again within six hours."""
    found: list[Spike] = []
    quiet = per_day // 4
    for index, (expected, score) in enumerate(stream_scores(values, per_day)):
        out = score > THRESHOLDS[sensitivity] and values[index] - expected > least
        if out and (not found or index - found[-1].index > quiet):
            found.append(Spike(index, expected, values[index], score))
    return found
