"""What a ladder saved against asking its strongest model at once."""

from collections.abc import Sequence

import msgspec

from cascaded.policy.pricing.rates import cost, is_free
from cascaded.types.model import Ladder, Model, Price
from cascaded.types.result import Attempt
from cascaded.types.usage import Usage


class Saving(msgspec.Struct, frozen=True):
    """`full_nano_usd` minus what was spent: negative where the ladder cost more."""

    nano_usd: int
    full_nano_usd: int
    """What the strongest model would have cost for the answer; percentages are of this."""
    at_reference_prices: bool


def saving(ladder: Ladder, answer: Usage, attempts: Sequence[Attempt]) -> Saving:
    """The strongest rung's price for the accepted answer's tokens minus all that was spent.

    Where the strongest model is free and the operator named a comparable paid one, both sides are
    reckoned at reference prices: a draft that was thrown away then costs something, too.
    """
    strongest = ladder.rungs[-1].model
    reference = _reference(strongest)
    if reference is not None:
        full = cost(reference, answer)
        return Saving(full - sum(map(_at_reference, attempts)), full, at_reference_prices=True)
    full = _full(strongest, answer, attempts)
    spent = sum(attempt.cost_nano_usd for attempt in attempts)
    return Saving(full - spent, full, at_reference_prices=False)


def _full(strongest: Model, answer: Usage, attempts: Sequence[Attempt]) -> int:
    """What the strongest model costs for the answer: where it gave it, that is known already."""
    last = attempts[-1] if attempts else None
    if last is not None and last.model is strongest and last.usage is answer:
        return last.cost_nano_usd
    return cost(strongest.price, answer) if strongest.price is not None else 0


def _reference(model: Model) -> Price | None:
    """The price to show for a model that is free."""
    if model.reference_price is None or model.price is None or not is_free(model.price):
        return None
    return model.reference_price


def _at_reference(attempt: Attempt) -> int:
    """What an attempt cost; a free one, what its reference would have cost."""
    reference = _reference(attempt.model)
    if reference is None or attempt.billing == "not_billed":
        return attempt.cost_nano_usd
    return cost(reference, attempt.usage)
