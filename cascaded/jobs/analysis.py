"""Answers to questions about what was spent: read from the usage log, worked out by policy."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from cascaded.policy.analytics.advice import Adviser, without_repeats
from cascaded.policy.analytics.anomalies import Spike, daily_spikes, stream_spikes
from cascaded.policy.analytics.forecast import MAX_DAYS
from cascaded.policy.analytics.period import foretell
from cascaded.state.usage_reader import OTHER, Tally, UsageReader
from cascaded.types.insight import (
    AdviceQuestion,
    Anomaly,
    AnomalyQuestion,
    BreakdownQuestion,
    Forecast,
    ForecastQuestion,
    Group,
    GroupBy,
    Recommendation,
    Subject,
)
from cascaded.types.records import ADJUSTED, UsageFilter, UsageRecord, features
from cascaded.types.times import NS_PER_S

DAY_NS = 86_400 * NS_PER_S
HOUR_NS = 3_600 * NS_PER_S
STREAM_DAYS = 28
"""Twice the baseline of hours."""
MAX_FEATURES = 50
"""That are looked at for spikes: those of the most spend."""
LEAST_NANO = 1_000_000
"""A tenth of a cent: what is out by less is not worth a word."""
MAX_GROUPS = 100_000
"""Told apart while records are read; more share one."""


def forecast(usage: UsageReader, question: ForecastQuestion) -> Forecast:
    """What will have been spent. Raises `StoreError`."""
    subject, zone = question.subject, ZoneInfo(question.zone)
    now = datetime.fromtimestamp(question.now_ns // NS_PER_S, zone)
    tallies = _days(usage, subject, MAX_DAYS + 1, question.now_ns, zone)
    days = _begun([(day, _cost(subject, tally)) for day, tally in tallies])
    return foretell(
        subject,
        question.period,
        days,
        now.date(),
        share_left=1 - _elapsed(now),
        limit=question.limit_nano_usd,
    )


def anomalies(usage: UsageReader, question: AnomalyQuestion) -> list[Anomaly]:
    """What was out of the ordinary, the newest first. A day under way is looked at as far as it
    is. Raises `StoreError`."""
    found = list(_hours(usage, question) if question.grain == "hour" else _spikes(usage, question))
    found.sort(key=lambda one: (-one.at_ns, -one.actual))
    return found


def advice(usage: UsageReader, question: AdviceQuestion) -> list[Recommendation]:
    """What would have cost less, the most money first. Raises `StoreError`."""
    adviser, subject = Adviser(), question.subject
    since_ns = question.now_ns - question.days * DAY_NS
    for record in usage.records(_filter(subject, since_ns)):
        adviser.add(record)
    over = 0
    if question.limit_nano_usd is not None:
        asked = ForecastQuestion(
            subject=subject,
            zone=question.zone,
            limit_nano_usd=question.limit_nano_usd,
            now_ns=question.now_ns,
        )
        over = forecast(usage, asked).overrun_amount
    return without_repeats(adviser.advice(question.days, over))


def breakdown(usage: UsageReader, question: BreakdownQuestion) -> list[Group]:
    """What was spent by what, the dearest first; days in their order. Raises `StoreError`."""
    groups: dict[str, Group] = {}
    zone = ZoneInfo(question.zone)
    for record in usage.records(question.filter):
        for part in _parts(question.by, record, zone):
            name = part.name if part.name in groups or len(groups) < MAX_GROUPS else OTHER
            _add(groups.setdefault(name, Group(name=name)), part)
    found = list(groups.values())
    if question.by == "day":
        return sorted(found, key=lambda one: one.name)[-question.top :]
    found.sort(key=lambda one: (-one.cost, -one.requests, one.name))
    return found[: question.top]


def _spikes(usage: UsageReader, question: AnomalyQuestion) -> Iterator[Anomaly]:
    zone = ZoneInfo(question.zone)
    tallies = _days(usage, question.subject, MAX_DAYS, question.now_ns, zone)
    if not tallies:
        return
    for feature, values in _series(question.subject, [tally for _, tally in tallies]):
        skipped = next((index for index, value in enumerate(values) if value), len(values))
        days = [day for day, _ in tallies[skipped:]]
        spikes = daily_spikes(
            values[skipped:],
            days[0].weekday() if days else 0,
            question.sensitivity,
            last=question.days,
            least=LEAST_NANO,
        )
        for spike in spikes:
            day = days[spike.index]
            at = datetime(day.year, day.month, day.day, tzinfo=zone)
            yield _anomaly(question.subject, feature, spike, int(at.timestamp()) * NS_PER_S)


def _hours(usage: UsageReader, question: AnomalyQuestion) -> Iterator[Anomaly]:
    subject = question.subject
    first = question.now_ns // HOUR_NS - STREAM_DAYS * 24
    tallies = [Tally() for _ in range(STREAM_DAYS * 24 + 1)]
    quarters = usage.quarters(subject.id, first * HOUR_NS, question.now_ns, owner=subject.owner)
    for at_ns, tally in quarters:
        tallies[at_ns // HOUR_NS - first].add(tally)
    oldest_ns = question.now_ns - question.days * DAY_NS
    for feature, values in _series(subject, tallies):
        begun = next((index for index, value in enumerate(values) if value), len(values))
        for spike in stream_spikes(values[begun:], 24, question.sensitivity, least=LEAST_NANO):
            at_ns = (first + begun + spike.index) * HOUR_NS
            if at_ns >= oldest_ns:
                yield _anomaly(subject, feature, spike, at_ns)


def _series(subject: Subject, tallies: list[Tally]) -> Iterator[tuple[str | None, list[float]]]:
    """What is looked at: all that the subject spent, and each feature of it."""
    yield subject.feature, [float(_cost(subject, tally)) for tally in tallies]
    if subject.feature is not None or subject.model is not None:
        return
    total = Tally()
    for tally in tallies:
        total.add(tally)
    names = sorted(total.tags, key=lambda name: -total.tags[name][0])
    for name in names[:MAX_FEATURES]:
        yield name, [float(tally.tags.get(name, (0, 0))[0]) for tally in tallies]


def _anomaly(subject: Subject, feature: str | None, spike: Spike, at_ns: int) -> Anomaly:
    return Anomaly(
        at_ns=at_ns,
        user_id=subject.id if subject.owner == "user" else None,
        feature=feature,
        expected=round(spike.expected),
        actual=round(spike.actual),
        severity=spike.severity,
        reason="spike" if feature is None else "feature_spike",
    )


def _days(
    usage: UsageReader, subject: Subject, days: int, now_ns: int, zone: tzinfo
) -> list[tuple[date, Tally]]:
    return usage.days(subject.id, days, now_ns, zone, owner=subject.owner)


def _cost(subject: Subject, tally: Tally) -> int:
    """What the subject spent of it; never below zero, as a correction alone would be."""
    if subject.model is not None:
        return max(0, tally.models.get(subject.model, (0, 0))[0])
    if subject.feature is not None:
        return max(0, tally.tags.get(subject.feature, (0, 0))[0])
    return max(0, tally.cost_nano_usd)


def _begun(days: list[tuple[date, int]]) -> list[tuple[date, int]]:
    """From the first day on which something was spent."""
    first = next((index for index, (_, cost) in enumerate(days) if cost), len(days))
    return days[first:]


def _elapsed(now: datetime) -> float:
    """The share of its day that is over, of a day of perhaps 23 or 25 hours."""
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    end = datetime.combine(now.date() + timedelta(days=1), start.timetz())
    length = end.timestamp() - start.timestamp()
    return min(max((now.timestamp() - start.timestamp()) / length, 0.0), 1.0)


def _filter(subject: Subject, since_ns: int) -> UsageFilter:
    own = {f"{subject.owner}_id": subject.id} if subject.id is not None else {}
    return UsageFilter(since_ns=since_ns, model=subject.model, feature=subject.feature, **own)  # type: ignore[arg-type]


def _parts(by: GroupBy, record: UsageRecord, zone: tzinfo) -> Iterator[Group]:
    """What a record adds to each group that it belongs to."""
    if by == "model":
        for attempt in record.attempts:
            unknown = attempt.cost_nano_usd if attempt.billing == "unknown" else 0
            yield Group(
                name=attempt.model,
                requests=1,
                cost=attempt.cost_nano_usd,
                unknown=unknown,
                input_tokens=attempt.input_tokens,
                output_tokens=attempt.output_tokens,
            )
        return
    for name in _names(by, record, zone):
        yield Group(
            name=name,
            requests=int(record.status != ADJUSTED),
            cost=record.cost_nano_usd,
            saved=record.saved_nano_usd,
            unknown=record.unknown_nano_usd,
            input_tokens=record.input_tokens,
            output_tokens=record.output_tokens,
        )


def _names(by: GroupBy, record: UsageRecord, zone: tzinfo) -> list[str]:
    if by == "day":
        at = datetime.fromtimestamp(record.at_ns // NS_PER_S, zone)
        return [at.date().isoformat()]
    if by == "feature":
        return features(record) or ["-"]
    owners = {
        "user": record.user_id,
        "organization": record.organization_id,
        "workspace": record.workspace_id,
        "domain": record.domain,
        "tier": record.tier,
    }
    return [owners[by] or "-"]


def _add(group: Group, part: Group) -> None:
    for name in Group.__struct_fields__[1:]:
        setattr(group, name, getattr(group, name) + getattr(part, name))
