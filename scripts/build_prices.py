"""Build the price snapshot that ships with the package.

    PYTHONPATH=. python scripts/build_prices.py [--as-of YYYY-MM-DD] [--litellm-wheel FILE]

Joins two MIT-licensed lists: the data of the `genai-prices` package (installed, a dev dependency)
and the model price JSON inside the `litellm` wheel, which is fetched with `pip download` and read
as data, never imported. The rules:

- Prices become whole pico-dollars a token; what is finer is rounded up and counted, but for the
  noise of binary floats, which is taken off.
- Where the lists disagree, the dearer figure is taken and the disagreement is listed. A class
  that only one of them knows is taken from it, unless the other's parent class is dearer.
- A class that costs 0 is priced as its parent, and a model whose input or output costs 0 has no
  known price: only the operator can declare a model free.
- Models that embed have no output to pay for. They are those that litellm lists as such, and the
  dearer list counts where genai-prices has the name as well.
- Prices that depend on the time of day count at their dearest; prices announced for later days are
  kept with their day.
- Discounts that must be asked for (batch, flex) and surcharges that must be asked for (priority,
  fast, regional) are left out.

The output depends on nothing but the two lists and the day.
"""

import argparse
import csv
import datetime
import gzip
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import genai_prices.data
import msgspec
from genai_prices import types as genai

from cascaded.policy.pricing.catalogue import (
    CAPABILITIES,
    FIREWORKS_PATH,
    FORMAT,
    MAX_NAME_CHARACTERS,
    Header,
    Source,
    seller_named,
)
from cascaded.types.model import Rates

ROOT = Path(__file__).parent.parent
SNAPSHOT = ROOT / "cascaded" / "data" / "prices.json.gz"
REPORT = ROOT / "docs" / "price-disagreements.csv"
LITELLM_JSON = "litellm/model_prices_and_context_window_backup.json"
CLASSES = Rates.__struct_fields__
OUTPUT_CLASSES = ("output", "reasoning", "output_audio", "output_image")
PICO_PER_USD = 10**12
TOKENS_PER_MTOK = 10**6
NANO_PER_USD_A_THOUSAND = 10**6
"""Nano-dollars a request, for each dollar a thousand requests."""

GENAI_CLASSES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "input_audio": "input_audio_mtok",
    "output_audio": "output_audio_mtok",
    "reasoning": "output_reasoning_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "output_image": "output_image_mtok",
}
GENAI_UNBOUNDED = (
    "audio_hours",
    "input_audio_hours",
    "input_image_mtok",
    "input_video_mtok",
    "output_video_mtok",
    "output_citation_mtok",
    "input_mchars",
    "input_document_kpages",
    "input_text_messages_kcount",
)
"""What some models bill for besides the classes that we count."""

LITELLM_CLASSES = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "input_audio": "input_cost_per_audio_token",
    "output_audio": "output_cost_per_audio_token",
    "reasoning": "output_cost_per_reasoning_token",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "output_image": "output_cost_per_image_token",
}
LITELLM_UNBOUNDED = (
    "input_cost_per_query",
    "input_cost_per_second",
    "output_cost_per_second",
    "cost_per_second",
    "input_cost_per_audio_per_second",
    "input_cost_per_video_token",
    "output_cost_per_video_token",
    "citation_cost_per_token",
)
LITELLM_TALKS = ("chat", "responses", "completion")
LITELLM_EMBEDS = "embedding"
LITELLM_NOT_TEXT = ("input_cost_per_image", "input_cost_per_character")
"""What some models that embed bill for besides tokens."""
LITELLM_CAPABILITIES = {
    "tools": ("supports_function_calling",),
    "vision": ("supports_vision",),
    "json_schema": ("supports_response_schema",),
    "reasoning": ("supports_reasoning",),
    "audio": ("supports_audio_input", "supports_audio_output"),
}
ALWAYS_SEARCHES = ("search-preview", "search-api", "sonar")
"""Models that search the web once a call, unasked, for a fee."""
SEARCHES_ON_ITS_OWN = "deep-research"
"""Models that search as often as they please."""

Table = dict[str, int]
"""Class of token → pico-dollars a token."""
Key = tuple[str, str]
"""Seller and name."""

FLOAT_NOISE = Decimal("1e-12")
"""Relative error below which a figure is one that a binary float could not hold: 1.6000000000000001
was 1.6."""
float_noise: Counter[str] = Counter()
rounded_up: Counter[str] = Counter()
"""How many figures of each list were finer than a pico-dollar a token."""


@dataclass
class Offer:
    """One model's prices in one list, at one time."""

    steps: dict[int, Table] = field(default_factory=dict)
    """Input length above which a table applies → the table; 0 is the base."""
    request_nano_usd: int = 0

    def at(self, above: int) -> Table:
        """The table for inputs just longer than `above`."""
        passed = [step for step in self.steps if step <= above]
        return self.steps[max(passed)] if passed else {}


@dataclass
class Facts:
    """One model in one list."""

    offers: dict[str, Offer] = field(default_factory=dict)
    """First day → prices; the empty day is now."""
    context_window: int = 0
    max_output_tokens: int = 0
    capabilities: int = 0
    fees_unbounded: bool = False
    embeds: bool = False
    """Its answers are vectors, which cost nothing."""


def main() -> None:
    """Build the snapshot and the list of disagreements; say what was done."""
    arguments = _arguments()
    litellm_version, litellm_list = _litellm_json(arguments.litellm_wheel)
    genai_models = genai_facts(genai_prices.data.providers, arguments.as_of)
    litellm_models = litellm_facts(litellm_list)
    add_loose_matches(genai_models, litellm_models, arguments.as_of)
    joined, disagreements = join(genai_models, litellm_models)
    rows = {key: row for key, facts in joined.items() if (row := _row(facts)) is not None}
    sources = (
        Source("genai-prices", importlib.metadata.version("genai-prices"), "MIT"),
        Source("litellm", litellm_version, "MIT"),
    )
    snapshot = pack(rows, sources, arguments.as_of)
    arguments.output.write_bytes(snapshot)
    _write_report(arguments.report, disagreements)
    _say(genai_models, litellm_models, rows, snapshot, disagreements)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    today = datetime.datetime.now(datetime.UTC).date()
    parser.add_argument("--as-of", type=datetime.date.fromisoformat, default=today)
    parser.add_argument("--litellm-wheel", type=Path, help="a wheel that is already here")
    parser.add_argument("--output", type=Path, default=SNAPSHOT)
    parser.add_argument("--report", type=Path, default=REPORT)
    return parser.parse_args()


def _litellm_json(wheel: Path | None) -> tuple[str, dict[str, dict[str, Any]]]:
    """Version and content of the price list inside the wheel. Numbers stay exact decimals."""
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder]
            subprocess.run([*pip, "litellm"], check=True)
            wheel = next(Path(folder).glob("litellm-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            text = archive.read(LITELLM_JSON)
    return wheel.name.split("-")[1], json.loads(text, parse_float=Decimal)


# genai-prices


def genai_facts(providers: Iterable[genai.Provider], as_of: datetime.date) -> dict[Key, Facts]:
    """Every model that talks or embeds, under each of its exact names."""
    found: dict[Key, Facts] = {}
    for provider in providers:
        seller = seller_named(provider.id)
        for model in provider.models:
            facts = _genai_model(model, as_of)
            if facts is not None:
                for name in sorted({model.id, *_exact_names(model.match)}):
                    _keep(found, (seller, _plain(name)), facts)
    return found


def add_loose_matches(
    ours: dict[Key, Facts], theirs: Mapping[Key, Facts], as_of: datetime.date
) -> None:
    """Names that only litellm lists, and that a looser rule (a prefix) of genai-prices covers.

    Loose rules are followed here, for names that are known to exist, and never at a look-up.
    """
    providers = {seller_named(provider.id): provider for provider in genai_prices.data.providers}
    for seller, name in theirs.keys() - ours.keys():
        model = providers[seller].find_model(name) if seller in providers else None
        facts = _genai_model(model, as_of) if model is not None else None
        if facts is not None:
            ours[seller, name] = facts


def _genai_model(model: genai.ModelInfo, as_of: datetime.date) -> Facts | None:
    facts = Facts(context_window=model.context_window or 0, embeds="embed" in model.id)
    stages = _stages(model, as_of)
    for since, prices in stages.items():
        offers = [_genai_offer(price) for price in prices]
        facts.offers[since] = _dearest(offers)
    values = [price.__dict__ for prices in stages.values() for price in prices]
    facts.fees_unbounded = SEARCHES_ON_ITS_OWN in model.id or any(
        value.get(unit) is not None for value in values for unit in GENAI_UNBOUNDED
    )
    known = all(_priced(facts, offer) for offer in facts.offers.values())
    return facts if known else None


def _stages(model: genai.ModelInfo, as_of: datetime.date) -> dict[str, list[genai.ModelPrice]]:
    """First day → the prices that can be in force then: several, where the hour decides."""
    if isinstance(model.prices, genai.ModelPrice):
        return {"": [model.prices]}
    days = {
        entry.constraint.start_date
        for entry in model.prices
        if isinstance(entry.constraint, genai.StartDateConstraint)
    }
    later = sorted(day for day in days if day > as_of)
    stages = {"": _possible(model.prices, as_of)}
    return stages | {day.isoformat(): _possible(model.prices, day) for day in later}


def _possible(entries: list[genai.ConditionalPrice], day: datetime.date) -> list[genai.ModelPrice]:
    """The last entry whose condition holds wins; a condition on the hour may or may not hold."""
    possible = []
    for entry in reversed(entries):
        if isinstance(entry.constraint, genai.TimeOfDateConstraint):
            possible.append(entry.prices)
        elif entry.constraint is None or entry.constraint.start_date <= day:
            return [*possible, entry.prices]
    return possible or [entries[0].prices]


def _genai_offer(price: genai.ModelPrice) -> Offer:
    steps = {0} | {
        tier.start
        for value in price.__dict__.values()
        if isinstance(value, genai.TieredPrices)
        for tier in value.tiers
    }
    offer = Offer({step: _genai_table(price, step) for step in sorted(steps)})
    fee = price.__dict__.get("requests_kcount")
    if fee is not None:
        offer.request_nano_usd = _ceiling(fee * NANO_PER_USD_A_THOUSAND, "genai-prices")
    return offer


def _genai_table(price: genai.ModelPrice, above: int) -> Table:
    table = {}
    for name, unit in GENAI_CLASSES.items():
        value = price.__dict__.get(unit)
        if isinstance(value, genai.TieredPrices):
            passed = [tier.price for tier in value.tiers if tier.start <= above]
            value = passed[-1] if passed else value.base
        if value is not None:
            table[name] = _ceiling(value * (PICO_PER_USD // TOKENS_PER_MTOK), "genai-prices")
    return table


def _exact_names(match: object) -> Iterator[str]:
    """The names that a model is documented to have; looser rules (prefixes) are not followed."""
    if isinstance(match, genai.ClauseEquals):
        yield match.equals
    elif isinstance(match, genai.ClauseOr):
        for clause in match.or_:
            yield from _exact_names(clause)


# litellm


def litellm_facts(models: Mapping[str, dict[str, Any]]) -> dict[Key, Facts]:
    """Every model that talks or embeds."""
    found: dict[Key, Facts] = {}
    for key, model in models.items():
        if (_litellm_talks(model) or model.get("mode") == LITELLM_EMBEDS) and "*" not in key:
            _keep(found, _litellm_key(key, model["litellm_provider"]), _litellm_model(key, model))
    return found


def _litellm_talks(model: dict[str, Any]) -> bool:
    chats = "/v1/chat/completions" in model.get("supported_endpoints", ())
    return model.get("mode") in LITELLM_TALKS or (model.get("mode") == "image_generation" and chats)


def _litellm_key(key: str, provider: str) -> Key:
    """`azure/gpt-5` is sold as `gpt-5`; `gemini-2.5-pro` by Vertex has no prefix to lose."""
    seller = "google-vertex" if provider.startswith("vertex_ai") else seller_named(provider)
    head, slash, rest = key.partition("/")
    return seller, _plain(rest if slash and seller_named(head) == seller else key)


def _litellm_model(key: str, model: dict[str, Any]) -> Facts:
    facts = Facts(
        {"": _litellm_offer(key, model)},
        embeds=model.get("mode") == LITELLM_EMBEDS,
        context_window=_count(model.get("max_input_tokens") or model.get("max_tokens")),
        max_output_tokens=_count(model.get("max_output_tokens")),
    )
    for bit, capability in enumerate(CAPABILITIES):
        if any(model.get(flag) is True for flag in LITELLM_CAPABILITIES[capability]):
            facts.capabilities |= 1 << bit
    facts.fees_unbounded = SEARCHES_ON_ITS_OWN in key or any(
        model.get(fee) for fee in (*LITELLM_UNBOUNDED, *(LITELLM_NOT_TEXT if facts.embeds else ()))
    )
    return facts


def _litellm_offer(key: str, model: dict[str, Any]) -> Offer:
    steps = {0: _litellm_table(model, "")}
    for suffix, above in _litellm_steps(model):
        steps[above] = _common(steps[0]) | _litellm_table(model, suffix)
    for band in model.get("tiered_pricing", ()):
        above = int(band["range"][0])
        steps[above] = _common(steps[0]) | _litellm_table(band, "")
    fee = Decimal(model.get("input_cost_per_request") or 0)
    if any(word in key for word in ALWAYS_SEARCHES):
        fee = max(fee, *map(Decimal, model.get("search_context_cost_per_query", {"": 0}).values()))
    return Offer(dict(sorted(steps.items())), _ceiling(fee * 10**9, "litellm"))


def _common(table: Table) -> Table:
    """What a step keeps of the base where it says nothing else."""
    return {name: table[name] for name in ("input", "output") if name in table}


def _litellm_steps(model: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """`_above_200k_tokens` → 200000."""
    for thousands in range(1, 2_001):
        suffix = f"_above_{thousands}k_tokens"
        if f"input_cost_per_token{suffix}" in model or f"output_cost_per_token{suffix}" in model:
            yield suffix, thousands * 1_000


def _litellm_table(model: dict[str, Any], suffix: str) -> Table:
    table = {}
    for name, unit in LITELLM_CLASSES.items():
        value = model.get(unit + suffix)
        if isinstance(value, int | Decimal):
            table[name] = _ceiling(Decimal(value) * PICO_PER_USD, "litellm")
    return table


def _count(value: object) -> int:
    return int(value) if isinstance(value, int | Decimal) and value > 0 else 0


# joining


def join(
    ours: dict[Key, Facts], theirs: dict[Key, Facts]
) -> tuple[dict[Key, Facts], list[list[object]]]:
    """Both lists as one, and where they disagree: seller, name, day, what, ours, theirs."""
    joined: dict[Key, Facts] = {}
    disagreements: list[list[object]] = []
    for key in sorted(ours.keys() | theirs.keys()):
        one, two = ours.get(key), theirs.get(key)
        if one and two:
            disagreements += [
                [*key, *line] for line in _differences(one.offers[""], two.offers[""])
            ]
            joined[key] = _merged(one, two)
        else:
            joined[key] = one or two or Facts()
    return joined, disagreements


def _keep(found: dict[Key, Facts], key: Key, facts: Facts) -> None:
    """Names that differ only in spelling are one model, at its dearest."""
    assert len(key[1]) <= MAX_NAME_CHARACTERS
    assert key[1].isprintable(), key
    found[key] = _merged(found[key], facts) if key in found else facts


def _merged(one: Facts, two: Facts) -> Facts:
    days = sorted(one.offers.keys() | two.offers.keys())
    return Facts(
        {day: _dearest([_on(one, day), _on(two, day)]) for day in days},
        max(one.context_window, two.context_window),
        max(one.max_output_tokens, two.max_output_tokens),
        one.capabilities | two.capabilities,
        one.fees_unbounded or two.fees_unbounded,
        one.embeds or two.embeds,
    )


def _on(facts: Facts, day: str) -> Offer:
    return facts.offers[max(first for first in facts.offers if first <= day)]


def _dearest(offers: list[Offer]) -> Offer:
    """Class by class and step by step."""
    steps = sorted({step for offer in offers for step in offer.steps})
    return Offer(
        {step: _dearest_table([offer.at(step) for offer in offers]) for step in steps},
        max(offer.request_nano_usd for offer in offers),
    )


def _dearest_table(tables: list[Table]) -> Table:
    return {name: _dearest_rate(name, tables) for table in tables for name in table}


def _dearest_rate(name: str, tables: list[Table]) -> int:
    """The dearest of those who know this class. Who does not know it prices it as its parent:
    that counts where their parent is the dearer one, or cheap parts of one list would be mixed
    with dear parents of another."""
    parent = _parent(name)
    know = [table for table in tables if name in table]
    dearest_parent = max((table.get(parent, 0) for table in know), default=0)
    others = [table[parent] for table in tables if name not in table and parent in table]
    return max(
        *(table[name] for table in know), *(rate for rate in others if rate > dearest_parent), 0
    )


def _parent(name: str) -> str:
    return "output" if name in OUTPUT_CLASSES else "input"


def _differences(one: Offer, two: Offer) -> Iterator[list[object]]:
    if not (one.at(0).get("input") and two.at(0).get("input")):
        return
    for step in sorted(one.steps.keys() | two.steps.keys()):
        for name in CLASSES:
            ours, theirs = one.at(step).get(name), two.at(step).get(name)
            if ours and theirs and ours != theirs:
                yield [step, name, ours, theirs]


def _talks(offer: Offer) -> bool:
    """Whether both directions have a price. Nothing is not one: it means that the model is free to
    some, or that another part of the bill (a router's choice, a search) is not listed."""
    base = offer.at(0)
    return bool(base.get("input") and base.get("output"))


def _priced(facts: Facts, offer: Offer) -> bool:
    return bool(offer.at(0).get("input")) if facts.embeds else _talks(offer)


# the snapshot


def _row(facts: Facts) -> list[object] | None:
    """One line's array, without the defaults at its end."""
    prices = []
    for day, offer in sorted(facts.offers.items()):
        if _priced(facts, offer):
            prices.append(_price_row(offer, day))
    if not prices and not facts.context_window:
        return None
    return _trimmed(
        [
            prices,
            facts.context_window,
            facts.max_output_tokens,
            facts.capabilities,
            int(facts.fees_unbounded),
        ]
    )


def _price_row(offer: Offer, day: str) -> list[object]:
    base = offer.at(0)
    previous = first = _rate_list(base)
    rows: list[list[object]] = []
    for step in sorted(offer.steps.keys() - {0}):
        rates = _rate_list(_filled(base, offer.at(step)))
        if rates != previous:
            rows.append([step, rates])
            previous = rates
    return _trimmed([first, rows, offer.request_nano_usd, day])


def _filled(base: Table, table: Table) -> Table:
    """A step's table with the classes that only the base has: raised as their parent is, but no
    cheaper than it. What a cached token costs there is not guessed: it counts as any input."""
    filled = dict(table)
    for name in base.keys() - table.keys() - {"cache_read"}:
        parent = _parent(name)
        raised = -(-base[name] * table[parent] // max(1, base[parent]))
        filled[name] = max(raised, table[parent])
    return filled


def _rate_list(table: Table) -> list[object]:
    """The table by position. A class that costs nothing, or as much as its parent, is left to
    the parent."""
    rates: Table = {"input": table["input"], "output": table.get("output", 0)}
    for name in CLASSES:
        parent = _parent(name)
        if name == "cache_write_1h" and "cache_write" in rates:
            parent = "cache_write"
        if table.get(name) and table[name] != rates[parent]:
            rates[name] = table[name]
    return (
        _trimmed([rates.get(name) for name in CLASSES]) if rates["output"] else [rates["input"], 0]
    )


def _trimmed(row: list[Any]) -> list[object]:
    while row and row[-1] in (None, 0, "", []):
        row.pop()
    return row


def pack(
    rows: Mapping[Key, list[object]], sources: tuple[Source, ...], day: datetime.date
) -> bytes:
    """The snapshot's bytes; the same for the same rows."""
    header = Header(
        format=FORMAT,
        as_of=day.isoformat(),
        models=len(rows),
        sellers=frozenset(),
        sources=sources,
    )
    head = msgspec.to_builtins(header) | {"sellers": sorted({seller for seller, _ in rows})}
    lines = [json.dumps(head, separators=(",", ":"))]
    for seller, name in sorted(rows):
        lines.append(f"{seller}\t{name}\t{json.dumps(rows[seller, name], separators=(',', ':'))}")
    return gzip.compress("\n".join([*lines, ""]).encode(), compresslevel=9, mtime=0)


def _plain(name: str) -> str:
    return name.lower().removeprefix(FIREWORKS_PATH)


def _ceiling(value: Decimal, source: str) -> int:
    """A whole number, not below the value but for the noise of a binary float."""
    whole = value.to_integral_value(ROUND_HALF_EVEN)
    if abs(value - whole) > whole * FLOAT_NOISE:
        whole = value.to_integral_value(ROUND_CEILING)
        rounded_up[source] += 1
    elif whole != value:
        float_noise[source] += 1
    assert whole >= 0, f"{source} has a price below zero"
    return int(whole)


def _write_report(path: Path, disagreements: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ["seller", "model", "input_above", "class", "genai_prices_pico_usd", "litellm_pico_usd"]
        )
        table.writerows(disagreements)


def _say(
    ours: dict[Key, Facts],
    theirs: dict[Key, Facts],
    rows: Mapping[Key, list[object]],
    snapshot: bytes,
    disagreements: list[list[object]],
) -> None:
    both = len(ours.keys() & theirs.keys())
    priced = sum(bool(row[0]) for row in rows.values())
    models = len({tuple(line[:2]) for line in disagreements})
    print(f"genai-prices: {len(ours)} names; litellm: {len(theirs)} names; in both: {both}")
    print(f"snapshot: {len(rows)} names, {priced} with a price, {len(snapshot)} bytes")
    print(f"disagreements: {len(disagreements)} figures of {models} models (dearer taken)")
    print(f"rounded up: {dict(rounded_up)}; float noise taken off: {dict(float_noise)}")


if __name__ == "__main__":
    main()
