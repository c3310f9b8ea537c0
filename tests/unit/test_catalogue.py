"""The catalogue: the snapshot that ships, small ones made here, and damaged ones."""

import csv
import datetime
import gzip
import importlib.util
import json
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from msgspec.structs import replace

from cascaded.adapters import package_data
from cascaded.policy.pricing import Catalogue, CatalogueEntry, CatalogueError, cost
from cascaded.policy.pricing.catalogue import FORMAT, MAX_SNAPSHOT_BYTES, spellings
from cascaded.types.model import Price, Rates, RatesAbove
from cascaded.types.money import parse_usd_per_mtok
from cascaded.types.usage import Usage

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "prices"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the development data is not here")


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return Catalogue.load(package_data.read("prices.json.gz"))


def snapshot(*lines: str, **header: Any) -> bytes:
    sellers = sorted({line.split("\t")[0] for line in lines})
    head = {
        "format": FORMAT,
        "as_of": "2026-06-01",
        "models": len(lines),
        "sellers": sellers,
        "sources": [{"name": "test", "version": "1", "licence": "MIT"}],
    }
    text = "\n".join([json.dumps(head | header), *lines, ""])
    return gzip.compress(text.encode(), mtime=0)


def catalogue(*lines: str, **header: Any) -> Catalogue:
    return Catalogue.load(snapshot(*lines, **header))


def price_of(entry: CatalogueEntry | None) -> Price:
    assert entry is not None
    assert entry.price is not None
    return entry.price


class TestRows:
    def test_a_whole_row(self) -> None:
        row = (
            '[[[[5,6,1,null,null,null,9],[[200,[50,60]]],7],[[8,9],[],0,"2027-01-01"]],'
            "1000,100,9,1]"
        )
        found = catalogue(f"acme\tmodel\t{row}").find("acme", "model")
        assert found == CatalogueEntry(
            seller="acme",
            name="model",
            price=Price(
                rates=Rates(input=5, output=6, cache_read=1, reasoning=9),
                above=(RatesAbove(input_tokens=200, rates=Rates(input=50, output=60)),),
                request_nano_usd=7,
            ),
            price_changes_on="2027-01-01",
            fees_unbounded=True,
            context_window=1_000,
            max_output_tokens=100,
            capabilities=frozenset({"tools", "reasoning"}),
        )

    def test_a_known_model_without_a_price(self) -> None:
        found = catalogue("acme\tmodel\t[[],1000]").find("acme", "model")
        assert found == CatalogueEntry(seller="acme", name="model", context_window=1_000)

    @pytest.mark.parametrize(
        ("today", "rate", "next_change"),
        [
            ("", 1, "2027-01-01"),
            ("2020-01-01", 1, "2027-01-01"),
            ("2026-12-31", 1, "2027-01-01"),
            ("2027-01-01", 2, "2028-01-01"),
            ("2030-01-01", 3, ""),
        ],
    )
    def test_announced_prices(self, today: str, rate: int, next_change: str) -> None:
        row = '[[[[1,1]],[[2,2],[],0,"2027-01-01"],[[3,3],[],0,"2028-01-01"]]]'
        found = catalogue(f"acme\tm\t{row}").find("acme", "m", today)
        assert price_of(found).rates == Rates(input=rate, output=rate)
        assert found is not None
        assert found.price_changes_on == next_change

    def test_a_price_that_is_only_announced_is_not_known_yet(self) -> None:
        found = catalogue('acme\tm\t[[[[1,1],[],0,"2027-01-01"]]]').find("acme", "m")
        assert found is not None
        assert (found.price, found.price_changes_on) == (None, "2027-01-01")


class TestNames:
    SOME = catalogue(
        "fireworks\tglm-5\t[[[[6,6]]]]",
        "openai\tft:gpt-4o-2024-08-06\t[[[[3,3]]]]",
        "openai\tgpt-4o\t[[[[1,1]]]]",
        "openai\tgpt-4o-2024-08-06\t[[[[2,2]]]]",
        "openrouter\topenai/gpt-4o\t[[[[4,4]]]]",
        "openrouter\topenrouter/auto\t[[[[5,5]]]]",
    )

    @pytest.mark.parametrize(
        ("provider", "model", "rate"),
        [
            ("openai", "gpt-4o", 1),
            ("OpenAI", "GPT-4o", 1),
            ("openai", "openai/gpt-4o", 1),
            ("", "openai/gpt-4o", 1),
            ("our-gateway", "openai/gpt-4o", 1),
            ("openai_compatible", "openai/gpt-4o", 1),
            ("openai", "gpt-4o-2024-08-06", 2),
            ("openai", "gpt-4o-20240806", 2),
            ("openai", "ft:gpt-4o-2024-08-06", 3),
            ("openai", "ft:gpt-4o-2024-08-06:acme:support:abc", 3),
            ("openrouter", "openai/gpt-4o", 4),
            ("", "openrouter/openai/gpt-4o", 4),
            ("openrouter", "openrouter/auto", 5),
            ("fireworks_ai", "accounts/fireworks/models/glm-5", 6),
            ("fireworks", "glm-5", 6),
        ],
    )
    def test_found(self, provider: str, model: str, rate: int) -> None:
        assert price_of(self.SOME.find(provider, model)).rates.input == rate

    @pytest.mark.parametrize(
        ("provider", "model"),
        [
            ("openai", "gpt-4o-2024-05-13"),  # another version, another price
            ("openai", "gpt-4o-mini"),
            ("openai", "gpt-4"),
            ("openai", "pt-4o"),
            ("openai", ""),
            ("openai", "anthropic/gpt-4o"),
            ("openai", "gpt-4o\t[[[[1,1]]]]\nopenai"),
            ("openai", "gpt-4o\t"),
            ("openai", "x" * 10_000),
            ("openrouter", "gpt-4o"),  # OpenAI's price is not OpenRouter's
            ("our-gateway", "gpt-4o"),
            ("our-gateway", "other/gpt-4o"),
            ("", "gpt-4o"),
            ("openai\tgpt-4o", ""),
        ],
    )
    def test_never_guessed(self, provider: str, model: str) -> None:
        assert self.SOME.find(provider, model) is None

    def test_spellings_keep_the_name_first(self) -> None:
        assert spellings("a-20250514-v1:0") == ["a-20250514-v1:0", "a-2025-05-14-v1:0"]
        assert spellings("a-2025-05-14") == ["a-2025-05-14", "a-20250514"]
        assert spellings("model-1234567890") == ["model-1234567890"]


class TestDamage:
    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b"", "cut short"),
            (b"not gzip", "damaged"),
            (snapshot("a\tb\t[]")[:-12], "cut short"),
            (gzip.compress(b"no newline", mtime=0), "no lines"),
            (gzip.compress(b"{}\n", mtime=0), "header"),
            (gzip.compress(b"\xff\n", mtime=0), "header"),
            (snapshot("a\tb\t[]", sellers=["a", "c"]), "no lines of c"),
            (snapshot(format=FORMAT + 1), "make prices"),
            (gzip.compress(bytes(MAX_SNAPSHOT_BYTES + 1), mtime=0), "more than"),
        ],
    )
    def test_refused_at_load(self, data: bytes, why: str) -> None:
        with pytest.raises(CatalogueError, match=why):
            Catalogue.load(data)

    @pytest.mark.parametrize("row", ["", "{}", "[", '[[["x"]]]', "[[[[1,-]]]]", '[["x"]]'])
    def test_refused_at_the_row(self, row: str) -> None:
        with pytest.raises(CatalogueError, match="damaged at a b"):
            catalogue(f"a\tb\t{row}").find("a", "b")


class TestShipped:
    def test_size_and_count(self, shipped: Catalogue) -> None:
        assert len(shipped) > 5_000
        assert len(package_data.read("prices.json.gz")) < 300_000
        assert {source.licence for source in shipped.header.sources} == {"MIT"}

    def test_every_row_reads(self, shipped: Catalogue) -> None:
        names = list(rows(package_data.read("prices.json.gz")))
        assert len(names) == len(set(names)) == len(shipped)
        assert names == sorted(names)
        for seller, name in names:
            entry = shipped.find(seller, name)
            assert entry is not None, (seller, name)
            assert (entry.seller, entry.name) == (seller, name)
            if entry.price is not None:
                check_price(entry.price)

    def test_known_models(self, shipped: Catalogue) -> None:
        found = shipped.find("openai", "gpt-4o-2024-08-06")
        assert price_of(found).rates == Rates(
            input=2_500_000, output=10_000_000, cache_read=1_250_000
        )
        assert found is not None
        assert found.context_window == 128_000
        assert found.max_output_tokens == 16_384
        assert found.capabilities >= {"tools", "vision", "json_schema"}
        assert price_of(shipped.find("gemini", "gemini-2.5-pro")).above[0].input_tokens == 200_000
        assert price_of(shipped.find("perplexity", "sonar")).request_nano_usd == 12_000_000

    @needs_data
    def test_agrees_where_two_lists_agree(self, shipped: Catalogue) -> None:
        """Every row is as the consensus has it, or is dearer for a reason named here."""
        reasons = {
            # The bare name is the regional endpoint, 10% above the global one.
            ("aws", "anthropic.claude-opus-4-6-v1"): "one list has the regional price",
            ("aws", "anthropic.claude-sonnet-4-6"): "one list has the regional price",
            ("mistral", "mistral-large-latest"): "the lists disagree on what is the latest",
            # The consensus gives the rate of images as the output rate; we price them apart.
            ("google", "gemini-3-pro-image-preview"): "images apart",
            ("google", "gemini-3.1-flash-image-preview"): "images apart",
        }
        different = set()
        with (DATA / "consensus.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        for line in lines:
            key = (line["provider"], line["model"])
            price = price_of(shipped.find(*key))
            for name in ("input", "output", "cache_read", "cache_write"):
                told = line[f"{name}_usd_per_mtok"]
                if not told:
                    continue
                wanted, ours = parse_usd_per_mtok(told), getattr(price.rates, name)
                if ours != wanted:
                    different.add(key)
                    assert max(ours, price.rates.output_image or 0) >= wanted, key
        assert different == set(reasons)
        assert len(lines) >= 100


def rows(data: bytes) -> Iterator[tuple[str, str]]:
    for line in gzip.decompress(data).decode().splitlines()[1:]:
        seller, name, _ = line.split("\t")
        yield seller, name


def check_price(price: Price) -> None:
    tables = [price.rates, *(step.rates for step in price.above)]
    for table in tables:
        rates = [getattr(table, name) for name in Rates.__struct_fields__]
        assert all(rate is None or rate >= 0 for rate in rates)
        assert all(rate is None or rate > 0 for rate in rates[2:])
        assert table.input
        # A model that embeds has nothing else to pay for than what goes in.
        assert table.output or not any(rates[1:])
    steps = [step.input_tokens for step in price.above]
    assert steps == sorted(set(steps))
    assert price.request_nano_usd >= 0


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    """The script, with the package data it reads."""
    pytest.importorskip("genai_prices", reason="genai-prices is a development dependency")
    spec = importlib.util.spec_from_file_location("build_prices", ROOT / "scripts/build_prices.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestBuilder:
    def test_exact_noise_and_rounding_up(self, builder: ModuleType) -> None:
        builder.rounded_up.clear()
        builder.float_noise.clear()
        assert builder._ceiling(Decimal("150000"), "a") == 150_000
        assert builder._ceiling(Decimal("1600000.0000000001"), "a") == 1_600_000
        assert builder._ceiling(Decimal("949999.9999999999"), "a") == 950_000
        assert builder._ceiling(Decimal("141953.125"), "a") == 141_954
        assert builder._ceiling(Decimal("0.4"), "a") == 1
        assert (builder.float_noise["a"], builder.rounded_up["a"]) == (2, 2)
        with pytest.raises(AssertionError, match="below zero"):
            builder._ceiling(Decimal(-1), "a")

    def test_the_dearer_of_two(self, builder: ModuleType) -> None:
        one = builder.Offer({0: {"input": 5, "output": 9}, 200: {"input": 10, "output": 9}}, 3)
        two = builder.Offer({0: {"input": 4, "output": 12, "cache_read": 1, "reasoning": 20}}, 0)
        joined = builder._dearest([one, two])
        assert joined.request_nano_usd == 3
        # The list without a cached rate has the dearer input: its cached tokens cost that.
        assert joined.steps[0] == {"input": 5, "output": 12, "cache_read": 5, "reasoning": 20}
        assert joined.steps[200] == {"input": 10, "output": 12, "cache_read": 10, "reasoning": 20}
        lines = list(builder._differences(one, two))
        assert [0, "input", 5, 4] in lines
        assert [200, "input", 10, 4] in lines

    def test_litellm_steps_and_bands(self, builder: ModuleType) -> None:
        model = {
            "input_cost_per_token": Decimal("1e-6"),
            "output_cost_per_token": Decimal("2e-6"),
            "cache_read_input_token_cost": Decimal("1e-7"),
            "cache_creation_input_token_cost": Decimal("1.25e-6"),
            "input_cost_per_token_above_200k_tokens": Decimal("2e-6"),
            "input_cost_per_token_batches": Decimal("5e-7"),
        }
        row = builder._price_row(builder._litellm_offer("acme/m", model), "")
        # Above the step: writes rise with the input, cached reads are not guessed.
        assert row == [
            [1_000_000, 2_000_000, 100_000, 1_250_000],
            [[200_000, [2_000_000, 2_000_000, None, 2_500_000]]],
        ]
        band = {"input_cost_per_token": Decimal("3e-6"), "output_cost_per_token": Decimal("4e-6")}
        tiers = {"tiered_pricing": [{**band, "range": [0, 8]}, {**band, "range": [32_000, 64_000]}]}
        assert builder._price_row(builder._litellm_offer("m", tiers), "") == [
            [3_000_000, 4_000_000]
        ]

    def test_free_is_not_a_price(self, builder: ModuleType) -> None:
        zero = {"input_cost_per_token": 0, "output_cost_per_token": 0}
        facts = builder.Facts({"": builder._litellm_offer("m", zero)}, context_window=8)
        assert builder._row(facts) == [[], 8]
        assert builder._row(builder.Facts({"": builder._litellm_offer("m", zero)})) is None
        half = zero | {"input_cost_per_token": Decimal("1e-6")}
        assert builder._row(builder.Facts({"": builder._litellm_offer("m", half)})) is None
        cached = half | {"output_cost_per_token": 1, "cache_read_input_token_cost": 0}
        assert builder._price_row(builder._litellm_offer("m", cached), "") == [[10**6, 10**12]]

    def test_the_hour_counts_at_its_dearest_and_the_day_at_its_own(
        self, builder: ModuleType
    ) -> None:
        genai = builder.genai

        def price(rate: int) -> Any:
            return genai.ModelPrice(input_mtok=Decimal(rate), output_mtok=Decimal(rate))

        noon = genai.TimeOfDateConstraint(datetime.time(12), datetime.time(13))
        model = genai.ModelInfo(
            id="m",
            match=genai.ClauseEquals("m"),
            prices=[
                genai.ConditionalPrice(None, prices=price(1)),
                genai.ConditionalPrice(noon, prices=price(3)),
                genai.ConditionalPrice(
                    genai.StartDateConstraint(datetime.date(2027, 1, 1)), prices=price(2)
                ),
            ],
        )
        facts = builder._genai_model(model, datetime.date(2026, 6, 1))
        rates = {day: offer.steps[0]["input"] for day, offer in facts.offers.items()}
        assert rates == {"": 3_000_000, "2027-01-01": 2_000_000}

    def test_the_same_input_gives_the_same_bytes(self, builder: ModuleType) -> None:
        lines = {("b", "x"): [[[[1, 1]]]], ("a", "y"): [[[[2, 2]]]]}
        day = datetime.date(2026, 1, 1)
        one = builder.pack(lines, (), day)
        assert one == builder.pack(dict(reversed(lines.items())), (), day)
        assert zlib.crc32(one[:10]) == zlib.crc32(builder.pack(lines, (), day)[:10])
        assert len(Catalogue.load(one)) == 2


CLASSES_WE_COUNT = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "input_audio_tokens": "input_audio_tokens",
    "output_image_tokens": "output_image_tokens",
}


def billed() -> Iterator[tuple[str, dict[str, int], str, Decimal]]:
    """Provider, usage, model and the bill in pico-dollars, of the calls in the data."""
    with (DATA / "genai_usages.jsonl").open() as file:
        for line in map(json.loads, file):
            for extracted in line["extracted"]:
                for price in extracted["prices"]:
                    usd = Decimal(price["input_price"]) + Decimal(price["output_price"])
                    yield price["provider_id"], extracted["usage"], line["model"], usd * 10**12


@needs_data
class TestBills:
    def test_cost_is_the_bill_at_the_lists_own_prices(self, builder: ModuleType) -> None:
        """With the prices as genai-prices has them, to within our one rounding up."""
        providers = {one.id: one for one in builder.genai_prices.data.providers}
        now = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
        seen: Counter[str] = Counter()
        for seller, usage, name, pico in billed():
            model = providers[seller].find_model(name, all_providers=list(providers.values()))
            if model is None:
                seen["model not in the list"] += 1
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                own = model.calc_price(
                    builder.genai.Usage(**usage), providers[seller], genai_request_timestamp=now
                )
            offer = builder._genai_offer(model.get_prices(now))
            if own.total_price * 10**12 != pico:
                seen["price has changed since"] += 1
            elif "cache_audio_read" in str(usage) or not offer.at(0).get("input"):
                seen["a class we do not count"] += 1
            else:
                assert pico <= cost(as_price(offer), counted(usage)) * 1_000 < pico + 1_000, name
                seen["equal"] += 1
        assert seen["equal"] > 900, seen

    def test_the_catalogue_is_not_below_the_bill(self, shipped: Catalogue) -> None:
        cheaper, equal = set(), 0
        for seller, usage, name, pico in billed():
            entry = shipped.find(seller, name)
            if entry is None or entry.price is None:
                continue
            tokens_only = replace(entry.price, request_nano_usd=0)
            nano = cost(tokens_only, counted(usage))
            equal += pico <= nano * 1_000 < pico + 1_000
            if nano * 1_000 < pico:
                cheaper.add(name)
        assert cheaper <= {"gpt-5.6-sol"}  # its price has been lowered since
        assert equal > 650


def counted(usage: dict[str, int]) -> Usage:
    counts = {ours: usage.get(theirs, 0) for theirs, ours in CLASSES_WE_COUNT.items()}
    return replace(Usage(), **counts, cache_write_1h_tokens=0)


def as_price(offer: Any) -> Price:
    def rates(table: dict[str, int]) -> Rates:
        return replace(Rates(input=0, output=0), **table)

    return Price(
        rates=rates(offer.steps[0]),
        above=tuple(
            RatesAbove(input_tokens=step, rates=rates(table))
            for step, table in offer.steps.items()
            if step
        ),
    )
