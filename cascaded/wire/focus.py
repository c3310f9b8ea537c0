"""What calls cost, as FinOps FOCUS 1.2 shapes it: one charge for each call to a provider. Pure.

All of its mandatory columns, those of the others that have something to say here, and ours with
`x_` before them. `BilledCost` is what the daemon charged; the provider's invoice may differ, which
`cascaded reconcile` is for. List and contracted costs are the same: discounts are in the prices.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from cascaded.types.money import format_usd
from cascaded.types.records import ADJUSTED, AttemptRecord, UsageRecord
from cascaded.types.times import NS_PER_S
from cascaded.wire.exports import EPOCH, Cell

FOCUS_VERSION = "1.2"
FOCUS_COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
    "x_BillingState",
    "x_Estimated",
    "x_InputTokens",
    "x_OutputTokens",
    "x_RequestId",
    "x_TeamId",
    "x_UserId",
    "x_WorkspaceId",
)
OWN_CALLS = "application"
"""Who was called by applications that hold money and call models themselves: nobody told us."""
DECEMBER = 12


def focus_rows(record: UsageRecord) -> Iterator[list[Cell]]:
    """The charges of a record, in the order of `FOCUS_COLUMNS`; none where nothing was billed."""
    charged = [one for one in record.attempts if one.billing != "not_billed" or one.cost_nano_usd]
    for attempt in charged:
        yield _row(record, attempt)
    if not charged and record.cost_nano_usd:
        yield _row(record, None)


def _row(record: UsageRecord, attempt: AttemptRecord | None) -> list[Cell]:
    cost = format_usd(record.cost_nano_usd if attempt is None else attempt.cost_nano_usd)
    provider = OWN_CALLS if attempt is None else attempt.provider
    model = (record.model or None) if attempt is None else attempt.model
    tokens_in = record.input_tokens if attempt is None else attempt.input_tokens
    tokens_out = record.output_tokens if attempt is None else attempt.output_tokens
    adjusted = record.status == ADJUSTED
    hour = EPOCH + timedelta(hours=record.at_ns // (3_600 * NS_PER_S))
    start, end = _month(hour)
    said: dict[str, Cell] = {
        "BilledCost": cost,
        "BillingAccountId": provider,
        "BillingAccountType": "Provider",
        "BillingCurrency": "USD",
        "BillingPeriodEnd": _time(end),
        "BillingPeriodStart": _time(start),
        "ChargeCategory": "Adjustment" if adjusted else "Usage",
        "ChargeDescription": f"{record.kind} with {model or 'a model of its own choice'}",
        "ChargeFrequency": "One-Time" if adjusted else "Usage-Based",
        "ChargePeriodEnd": _time(hour + timedelta(hours=1)),
        "ChargePeriodStart": _time(hour),
        "ConsumedQuantity": tokens_in + tokens_out,
        "ConsumedUnit": "Tokens",
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": provider,
        "ListCost": cost,
        "PricingCategory": "Standard",
        "PricingQuantity": tokens_in + tokens_out,
        "PricingUnit": "Tokens",
        "ProviderName": provider,
        "PublisherName": provider,
        "ResourceId": model,
        "ResourceName": model,
        "ResourceType": "Model",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Model inference",
        "ServiceSubcategory": "Generative AI",
        "SkuId": f"{provider}/{model}" if model else provider,
        "SubAccountId": record.organization_id,
        "SubAccountType": "Organization" if record.organization_id else None,
        "Tags": msgspec.json.encode(record.tags).decode(),
        "x_BillingState": "billed" if attempt is None else attempt.billing,
        "x_Estimated": attempt is not None and attempt.estimated,
        "x_InputTokens": tokens_in,
        "x_OutputTokens": tokens_out,
        "x_RequestId": record.request_id,
        "x_TeamId": record.team_id,
        "x_UserId": record.user_id,
        "x_WorkspaceId": record.workspace_id,
    }
    return [said.get(name) for name in FOCUS_COLUMNS]


def _month(moment: datetime) -> tuple[datetime, datetime]:
    """Its first moment, and the next one's."""
    year, month = moment.year, moment.month
    following = (year + 1, 1) if month == DECEMBER else (year, month + 1)
    return datetime(year, month, 1, tzinfo=UTC), datetime(*following, 1, tzinfo=UTC)


def _time(moment: datetime) -> str:
    return f"{moment.isoformat()[:19]}Z"
