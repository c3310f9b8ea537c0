"""The weekly pattern of a daily series. Pure."""

from collections.abc import Sequence

from cascaded.policy.analytics.robust import median

WEEK = 7
WORKDAYS = 5
LEAST = 0.02
"""Of an ordinary day: where nothing is spent at weekends, what little is says nothing."""


def weekly_pattern(values: Sequence[float], first: int) -> list[float]:
    """How much of an ordinary day's spend each weekday has, from Monday; 1 on average.

    `first` is the weekday of the first value, 0 for Monday. Until there are several weeks, working
    days are taken to be like one another, and the days of a weekend too.
    """
    if len(values) < WEEK:
        return [1.0] * WEEK
    ratios: list[list[float]] = [[] for _ in range(WEEK)]
    for index, value in enumerate(values):
        start = max(0, min(index - WEEK // 2, len(values) - WEEK))
        level = sum(values[start : start + WEEK]) / WEEK
        if level > 0:
            ratios[(first + index) % WEEK].append(value / level)
    own = [median(found) if found else 1.0 for found in ratios]
    alike = [sum(own[:WORKDAYS]) / WORKDAYS] * WORKDAYS
    alike += [sum(own[WORKDAYS:]) / (WEEK - WORKDAYS)] * (WEEK - WORKDAYS)
    weeks = len(values) / WEEK
    belief = weeks**2 / (weeks**2 + 1)
    pattern = [belief * one + (1 - belief) * many for one, many in zip(own, alike, strict=True)]
    mean = sum(pattern) / WEEK
    return [one / mean if mean > 0 else 1.0 for one in pattern]


def without_pattern(values: Sequence[float], first: int, pattern: Sequence[float]) -> list[float]:
    """What was spent as if all days were ordinary. A day on which nothing is to be spent says
    nothing: it is as the one before."""
    plain: list[float] = []
    for index, value in enumerate(values):
        share = pattern[(first + index) % WEEK]
        if share >= LEAST:
            plain.append(value / share)
        elif plain:
            plain.append(plain[-1])
    return [plain[0] if plain else 0.0] * (len(values) - len(plain)) + plain
