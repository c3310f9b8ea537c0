"""Made-up daily spend, from seeds: trend, weekly pattern, holidays, bursts, noise.

What forecasts and anomalies are tried with; they must not know how it is made.
"""

import math
import random
from collections.abc import Sequence
from datetime import date, timedelta

import msgspec

FIRST_DAY = date(2026, 1, 5)
"""A Monday."""


class Spend(msgspec.Struct, frozen=True, kw_only=True):
    """A series, and how it came about. Amounts are nano-dollars."""

    first: date
    days: tuple[int, ...]
    bursts: frozenset[int]
    """Days with something out of the ordinary."""
    holidays: frozenset[int]


def spend(seed: int, length: int, *, bursts: bool = True, holidays: bool = True) -> Spend:
    """One series. Without bursts and holidays it is what a spike detector has nothing to say of."""
    chance = random.Random(seed)
    level = 10 ** chance.uniform(-1, 3)
    trend = _trend(chance, length)
    week = _week(chance)
    offset = chance.randrange(7)
    sigma = chance.uniform(0.03, 0.18)
    carried, memory = 0.0, chance.choice((0.0, 0.0, 0.3, 0.6))
    burst_days = _bursts(chance, length) if bursts else {}
    free_days = _holidays(chance, length) if holidays else {}
    values = []
    for day in range(length):
        carried = memory * carried + chance.gauss(0, sigma) * math.sqrt(1 - memory**2)
        value = level * trend[day] * week[(day + offset) % 7] * math.exp(carried - sigma**2 / 2)
        value *= burst_days.get(day, 1.0) * free_days.get(day, 1.0)
        values.append(max(0, round(value * 1e9)))
    return Spend(
        first=FIRST_DAY + timedelta(days=offset),
        days=tuple(values),
        bursts=frozenset(burst_days),
        holidays=frozenset(free_days),
    )


def _trend(chance: random.Random, length: int) -> Sequence[float]:
    """Flat, straight, compound, levelling off, or with a step that stays."""
    monthly = chance.uniform(-0.2, 0.45)
    kind = chance.choice(("flat", "straight", "compound", "levelling", "step"))
    if kind == "straight":
        return [max(0.1, 1 + monthly * day / 30) for day in range(length)]
    if kind == "compound":
        return [(1 + monthly / 2) ** (day / 30) for day in range(length)]
    if kind == "levelling":
        return [1 + 2 * monthly * (1 - math.exp(-day / 60)) for day in range(length)]
    if kind == "step":
        when = chance.randrange(length)
        return [1 if day < when else 1 + monthly for day in range(length)]
    return [1.0] * length


def _week(chance: random.Random) -> Sequence[float]:
    """Of business, of leisure, or nearly none; from Monday."""
    kind = chance.choice(("business", "business", "leisure", "even"))
    weekend = {"business": (0.15, 0.7), "leisure": (1.1, 1.8), "even": (0.95, 1.05)}[kind]
    days = [chance.uniform(0.9, 1.1) for _ in range(5)]
    return days + [chance.uniform(*weekend) for _ in range(2)]


def _bursts(chance: random.Random, length: int) -> dict[int, float]:
    """Load tests, runaway loops, launches: one to three days of a multiple."""
    rate, found = chance.choice((0.0, 0.005, 0.01, 0.02)), dict[int, float]()
    for day in range(length):
        if chance.random() < rate:
            factor = chance.uniform(1.6, 4)
            for lasting in range(chance.choice((1, 1, 2, 3))):
                if day + lasting < length:
                    found[day + lasting] = factor
    return found


def _holidays(chance: random.Random, length: int) -> dict[int, float]:
    """A day off, or a few."""
    rate, found = chance.choice((0.0, 0.01, 0.02)), dict[int, float]()
    for day in range(length):
        if chance.random() < rate:
            for lasting in range(chance.choice((1, 1, 2, 4))):
                if day + lasting < length:
                    found[day + lasting] = chance.uniform(0.25, 0.6)
    return found
