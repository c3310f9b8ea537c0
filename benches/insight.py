"""Forecasts and spikes beside simple ways of doing it, on made-up and on real series.

    python -m benches.insight [--series 200] [--first-seed 0] [--nab FILE]

Made-up: daily spend from seeds (`tests/support/spend.py`: trend, weekly pattern, holidays, bursts),
which neither method nor its weights know one by one. Real: the Numenta Anomaly Benchmark, as JSON
lines with `values` and `window_idx`. Forecasts are for the 30 days after the history.
"""

import argparse
import itertools
import json
import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from cascaded.policy.analytics.anomalies import THRESHOLDS, daily_spikes, stream_scores
from cascaded.policy.analytics.forecast import model_of, outlook, path, tried
from cascaded.types.insight import Sensitivity
from tests.support.spend import Spend, spend

LENGTHS = (7, 10, 14, 21, 28, 45, 60, 90, 120)
HORIZONS = (3, 7, 15, 30)
AHEAD = 30
DAY_S = 86_400
PROBATION = 0.15
"""Of a real series: alarms at its beginning are not counted, as the benchmark has it."""
FALSE_ALARMS = (5, 10, 20, 30, 50)
Scores = list[float]


def last_value(known: Sequence[float]) -> list[float]:
    return [known[-1]] * AHEAD


def seasonal_naive(known: Sequence[float]) -> list[float]:
    return [known[-7 + day % 7] for day in range(AHEAD)]


def forecasts(series: int, first_seed: int) -> list[dict[str, float]]:
    """A row for each length of history."""
    return [_forecasts(length, series, first_seed) for length in LENGTHS]


def _forecasts(length: int, series: int, first_seed: int) -> dict[str, float]:
    misses, covered = list[float](), dict.fromkeys(HORIZONS, 0)
    mase: dict[str, list[float]] = {"ours": [], "last value": [], "seasonal naive": []}
    for seed in range(first_seed, first_seed + series):
        made = spend(seed, length + AHEAD)
        known, truth = list(map(float, made.days[:length])), list(map(float, made.days[length:]))
        weekday = made.first.weekday()
        model = model_of(known, weekday)
        assert model is not None
        ours, scale = path(model, AHEAD), tried(known, weekday)
        misses.append(abs(sum(ours) - sum(truth)) / sum(truth))
        steps = statistics.mean(abs(b - a) for a, b in itertools.pairwise(known))
        for name, said in (
            ("ours", ours),
            ("last value", last_value(known)),
            ("seasonal naive", seasonal_naive(known)),
        ):
            off = statistics.mean(abs(a - b) for a, b in zip(said, truth, strict=True))
            mase[name].append(off / steps)
        for days in HORIZONS:
            still = outlook(model, ours[:days], scale=scale)
            covered[days] += still.bound(-1) <= sum(truth[:days]) <= still.bound(1)
    row = {"days": length, "error %": 100 * statistics.mean(misses)}
    row |= {f"MASE {name}": statistics.mean(values) for name, values in mase.items()}
    return row | {f"cover {days} d %": 100 * hits / series for days, hits in covered.items()}


def alarms(series: int, first_seed: int) -> list[dict[str, object]]:
    """On series of 90 days, normal ones and ones with bursts, at each sensitivity."""
    rows: list[dict[str, object]] = []
    for sensitivity in THRESHOLDS:
        normal = [
            spend(seed, 90, bursts=False, holidays=False) for seed in _seeds(series, first_seed)
        ]
        found = [len(_spikes(one, sensitivity)) for one in normal]
        hits, bursts, false = 0, 0, 0
        for seed in _seeds(series, first_seed):
            made = spend(seed, 90)
            told = _spikes(made, sensitivity)
            there = {day for day in made.bursts if day >= 7}
            hits, bursts, false = (
                hits + len(told & there),
                bursts + len(there),
                false + len(told - there),
            )
        rows.append(
            {
                "sensitivity": sensitivity,
                "normal series with alarms": sum(map(bool, found)),
                "of": series,
                "days %": round(100 * sum(found) / (series * 83), 2),
                "bursts found": hits,
                "of bursts": bursts,
                "false": false,
            }
        )
    return rows


def _seeds(series: int, first: int) -> range:
    return range(first, first + series)


def _spikes(made: Spend, sensitivity: Sensitivity) -> set[int]:
    found = daily_spikes(list(map(float, made.days)), made.first.weekday(), sensitivity)
    return {one.index for one in found}


class Real:
    """One labelled series."""

    def __init__(self, row: dict[str, object]) -> None:
        steps: list[list[int]] = row["steps_rle"]  # type: ignore[assignment]
        self.values: list[float] = row["values"]  # type: ignore[assignment]
        self.windows: list[list[int]] = row["window_idx"]  # type: ignore[assignment]
        self.per_day = DAY_S // (max(steps)[1] or 300)


def z_scores(series: Real, days: int, smooth: bool) -> Scores:
    """How many standard deviations from the mean of the days before."""
    values, window = series.values, days * series.per_day
    if smooth:
        hour = max(1, series.per_day // 24)
        values = [
            statistics.fmean(values[max(0, end - hour) : end]) for end in range(1, len(values) + 1)
        ]
    found, seen, total, square = Scores(), deque[float](), 0.0, 0.0
    for value in values:
        mean = total / max(len(seen), 1)
        deviation = math.sqrt(max(square / max(len(seen), 1) - mean**2, 0))
        warm = len(seen) >= window // 4 and deviation > 1e-9
        found.append(abs(value - mean) / deviation if warm else 0.0)
        seen.append(value)
        total, square = total + value, square + value**2
        if len(seen) > window:
            old = seen.popleft()
            total, square = total - old, square - old**2
    return found


def ours(series: Real) -> Scores:
    return [abs(score) for _, score in stream_scores(series.values, series.per_day)]


def counted(every: Sequence[Real], scores: Sequence[Scores], threshold: float) -> tuple[int, int]:
    """False alarms, and windows in which there is one; after an alarm it is quiet for six hours."""
    false, found = 0, 0
    for series, values in zip(every, scores, strict=True):
        hit, index = set[int](), int(min(PROBATION * len(values), 750))
        while index < len(values):
            if values[index] <= threshold:
                index += 1
                continue
            inside = [n for n, (a, b) in enumerate(series.windows) if a <= index <= b]
            hit.update(inside)
            false += not inside
            index += max(1, series.per_day // 4)
        found += len(hit)
    return false, found


def at_false_alarms(every: Sequence[Real], score: Callable[[Real], Scores]) -> list[str]:
    """Windows found with at most so many false alarms."""
    scores = [score(one) for one in every]
    thresholds = sorted({round(value, 2) for values in scores for value in values if value > 0.9})
    found = []
    for most in FALSE_ALARMS:
        low, high = 0, len(thresholds) - 1
        while low < high:
            middle = (low + high) // 2
            if counted(every, scores, thresholds[middle])[0] <= most:
                high = middle
            else:
                low = middle + 1
        found.append(f"{counted(every, scores, thresholds[low])[1]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--nab", type=Path, default=Path("../shared/data/traces/nab.jsonl"))
    asked = parser.parse_args()
    print("forecasts of the next 30 days:")
    for row in forecasts(asked.series, asked.first_seed):
        print("  " + "  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    print("spikes in days:")
    for told in alarms(asked.series, asked.first_seed):
        print("  " + "  ".join(f"{name} {value}" for name, value in told.items()))
    if not asked.nab.exists():
        print(f"{asked.nab} is not there: no real series")
        return
    every = [Real(json.loads(line)) for line in asked.nab.read_text().splitlines()]
    windows = sum(len(one.windows) for one in every)
    print(f"real series: windows found of {windows}, at {FALSE_ALARMS} false alarms at most:")
    for name, score in (
        ("ours", ours),
        ("z-score, 3 days", lambda one: z_scores(one, 3, False)),
        ("z-score, 14 days", lambda one: z_scores(one, 14, False)),
        ("z-score, hourly means, 14 days", lambda one: z_scores(one, 14, True)),
    ):
        print(f"  {name:<32} {'  '.join(at_false_alarms(every, score))}")
    for sensitivity, threshold in THRESHOLDS.items():
        false, found = counted(every, [ours(one) for one in every], threshold)
        print(f"  at {sensitivity}: {found} found, {false} false alarms")


if __name__ == "__main__":
    main()
