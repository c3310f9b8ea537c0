"""Prices below the list's, where they are a share of it."""

import msgspec

from cascaded.types.model import Price, Rates

_WHOLE = 100


def percent_of(price: Price, percent: int) -> Price:
    """So many hundredths of every rate and fee, each rounded up."""
    return Price(
        rates=_rates(price.rates, percent),
        above=tuple(
            msgspec.structs.replace(step, rates=_rates(step.rates, percent)) for step in price.above
        ),
        request_nano_usd=_share(price.request_nano_usd, percent),
    )


def _rates(rates: Rates, percent: int) -> Rates:
    known = {name: one for name, one in msgspec.structs.asdict(rates).items() if one is not None}
    return Rates(**{name: _share(one, percent) for name, one in known.items()})


def _share(amount: int, percent: int) -> int:
    return -(-amount * percent // _WHOLE)
