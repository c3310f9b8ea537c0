"""The catalogue: thousands of models, looked up in a snapshot without unpacking it.

The snapshot (made by `scripts/build_prices.py`) is gzip around text. The first line is a JSON
header. Every other line is `seller TAB name TAB row`, sorted, names in lower case; the row is a
JSON array (`Row`) that is decoded only for a model that is asked for. A seller is who sends the
bill, which is not always who made the model.
"""

import re
import zlib

import msgspec

from cascaded.types.model import Price, Rates, RatesAbove

FORMAT = 1
MAX_SNAPSHOT_BYTES = 8 * 2**20
MAX_NAME_CHARACTERS = 256
GZIP = 16 + zlib.MAX_WBITS

CAPABILITIES = ("tools", "vision", "json_schema", "reasoning", "audio")
"""What each bit of `Row.capabilities` means, lowest first. Append only."""

SELLER_ALIASES = {
    "amazon": "aws",
    "amazon-bedrock": "aws",
    "azure-ai": "azure",
    "azure-openai": "azure",
    "azure-text": "azure",
    "bedrock": "aws",
    "bedrock-converse": "aws",
    "cohere-chat": "cohere",
    "fireworks-ai": "fireworks",
    "gemini": "google",
    "moonshot": "moonshotai",
    "text-completion-openai": "openai",
    "together-ai": "together",
    "togetherai": "together",
    "vertex": "google-vertex",
    "vertex-ai": "google-vertex",
    "x-ai": "xai",
}
"""Other names of sellers. Underscores count as hyphens, capitals as small letters."""

FIREWORKS_PATH = "accounts/fireworks/models/"
DASHED_DATE = re.compile(r"-(20\d\d)-(\d\d)-(\d\d)(?=$|[-:@])")
COMPACT_DATE = re.compile(r"-(20\d\d)(\d\d)(\d\d)(?=$|[-:@])")
FINE_TUNE = re.compile(r"(ft:[^:]+):.*", re.DOTALL)


class CatalogueError(ValueError):
    """The snapshot is damaged, or of a format that this version does not know."""


class Source(msgspec.Struct, frozen=True):
    """Where prices were taken from."""

    name: str
    version: str
    licence: str


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a snapshot."""

    format: int
    as_of: str
    """The day for which the prices in force were chosen, as YYYY-MM-DD."""
    models: int
    """How many names have a row."""
    sellers: frozenset[str]
    sources: tuple[Source, ...]


class CatalogueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one model as one seller offers it."""

    seller: str
    name: str
    price: Price | None = None
    """`None`: the model is known, its price is not (a list price of zero is not a known price)."""
    price_changes_on: str = ""
    """The next day (UTC) for which another price is announced, as YYYY-MM-DD; empty: none."""
    fees_unbounded: bool = False
    """It also bills for things that no token bound limits, such as searches of its own: a hard
    budget should refuse it unless the operator declares a price."""
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: frozenset[str] = frozenset()


RateList = list[int | None]
"""The fields of `Rates` in their order, in pico-dollars; absent at the end: `None`."""


class RowPrice(msgspec.Struct, frozen=True, array_like=True):
    """A price, by position."""

    rates: RateList
    above: tuple[tuple[int, RateList], ...] = ()
    request_nano_usd: int = 0
    since: str = ""
    """The first day of this price; empty: it was in force when the snapshot was made."""


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One model, by position; absent at the end: the default."""

    prices: tuple[RowPrice, ...] = ()
    """Ascending by `since`."""
    context_window: int = 0
    max_output_tokens: int = 0
    capabilities: int = 0
    fees_unbounded: int = 0


class Catalogue:
    """The models of one snapshot. Nothing but its text is kept in memory."""

    def __init__(self, header: Header, lines: bytes) -> None:
        self.header = header
        self._lines = lines
        self._sections = _sections(lines, header.sellers)
        self._rows = msgspec.json.Decoder(Row)

    @classmethod
    def load(cls, snapshot: bytes) -> "Catalogue":
        """Read a snapshot. Raises `CatalogueError`."""
        text = _unpacked(snapshot)
        first, newline, _ = text.partition(b"\n")
        if not newline:
            raise CatalogueError("the price snapshot is damaged: it has no lines")
        try:
            header = msgspec.json.decode(first, type=Header)
        except msgspec.DecodeError as error:
            raise CatalogueError(f"the price snapshot's header is damaged: {error}") from None
        if header.format != FORMAT:
            raise CatalogueError(
                f"the price snapshot has format {header.format}, and this version reads {FORMAT}:"
                " build it again with `make prices`"
            )
        return cls(header, text)

    def __len__(self) -> int:
        return self.header.models

    def find(self, provider: str, model: str, today: str = "") -> CatalogueEntry | None:
        """What is known of a model, or `None`.

        `provider` is a seller or another name of one. Anything else (a gateway's own name, the
        kind of a provider, nothing) is looked through: then the model's own prefix has to name
        the seller, as in `openai/gpt-4o`. Names match whole, never by a loose prefix: another
        dated version may have another price. The same name in another spelling also matches: a
        date with or without hyphens; `ft:BASE:…`, which is billed as `ft:BASE`; a Fireworks model
        with or without its account path.

        `today` (YYYY-MM-DD, UTC) chooses among announced prices; empty: the snapshot's own day.
        """
        if len(model) > MAX_NAME_CHARACTERS or not model.isprintable():
            return None
        for seller, name in self._readings(provider, model.lower()):
            for spelling in spellings(name):
                row = self._row(seller, spelling)
                if row is not None:
                    return _entry(seller, spelling, row, today or self.header.as_of)
        return None

    def _readings(self, provider: str, model: str) -> list[tuple[str, str]]:
        """The sellers and names that the two words can mean, likeliest first."""
        seller = seller_named(provider)
        head, slash, rest = model.partition("/")
        prefix = seller_named(head) if slash else ""
        if seller not in self._sections:
            return [(prefix, rest)] if prefix in self._sections else []
        return [(seller, model), (seller, rest)] if prefix == seller else [(seller, model)]

    def _row(self, seller: str, name: str) -> Row | None:
        key = f"\n{seller}\t{name}\t".encode()
        start = self._lines.find(key, *self._sections[seller])
        if start < 0:
            return None
        start += len(key)
        try:
            return self._rows.decode(self._lines[start : self._lines.index(b"\n", start)])
        except (ValueError, msgspec.DecodeError) as error:
            raise CatalogueError(
                f"the price snapshot is damaged at {seller} {name}: {error}"
            ) from None


def seller_named(provider: str) -> str:
    """The catalogue's word for a seller; unknown names come back as they are."""
    plain = provider.lower().replace("_", "-")
    return SELLER_ALIASES.get(plain, plain)


def spellings(name: str) -> list[str]:
    """The ways to write one model's name (lower case), itself first."""
    ways = [name]
    ways.append(COMPACT_DATE.sub(r"-\1-\2-\3", name))
    ways.append(DASHED_DATE.sub(r"-\1\2\3", name))
    ways.append(FINE_TUNE.sub(r"\1", name))
    ways.append(name.removeprefix(FIREWORKS_PATH))
    return list(dict.fromkeys(ways))


def _unpacked(snapshot: bytes) -> bytes:
    stream = zlib.decompressobj(GZIP)
    try:
        text = stream.decompress(snapshot, MAX_SNAPSHOT_BYTES)
    except zlib.error as error:
        raise CatalogueError(f"the price snapshot is damaged: {error}") from None
    if not stream.eof:
        raise CatalogueError(
            f"the price snapshot is cut short, or unpacks to more than {MAX_SNAPSHOT_BYTES} bytes"
        )
    return text


def _sections(lines: bytes, sellers: frozenset[str]) -> dict[str, tuple[int, int]]:
    """Where each seller's lines begin (at the line end before them) and end."""
    starts = [0]
    for seller in sorted(sellers):
        start = lines.find(f"\n{seller}\t".encode(), starts[-1])
        if start < 0:
            raise CatalogueError(f"the price snapshot is damaged: it has no lines of {seller}")
        starts.append(start)
    ends = [*starts[2:], len(lines)]
    return dict(zip(sorted(sellers), zip(starts[1:], ends, strict=True), strict=True))


def _entry(seller: str, name: str, row: Row, today: str) -> CatalogueEntry:
    now: RowPrice | None = None
    changes_on = ""
    for price in row.prices:
        if price.since <= today:
            now = price
        else:
            changes_on = changes_on or price.since
    return CatalogueEntry(
        seller=seller,
        name=name,
        price=_price(now) if now else None,
        price_changes_on=changes_on,
        fees_unbounded=bool(row.fees_unbounded),
        context_window=row.context_window or None,
        max_output_tokens=row.max_output_tokens or None,
        capabilities=frozenset(
            name for bit, name in enumerate(CAPABILITIES) if row.capabilities >> bit & 1
        ),
    )


def _price(row: RowPrice) -> Price:
    return Price(
        rates=_rates(row.rates),
        above=tuple(
            RatesAbove(input_tokens=above, rates=_rates(rates)) for above, rates in row.above
        ),
        request_nano_usd=row.request_nano_usd,
    )


def _rates(values: RateList) -> Rates:
    return msgspec.convert(dict(zip(Rates.__struct_fields__, values, strict=False)), Rates)
