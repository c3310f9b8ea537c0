"""What will have been spent at the end of a period, and how sure that is. Pure.

A robust decomposition: weekly pattern × (level + damped trend), of spend whose outliers are
clipped. The level is between that of exponential smoothing and the end of a robust line; a trend
counts as far as it stands out of the noise. What remains to be spent is then log-t distributed
around that path: its spread is put together from the noise of single days, what few days say of the
level and of the trend, how much weeks have wandered, outliers that were seen, and rare days that
were not. The weights were fitted to made-up series of many kinds (`benches/insight.py`).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from cascaded.policy.analytics.robust import clipped, median, spread
from cascaded.policy.analytics.week import WEEK, weekly_pattern, without_pattern

NOTHING = 1e-9
"""Less than this is nothing."""
FIRM_DAYS = 7
"""Of history; a forecast from fewer is a guess, and says so."""
MAX_DAYS = 120
"""Of history that is looked at: what was before says little of next month."""
TREND_DAYS = 21
"""From so many on there is a trend."""
MAX_CLIMB = 2.0
"""Of a logarithm: growth beyond sevenfold is not foretold."""
ALPHAS = (0.05, 0.1, 0.15, 0.2)
LINE_SHARE = 0.6
"""Of the level: the end of the line, and the rest of it smoothing."""
DOUBT = 12.0
"""A slope of its standard error times the root of this, or less, is none."""
DAMPING = 0.99
FEW, MAX_UPLIFT = 3, 0.5
"""So many outliers are half believed to come again; and the most that they may bring."""
MAX_IDLE = 0.3
"""Where nothing is spent on so many ordinary days, spending is what is out of the ordinary."""
CLEARLY = 0.75
"""Spend is taken to multiply where that explains it so much better than adding does."""
FREEDOM = 5
"""Degrees of it, of the t distribution."""
T_VARIANCE = FREEDOM / (FREEDOM - 2)
QUANTILE = 2.571
"""Of that, for 95%."""
MAX_VARIANCE = 4.0
NOISE, LEVEL, SLOPE, WANDER, OUTLIERS, AGE, RARE = 1.2, 4.0, 1.0, 0.03, 0.5, 0.012, 0.013
TRIALS, BELIEF = 6, 4.0
"""Forecasts that are tried on the history itself; and how many the model's own word counts for."""
NARROWEST, WIDEST, WILD = 0.8, 2.0, 16.0
GUESS = 0.5
"""The variance of a forecast from one day; from n days, an n-th of it more."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What a history says."""

    days: int
    pattern: tuple[float, ...]
    next_weekday: int
    level: float
    slope: float
    """A day."""
    growth: float
    """The same of the logarithm, where spend multiplies rather than adds."""
    uplift: float
    noise: float
    """Variance of one day, as a share of the level squared; more where days hang together."""
    slope_error: float
    wander: float
    """Mean square of how the mean of one week differed from that of the next, likewise."""
    outliers: float
    """Mean square of what was clipped, likewise."""


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What is still to be spent in some days."""

    median: float
    sigma: float
    """Of its logarithm, as the scale of a t distribution."""

    @property
    def mean(self) -> float:
        """Expected, as of a log-normal distribution."""
        return self.median * math.exp(self.sigma**2 / 2)

    @property
    def std(self) -> float:
        """Likewise."""
        return self.mean * math.sqrt(math.expm1(self.sigma**2))

    def bound(self, sign: int) -> float:
        """The lower (-1) or upper (1) end of the interval that holds it in 95 of 100 cases."""
        return self.median * math.exp(sign * QUANTILE * self.sigma)

    def risk(self, room: float) -> float:
        """The probability that it is more than this."""
        if room <= 0:
            return 1.0 if self.median > 0 or room < 0 else 0.0
        if self.median <= 0:
            return 0.0
        return 1 - t_distribution(math.log(room / self.median) / self.sigma)


def t_distribution(t: float) -> float:
    """The probability of less than t, of Student's distribution with 5 degrees of freedom."""
    root = math.sqrt(FREEDOM)
    x = t / root
    area = math.atan(x) + x / (1 + x * x) * (1 + 2 / (3 * (1 + x * x)))
    return 0.5 + area / math.pi


def model_of(values: Sequence[float], weekday: int) -> Model | None:
    """What these days say, the first of which was this weekday (0 for Monday); `None` where there
    are none, or nothing was spent on them."""
    skipped = max(0, len(values) - MAX_DAYS)
    values, weekday = values[skipped:], (weekday + skipped) % WEEK
    if sum(values) < NOTHING:
        return None
    length = len(values)
    pattern, plain, steady = _taken_apart(values, weekday)
    if _idle(plain) > MAX_IDLE:
        pattern, plain, steady = [1.0] * WEEK, list(values), list(values)
        trend = _flat(steady)
    else:
        trend = _trend(steady)
    level = max(trend.level, NOTHING)
    weeks = [sum(steady[end - WEEK : end]) / WEEK for end in range(length, WEEK - 1, -WEEK)]
    drift = (trend.slope + level * trend.growth) * WEEK
    steps = [later - sooner - drift for later, sooner in pairwise(weeks)]
    beyond = [one - other for one, other in zip(plain, steady, strict=True)]
    seen = sum(1 for one in beyond if one > level)
    uplift = min(sum(beyond) / length / level, MAX_UPLIFT) * seen / (seen + FEW)
    return Model(
        days=length,
        pattern=tuple(pattern),
        next_weekday=(weekday + length) % WEEK,
        level=level,
        slope=trend.slope,
        growth=trend.growth,
        uplift=1 + max(uplift, 0.0),
        noise=min(trend.noise / level**2, MAX_VARIANCE),
        slope_error=trend.slope_error / level,
        wander=min(_mean_square(steps) / level**2, 1.0) if steps else 0.02,
        outliers=min(_mean_square(beyond) / level**2, MAX_VARIANCE),
    )


def path(model: Model, days: int) -> list[float]:
    """The expected spend of each of the next days."""
    found, climbed = [], 0.0
    for day in range(days):
        climbed += DAMPING ** (day + 1)
        if model.growth:
            plain = model.level * math.exp(max(-MAX_CLIMB, min(model.growth * climbed, MAX_CLIMB)))
        else:
            plain = max(0.0, model.level + model.slope * climbed)
        pattern = model.pattern[(model.next_weekday + day) % WEEK]
        found.append(plain * model.uplift * pattern)
    return found


def outlook(
    model: Model, expected: Sequence[float], *, first_share: float = 1.0, scale: float = 1.0
) -> Outlook:
    """Of the next days together; of the first of them only a share is still to come. `scale` is
    what `tried` says of this history."""
    days = len(expected) - 1 + first_share
    total = sum(expected[1:]) + expected[0] * first_share
    if days <= 0:
        return Outlook(median=0.0, sigma=0.01)
    variance = (
        (NOISE * model.noise + OUTLIERS * model.outliers + RARE) / days
        + LEVEL * model.noise / min(model.days, 60)
        + SLOPE * (model.slope_error * days / 2) ** 2
        + WANDER * model.wander * days / WEEK
        + AGE * days / (model.days + 2 * WEEK)
    )
    if model.days < FIRM_DAYS:
        variance += GUESS / model.days
    return Outlook(median=total, sigma=scale * math.sqrt(min(variance, MAX_VARIANCE) + 1e-4))


def tried(values: Sequence[float], weekday: int) -> float:
    """How wide intervals should be beside what the model thinks, by what it would have foretold
    of the last weeks; 1 where the history is too short to tell."""
    skipped = max(0, len(values) - MAX_DAYS)
    values, weekday = values[skipped:], (weekday + skipped) % WEEK
    misses = [
        _miss(values[:cut], weekday, values[cut:])
        for cut in range(len(values) - WEEK, 2 * WEEK - 1, -WEEK)[:TRIALS]
    ]
    found = [min(miss * miss / T_VARIANCE, WILD) for miss in misses if miss is not None]
    square = (BELIEF + sum(found)) / (BELIEF + len(found))
    return min(max(math.sqrt(square), NARROWEST), WIDEST)


def _miss(known: Sequence[float], weekday: int, after: Sequence[float]) -> float | None:
    """By how many spreads the spend of the following days was missed."""
    model, spent = model_of(known, weekday), sum(after)
    if model is None or spent <= 0:
        return None
    still = outlook(model, path(model, len(after)))
    return math.log(spent / still.median) / still.sigma if still.median > 0 else None


def _taken_apart(
    values: Sequence[float], weekday: int
) -> tuple[list[float], list[float], list[float]]:
    """The weekly pattern, what was spent as if there were none, and that without outliers."""
    pattern = weekly_pattern(values, weekday)
    plain = without_pattern(values, weekday, pattern)
    if len(values) < WEEK:
        return pattern, plain, plain
    steady = clipped(plain, around=WEEK, spreads=3)
    if len(values) >= 2 * WEEK:  # once more, without the days that were out of the ordinary
        calm = [one * pattern[(weekday + day) % WEEK] for day, one in enumerate(steady)]
        pattern = weekly_pattern(calm, weekday)
        plain = without_pattern(values, weekday, pattern)
        steady = clipped(plain, around=WEEK, spreads=3)
    return pattern, plain, steady


def _idle(values: Sequence[float]) -> float:
    """The share of days on which nothing was spent."""
    return sum(1 for value in values if value <= 0) / len(values)


class _Trend(msgspec.Struct, frozen=True):
    """Where a series stands, and goes."""

    level: float
    noise: float
    slope: float = 0.0
    growth: float = 0.0
    slope_error: float = 0.0


def _trend(values: Sequence[float]) -> _Trend:
    """Of a series that few days disturb."""
    line, length = _line(values), len(values)
    if length < TREND_DAYS:
        level = sum(values) / length if length < 2 * WEEK else _smoothed(values)
        return _Trend(max(level, sum(values) / length / 100), line.noise)
    slope, growth, compound = _believed(line), 0.0, _compound(values)
    if compound is not None and compound.noise * line.end**2 < CLEARLY * line.noise:
        slope, growth, line = 0.0, _believed(compound), _levelled(compound)
    level = (1 - LINE_SHARE) * _smoothed(values) + LINE_SHARE * line.end
    least = sum(values) / length / 100
    return _Trend(max(level, least), line.noise, slope, growth, line.slope_error)


def _flat(values: Sequence[float]) -> _Trend:
    """Of one in which nothing is spent on many days: its mean."""
    mean = sum(values) / len(values)
    return _Trend(mean, _mean_square([value - mean for value in values]))


class _Line(msgspec.Struct, frozen=True):
    """Robust, through a series."""

    slope: float
    end: float
    noise: float
    slope_error: float


def _line(values: Sequence[float]) -> _Line:
    """By the median of all slopes between days that are a week apart or more."""
    length = len(values)
    apart = min(WEEK, length // 2)
    slope = 0.0
    if length >= 2 * WEEK:
        slope = median(
            [
                (values[later] - values[sooner]) / (later - sooner)
                for sooner in range(length)
                for later in range(sooner + apart, length)
            ]
        )
    rest = [value - slope * day for day, value in enumerate(values)]
    start = median(rest)
    around = [one - start for one in rest]
    square = sum(one * one for one in around)
    together = sum(one * other for one, other in pairwise(around))
    memory = min(max(together / square, 0.0), 0.9) if square else 0.0
    noise = spread(rest, start) ** 2 * (1 + memory) / (1 - memory)
    if noise == 0:  # most days are the same
        noise = square / length
    return _Line(slope, start + slope * (length - 1), noise, math.sqrt(12 * noise / length**3))


def _compound(values: Sequence[float]) -> _Line | None:
    """The line through the logarithms; `None` where on some days nothing is spent."""
    least = median(values) / 100
    if least <= 0 or min(values) < least:
        return None
    return _line([math.log(value) for value in values])


def _levelled(line: _Line) -> _Line:
    """A line through logarithms, as it ends in amounts."""
    end = math.exp(line.end)
    return _Line(line.slope * end, end, line.noise * end**2, line.slope_error * end)


def _believed(line: _Line) -> float:
    """The slope, as far as it stands out of the noise."""
    square = line.slope**2
    return line.slope * max(0.0, 1 - DOUBT * line.slope_error**2 / square) if square else 0.0


def _smoothed(values: Sequence[float]) -> float:
    """The level at the end, by the exponential smoothing that would have foretold best."""
    found = []
    for alpha in ALPHAS:
        level, square = sum(values[:WEEK]) / min(WEEK, len(values)), 0.0
        for day, value in enumerate(values):
            miss = value - level
            square += miss * miss if day >= WEEK else 0.0
            level += alpha * miss
        found.append((square, level))
    return min(found)[1]


def _mean_square(values: Sequence[float]) -> float:
    return sum(value * value for value in values) / len(values)
