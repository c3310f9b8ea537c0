"""Forecasts, spikes and advice: how good they are on made-up series, and what they do at the edges.

`benches/insight.py` measures more of it."""

import statistics
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from benches.insight import AHEAD, last_value, seasonal_naive
from cascaded.policy.analytics.advice import Adviser, without_repeats
from cascaded.policy.analytics.anomalies import daily_spikes, stream_scores, stream_spikes
from cascaded.policy.analytics.forecast import (
    QUANTILE,
    Outlook,
    model_of,
    outlook,
    path,
    t_distribution,
    tried,
)
from cascaded.policy.analytics.period import bounds, foretell
from cascaded.types.insight import Forecast, Recommendation, Subject
from cascaded.types.records import AttemptRecord, UsageRecord, without_attempts
from tests.support.records import attempt_record
from tests.support.spend import spend

NANO = 10**9
MONDAY = date(2026, 1, 5)
SEEDS = range(700, 740)
amounts = st.lists(st.floats(0, 1e15), min_size=1, max_size=130)


# --- forecasts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [7, 28, 60, 90, 120])
def test_better_than_simple_ways_and_honest_about_it(length: int) -> None:
    ours, last, naive, errors = (list[float]() for _ in range(4))
    inside = 0
    for seed in SEEDS:
        made = spend(seed, length + AHEAD)
        known, truth = list(map(float, made.days[:length])), made.days[length:]
        model = model_of(known, made.first.weekday())
        assert model is not None
        said = path(model, AHEAD)
        steps = statistics.mean(abs(b - a) for a, b in pairwise(known))
        for values, to in ((said, ours), (last_value(known), last), (seasonal_naive(known), naive)):
            off = statistics.mean(abs(a - b) for a, b in zip(values, truth, strict=True))
            to.append(off / steps)
        errors.append(abs(sum(said) - sum(truth)) / sum(truth))
        still = outlook(model, said, scale=tried(known, made.first.weekday()))
        inside += still.bound(-1) <= sum(truth) <= still.bound(1)
    assert statistics.mean(ours) < min(statistics.mean(last), statistics.mean(naive))
    assert inside / len(SEEDS) >= 0.85, "of 95, on so few series"
    if length >= 60:
        assert statistics.mean(errors) < 0.10


def test_a_week_without_noise_goes_on() -> None:
    week = [5.0, 5.0, 5.0, 5.0, 5.0, 1.0, 0.0]
    model = model_of(week * 6, 0)
    assert model is not None
    assert path(model, 14) == pytest.approx(week * 2, rel=0.03, abs=0.05)
    thursday = model_of((week * 6)[3:], 3)
    assert thursday is not None
    assert path(thursday, 7) == pytest.approx(week, rel=0.03, abs=0.05)


def test_growth_goes_on_and_slows_down() -> None:
    straight = model_of([100.0 + 2 * day for day in range(60)], 0)
    compound = model_of([100 * 1.02**day for day in range(60)], 0)
    assert straight is not None
    assert compound is not None
    assert path(straight, 10)[-1] == pytest.approx(100 + 2 * 69, rel=0.05)
    assert path(compound, 10)[-1] == pytest.approx(100 * 1.02**69, rel=0.05)


def test_a_burst_is_not_taken_for_a_level() -> None:
    calm = [10.0] * 40
    with_burst = [*calm[:30], 500.0, *calm[31:]]
    model = model_of(with_burst, 0)
    assert model is not None
    assert path(model, 1)[0] < 15


def test_spend_now_and_then_is_its_mean() -> None:
    model = model_of([0, 0, 9, 0, 0, 0, 9, 0, 9, 0] * 6, 0)
    assert model is not None
    assert sum(path(model, 30)) == pytest.approx(30 * 2.7, rel=0.3)


@settings(max_examples=60, deadline=None)
@given(amounts, st.integers(0, 6), st.integers(1, 31))
def test_whatever_was_spent(values: list[float], weekday: int, days: int) -> None:
    model = model_of(values, weekday)
    if model is None:
        assert sum(values) < 1e-9
        return
    said, scale = path(model, days), tried(values, weekday)
    assert len(said) == days
    assert min(said) >= 0
    still = outlook(model, said, scale=scale)
    assert 0 <= still.bound(-1) <= still.median <= still.bound(1) < float("inf")
    assert still.mean >= still.median
    risks = [still.risk(room) for room in (-1.0, 0.0, still.median, 2 * still.median + 1)]
    assert risks == sorted(risks, reverse=True)
    assert len(daily_spikes(values, weekday, "high")) < max(len(values) / 2, 1)


def test_the_probability_is_one() -> None:
    still = Outlook(median=100.0, sigma=0.2)
    assert still.risk(100.0) == 0.5
    assert still.risk(still.bound(1)) == pytest.approx(0.025, abs=0.0005)
    assert still.risk(still.bound(-1)) == pytest.approx(0.975, abs=0.0005)
    assert (still.risk(0), still.risk(-1), Outlook(median=0.0, sigma=0.1).risk(0)) == (
        1.0,
        1.0,
        0.0,
    )
    assert Outlook(median=0.0, sigma=0.1).risk(5) == 0.0
    assert t_distribution(QUANTILE) == pytest.approx(0.975, abs=0.0005)


def test_risk_is_met_as_often_as_it_says() -> None:
    """Of limits with a risk of 30 to 70 percent about half are overrun."""
    told, met = [], 0
    for seed in range(120):
        made = spend(seed, 90)
        model = model_of(list(map(float, made.days[:60])), made.first.weekday())
        assert model is not None
        still = outlook(model, path(model, 30))
        limit = still.median * (1 + (seed % 5 - 2) / 40)
        told.append(still.risk(limit))
        met += sum(made.days[60:]) > limit
    assert met / 120 == pytest.approx(statistics.mean(told), abs=0.12)


# --- periods -------------------------------------------------------------------------------------


def test_periods() -> None:
    assert bounds(date(2026, 2, 14), "month") == (date(2026, 2, 1), date(2026, 3, 1))
    assert bounds(date(2026, 12, 31), "month") == (date(2026, 12, 1), date(2027, 1, 1))
    assert bounds(date(2026, 1, 11), "week") == (MONDAY, date(2026, 1, 12))
    assert bounds(MONDAY, "day") == (MONDAY, date(2026, 1, 6))


def told(days: int, *, today: int = 0, limit: int | None = None, share: float = 1.0) -> Forecast:
    """So many days of a dollar, and today."""
    history = [(MONDAY + timedelta(days=day), NANO) for day in range(days)]
    now = MONDAY + timedelta(days=days)
    every = [*history, (now, today)]
    return foretell(Subject(), "month", every, now, share_left=share, limit=limit)


def test_what_is_spent_is_sure() -> None:
    found = told(40, today=NANO // 2, share=0.5)  # the 14th of February
    assert found.spent == 13 * NANO + NANO // 2
    assert found.predicted_cost == pytest.approx(28 * NANO, rel=0.01)
    assert found.lower >= found.spent
    assert (found.firm, found.history_days, len(found.days)) == (True, 40, 14)
    at_the_end = told(54, today=NANO, share=0.0)  # the last day, and it is over
    assert at_the_end.predicted_cost == at_the_end.spent == 28 * NANO


@pytest.mark.parametrize(
    ("limit", "words", "risk"),
    [(100, "on_track", 0.0), (27, "optimize_usage", 0.8), (15, "upgrade_tier", 1.0)],
)
def test_beside_a_budget(limit: int, words: str, risk: float) -> None:
    found = told(40, limit=limit * NANO)
    assert found.recommendation == words
    assert found.risk_score == pytest.approx(risk, abs=0.2)
    assert found.overrun_amount == max(0, found.predicted_cost - limit * NANO)


def test_short_history_is_not_firm() -> None:
    assert not told(6).firm
    assert told(7).firm
    few, many = told(2), told(45)
    assert few.upper / few.predicted_cost > 1.5 * many.upper / many.predicted_cost
    none = told(0)
    assert (none.predicted_cost, none.lower, none.upper, none.firm) == (0, 0, 0, False)


# --- spikes --------------------------------------------------------------------------------------


def test_no_alarm_where_nothing_is_wrong() -> None:
    alarms = dict.fromkeys(("medium", "high"), 0)
    for seed in range(30):
        made = spend(seed, 90, bursts=False, holidays=False)
        values = list(map(float, made.days))
        for sensitivity in alarms:
            found = daily_spikes(values, made.first.weekday(), sensitivity)  # type: ignore[arg-type]
            alarms[sensitivity] += len(found)
    assert alarms["medium"] == 0
    assert alarms["high"] < 0.05 * 30 * 90


def test_a_spike_is_found_and_its_own_day_is_not_what_it_is_measured_by() -> None:
    week = [10.0] * 5 + [4.0] * 2
    values = week * 6
    for size, severity in ((18.0, "low"), (30.0, "medium"), (1e6, "high")):
        changed = [*values[:-4], size, *values[-3:]]
        [spike] = daily_spikes(changed, 0)
        assert (spike.index, spike.actual, spike.severity) == (38, size, severity)
        assert spike.expected == pytest.approx(10, rel=0.1)
        before = daily_spikes(changed[:39], 0)
        assert before == [spike], "what comes after changes nothing"
    assert not daily_spikes([*values[:-4], 18.0, *values[-3:]], 0, least=20.0)
    saturday = [*values[:-2], 14.0, 4.0]
    assert [one.index for one in daily_spikes(saturday, 0)] == [40], "14 is much for a Saturday"
    assert not daily_spikes([10.0] * 6 + [1000.0], 0), "a week must have been before"


def test_what_is_idle_and_begins_is_a_spike() -> None:
    [spike] = daily_spikes([1.0] + [0.0] * 13 + [50.0], 0)
    assert (spike.index, spike.severity) == (14, "high")


def test_streams() -> None:
    day = [float(hour % 24 > 8) * 5 + 1 + hour % 5 / 10 for hour in range(24)]
    values = day * 20
    assert not stream_spikes(values, 24)
    values[400] = 80.0
    [spike] = stream_spikes(values, 24)
    assert (spike.index, spike.actual) == (400, 80.0)
    scores = stream_scores([5.0] * 500 + [5.0, 6.0, 4.0], 24)
    assert scores[-3][1] == 0
    assert scores[-2][1] > 4
    assert scores[-1][1] < -4
    assert stream_scores([0.0] * 100 + [1.0], 24)[-1][1] == 1e4


# --- advice --------------------------------------------------------------------------------------


def attempt(
    model: str, cost: int, *, rung: int = 0, accepted: bool = True, out: int = 100
) -> AttemptRecord:
    made = attempt_record(model, "p", cost)
    return replace(made, rung=rung, accepted=accepted, output_tokens=out)


def call(
    *attempts: AttemptRecord,
    ladder: str | None = "default",
    saved: int = 0,
    tag: str = "",
    **said: object,
) -> UsageRecord:
    cost = sum(one.cost_nano_usd for one in attempts)
    record = replace(
        without_attempts("r", 0),
        tags={"f": tag} if tag else {},
        model="auto",
        ladder=ladder,
        attempts=attempts,
        model_used=attempts[-1].model if attempts else None,
        cost_nano_usd=cost,
        saved_nano_usd=saved,
    )
    return replace(record, **said)


def advised(*records: UsageRecord, days: int = 30, over: int = 0) -> list[Recommendation]:
    adviser = Adviser()
    for record in records:
        adviser.add(record)
    return without_repeats(adviser.advice(days, over))


KEPT = call(attempt("cheap", 1_000), saved=9_000)
CLIMBED = call(
    attempt("cheap", 1_000, accepted=False), attempt("strong", 10_000, rung=1), saved=-1_000
)
DIRECT = call(attempt("strong", 10_000), ladder="strong")


def test_a_ladder_in_place_of_its_strongest_model() -> None:
    [one] = advised(*[KEPT] * 20, *[CLIMBED] * 5, *[DIRECT] * 30)
    assert (one.kind, one.model, one.instead, one.requests) == (
        "cheaper_model",
        "strong",
        "default",
        30,
    )
    # 25 calls would have cost 250,000 and cost 75,000: 70 of 100 are saved, of 300,000.
    assert (one.at_stake, one.share) == (210_000, 0.8)
    assert advised(*[KEPT] * 20, *[CLIMBED] * 5, *[DIRECT] * 30, days=15)[0].at_stake == 420_000
    assert not advised(*[KEPT] * 10, *[DIRECT] * 30), "too few to tell"


def test_no_draft_where_it_is_thrown_away() -> None:
    [one] = advised(*[CLIMBED] * 40, KEPT)
    assert (one.kind, one.model, one.requests) == ("skip_draft", "cheap", 41)
    assert one.at_stake == 40 * 1_000 - 9_000


def test_the_cache_where_others_find_their_answers() -> None:
    hit = replace(call(), cache="exact", cache_state="hit")
    miss = replace(KEPT, cache_state="miss")
    [one] = advised(*[hit] * 10, *[miss] * 10, *[KEPT] * 40)
    assert (one.kind, one.at_stake, one.share) == ("cache", 20_000, 0.5)


def test_a_bound_on_long_answers() -> None:
    short, long = call(attempt("m", 100_000)), call(attempt("m", 2_000_000, out=2_000))
    [one] = advised(*[short] * 390, *[long] * 15)
    assert (one.kind, one.max_tokens, one.requests) == ("max_tokens", 100, 405)
    assert one.at_stake == 15 * 1_900 * 1_000


def test_features_speak_for_themselves_and_little_is_not_said() -> None:
    tagged = replace(CLIMBED, tags={"f": "hard"})
    found = advised(*[tagged] * 30)
    assert [(one.kind, one.feature) for one in found] == [("skip_draft", "f=hard")]
    dear = call(attempt("strong", 10**12), ladder="strong")
    assert not advised(*[CLIMBED] * 30, dear), "less than a hundredth of all spend"


def test_a_budget_that_does_not_last() -> None:
    refused = replace(call(), status="budget_exceeded")
    [one] = advised(*[refused] * 3, over=5 * NANO)
    assert (one.kind, one.at_stake, one.requests) == ("upgrade_tier", 5 * NANO, 3)
