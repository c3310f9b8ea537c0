"""What somebody else's table says of users: their tier and their budget."""

from decimal import Decimal
from typing import NamedTuple


class PlanRow(NamedTuple):
    """One row as it was read."""

    user_id: str | None
    tier: str | None
    budget: Decimal | None
    """US dollars, cut to whole nano-dollars; may be negative, NaN or infinite."""


class Plan(NamedTuple):
    """What it means."""

    tier: str | None
    """`None` where nobody says; a name that no tier has is one whose calls are refused."""
    budget_nano_usd: int | None
    """`None` leaves it to the tier."""
