"""Costs, savings and plans, by example."""

import pytest
from msgspec.structs import replace

from cascaded.policy.pricing import (
    Saving,
    cost,
    is_free,
    output_bound,
    plan,
    price_table_hash,
    saving,
    worst_cost,
)
from cascaded.types.decision import Plan, Refusal
from cascaded.types.model import Ladder, Model, Price, Rates, RatesAbove, Rung
from cascaded.types.result import Attempt, Billing
from cascaded.types.usage import Usage

FREE = Price(rates=Rates(input=0, output=0))
SMALL = Price(rates=Rates(input=150_000, output=600_000))
LARGE = Price(rates=Rates(input=2_500_000, output=10_000_000))
APART = Price(
    rates=Rates(
        input=1_000,
        output=2_000,
        cache_read=100,
        cache_write=1_250,
        input_audio=10_000,
        output_audio=20_000,
        reasoning=3_000,
        cache_write_1h=2_000,
        output_image=30_000,
    )
)


class TestCost:
    def test_plain(self) -> None:
        usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
        assert cost(LARGE, usage) == 12_500_000_000

    def test_every_class_apart(self) -> None:
        usage = Usage(
            input_tokens=1_000,
            output_tokens=1_000,
            cache_read_tokens=100,
            cache_write_tokens=200,
            cache_write_1h_tokens=50,
            input_audio_tokens=300,
            output_audio_tokens=100,
            reasoning_tokens=200,
            output_image_tokens=10,
        )
        into = 400 * 1_000 + 100 * 100 + 150 * 1_250 + 50 * 2_000 + 300 * 10_000
        out = 690 * 2_000 + 100 * 20_000 + 200 * 3_000 + 10 * 30_000
        assert cost(APART, usage) == -(-(into + out) // 1_000)

    def test_classes_without_a_rate_cost_as_their_parent(self) -> None:
        whole = Usage(input_tokens=500, output_tokens=50)
        parts = Usage(
            input_tokens=500,
            output_tokens=50,
            cache_read_tokens=100,
            cache_write_tokens=100,
            input_audio_tokens=100,
            reasoning_tokens=20,
            output_audio_tokens=20,
        )
        assert cost(LARGE, parts) == cost(LARGE, whole)

    def test_rounds_up_once(self) -> None:
        price = Price(rates=Rates(input=1, output=1))
        assert cost(price, Usage(input_tokens=1, output_tokens=1)) == 1
        assert cost(price, Usage(input_tokens=500, output_tokens=500)) == 1
        assert cost(price, Usage(input_tokens=500, output_tokens=501)) == 2
        assert cost(price, Usage()) == 0

    def test_fee(self) -> None:
        price = Price(rates=SMALL.rates, request_nano_usd=5_000_000)
        assert cost(price, Usage()) == 5_000_000

    def test_steps_hold_for_the_whole_call(self) -> None:
        price = Price(
            rates=Rates(input=1_000, output=1_000),
            above=(
                RatesAbove(input_tokens=100, rates=Rates(input=2_000, output=3_000)),
                RatesAbove(input_tokens=200, rates=Rates(input=4_000, output=5_000)),
            ),
        )
        assert cost(price, Usage(input_tokens=100, output_tokens=1)) == 101
        assert cost(price, Usage(input_tokens=101, output_tokens=1)) == 205
        assert cost(price, Usage(input_tokens=201, output_tokens=1)) == 809

    def test_unsaid_cache_life_is_the_dear_one(self) -> None:
        said = Usage(input_tokens=100, cache_write_tokens=100, cache_write_1h_tokens=0)
        unsaid = Usage(input_tokens=100, cache_write_tokens=100)
        assert cost(APART, said) == 125
        assert cost(APART, unsaid) == 200

    def test_unsaid_images_are_all_of_the_unexplained_output(self) -> None:
        usage = Usage(output_tokens=100, reasoning_tokens=40)
        assert cost(APART, usage) == 40 * 3 + 60 * 30
        assert cost(APART, Usage(output_tokens=100, output_image_tokens=0)) == 200

    @pytest.mark.parametrize(
        ("usage", "nano"),
        [
            # Parts beyond their total: the total grows to the largest part...
            (Usage(input_tokens=10, cache_read_tokens=20), 20 * 1),
            (Usage(output_tokens=0, reasoning_tokens=7), 7 * 3),
            (Usage(cache_write_1h_tokens=5), 5 * 2),
            # ...and parts that overlap go to the dearest class first.
            (Usage(input_tokens=100, input_audio_tokens=90, cache_read_tokens=80), 910),
            # Less than nothing is nothing.
            (Usage(input_tokens=-5, output_tokens=-5), 0),
            (Usage(input_tokens=10, cache_read_tokens=-1_000_000), 10),
        ],
    )
    def test_contradictions_are_read_the_dearest_way(self, usage: Usage, nano: int) -> None:
        assert cost(APART, usage) == nano


class TestWorst:
    def test_dearest_classes_and_steps(self) -> None:
        cheaper_when_long = Price(
            rates=Rates(input=5_000, output=1_000),
            above=(RatesAbove(input_tokens=100, rates=Rates(input=1_000, output=7_000)),),
        )
        assert worst_cost(cheaper_when_long, 100, 10, 2) == 500 + 20
        assert worst_cost(cheaper_when_long, 101, 10, 2) == 505 + 140
        assert worst_cost(APART, 10, 10, 1) == 100 + 300

    def test_free(self) -> None:
        assert is_free(FREE)
        assert not is_free(Price(rates=FREE.rates, request_nano_usd=1))
        assert not is_free(Price(rates=Rates(input=0, output=0, reasoning=1)))
        assert not is_free(
            Price(rates=FREE.rates, above=(RatesAbove(input_tokens=1, rates=SMALL.rates),))
        )


def model(name: str, price: Price | None, **more: object) -> Model:
    return Model(name=name, provider="p", upstream_name=name, price=price, **more)  # type: ignore[arg-type]


def ladder(*models: Model, **more: object) -> Ladder:
    return Ladder(name="auto", rungs=tuple(Rung(model=one) for one in models), **more)  # type: ignore[arg-type]


def planned(
    steps: Ladder,
    cap: int | None = None,
    *,
    asked: int | None = None,
    input_tokens: int = 1_000,
    choices: int = 1,
    default: int = 4_096,
    billed_retries: int = 0,
) -> Plan | Refusal:
    return plan(
        steps,
        input_tokens=input_tokens,
        asked_max_output=asked,
        choices=choices,
        max_cost_nano_usd=cap,
        default_max_output=default,
        billed_retries=billed_retries,
    )


def plan_of(*args: object, **more: object) -> Plan:
    found = planned(*args, **more)  # type: ignore[arg-type]
    assert isinstance(found, Plan), found
    return found


def refusal_of(*args: object, **more: object) -> Refusal:
    found = planned(*args, **more)  # type: ignore[arg-type]
    assert isinstance(found, Refusal), found
    return found


SMALL_MODEL, LARGE_MODEL = model("small", SMALL), model("large", LARGE)
BOTH = ladder(SMALL_MODEL, LARGE_MODEL)


class TestSaving:
    USAGE = Usage(input_tokens=1_000, output_tokens=1_000)

    def attempt(self, one: Model, billing: Billing = "billed") -> Attempt:
        spent = cost(one.price, self.USAGE) if one.price and billing == "billed" else 0
        return Attempt(rung=0, model=one, usage=self.USAGE, cost_nano_usd=spent, billing=billing)

    def test_against_the_strongest_rung(self) -> None:
        saved = saving(BOTH, self.USAGE, [self.attempt(SMALL_MODEL)])
        assert saved == Saving(12_500_000 - 750_000, 12_500_000, at_reference_prices=False)

    def test_negative_when_it_is(self) -> None:
        spent = [self.attempt(SMALL_MODEL), self.attempt(LARGE_MODEL)]
        assert saving(BOTH, self.USAGE, spent).nano_usd == -750_000

    def test_free_models_are_reckoned_at_reference_prices(self) -> None:
        draft = model("draft", FREE, reference_price=SMALL)
        strong = model("strong", FREE, reference_price=LARGE)
        kept = saving(ladder(draft, strong), self.USAGE, [self.attempt(draft)])
        assert kept == Saving(12_500_000 - 750_000, 12_500_000, at_reference_prices=True)
        climbed = [self.attempt(draft), self.attempt(strong), self.attempt(strong, "not_billed")]
        assert saving(ladder(draft, strong), self.USAGE, climbed).nano_usd == -750_000

    def test_paid_drafts_count_in_full_below_a_free_model(self) -> None:
        strong = model("strong", FREE, reference_price=LARGE)
        saved = saving(ladder(SMALL_MODEL, strong), self.USAGE, [self.attempt(SMALL_MODEL)])
        assert (saved.nano_usd, saved.at_reference_prices) == (12_500_000 - 750_000, True)

    def test_a_paid_model_is_never_measured_by_a_reference(self) -> None:
        draft = model("draft", FREE, reference_price=LARGE)
        paid = model("paid", SMALL, reference_price=LARGE)
        saved = saving(ladder(draft, paid), self.USAGE, [self.attempt(draft)])
        assert saved == Saving(750_000, 750_000, at_reference_prices=False)

    def test_without_a_price_or_a_reference_only_the_spending_shows(self) -> None:
        spent = [replace(self.attempt(SMALL_MODEL), cost_nano_usd=7)]
        for price in (FREE, None):
            saved = saving(ladder(model("local", price)), self.USAGE, spent)
            assert saved == Saving(-7, 0, at_reference_prices=False)


class TestPlan:
    def test_worst_path_counts_every_call(self) -> None:
        small = worst_cost(SMALL, 1_000, 4_096, 2)
        large = worst_cost(LARGE, 1_000, 4_096, 2)
        found = plan_of(BOTH, choices=2)
        assert found == Plan(ladder=BOTH, max_output_tokens=4_096, worst_nano_usd=small + 3 * large)
        unchecked = ladder(SMALL_MODEL, LARGE_MODEL, checked=False)
        assert plan_of(unchecked, choices=2).worst_nano_usd == small + large
        assert plan_of(unchecked, choices=2, billed_retries=2).worst_nano_usd == 3 * (small + large)

    def test_unknown_price(self) -> None:
        refusal = refusal_of(ladder(SMALL_MODEL, model("mystery", None)))
        assert refusal.code == "price_unknown"
        assert "mystery" in refusal.message
        assert "free = true" in refusal.message

    def test_first_the_bound_is_lowered(self) -> None:
        full = plan_of(BOTH)
        found = plan_of(BOTH, full.worst_nano_usd - 1)
        assert found.ladder == BOTH
        assert found.max_output_tokens < 4_096
        assert found.worst_nano_usd < full.worst_nano_usd
        assert (
            plan_of(BOTH, asked=found.max_output_tokens + 1).worst_nano_usd >= full.worst_nano_usd
        )
        assert str(found.max_output_tokens) in found.notices[0]

    def test_then_retries_then_upper_rungs_are_dropped(self) -> None:
        low = worst_cost(SMALL, 1_000, 256, 1)
        high = worst_cost(LARGE, 1_000, 256, 1)
        for cap, retries, rungs in (
            (low + 3 * high, 2, 2),
            (low + 3 * high - 1, 1, 2),
            (low + 2 * high - 1, 0, 2),
            (low + high - 1, 0, 1),
            (low, 0, 1),
        ):
            found = plan_of(BOTH, cap)
            assert (found.ladder.top_retries, len(found.ladder.rungs)) == (retries, rungs)
            assert 256 <= found.max_output_tokens <= 4_096
            assert found.worst_nano_usd <= cap
        assert any("large" in notice for notice in plan_of(BOTH, low).notices)

    def test_then_it_is_refused_with_numbers(self) -> None:
        low = worst_cost(SMALL, 1_000, 256, 1)
        refusal = refusal_of(BOTH, low - 1)
        assert refusal.code == "max_cost_exceeded"
        assert refusal.details["needed_nano_usd"] == low
        assert "small" in refusal.message
        assert "0.0003036" in refusal.message

    def test_a_bound_that_was_asked_for_is_not_lowered(self) -> None:
        low = worst_cost(SMALL, 1_000, 2_000, 3)
        found = plan_of(BOTH, low, asked=2_000, choices=3)
        assert (found.max_output_tokens, len(found.ladder.rungs)) == (2_000, 1)
        refusal = refusal_of(BOTH, low - 1, asked=2_000, choices=3)
        assert "max_tokens" in refusal.message
        assert "3 times" in refusal.message

    def test_the_ladders_own_cap_counts(self) -> None:
        capped = ladder(SMALL_MODEL, LARGE_MODEL, max_cost_nano_usd=1)
        assert refusal_of(capped).code == "max_cost_exceeded"
        assert refusal_of(capped, 10**12).code == "max_cost_exceeded"

    def test_reasoning_models_keep_a_higher_floor(self) -> None:
        thinker = ladder(
            model("thinker", SMALL, capabilities=frozenset({"reasoning"})), top_retries=0
        )
        least = worst_cost(SMALL, 1_000, 1_024, 1)
        assert plan_of(thinker, least).max_output_tokens == 1_024
        assert refusal_of(thinker, least - 1).code == "max_cost_exceeded"

    def test_a_short_default_is_its_own_floor(self) -> None:
        one = ladder(SMALL_MODEL, top_retries=0)
        least = worst_cost(SMALL, 1_000, 100, 1)
        assert plan_of(one, least, default=100).max_output_tokens == 100
        assert refusal_of(one, least - 1, default=100).code == "max_cost_exceeded"

    def test_models_that_give_less_are_sent_less(self) -> None:
        short = model("short", SMALL, max_output_tokens=500)
        steps = ladder(short, LARGE_MODEL, top_retries=0)
        found = plan_of(steps, asked=2_000)
        assert found.max_output_tokens == 2_000
        assert output_bound(short, 2_000) == 500
        assert output_bound(LARGE_MODEL, 2_000) == 2_000
        assert found.worst_nano_usd == worst_cost(SMALL, 1_000, 500, 1) + worst_cost(
            LARGE, 1_000, 2_000, 1
        )
        assert found.notices == ("short gives at most 500 output tokens; 2000 were asked for.",)
        assert plan_of(ladder(short), asked=None).max_output_tokens == 500

    def test_narrow_contexts_are_left_out(self) -> None:
        narrow = model("narrow", SMALL, context_window=1_255)
        fits = model("fits", SMALL, context_window=1_256)
        found = plan_of(ladder(narrow, fits))
        assert [rung.model.name for rung in found.ladder.rungs] == ["fits"]
        assert "narrow" in found.notices[0]
        refusal = refusal_of(ladder(narrow))
        assert refusal.code == "context_length_exceeded"
        assert refusal.details == {"input_tokens": 1_000, "context_window": 1_255}

    def test_free_ladders_are_never_too_dear(self) -> None:
        assert plan_of(ladder(model("local", FREE)), 0).worst_nano_usd == 0


def test_hash_is_of_the_prices_and_nothing_else() -> None:
    one = price_table_hash({"a": SMALL, "b": LARGE, "c": None})
    assert one == price_table_hash({"c": None, "b": LARGE, "a": SMALL})
    assert 0 <= one < 2**64
    assert one != price_table_hash({"a": LARGE, "b": SMALL, "c": None})
    assert one != price_table_hash({"a": SMALL, "b": LARGE})
    # Holds in the journal carry it: it may not change from one version to the next.
    assert price_table_hash({"a": SMALL}) == price_table_hash({"a": Price(rates=SMALL.rates)})


@pytest.mark.parametrize(
    "part", ["reasoning_tokens", "output_audio_tokens", "cache_write_tokens", "cache_read_tokens"]
)
def test_a_part_below_zero_adds_nothing(part: str) -> None:
    """As little as it takes anything off: nothing was used, whatever the upstream makes of it."""
    assert cost(APART, replace(Usage(), **{part: -1_000_000})) == 0
    assert cost(APART, Usage(cache_write_1h_tokens=-1_000_000)) == 0
