"""A forecast up to the end of a period, beside its budget. Pure."""

from collections.abc import Sequence
from datetime import date, timedelta

from cascaded.policy.analytics.forecast import (
    FIRM_DAYS,
    MAX_DAYS,
    Outlook,
    model_of,
    outlook,
    path,
    tried,
)
from cascaded.types.insight import DayForecast, Forecast, Outcome, Period, Subject

LIKELY = 0.2
"""The probability of an overrun from which something is advised."""
FAR = 0.2
"""Of the limit: an overrun by more is not a matter of thrift."""
NOTHING = Outlook(median=0.0, sigma=0.01)


def bounds(today: date, period: Period) -> tuple[date, date]:
    """The first day of the period, and of the next one."""
    if period == "day":
        return today, today + timedelta(days=1)
    if period == "week":
        monday = today - timedelta(days=today.weekday())
        return monday, monday + timedelta(days=7)
    first = today.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1)


def foretell(
    subject: Subject,
    period: Period,
    days: Sequence[tuple[date, int]],
    today: date,
    *,
    share_left: float,
    limit: int | None,
) -> Forecast:
    """What these days say. They are in order, without gaps, and end with today, of which a share
    is still to come."""
    starts, ends = bounds(today, period)
    before = [(day, cost) for day, cost in days if day < today][-MAX_DAYS:]
    spent = sum(cost for day, cost in days if day >= starts)
    values = [float(cost) for _, cost in before]
    weekday = before[0][0].weekday() if before else 0
    model, to_come = model_of(values, weekday), (ends - today).days
    still, following = NOTHING, list[DayForecast]()
    if model is not None:
        expected, scale = path(model, to_come), tried(values, weekday)
        still = outlook(model, expected, first_share=share_left, scale=scale)
        for offset, one in enumerate(expected[1:], 1):
            each = outlook(model, [one], scale=scale)
            day = today + timedelta(days=offset)
            low, high = round(each.bound(-1)), round(each.bound(1))
            following.append(DayForecast(day, round(one), low, high))
    predicted = spent + round(still.median)
    risk = 0.0 if limit is None else still.risk(limit - spent)
    return Forecast(
        subject=subject,
        period=period,
        starts=starts,
        ends=ends,
        spent=spent,
        predicted_cost=predicted,
        mean=spent + round(still.mean),
        std=round(still.std),
        lower=spent + round(still.bound(-1)),
        upper=spent + round(still.bound(1)),
        risk_score=risk,
        budget_limit=limit,
        overrun_amount=0 if limit is None else max(0, predicted - limit),
        recommendation=_outcome(risk, predicted, limit),
        firm=len(before) >= FIRM_DAYS and model is not None,
        history_days=len(before),
        history=tuple(before),
        days=tuple(following),
    )


def _outcome(risk: float, predicted: int, limit: int | None) -> Outcome:
    if limit is None or risk < LIKELY:
        return "on_track"
    return "upgrade_tier" if predicted > limit * (1 + FAR) else "optimize_usage"
