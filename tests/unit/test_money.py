"""Money: exact in, exact out, and nothing else."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded.types.money import (
    MAX_NANO_USD,
    MoneyError,
    format_usd,
    parse_usd,
    parse_usd_per_mtok,
    pico_to_nano,
    to_usd,
)


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("-0", 0),
        ("0e99999999", 0),
        ("1", 10**9),
        (1, 10**9),
        (Decimal("2.5"), 2_500_000_000),
        ("0.000000001", 1),
        ("1e-9", 1),
        ("1E+3", 10**12),
        ("1.10000000000000000000", 1_100_000_000),
        ("9223372036.854775807", MAX_NANO_USD),
    ],
)
def test_reads_exactly(text: str | int | Decimal, nano: int) -> None:
    assert parse_usd(text) == nano


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (0.1, "not float"),
        (True, "not bool"),
        (None, "not NoneType"),
        ("", "not a decimal"),
        ("one", "not a decimal"),
        ("1,5", "not a decimal"),
        ("１", "not a decimal"),
        ("nan", "finite"),
        ("sNaN", "finite"),
        ("-inf", "finite"),
        (Decimal("Infinity"), "finite"),
        ("-0.01", "below zero"),
        (-1, "below zero"),
        ("0.0000000001", "finer than a nano-dollar"),
        ("1e-9999999", "finer than a nano-dollar"),
        ("1e-999999999999999999", "finer than a nano-dollar"),
        ("9223372036.854775808", "more than this ledger"),
        ("1e12", "more than this ledger"),
        ("1e999999999999999999", "more than this ledger"),
        (10**30, "more than this ledger"),
        pytest.param(10**10_000, "more than this ledger", id="absurd"),
        ("9" * 10_000, "not a decimal"),
        (Decimal("1." + "1" * 5_000), "too many digits"),
    ],
)
def test_refuses_what_is_not_exact_money(bad: object, why: str) -> None:
    with pytest.raises(MoneyError, match=why) as refused:
        parse_usd(bad)  # type: ignore[arg-type]
    assert len(str(refused.value)) < 200


def test_the_context_of_the_thread_does_not_matter() -> None:
    with localcontext(prec=2):
        assert parse_usd("123456.789012345") == 123_456_789_012_345
        assert parse_usd(Decimal("9223372036.854775807")) == MAX_NANO_USD


def test_prices_are_exact_to_a_pico_dollar_a_token() -> None:
    assert parse_usd_per_mtok("2.5") == 2_500_000
    assert parse_usd_per_mtok("0.000001") == 1
    with pytest.raises(MoneyError, match="pico-dollar a token"):
        parse_usd_per_mtok("0.0000001")


@given(st.integers(0, MAX_NANO_USD))
def test_round_trip(nano: int) -> None:
    assert parse_usd(format_usd(nano)) == nano
    assert parse_usd(to_usd(nano)) == nano
    assert "E" not in format_usd(nano)


@given(st.integers(-MAX_NANO_USD, MAX_NANO_USD))
def test_signed_amounts_are_told_exactly(nano: int) -> None:
    assert int(Decimal(format_usd(nano)).scaleb(9)) == nano


@given(st.integers(-(10**30), 10**30))
def test_rounds_up_and_by_less_than_one(pico: int) -> None:
    assert pico <= pico_to_nano(pico) * 1_000 < pico + 1_000
