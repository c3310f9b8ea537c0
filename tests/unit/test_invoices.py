"""Invoices: what providers write, read; the ledger beside it; what unknowns have cost."""

import json
from datetime import date

import pytest

from cascaded.policy.analytics.bills import Key, Tolerance, compared, our_name, resolutions
from cascaded.types.invoices import Cell, InvoiceLine, UnknownCall
from cascaded.wire.invoices import read_invoice
from cascaded.wire.openai_chat import WireError

NANO = 10**9
DAY = date(2026, 11, 20)
NEXT = date(2026, 11, 21)
NONE = Tolerance(0.01, NANO // 100)


def test_a_file_that_anybody_can_write() -> None:
    text = "date,model,cost,input_tokens,output_tokens,requests,request_id\n"
    text += "2026-11-20,gpt-4o,1.000000001,1000,500,3,\n2026-11-21,gpt-4o,$1,,,1,r7\n"
    first, second = read_invoice(text.encode())
    assert first == InvoiceLine(
        day=DAY,
        model="gpt-4o",
        nano_usd=NANO + 1,
        input_tokens=1_000,
        output_tokens=500,
        requests=3,
    )
    assert (second.day, second.nano_usd, second.request_id) == (NEXT, NANO, "r7")


def test_costs_of_openai() -> None:
    bucket = {
        "object": "bucket",
        "start_time": 1_795_132_800,
        "end_time": 1_795_219_200,
        "results": [
            {
                "object": "organization.costs.result",
                "amount": {"value": 0.06, "currency": "usd"},
                "line_item": "gpt-4o-2024-08-06, input",
            },
            {
                "object": "organization.costs.result",
                "amount": {"value": 1e-7, "currency": "usd"},
                "line_item": "gpt-4o-2024-08-06, output",
            },
        ],
    }
    page = {"object": "page", "data": [bucket], "has_more": False}
    for content in (page, [page]):
        lines = read_invoice(json.dumps(content).encode())
        assert [(line.day, line.model, line.nano_usd) for line in lines] == [
            (DAY, "gpt-4o-2024-08-06", 60_000_000),
            (DAY, "gpt-4o-2024-08-06", 100),
        ]


def test_usage_of_openai() -> None:
    result = {"input_tokens": 5, "output_tokens": 7, "num_model_requests": 2, "model": "gpt-4o"}
    page = {"data": [{"start_time": 1_795_132_800, "results": [result]}]}
    [line] = read_invoice(json.dumps(page).encode())
    assert (line.nano_usd, line.input_tokens, line.output_tokens, line.requests) == (None, 5, 7, 2)


def test_costs_and_usage_of_anthropic() -> None:
    cost = {"currency": "USD", "amount": "123.78912", "model": "claude-sonnet-4-20250514"}
    used = {
        "uncached_input_tokens": 1_500,
        "cache_creation": {"ephemeral_1h_input_tokens": 1_000, "ephemeral_5m_input_tokens": 500},
        "cache_read_input_tokens": 200,
        "output_tokens": 500,
        "model": "claude-sonnet-4-20250514",
    }
    page = {"data": [{"starting_at": "2026-11-20T00:00:00Z", "results": [cost, used]}]}
    first, second = read_invoice(json.dumps(page).encode())
    assert (first.day, first.nano_usd) == (DAY, 1_237_891_200)
    assert (second.nano_usd, second.input_tokens, second.output_tokens) == (None, 3_200, 500)


def test_tables_of_consoles() -> None:
    openai = "start_time_iso,amount_value,amount_currency,line_item\n"
    openai += '2026-11-20T00:00:00+00:00,0.5,usd,"gpt-4o, output"\n'
    anthropic = "\ufeffusage_date_utc,model_version,usage_input_tokens_no_cache,"
    anthropic += "usage_input_tokens_cache_read,usage_output_tokens\n2026-11-20,claude-x,10,5,7\n"
    [one] = read_invoice(openai.encode())
    [other] = read_invoice(anthropic.encode())
    assert (one.model, one.nano_usd) == ("gpt-4o", NANO // 2)
    assert (other.model, other.input_tokens, other.output_tokens) == ("claude-x", 15, 7)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "no text in UTF-8"),
        (b"", "no column tells a day"),
        (b"date,cost\n", "no column tells a model"),
        (b"date,model,cost\n", "tells of no usage"),
        (b"date,model,cost\nyesterday,m,1\n", "line 1: "),
        (b"date,model,cost\n2026-11-20,m,much\n", "line 1: "),
        (b"date,model,cost\n2026-11-20,m,Infinity\n", "line 1: "),
        (b"{", "no JSON"),
        (b"[5]", "no list `data`"),
        (b'{"data": 5}', "no list `data`"),
        (b'{"data": [5, {"results": 7}, {"results": [8]}]}', "tells of no usage"),
        (b"[" * 100_000, "no JSON"),
    ],
)
def test_a_file_that_is_none(content: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        read_invoice(content)


def test_names() -> None:
    ours = {"gpt-4o", "gpt-4o-mini", "sonnet"}
    for theirs, name in (
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("GPT-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4", "gpt-4"),
        ("claude-sonnet-4", "sonnet"),
    ):
        assert our_name(theirs, ours, {"claude-sonnet-4": "sonnet"}) == name


def line(model: str = "m", usd: float | None = 1.0, day: date = DAY, **more: object) -> InvoiceLine:
    nano_usd = None if usd is None else round(usd * NANO)
    return InvoiceLine(day=day, model=model, nano_usd=nano_usd, **more)  # type: ignore[arg-type]


def cell(usd: float = 1.0, unknown: tuple[float, ...] = (), first: int = 1, **more: int) -> Cell:
    calls = [
        UnknownCall(first + n, f"r{first + n}", round(one * NANO)) for n, one in enumerate(unknown)
    ]
    return Cell(
        billed=round(usd * NANO),
        unknown=sum(one.nano_usd for one in calls),
        requests=1,
        calls=calls,
        **more,
    )


@pytest.mark.parametrize(
    ("here", "there", "words"),
    [
        (cell(1.0), line(usd=1.005), ""),
        (cell(1.0), None, "not on the invoice"),
        (Cell(), line(), "not in the ledger"),
        (cell(1.0, (0.5,)), line(usd=1.2), "within what 1 unknown calls"),
        (cell(1.0, input_tokens=100), line(usd=2.0, input_tokens=200), r"\+100.0% tokens"),
        (cell(1.0, input_tokens=100), line(usd=2.0, input_tokens=100), r"prices that are \+100.0%"),
        (cell(1.0), line(usd=2.0), "not explained"),
        (cell(1.0, input_tokens=100), line(usd=None, input_tokens=100), ""),
        (cell(1.0, input_tokens=100), line(usd=None, input_tokens=50), "-50.0% tokens"),
        (Cell(), line(usd=None, input_tokens=50), "not in the ledger"),
    ],
)
def test_differences_are_explained(here: Cell, there: InvoiceLine | None, words: str) -> None:
    lines = [line("other"), *([] if there is None else [there])]
    rows = compared({(DAY, "m"): here}, lines, {}, NONE)
    [row] = [row for row in rows if row.model == "m"]
    assert row.matches == (not words)
    import re

    assert re.search(words, row.explanation)


def test_calls_around_midnight_even_out() -> None:
    cells: dict[Key, Cell] = {(DAY, "m"): cell(1.0), (NEXT, "m"): cell(3.0)}
    rows = compared(cells, [line(usd=1.5), line(usd=2.5, day=NEXT)], {}, NONE)
    assert [row.explanation[:21] for row in rows] == ["calls around midnight"] * 2
    assert all(row.matches for row in rows)
    far = compared(cells, [line(usd=1.5), line(usd=2.0, day=NEXT)], {}, NONE)
    assert not any(row.matches for row in far)


def told(cells: dict[Key, Cell], *lines: InvoiceLine) -> list[tuple[int, float, str]]:
    return [(one.hold, one.nano_usd / NANO, one.how) for one in resolutions(cells, lines, {})]


def test_what_unknowns_have_cost() -> None:
    assert told({(DAY, "m"): cell(1.0, (0.5,))}, line(usd=1.2)) == [(1, 0.2, "alone")]
    assert told({(DAY, "m"): cell(1.0, (0.5,))}, line(usd=0.9)) == [(1, 0.0, "alone")]
    assert told({(DAY, "m"): cell(1.0, (0.5,))}, line(usd=9.0)) == [(1, 0.5, "alone")]
    assert told({(DAY, "m"): cell(0.0, (0.3, 0.1))}, line(usd=0.2)) == [
        (1, 0.15, "shared"),
        (2, 0.05, "shared"),
    ]
    both = {(DAY, "m"): cell(0.0, (0.3,)), (DAY, "n"): cell(0.0, (0.2,))}
    [one] = resolutions(both, [line(usd=0.1), line("n", usd=0.05)], {})
    assert (one.charged, one.nano_usd) == (NANO // 2, 150_000_000), "one hold, of two models"


def test_nothing_is_said_of_what_the_invoice_does_not_cover() -> None:
    """Another provider's calls are not free because they are not on this one's bill."""
    assert not told({(DAY, "m"): cell(0.0, (0.3,))}, line("other"))
    assert not told({(NEXT, "m"): cell(0.0, (0.3,))}, line())
    assert not told({(DAY, "m"): cell(0.0, (0.3,))}, line(usd=None, input_tokens=5))
    half = {(DAY, "m"): cell(0.0, (0.3,)), (DAY, "n"): cell(0.0, (0.2,))}
    assert not told(half, line(usd=0.1)), "of a hold of two models, both must be told"
    assert told({(NEXT, "m"): cell(0.0, (0.3,))}, line(), line("n", day=NEXT)) == [
        (1, 0.0, "alone")
    ]


def test_request_ids_say_it_of_each() -> None:
    cells: dict[Key, Cell] = {(DAY, "m"): cell(1.0, (0.3, 0.3, 0.3))}
    lines = (line(usd=0.25, request_id="r1"), line(usd=0.1, request_id="r3"))
    assert told(cells, *lines) == [(1, 0.25, "exact"), (2, 0.0, "exact"), (3, 0.1, "exact")]
