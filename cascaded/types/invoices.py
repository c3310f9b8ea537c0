"""A provider's bill beside the ledger. Money is nano-dollars, days are those of UTC."""

from datetime import date

import msgspec


class InvoiceLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says that it served, of one model on one day; `None`: it does not say."""

    day: date
    model: str
    """As the provider calls it."""
    nano_usd: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    requests: int | None = None
    request_id: str | None = None


class UnknownCall(msgspec.Struct, frozen=True):
    """A call that was charged at its worst, because nobody knew its bill."""

    hold: int
    request_id: str
    nano_usd: int


class Cell(msgspec.Struct, kw_only=True):
    """What the ledger has of one model on one day."""

    billed: int = 0
    unknown: int = 0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    calls: list[UnknownCall] = []
    """Whose bill is unknown."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one day: what the ledger has, and the invoice."""

    day: date
    model: str
    billed: int
    unknown: int
    invoice: int | None
    """`None`: it tells tokens alone."""
    off: int
    """Invoice minus what is billed."""
    matches: bool
    """Within the tolerance."""
    explanation: str
    ledger_tokens: int
    invoice_tokens: int | None


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """What the invoice says of a hold that is charged as unknown."""

    hold: int
    request_id: str
    charged: int
    nano_usd: int
    how: str
    """`exact`: by its id; `alone`: the only unknown of its model and day; `shared`: a part."""
