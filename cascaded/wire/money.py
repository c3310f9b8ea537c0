"""The native routes about money: `/check`, `/reserve`, `/settle`, `/release`, `/budgets`. Pure.

Money on the wire is US dollars as an exact decimal, given as a JSON number or a string.
"""

from datetime import UTC, datetime
from typing import Annotated, TypeVar

import msgspec

from cascaded.types.limits import (
    CounterStatus,
    HoldStatus,
    Receipt,
    Scope,
)
from cascaded.types.money import NANO_PER_USD
from cascaded.types.times import NS_PER_S
from cascaded.wire.native import Amount, Who, parse_amount, usd
from cascaded.wire.openai_chat import ABSENT, WireError, explain_mistake

HOLD_TTL_S = 3_600.0
HOLD_TTL_MAX_S = 86_400.0
SCOPES_MAX = 32
"""With the seven kinds of windows, what one record takes."""
MAX_TOKENS = 100_000_000
MAX_CALL_USD = 10_000
"""What one call may cost at most. More is a slip of the unit, or somebody who wants to fill
counters that are also others'."""

T = TypeVar("T", bound=msgspec.Struct)


class ReserveRequest(Who, kw_only=True, forbid_unknown_fields=True):
    """The body of `/reserve`, and of a `/check` that names an amount instead of a prompt."""

    cost: Amount
    """US dollars: the most that the call can cost."""
    tokens: int = 0
    """The most tokens it can use, for rates that count them."""
    expires_in_s: float = HOLD_TTL_S
    """After this an unresolved hold is charged in full, as unknown."""


class SettleRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `/settle`."""

    hold: int
    cost: Amount = ABSENT
    """US dollars: what it really cost. Left out: nobody knows, so it is charged in full."""


class ReleaseRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `/release`: nothing was sent."""

    hold: int


class LostShare(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the calls of one scope cost that a crash lost."""

    scope: Scope
    id: str
    cost: Amount


class ResolveRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `/unknowns/{hold}`: what the provider's bill says."""

    cost: Amount
    scopes: Annotated[list[LostShare], msgspec.Meta(max_length=SCOPES_MAX)] = []
    """Of what a crash lost: whose it was, as far as that is known."""


def read(body: bytes, shape: type[T]) -> T:
    """A body of this shape. Raises `WireError`."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        message, member = explain_mistake(error)
        unknown = message == f"Object contains unknown field `{member}`"
        known = f"; there are {', '.join(shape.__struct_fields__)}" if unknown else ""
        raise WireError(message + known, member) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(str(error)) from None


def call_cost(cost: Amount) -> int:
    """What one call costs, in nano-dollars. Raises `WireError`."""
    nano_usd = parse_amount(cost, "cost")
    if nano_usd > MAX_CALL_USD * NANO_PER_USD:
        raise WireError(f"cost: no call costs more than {MAX_CALL_USD} US dollars", "cost")
    return nano_usd


def moment(ns: int | None) -> str | None:
    """ISO 8601 in UTC."""
    if ns is None:
        return None
    return datetime.fromtimestamp(ns / NS_PER_S, UTC).isoformat(timespec="seconds")


def budget_row(counter: CounterStatus) -> dict[str, object]:
    """One counter as `/budgets` shows it."""
    spent = counter.posted + counter.unknown
    remaining = None if counter.limit is None else max(0, counter.limit - spent - counter.held)
    return {
        "scope": counter.scope,
        "id": counter.id,
        "window": counter.window,
        "zone": counter.zone,
        "limit": _usd(counter.limit),
        "enforcement": counter.enforcement,
        "origin": counter.origin,
        "posted": usd(counter.posted),
        "held": usd(counter.held),
        "unknown": usd(counter.unknown),
        "overrun": usd(counter.overrun),
        "remaining": _usd(remaining),
        "degraded": counter.degraded,
        "starts_at": moment(counter.starts_at_ns),
        "resets_at": moment(counter.resets_at_ns),
    }


def hold_row(hold: HoldStatus) -> dict[str, object]:
    """One unresolved hold as `/unknowns` shows it."""
    return {
        "hold": hold.hold,
        "state": hold.state,
        "held": usd(hold.held),
        "unknown": usd(hold.unknown),
        "at": moment(hold.at_ns),
        "request_id": hold.request_id or None,
        "user_id": hold.user_id or None,
        "lost": hold.lost,
        "counters": [
            {
                "scope": one.scope,
                "id": one.id,
                "window": one.window,
                "zone": one.zone,
                "unknown": usd(one.nano_usd),
            }
            for one in hold.charges
        ],
    }


def receipt_row(receipt: Receipt) -> dict[str, object]:
    """How a hold was resolved."""
    return {
        "hold": receipt.hold,
        "state": receipt.state,
        "posted": usd(receipt.posted),
        "unknown": usd(receipt.unknown),
        "returned": usd(receipt.returned),
        "overrun": usd(receipt.overrun),
    }


def _usd(nano_usd: int | None) -> msgspec.Raw | None:
    return None if nano_usd is None else usd(nano_usd)
