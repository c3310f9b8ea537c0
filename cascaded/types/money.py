"""Money as integers.

Inside the product money is whole nano-dollars (`int`, 1 USD = 10**9) and a price is whole
pico-dollars a token. On the wire money is an exact decimal in US dollars. No floats anywhere:
a float that reaches this module is an error, because it has already lost the exact figure.
"""

from decimal import Decimal, InvalidOperation, localcontext

NANO_PER_USD = 1_000_000_000
PICO_PER_NANO = 1_000
MAX_NANO_USD = 2**63 - 1
MAX_USD_EXPONENT = 12


class MoneyError(ValueError):
    """The value is not an exact, finite amount of money within range."""


def parse_usd(value: str | int | Decimal) -> int:
    """Dollars to nano-dollars, exactly.

    Raises `MoneyError` for floats, NaN, infinities, amounts below zero, amounts finer than a
    nano-dollar and amounts above `MAX_NANO_USD`.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise MoneyError(
            f"money must be a decimal string or an integer, not {type(value).__name__}"
        )
    try:
        dollars = Decimal(value)
    except InvalidOperation:
        raise MoneyError(f"{value!r} is not a decimal amount") from None
    if not dollars.is_finite():
        raise MoneyError(f"{value!r} is not a finite amount")
    if dollars < 0:
        raise MoneyError(f"{value!r} is below zero")
    # `scaleb` and the comparison must not round, whatever precision the thread's context has.
    with localcontext(prec=max(40, len(dollars.as_tuple().digits) + 12)):
        if dollars.adjusted() > MAX_USD_EXPONENT:
            raise MoneyError(f"{value!r} is more than this ledger can hold")
        nano = dollars.scaleb(9)
        if nano != nano.to_integral_value():
            raise MoneyError(f"{value!r} is finer than a nano-dollar (9 decimal places)")
        if nano > MAX_NANO_USD:
            raise MoneyError(f"{value!r} is more than this ledger can hold")
        return int(nano)


def to_usd(nano_usd: int) -> Decimal:
    """Nano-dollars to an exact `Decimal` in dollars, without trailing zeros or exponent."""
    dollars, rest = divmod(abs(nano_usd), NANO_PER_USD)
    sign = "-" if nano_usd < 0 else ""
    text = f"{sign}{dollars}.{rest:09d}".rstrip("0").rstrip(".")
    return Decimal(text)


def format_usd(nano_usd: int) -> str:
    """Nano-dollars as a plain decimal string, such as `0.000125`."""
    return f"{to_usd(nano_usd):f}"


def pico_to_nano(pico_usd: int) -> int:
    """A sum in pico-dollars as nano-dollars, rounded up once (towards plus infinity)."""
    return -(-pico_usd // PICO_PER_NANO)
