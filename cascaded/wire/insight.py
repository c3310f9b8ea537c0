"""Questions about what was spent, as they travel. Pure."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TypeVar, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from cascaded.types.insight import (
    EXPORT_FORMATS,
    AdviceKind,
    AdviceQuestion,
    Anomaly,
    AnomalyQuestion,
    BreakdownQuestion,
    ExportQuestion,
    Forecast,
    ForecastQuestion,
    Grain,
    Group,
    GroupBy,
    Period,
    Recommendation,
    Sensitivity,
    Subject,
)
from cascaded.types.money import NANO_PER_USD, MoneyError, parse_usd
from cascaded.types.records import Owner, UsageFilter, UsageRecord
from cascaded.wire.exports import parse_timestamp, record_of
from cascaded.wire.money import moment
from cascaded.wire.native import usd
from cascaded.wire.openai_chat import WireError, check_text, explain_mistake

TEXTS = (
    "user_id",
    "organization_id",
    "workspace_id",
    "team_id",
    "tier",
    "model",
    "provider",
    "feature",
    "domain",
    "status",
)
"""Members of a filter that are compared as they are."""
FILTER = ("since", "until", *TEXTS, "imported")
MAX_LOOK_BACK_DAYS = 366
MAX_TOP = 10_000
MAX_IMPORT = 1_000
MAX_DIGITS = 9
W = TypeVar("W")
_FLAGS = {"true": True, "false": False}


def read_export(query: Mapping[str, str], now_ns: int) -> ExportQuestion:
    """`GET /export`. Raises `WireError`."""
    known(query, ("format", *FILTER))
    asked = query.get("format", EXPORT_FORMATS[0])
    if asked not in EXPORT_FORMATS:
        raise WireError(
            f"format must be one of {', '.join(EXPORT_FORMATS)}; `cascaded export` also writes"
            " SQLite and Parquet",
            "format",
        )
    return ExportQuestion(format=asked, filter=read_filter(query), now_ns=now_ns)


def read_filter(query: Mapping[str, str]) -> UsageFilter:
    """Which records are meant. Raises `WireError`."""
    imported = query.get("imported")
    if imported is not None and imported not in _FLAGS:
        raise WireError("imported must be true or false", "imported")
    said: dict[str, object] = {name: query[name] for name in TEXTS if name in query}
    for name in ("since", "until"):
        if name in query:
            said[f"{name}_ns"] = read_time(name, query[name])
    if imported is not None:
        said["imported"] = _FLAGS[imported]
    wanted = msgspec.convert(said, UsageFilter)
    if wanted.since_ns >= wanted.until_ns:
        raise WireError("since must be before until", "since")
    return wanted


def read_time(name: str, text: str) -> int:
    """A day or a moment in ISO 8601, in UTC unless it says otherwise. Raises `WireError`."""
    try:
        # A plus sign in an address stands for a space.
        return parse_timestamp(text.replace(" ", "+") if "T" in text else text)
    except (ValueError, OverflowError):
        raise WireError(
            f"{name} must be a day or a time, such as 2026-11-01 or 2026-11-01T12:00:00Z", name
        ) from None


def known(query: Mapping[str, str], names: Sequence[str]) -> None:
    """Raises `WireError` for a parameter that is none: it would be a filter that does nothing."""
    for name in query:
        if name not in names:
            raise WireError(f"there is no {name[:64]!r} here; there are {', '.join(names)}", name)


class ImportRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `/import`."""

    records: list[dict[str, object]]
    """Rows of an export, at most 1,000; cells may be texts."""


_read_import = msgspec.json.Decoder(ImportRequest, float_hook=Decimal).decode


def read_import(body: bytes) -> list[UsageRecord]:
    """The records to bring in. Raises `WireError` naming the row."""
    check_text(body)
    try:
        rows = _read_import(body).records
    except msgspec.ValidationError as error:
        raise WireError(*explain_mistake(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(f"the body is not valid JSON: {error}") from None
    if len(rows) > MAX_IMPORT:
        raise WireError(f"at most {MAX_IMPORT} records are taken at once", "records")
    return [_numbered(number, row) for number, row in enumerate(rows)]


def _numbered(number: int, row: Mapping[str, object]) -> UsageRecord:
    try:
        return record_of(row)
    except WireError as error:
        raise WireError(f"record {number}: {error}", "records") from None


def read_owner(query: Mapping[str, str], own: str | None) -> tuple[Owner, str | None]:
    """Whose use is asked after; of who is no administrator (`own`) always theirs. Raises
    `WireError`."""
    owners: tuple[Owner, ...] = get_args(Owner)
    named = ((owner, query.get(f"{owner}_id")) for owner in owners)
    asked = [one for one in named if one[1] is not None]
    if len(asked) > 1:
        raise WireError("name a user, an organisation or a workspace, and only one", "user_id")
    return asked[0] if asked and own is None else ("user", own)


def read_subject(query: Mapping[str, str], own: str | None) -> Subject:
    """Whose spend, and which of it. Raises `WireError`."""
    if "model" in query and "feature" in query:
        raise WireError("name a model or a feature, and only one", "model")
    owner, id = read_owner(query, own)
    return Subject(owner=owner, id=id, model=query.get("model"), feature=query.get("feature"))


SUBJECT = ("user_id", "organization_id", "workspace_id", "model", "feature")


def read_forecast(
    query: Mapping[str, str], subject: Subject, now_ns: int
) -> tuple[ForecastQuestion, bool]:
    """`GET /forecast`, without its budget; whether a limit was given. Raises `WireError`."""
    known(query, (*SUBJECT, "period", "zone", "limit"))
    limit = query.get("limit")
    try:
        nano_usd = None if limit is None else parse_usd(limit)
    except MoneyError as error:
        raise WireError(f"limit: {error}", "limit") from None
    question = ForecastQuestion(
        subject=subject,
        period=_one_of(query, "period", get_args(Period), "month"),
        zone=_zone(query),
        limit_nano_usd=nano_usd,
        now_ns=now_ns,
    )
    return question, limit is not None


def read_anomalies(query: Mapping[str, str], subject: Subject, now_ns: int) -> AnomalyQuestion:
    """`GET /anomalies`. Raises `WireError`."""
    known(query, (*SUBJECT, "sensitivity", "grain", "days", "zone"))
    return AnomalyQuestion(
        subject=subject,
        sensitivity=_one_of(query, "sensitivity", get_args(Sensitivity), "medium"),
        grain=_one_of(query, "grain", get_args(Grain), "day"),
        days=_count(query, "days", 30, MAX_LOOK_BACK_DAYS),
        zone=_zone(query),
        now_ns=now_ns,
    )


def read_advice(query: Mapping[str, str], subject: Subject, now_ns: int) -> AdviceQuestion:
    """`GET /recommendations`. Raises `WireError`."""
    known(query, (*SUBJECT, "days", "zone"))
    return AdviceQuestion(
        subject=subject,
        days=_count(query, "days", 30, MAX_LOOK_BACK_DAYS),
        zone=_zone(query),
        now_ns=now_ns,
    )


def read_breakdown(query: Mapping[str, str]) -> BreakdownQuestion:
    """`GET /breakdown`. Raises `WireError`."""
    known(query, ("by", "top", "zone", *FILTER))
    return BreakdownQuestion(
        by=_one_of(query, "by", get_args(GroupBy), "model"),
        filter=read_filter(query),
        zone=_zone(query),
        top=_count(query, "top", 100, MAX_TOP),
    )


def forecast_row(forecast: Forecast) -> dict[str, object]:
    """A forecast; `user_id` is null for everybody."""
    subject = forecast.subject
    limit = forecast.budget_limit
    return {
        "owner": subject.owner,
        "id": subject.id,
        "user_id": subject.id if subject.owner == "user" else None,
        "model": subject.model,
        "feature": subject.feature,
        "period": forecast.period,
        "starts": forecast.starts.isoformat(),
        "ends": forecast.ends.isoformat(),
        "spent": usd(forecast.spent),
        "predicted_cost": usd(forecast.predicted_cost),
        "mean": usd(forecast.mean),
        "std": usd(forecast.std),
        "lower": usd(forecast.lower),
        "upper": usd(forecast.upper),
        "risk_score": round(forecast.risk_score, 4),
        "budget_limit": None if limit is None else usd(limit),
        "overrun_amount": usd(forecast.overrun_amount),
        "recommendation": forecast.recommendation,
        "firm": forecast.firm,
        "history_days": forecast.history_days,
        "history": [{"day": day.isoformat(), "cost": usd(cost)} for day, cost in forecast.history],
        "days": [
            {
                "day": one.day.isoformat(),
                "expected": usd(one.expected),
                "lower": usd(one.lower),
                "upper": usd(one.upper),
            }
            for one in forecast.days
        ],
    }


def anomaly_row(anomaly: Anomaly) -> dict[str, object]:
    """An anomaly."""
    return {
        "timestamp": moment(anomaly.at_ns),
        "user_id": anomaly.user_id,
        "feature": anomaly.feature,
        "expected": usd(anomaly.expected),
        "actual": usd(anomaly.actual),
        "severity": anomaly.severity,
        "reason": anomaly.reason,
        "description": _described(anomaly),
    }


def advice_row(advice: Recommendation) -> dict[str, object]:
    """A piece of advice, with the money of a month that it is about."""
    return {
        "kind": advice.kind,
        "at_stake": usd(advice.at_stake),
        "model": advice.model,
        "instead": advice.instead,
        "feature": advice.feature,
        "requests": advice.requests,
        "max_tokens": advice.max_tokens,
        "share": None if advice.share is None else round(advice.share, 4),
        "description": _said(advice),
    }


def group_row(group: Group) -> dict[str, object]:
    """What one model, user, day … took."""
    return {
        "name": group.name,
        "requests": group.requests,
        "cost": usd(group.cost),
        "cost_saved": usd(group.saved),
        "unknown_cost": usd(group.unknown),
        "input_tokens": group.input_tokens,
        "output_tokens": group.output_tokens,
    }


def _described(anomaly: Anomaly) -> str:
    whose = anomaly.user_id or "all"
    what = f"spend on {anomaly.feature}" if anomaly.feature else "spend"
    times = f", {anomaly.actual / anomaly.expected:.1f} times" if anomaly.expected else ""
    expected = "nothing" if not anomaly.expected else _dollars(anomaly.expected)
    return f"{what} of {whose} was {_dollars(anomaly.actual)}{times} the expected {expected}"


def _dollars(nano_usd: int) -> str:
    """To the cent, or to two digits of what is less."""
    dollars = nano_usd / NANO_PER_USD
    return f"${dollars:,.2f}" if dollars >= 1 else f"${dollars:.2g}"


_WORDS: dict[AdviceKind, str] = {
    "upgrade_tier": "the budget will not last: {stake} more will be asked for than it allows",
    "cheaper_model": "{calls} asked for {model} by its name; the ladder {instead} keeps {share} of"
    " its drafts there",
    "skip_draft": "drafts of {model} are kept in {share} of {calls}, and cost more than they save:"
    " ask the stronger model of {instead} at once",
    "cache": "{calls} did not ask the cache, in which others of them find {share} of their answers",
    "max_tokens": "the longest {share} of the answers of {model} are longer than {bound} tokens:"
    " bound them with max_tokens",
}


def _said(advice: Recommendation) -> str:
    """A piece of advice in a sentence."""
    told = _WORDS[advice.kind].format(
        stake=_dollars(advice.at_stake),
        calls=f"{advice.requests} calls",
        model=advice.model,
        instead=advice.instead,
        share=f"{100 * (advice.share or 0):.0f}%",
        bound=advice.max_tokens,
    )
    return told if advice.feature is None else f"{advice.feature}: {told}"


def _one_of(query: Mapping[str, str], name: str, words: Sequence[W], default: W) -> W:
    asked = query.get(name, default)
    found = next((word for word in words if word == asked), None)
    if found is None:
        raise WireError(f"{name} must be one of {', '.join(map(str, words))}", name)
    return found


def _count(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    asked = query.get(name, str(default))
    if not asked.isdecimal() or len(asked) > MAX_DIGITS or not 1 <= int(asked) <= most:
        raise WireError(f"{name} must be a number from 1 to {most}", name)
    return int(asked)


def _zone(query: Mapping[str, str]) -> str:
    name = query.get("zone", "UTC")
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise WireError(f"there is no time zone {name[:64]!r}", "zone") from None
    return name
