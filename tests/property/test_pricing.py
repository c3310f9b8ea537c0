"""Laws of costs and plans."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cascaded.policy.pricing import (
    cost,
    output_bound,
    plan,
    price_table_hash,
    worst_cost,
)
from cascaded.types.decision import Plan
from cascaded.types.model import Ladder, Model, Price, Rates, RatesAbove, Rung
from cascaded.types.usage import Usage

RATE = st.integers(0, 10**9)
MAYBE = st.none() | RATE
RATES = st.builds(
    Rates,
    input=RATE,
    output=RATE,
    cache_read=MAYBE,
    cache_write=MAYBE,
    input_audio=MAYBE,
    output_audio=MAYBE,
    reasoning=MAYBE,
    cache_write_1h=MAYBE,
    output_image=MAYBE,
)
STEPS = st.lists(
    st.builds(RatesAbove, input_tokens=st.integers(0, 2_000), rates=RATES),
    max_size=3,
    unique_by=lambda step: step.input_tokens,
).map(lambda steps: tuple(sorted(steps, key=lambda step: step.input_tokens)))
PRICE = st.builds(Price, rates=RATES, above=STEPS, request_nano_usd=st.integers(0, 10**8))
NAMES_IN = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "input_audio_tokens")
NAMES_OUT = ("output_tokens", "output_audio_tokens", "reasoning_tokens")


@st.composite
def bounded_usage(draw: st.DrawFn, most_in: int, most_out: int) -> Usage:
    """Any counts within the bounds, however they contradict one another."""
    into, out = st.integers(-3, most_in), st.integers(-3, most_out)
    counts = {name: draw(into) for name in NAMES_IN} | {name: draw(out) for name in NAMES_OUT}
    return replace(
        Usage(),
        **counts,
        cache_write_1h_tokens=draw(st.none() | into),
        output_image_tokens=draw(st.none() | out),
    )


@st.composite
def sound_usage(draw: st.DrawFn) -> Usage:
    """Parts that are disjoint parts of their totals."""
    parts = {name: draw(st.integers(0, 500)) for name in (*NAMES_IN, *NAMES_OUT)}
    images = draw(st.integers(0, 500))
    totals = {
        "input_tokens": sum(parts[name] for name in NAMES_IN),
        "output_tokens": images + sum(parts[name] for name in NAMES_OUT),
    }
    return replace(
        Usage(),
        **parts | totals,
        cache_write_1h_tokens=draw(st.integers(0, parts["cache_write_tokens"])),
        output_image_tokens=images,
    )


@given(st.data(), PRICE, st.integers(0, 3_000), st.integers(0, 2_000), st.integers(1, 5))
def test_worst_cost_bounds_every_usage_within(
    data: st.DataObject, price: Price, input_upper: int, max_output: int, choices: int
) -> None:
    usage = data.draw(bounded_usage(input_upper, max_output * choices))
    assert cost(price, usage) <= worst_cost(price, input_upper, max_output, choices)


@given(PRICE, st.integers(0, 3_000), st.integers(0, 2_000), st.integers(1, 5))
def test_worst_cost_grows_with_every_bound(
    price: Price, input_upper: int, max_output: int, choices: int
) -> None:
    worst = worst_cost(price, input_upper, max_output, choices)
    assert worst <= worst_cost(price, input_upper + 1, max_output, choices)
    assert worst <= worst_cost(price, input_upper, max_output + 1, choices)
    assert worst <= worst_cost(price, input_upper, max_output, choices + 1)


@given(PRICE, sound_usage())
def test_cost_of_sound_counts_is_the_plain_sum(price: Price, usage: Usage) -> None:
    rates = price.rates
    for step in price.above:
        rates = step.rates if usage.input_tokens > step.input_tokens else rates

    def rate(value: int | None, parent: int) -> int:
        return parent if value is None else value

    write = rate(rates.cache_write, rates.input)
    long, images = usage.cache_write_1h_tokens or 0, usage.output_image_tokens or 0
    parts_in = usage.cache_read_tokens + usage.cache_write_tokens + usage.input_audio_tokens
    parts_out = usage.output_audio_tokens + usage.reasoning_tokens + images
    pico = (
        (usage.input_tokens - parts_in) * rates.input
        + usage.cache_read_tokens * rate(rates.cache_read, rates.input)
        + (usage.cache_write_tokens - long) * write
        + long * rate(rates.cache_write_1h, write)
        + usage.input_audio_tokens * rate(rates.input_audio, rates.input)
        + (usage.output_tokens - parts_out) * rates.output
        + usage.output_audio_tokens * rate(rates.output_audio, rates.output)
        + usage.reasoning_tokens * rate(rates.reasoning, rates.output)
        + images * rate(rates.output_image, rates.output)
    )
    nano = cost(price, usage)
    assert pico <= (nano - price.request_nano_usd) * 1_000 < pico + 1_000


@given(PRICE, st.integers(0, 1_000), st.integers(0, 1_000))
def test_a_part_beyond_its_total_is_charged_both_ways_it_can_be_read(
    price: Price, total: int, part: int
) -> None:
    """As a wrong total (all of it cached), and as no cached token at all."""
    flat = replace(price, above=())
    charged = cost(flat, Usage(input_tokens=total, cache_read_tokens=total + part + 1))
    grown = total + part + 1
    assert charged >= cost(flat, Usage(input_tokens=grown, cache_read_tokens=grown))
    assert charged >= cost(flat, Usage(input_tokens=grown))
    assert charged >= cost(flat, Usage(input_tokens=total))


MODEL = st.builds(
    Model,
    name=st.sampled_from("abc"),
    provider=st.just("p"),
    upstream_name=st.just("u"),
    price=PRICE,
    context_window=st.none() | st.integers(1, 8_000),
    max_output_tokens=st.none() | st.integers(1, 3_000),
    capabilities=st.sampled_from((frozenset(), frozenset({"reasoning"}))),
)
LADDER = st.builds(
    Ladder,
    name=st.just("auto"),
    rungs=st.lists(st.builds(Rung, model=MODEL), min_size=1, max_size=3).map(tuple),
    checked=st.booleans(),
    top_retries=st.integers(0, 2),
    max_cost_nano_usd=st.none() | st.integers(0, 10**10),
)


@given(
    LADDER,
    st.integers(0, 4_000),
    st.none() | st.integers(1, 4_000),
    st.integers(1, 3),
    st.none() | st.integers(0, 10**10),
    st.integers(0, 2),
)
def test_a_plan_keeps_its_caps_and_a_refusal_is_needed(
    ladder: Ladder, input_tokens: int, asked: int | None, choices: int, cap: int | None, again: int
) -> None:
    found = plan(
        ladder,
        input_tokens=input_tokens,
        asked_max_output=asked,
        choices=choices,
        max_cost_nano_usd=cap,
        default_max_output=1_500,
        billed_retries=again,
    )
    caps = [one for one in (cap, ladder.max_cost_nano_usd) if one is not None]
    if not isinstance(found, Plan):
        needed = found.details.get("needed_nano_usd", 2**63)
        assert isinstance(needed, int)
        assert needed > min(caps, default=0)
        return
    rungs = found.ladder.rungs
    calls = [1] * (len(rungs) - 1) + [1 + found.ladder.top_retries * found.ladder.checked]
    worst = sum(
        count
        * (1 + again)
        * worst_cost(
            rung.model.price,
            input_tokens,
            output_bound(
                rung.model,
                found.max_output_tokens,
                beside_input=input_tokens if asked is None else None,
            ),
            choices,
        )
        for rung, count in zip(rungs, calls, strict=True)
        if rung.model.price is not None
    )
    assert found.worst_nano_usd == worst
    assert all(worst <= one for one in caps)
    assert asked is None or found.max_output_tokens == asked
    assert set(rungs) <= set(ladder.rungs)
    changed = found.ladder != ladder or (
        asked is not None and any(output_bound(rung.model, asked) < asked for rung in rungs)
    )
    assert bool(found.notices) or not changed


@given(st.dictionaries(st.text(max_size=5), st.none() | PRICE, max_size=4))
def test_hash_ignores_order(prices: dict[str, Price | None]) -> None:
    backwards = dict(reversed(prices.items()))
    assert price_table_hash(prices) == price_table_hash(backwards)
