"""What tokens cost: the bill of a call that was made, and the most that one can cost."""

from functools import lru_cache

from cascaded.types.model import Price, Rates
from cascaded.types.money import PICO_PER_NANO, pico_to_nano
from cascaded.types.usage import Usage

MEMOISED_RATES = 4_096

Part = tuple[int, int]
"""Tokens of one class, and what one of them costs in pico-dollars."""


def cost(price: Price, usage: Usage) -> int:
    """What a call cost, in nano-dollars: summed exactly, rounded up once.

    Counts that contradict one another (parts that outgrow their total, numbers below zero) are
    charged the dearest way that they can be read, so that the sum is not below the bill.
    """
    longest = max(
        usage.input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.cache_write_1h_tokens or 0,
        usage.input_audio_tokens,
    )
    rates = _rates_at(price, longest)
    pico = (
        price.request_nano_usd * PICO_PER_NANO
        + _side(usage.input_tokens, rates.input, _input_parts(usage, rates))
        + _side(usage.output_tokens, rates.output, _output_parts(usage, rates))
    )
    return pico_to_nano(pico)


def worst_cost(price: Price, input_upper: int, max_output: int, choices: int) -> int:
    """The most that a call can cost, in nano-dollars.

    It is at least `cost` of every usage whose input counts are no more than `input_upper` and
    whose output counts are no more than `max_output * choices`, whatever their classes.
    """
    dearest_input, dearest_output = _dearest(price, input_upper)
    pico = (
        price.request_nano_usd * PICO_PER_NANO
        + input_upper * dearest_input
        + max_output * choices * dearest_output
    )
    return pico_to_nano(pico)


def is_free(price: Price) -> bool:
    """Whether no call can cost anything."""
    tables = (price.rates, *(step.rates for step in price.above))
    return not price.request_nano_usd and all(_dearest_rates(rates) == (0, 0) for rates in tables)


def _rates_at(price: Price, input_tokens: int) -> Rates:
    """The rates for the whole of a call with so much input."""
    rates = price.rates
    for step in price.above:
        if input_tokens > step.input_tokens:
            rates = step.rates
    return rates


def _dearest(price: Price, input_upper: int) -> Part:
    """The dearest input rate and the dearest output rate that so much input, or less, can meet."""
    dearest = _dearest_rates(price.rates)
    for step in price.above:
        if input_upper > step.input_tokens:
            of_step = _dearest_rates(step.rates)
            dearest = (max(dearest[0], of_step[0]), max(dearest[1], of_step[1]))
    return dearest


@lru_cache(MEMOISED_RATES)
def _dearest_rates(rates: Rates) -> Part:
    """The dearest input rate and the dearest output rate of one table."""
    into = (rates.cache_read, rates.cache_write, rates.cache_write_1h, rates.input_audio)
    out = (rates.reasoning, rates.output_audio, rates.output_image)
    return (
        max(rates.input, *(rate or 0 for rate in into)),
        max(rates.output, *(rate or 0 for rate in out)),
    )


def _input_parts(usage: Usage, rates: Rates) -> tuple[Part, ...]:
    write = _or(rates.cache_write, rates.input)
    write_1h = _or(rates.cache_write_1h, write)
    written = max(0, usage.cache_write_tokens)
    long = usage.cache_write_1h_tokens
    if long is None:
        long = written if write_1h > write else 0
    return (
        (usage.cache_read_tokens, _or(rates.cache_read, rates.input)),
        (written - max(0, long), write),
        (long, write_1h),
        (usage.input_audio_tokens, _or(rates.input_audio, rates.input)),
    )


def _output_parts(usage: Usage, rates: Rates) -> tuple[Part, ...]:
    reasoning, audio = max(0, usage.reasoning_tokens), max(0, usage.output_audio_tokens)
    images, image_rate = usage.output_image_tokens, _or(rates.output_image, rates.output)
    if images is None:
        images = usage.output_tokens - reasoning - audio if image_rate > rates.output else 0
    return (
        (reasoning, _or(rates.reasoning, rates.output)),
        (audio, _or(rates.output_audio, rates.output)),
        (images, image_rate),
    )


def _or(rate: int | None, parent: int) -> int:
    return parent if rate is None else rate


def _side(total: int, rate: int, parts: tuple[Part, ...]) -> int:
    """Pico-dollars for one side of a call: its parts at their rates, the rest at the common one."""
    rest, pico = max(0, total), 0
    for tokens, part_rate in parts:
        if tokens > 0:
            rest -= tokens
            pico += tokens * part_rate
    return pico + rest * rate if rest >= 0 else _dearest_reading(total, rate, parts)


def _dearest_reading(total: int, rate: int, parts: tuple[Part, ...]) -> int:
    """As `_side` where the parts add up to more than the total, so that they overlap or the total
    is wrong. The total is then at least the largest part; a part is only the most that its class
    can be; and the tokens go to the dearest classes first."""
    left, pico = max(total, *(tokens for tokens, _ in parts)), 0
    for tokens, part_rate in sorted(parts, key=lambda part: part[1], reverse=True):
        if part_rate > rate:
            taken = min(max(0, tokens), left)
            left -= taken
            pico += taken * part_rate
    return pico + left * rate
