"""Summaries and audit records as they travel: money in US dollars, times in ISO 8601. Pure."""

from collections.abc import Mapping, Sequence

from cascaded.types.limits import CounterStatus
from cascaded.types.quotas import MAX_BUDGETS
from cascaded.types.records import AuditRecord, Share, UsageSummary
from cascaded.wire.money import budget_row, moment
from cascaded.wire.native import usd
from cascaded.wire.openai_chat import WireError

PAGE = 100
"""Rows of a page, unless a caller asks for fewer."""
MAX_DIGITS = 9


def summary_row(summary: UsageSummary, budgets: Sequence[CounterStatus] = ()) -> dict[str, object]:
    """What an owner spent, beside its budgets; `user_id` is null for everybody."""
    return {
        "owner": summary.owner,
        "id": summary.id,
        "user_id": summary.id if summary.owner == "user" else None,
        "daily_cost": usd(summary.today_nano_usd),
        "weekly_cost": usd(summary.week_nano_usd),
        "monthly_cost": usd(summary.month_nano_usd),
        "monthly_saved": usd(summary.month_saved_nano_usd),
        "requests_today": summary.requests_today,
        "requests_this_month": summary.requests_month,
        "top_models": [_share(share) for share in summary.top_models],
        "top_features": [_share(share) for share in summary.top_tags],
        "total_cost": usd(summary.total_nano_usd),
        "entries": summary.entries,
        **_budgets(budgets),
    }


def _budgets(budgets: Sequence[CounterStatus]) -> dict[str, object]:
    """The tightest budget of each window, and all of them."""
    told: dict[str, object] = {}
    for name, window in (("daily", "day"), ("weekly", "week"), ("monthly", "month")):
        limited = [one for one in budgets if one.window == window and one.limit is not None]
        tightest = min(limited, key=lambda one: one.limit or 0, default=None)
        row = None if tightest is None else budget_row(tightest)
        told[f"{name}_budget"] = row and row["limit"]
        told[f"{name}_remaining"] = row and row["remaining"]
    return {**told, "budget": [budget_row(one) for one in budgets[:MAX_BUDGETS]]}


def audit_row(record: AuditRecord) -> dict[str, object]:
    """One decision. Amounts in `details` are nano-dollars, as they were decided."""
    return {
        "sequence": record.sequence,
        "at": moment(record.at_ns),
        "actor": record.actor,
        "subject": record.subject,
        "action": record.action,
        "outcome": record.outcome,
        "reason": record.reason,
        "user_id": record.user_id,
        "request_id": record.request_id,
        "details": record.details,
    }


def page_limit(query: Mapping[str, str]) -> int:
    """How many rows a page is to have (`?limit=`). Raises `WireError`."""
    limit = query.get("limit", str(PAGE))
    if not limit.isdecimal() or len(limit) > MAX_DIGITS:
        raise WireError("limit must be a number", "limit")
    return int(limit)


def _share(share: Share) -> dict[str, object]:
    return {"name": share.name, "cost": usd(share.cost_nano_usd), "requests": share.requests}
