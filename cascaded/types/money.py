"""Money as integers.

Inside the product money is whole nano-dollars (`int`, 1 USD = 10**9) and a price is whole
pico-dollars a token. On the wire money is an exact decimal in US dollars. No floats anywhere:
a float that reaches this module is an error, because it has already lost the exact figure.
"""

from decimal import Decimal, InvalidOperation

NANO_PER_USD = 1_000_000_000
PICO_PER_NANO = 1_000
MAX_NANO_USD = 2**63 - 1
MAX_MONEY_CHARACTERS = 64
"""Longest amount that is read; also how much of a bad one an error repeats."""
NANO_DIGITS = 9
"""Decimal places of a dollar in nano-dollars."""
MTOK_PRICE_DIGITS = 6
"""Decimal places of a price in dollars per million tokens: whole pico-dollars a token."""


class MoneyError(ValueError):
    """The value is not an exact, finite amount of money within range."""


def parse_usd(value: str | int | Decimal) -> int:
    """Dollars to nano-dollars, exactly.

    Raises `MoneyError` for floats, NaN, infinities, amounts below zero, amounts finer than a
    nano-dollar and amounts above `MAX_NANO_USD`.
    """
    return _whole(value, NANO_DIGITS, "a nano-dollar (9 decimal places)")


def parse_usd_per_mtok(value: str | int | Decimal) -> int:
    """Dollars per million tokens to pico-dollars a token, exactly. Raises as `parse_usd`."""
    return _whole(value, MTOK_PRICE_DIGITS, "a pico-dollar a token (6 decimal places)")


def _whole(value: str | int | Decimal, digits: int, unit: str) -> int:
    """`value * 10**digits`, which has to be a whole number. `unit` names one of it."""
    amount = _amount(value)
    if not amount:
        return 0
    # Integers only: `Decimal` arithmetic rounds to, and underflows in, the thread's context.
    parts = amount.as_tuple()
    assert isinstance(parts.exponent, int)  # a finite amount
    coefficient = int("".join(map(str, parts.digits)))
    if amount.adjusted() > MAX_MONEY_CHARACTERS:
        raise MoneyError(f"{_shown(value)} is more than this ledger can hold")
    shift = parts.exponent + digits
    whole, rest = (coefficient * 10**shift, 0) if shift >= 0 else _parted(coefficient, -shift)
    if rest:
        raise MoneyError(f"{_shown(value)} is finer than {unit}")
    if whole > MAX_NANO_USD:
        raise MoneyError(f"{_shown(value)} is more than this ledger can hold")
    return whole


def _parted(coefficient: int, places: int) -> tuple[int, int]:
    """Quotient and remainder by `10**places`, without computing absurd powers."""
    if places > MAX_MONEY_CHARACTERS:
        return 0, coefficient
    divisor: int = 10**places
    return divmod(coefficient, divisor)


def _amount(value: str | int | Decimal) -> Decimal:
    """A finite `Decimal`, zero or more."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise MoneyError(
            f"money must be a decimal string or an integer, not {type(value).__name__}"
        )
    if isinstance(value, str) and not (value.isascii() and len(value) <= MAX_MONEY_CHARACTERS):
        raise MoneyError(f"{_shown(value)} is not a decimal amount")
    if isinstance(value, int) and abs(value) > MAX_NANO_USD:
        raise MoneyError("this integer is more than this ledger can hold")
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise MoneyError(f"{_shown(value)} is not a decimal amount") from None
    if not amount.is_finite():
        raise MoneyError(f"{_shown(value)} is not a finite amount")
    if amount < 0:
        raise MoneyError(f"{_shown(value)} is below zero")
    if len(amount.as_tuple().digits) > MAX_MONEY_CHARACTERS:
        raise MoneyError(f"{_shown(value)} has too many digits")
    return amount


def _shown(value: str | int | Decimal) -> str:
    """The value as an error may repeat it."""
    text = str(value)
    more = "…" if len(text) > MAX_MONEY_CHARACTERS else ""
    return f"{text[:MAX_MONEY_CHARACTERS]!r}{more}"


def to_usd(nano_usd: int) -> Decimal:
    """Nano-dollars to an exact `Decimal` in dollars, without trailing zeros or exponent."""
    return Decimal(format_usd(nano_usd))


def format_usd(nano_usd: int) -> str:
    """Nano-dollars as a plain decimal string, such as `0.000125`."""
    dollars, rest = divmod(abs(nano_usd), NANO_PER_USD)
    sign = "-" if nano_usd < 0 else ""
    return f"{sign}{dollars}.{rest:09d}".rstrip("0").rstrip(".") if rest else f"{sign}{dollars}"


def pico_to_nano(pico_usd: int) -> int:
    """A sum in pico-dollars as nano-dollars, rounded up once (towards plus infinity)."""
    return -(-pico_usd // PICO_PER_NANO)
