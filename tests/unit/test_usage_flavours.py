"""Usage as the named providers tell it: recorded payloads, and what documents say of them."""

import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cascaded.adapters import package_data
from cascaded.policy.pricing import Catalogue, cost
from cascaded.types.usage import Usage
from cascaded.wire.anthropic import parse_message
from cascaded.wire.openai_chat import Collector, parse_event
from cascaded.wire.responses import parse_response

RECORDED = Path(__file__).parents[3] / "shared/data/prices/genai_usages.jsonl"
CLASSES = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "input_audio_tokens": "input_audio_tokens",
    "output_image_tokens": "output_image_tokens",
}
OTHER_DIALECTS = ("anthropic", "responses", "embeddings")


def usage_of(usage: Any, **flavour: bool) -> Usage | None:
    body = json.dumps({"choices": [], "usage": usage})
    return parse_event(body.encode(), whole=False, **flavour).usage


def recorded() -> Iterator[tuple[str, Any, dict[str, int]]]:
    """The seller, its usage in chat completions' shape, and the classes on record."""
    with RECORDED.open() as file:
        for line in map(json.loads, file):
            usage = line["body"].get("usage")
            if not isinstance(usage, dict) or "prompt_tokens" not in usage:
                continue
            for extracted in line["extracted"]:
                for price in extracted["prices"]:
                    if price["api_flavor"] not in OTHER_DIALECTS:
                        yield price["provider_id"], usage, extracted["usage"]


def classes(usage: Usage | None) -> dict[str, int]:
    assert usage is not None
    counts = {theirs: getattr(usage, ours) or 0 for theirs, ours in CLASSES.items()}
    return {name: count for name, count in counts.items() if count}


@pytest.mark.skipif(not RECORDED.exists(), reason="needs ../shared/data")
def test_recorded_payloads_are_read_as_on_record() -> None:
    seen: Counter[str] = Counter()
    for seller, usage, extracted in recorded():
        wanted = {name: extracted[name] for name in CLASSES if extracted.get(name)}
        read = classes(usage_of(usage))
        if seller == "azure" and "cache_write_tokens" not in wanted:
            # The record leaves out what OpenAI's own has; a part never adds to its total.
            read.pop("cache_write_tokens", None)
        assert read == wanted, (seller, usage)
        seen[seller] += 1
    assert seen["openai"] >= 30
    assert {"azure", "groq", "openrouter", "mistral", "google", "deepseek"} <= seen.keys()
    assert sum(seen.values()) > 250


@pytest.mark.skipif(not RECORDED.exists(), reason="needs ../shared/data")
def test_a_recorded_thought_that_the_record_overlooks() -> None:
    """Gemini bills it as output; only `total_tokens` shows it."""
    [(usage, wanted)] = [
        (usage, wanted)
        for seller, usage, wanted in recorded()
        if seller == "google"
        and usage["total_tokens"] > usage["prompt_tokens"] + usage["completion_tokens"]
    ]
    read = usage_of(usage, reasoning_apart=True)
    assert read is not None
    assert read.input_tokens == wanted["input_tokens"]
    assert read.output_tokens == usage["total_tokens"] - usage["prompt_tokens"]
    assert read.reasoning_tokens == read.output_tokens - wanted["output_tokens"]


def read_by_its_flavour(usage: Any) -> tuple[str, Usage | None]:
    """A payload by the reader of the dialect that it is of."""
    if "prompt_tokens" in usage:
        return "chat", usage_of(usage)
    if "input_tokens_details" in usage:
        answer = {"object": "response", "status": "completed", "output": [], "usage": usage}
        return "responses", parse_response(json.dumps(answer).encode()).usage
    if "input_tokens" in usage:
        answer = {"type": "message", "content": [], "stop_reason": "end_turn", "usage": usage}
        return "messages", parse_message(json.dumps(answer).encode()).usage
    return "another", None


PRICED_DOWN = {"gpt-5.6-sol"}
"""Their prices have been lowered since the record was made."""


@pytest.mark.skipif(not RECORDED.exists(), reason="needs ../shared/data")
def test_recorded_payloads_cost_what_the_pinned_prices_say() -> None:
    """From the payload as it came to nano-dollars, beside the bill on record: never below it, and
    equal to within our one rounding up where the price is the same."""
    catalogue = Catalogue.load(package_data.read("prices.json.gz"))
    equal: Counter[str] = Counter()
    for line in map(json.loads, RECORDED.read_text().splitlines()):
        usage = line["body"].get("usage")
        flavour, read = read_by_its_flavour(usage) if isinstance(usage, dict) else ("none", None)
        if read is None:
            continue
        for price in (price for one in line["extracted"] for price in one["prices"]):
            entry = catalogue.find(price["provider_id"], line["model"])
            named = "anthropic" in (price["api_flavor"], price["provider_id"])
            if entry is None or entry.price is None or named != (flavour == "messages"):
                continue  # not known, or read as another flavour than it is of
            bill = (Decimal(price["input_price"]) + Decimal(price["output_price"])) * 10**12
            ours = cost(replace(entry.price, request_nano_usd=0), read) * 1000
            assert ours >= bill or line["model"] in PRICED_DOWN, (flavour, usage, price)
            equal[flavour] += bill <= ours < bill + 1000
    assert equal["chat"] > 200
    assert equal["messages"] > 90
    assert equal["responses"] > 60


BARE = {"prompt_tokens": 10, "completion_tokens": 5}


@pytest.mark.parametrize(
    ("more", "flavour", "wanted"),
    [
        ({"total_tokens": 40}, {}, {}),
        (
            {"total_tokens": 40},
            {"reasoning_apart": True},
            {"output_tokens": 30, "reasoning_tokens": 25},
        ),
        ({"total_tokens": 15}, {"reasoning_apart": True}, {}),
        ({"total_tokens": 0}, {"reasoning_apart": True}, {}),
        ({}, {"reasoning_apart": True}, {}),
        (
            {"prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 2},
            {},
            {"cache_read_tokens": 8},
        ),
        (
            {"prompt_cache_hit_tokens": 8, "prompt_tokens_details": {"cached_tokens": 0}},
            {},
            {"cache_read_tokens": 0},
        ),
        ({"completion_tokens_details": {"image_tokens": 4}}, {}, {"output_image_tokens": 4}),
        ({"completion_tokens_details": {"image_tokens": 0}}, {}, {"output_image_tokens": 0}),
        ({"completion_tokens_details": {"image_tokens": None}}, {}, {"output_image_tokens": None}),
    ],
    ids=str,
)
def test_what_documents_say(
    more: dict[str, Any], flavour: dict[str, bool], wanted: dict[str, Any]
) -> None:
    whole = {"input_tokens": 10, "output_tokens": 5, **wanted}
    assert usage_of({**BARE, **more}, **flavour) == Usage(**whole)


def test_absurd_totals_say_nothing() -> None:
    assert usage_of({**BARE, "total_tokens": 10**12}, reasoning_apart=True) is None
    assert usage_of({**BARE, "prompt_cache_hit_tokens": -1}) is None


def collected(*chunks: dict[str, Any]) -> Usage | None:
    collector = Collector()
    for chunk in chunks:
        collector.add(parse_event(json.dumps(chunk).encode(), whole=False))
    return collector.usage


def said(text: str = "", finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **more}


def test_usage_stands_on_any_chunk() -> None:
    zero = {"prompt_tokens": 10, "completion_tokens": 0}
    wanted = Usage(input_tokens=10, output_tokens=5)
    own = {"choices": [], "usage": BARE}
    assert collected(said("Paris"), said(finish="stop"), own) == wanted
    assert collected(said("Paris"), said(finish="stop", usage=BARE)) == wanted
    assert collected(said("Paris", usage=zero), said(usage=BARE), said(finish="stop")) == wanted
    assert (
        collected(said("Paris"), said(finish="stop", x_groq={"id": "r", "usage": BARE})) == wanted
    )
    assert collected(said("Paris", usage=None), own, said(usage=None)) == wanted
    assert collected(said(finish="stop", usage=zero)) == Usage(input_tokens=10), "nothing was said"
