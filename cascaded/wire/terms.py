"""Limits and tiers that are set at run time, as they travel: the words of the configuration file,
money as exact decimals in US dollars. Pure."""

from decimal import Decimal

import msgspec

from cascaded.types.limits import Scope
from cascaded.types.money import MoneyError, parse_usd
from cascaded.types.quotas import Quotas
from cascaded.types.tables import LimitTable, Name, Tier
from cascaded.types.tiers import TierConfig
from cascaded.wire.money import read
from cascaded.wire.native import usd
from cascaded.wire.openai_chat import WireError

SHARES = (("warn_threshold", "block_at"), ("degrade_at", "block_at"))
"""Of each pair the first must not be above the second."""


class LimitBody(LimitTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /limits/{scope}/{id}`: everything that is set; the rest is left to the
    layers below."""


class TierBody(Tier, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /tiers/{name}`."""


def read_name(name: str) -> str:
    """The name of a tier. Raises `WireError`."""
    try:
        return msgspec.convert(name, Name)
    except msgspec.ValidationError:
        raise WireError(
            "a tier's name has 1 to 64 of a-z, 0-9, - and _, and begins with a letter or digit",
            "name",
        ) from None


def read_limits(body: bytes) -> Quotas:
    """Raises `WireError`, also where nothing is set."""
    quotas = _checked(read(body, LimitBody))
    if quotas == Quotas():
        raise WireError("name at least one limit, or take them away with DELETE")
    return quotas


def read_tier(body: bytes) -> Tier:
    """Raises `WireError`."""
    tier = read(body, TierBody)
    _checked(tier)
    whole = tier.tier("")
    low, high = whole.default_quality_threshold, whole.max_quality_threshold
    if low is not None and high is not None and low > high:
        raise WireError(
            f"default_quality_threshold {low:g} is above max_quality_threshold {high:g}"
        )
    return tier


def _checked(table: LimitTable) -> Quotas:
    for name in ("daily_usd", "weekly_usd", "monthly_usd", "total_usd"):
        try:
            parse_usd(getattr(table, name) or 0)
        except MoneyError as error:
            raise WireError(f"{name}: {error}", name) from None
    for lesser, greater in SHARES:
        low, high = getattr(table, lesser), getattr(table, greater)
        if low is not None and high is not None and low > high:
            raise WireError(f"{lesser} {low:g} is above {greater} {high:g}", lesser)
    return table.quotas


def words(table: LimitTable) -> dict[str, object]:
    """What a table sets, in the words of the configuration file; amounts are `Decimal`s."""
    told = msgspec.structs.asdict(table) | (
        {"custom": dict(table.custom)} if isinstance(table, Tier) else {}
    )
    return {name: value for name, value in told.items() if value is not None and value != {}}


def limits_row(scope: Scope, id: str, quotas: Quotas) -> dict[str, object]:
    """The limits that are set of one scope."""
    return {"scope": scope, "id": id, "limits": _limits(quotas)}


def tier_row(tier: TierConfig, origin: str, *, whole: bool) -> dict[str, object]:
    """A tier: its name and limits for everybody, all of it for administrators. `origin` is `file`,
    `api`, or `preset` for one that is there to be used and is not in use."""
    row: dict[str, object] = {"name": tier.name}
    if whole:
        row = msgspec.structs.asdict(tier) | {"custom": dict(tier.custom)}
    return row | {"origin": origin, "limits": _limits(tier.limits)}


def _limits(quotas: Quotas) -> dict[str, object]:
    """In the words of the file, amounts as exact numbers."""
    return {
        name: usd(parse_usd(value)) if isinstance(value, Decimal) else value
        for name, value in words(LimitTable.of(quotas)).items()
    }
