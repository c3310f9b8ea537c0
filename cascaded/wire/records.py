"""Summaries and audit records as they travel: money in US dollars, times in ISO 8601. Pure."""

from collections.abc import Mapping

from cascaded.types.records import AuditRecord, Share, UsageSummary
from cascaded.wire.money import moment
from cascaded.wire.native import usd
from cascaded.wire.openai_chat import WireError

PAGE = 100
"""Rows of a page, unless a caller asks for fewer."""
MAX_DIGITS = 9


def summary_row(summary: UsageSummary) -> dict[str, object]:
    """What a user spent; `user_id` is null for everybody."""
    return {
        "user_id": summary.id,
        "daily_cost": usd(summary.today_nano_usd),
        "weekly_cost": usd(summary.week_nano_usd),
        "monthly_cost": usd(summary.month_nano_usd),
        "monthly_saved": usd(summary.month_saved_nano_usd),
        "requests_today": summary.requests_today,
        "requests_this_month": summary.requests_month,
        "top_models": [_share(share) for share in summary.top_models],
        "top_features": [_share(share) for share in summary.top_tags],
    }


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
