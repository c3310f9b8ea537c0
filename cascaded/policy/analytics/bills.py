"""The ledger beside a provider's invoice: where they differ, why, what unknowns have cost. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta

from cascaded.types.invoices import Cell, Difference, InvoiceLine, Resolution, UnknownCall

Key = tuple[date, str]
"""A day, and a model as the ledger calls it."""
TOKENS_ALIKE = 0.005
"""Counts that differ by less are the same."""
HUNDRED = 100


class Tolerance:
    """How far two amounts may be apart: a share, and an amount besides."""

    def __init__(self, share: float, nano_usd: int) -> None:
        self.share = share
        self.nano_usd = nano_usd

    def holds(self, one: int, other: int) -> bool:
        """Whether they are as good as the same."""
        return abs(one - other) <= self.nano_usd + round(self.share * max(abs(one), abs(other)))


def our_name(model: str, ours: Iterable[str], aliases: Mapping[str, str]) -> str:
    """What the ledger calls a provider's model: by an alias, by the same name, or by the longest
    name that it begins with, as `gpt-4o-2024-08-06` does with `gpt-4o`."""
    if model in aliases:
        return aliases[model]
    low = model.lower()
    found = [one for one in ours if low == one.lower() or low.startswith(one.lower() + "-")]
    return max(found, key=len, default=model)


def compared(
    cells: Mapping[Key, Cell],
    lines: Sequence[InvoiceLine],
    aliases: Mapping[str, str],
    tolerance: Tolerance,
) -> list[Difference]:
    """Every model on every day of either, by day; only days that the invoice covers."""
    bills = _bills(lines, {model for _, model in cells}, aliases)
    first, last = covered(lines)
    keys = {*bills, *(key for key in cells if first <= key[0] <= last)}
    rows = [_compared(key, cells.get(key) or Cell(), bills.get(key), tolerance) for key in keys]
    rows.sort(key=lambda row: (row.day, row.model))
    return _by_midnight(rows, tolerance)


def covered(lines: Sequence[InvoiceLine]) -> tuple[date, date]:
    """The first and the last day of an invoice."""
    days = [line.day for line in lines]
    return min(days), max(days)


def resolutions(
    cells: Mapping[Key, Cell], lines: Sequence[InvoiceLine], aliases: Mapping[str, str]
) -> list[Resolution]:
    """What the invoice says of every unknown of its days and models; nothing of others. Of a model
    and day with one unknown it is what nothing else explains; several share that in proportion to
    what they were charged, and none gets more than it was charged. A file with request ids says it
    of each. A hold of several unknown calls is told of when all of them are."""
    bills = _bills(lines, {model for _, model in cells}, aliases)
    by_id = {line.request_id: line.nano_usd or 0 for line in lines if line.request_id}
    first, last = covered(lines)
    priced = {model for (_, model), bill in bills.items() if bill.nano_usd is not None}
    said: dict[int, list[tuple[UnknownCall, int, str]]] = {}
    untold: set[int] = set()
    for key, cell in cells.items():
        if not (first <= key[0] <= last and key[1] in priced):
            untold.update(call.hold for call in cell.calls)
            continue
        bill = bills.get(key)
        told = 0 if bill is None else bill.nano_usd or 0
        for call, nano_usd, how in _shared(cell, max(0, told - cell.billed), by_id):
            said.setdefault(call.hold, []).append((call, nano_usd, how))
    told_of = sorted(hold for hold in said if hold not in untold)
    return [_resolution(hold, said[hold]) for hold in told_of]


def _resolution(hold: int, parts: Sequence[tuple[UnknownCall, int, str]]) -> Resolution:
    """Of a hold, whose unknown calls may have been of several models."""
    return Resolution(
        hold=hold,
        request_id=parts[0][0].request_id,
        charged=sum(call.nano_usd for call, _, _ in parts),
        nano_usd=sum(nano_usd for _, nano_usd, _ in parts),
        how=max(how for _, _, how in parts),
    )


def _shared(cell: Cell, left: int, by_id: Mapping[str, int]) -> list[tuple[UnknownCall, int, str]]:
    if by_id:
        return [(call, by_id.get(call.request_id, 0), "exact") for call in cell.calls]
    rest, weight = cell.calls, sum(call.nano_usd for call in cell.calls)
    left = min(left, weight)
    shares: list[tuple[UnknownCall, int, str]] = []
    for position, call in enumerate(rest, 1):
        share = left if position == len(rest) or not weight else left * call.nano_usd // weight
        left, weight = left - share, weight - call.nano_usd
        shares.append((call, share, "alone" if len(rest) == 1 else "shared"))
    return shares


def _bills(
    lines: Iterable[InvoiceLine], ours: set[str], aliases: Mapping[str, str]
) -> dict[Key, InvoiceLine]:
    """The invoice by day and model, as the ledger calls it."""
    found: dict[Key, InvoiceLine] = {}
    for line in lines:
        key = (line.day, our_name(line.model, ours, aliases))
        before = found.get(key)
        found[key] = line if before is None else _together(before, line)
    return found


def _together(one: InvoiceLine, other: InvoiceLine) -> InvoiceLine:
    return InvoiceLine(
        day=one.day,
        model=one.model,
        nano_usd=_sum(one.nano_usd, other.nano_usd),
        input_tokens=_sum(one.input_tokens, other.input_tokens),
        output_tokens=_sum(one.output_tokens, other.output_tokens),
        requests=_sum(one.requests, other.requests),
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)


def _compared(key: Key, cell: Cell, bill: InvoiceLine | None, tolerance: Tolerance) -> Difference:
    told = None if bill is None else _sum(bill.input_tokens, bill.output_tokens)
    counted = cell.input_tokens + cell.output_tokens
    invoice = 0 if bill is None else bill.nano_usd
    if invoice is None:
        matches = told is not None and _alike(counted, told)
        why = "" if matches else _of_tokens(counted, told)
    else:
        matches = tolerance.holds(invoice, cell.billed)
        why = "" if matches else _explained(cell, invoice, bill, counted, told, tolerance)
    return Difference(
        day=key[0],
        model=key[1],
        billed=cell.billed,
        unknown=cell.unknown,
        invoice=invoice,
        off=0 if invoice is None else invoice - cell.billed,
        matches=matches,
        explanation=why,
        ledger_tokens=counted,
        invoice_tokens=told,
    )


def _explained(
    cell: Cell,
    invoice: int,
    bill: InvoiceLine | None,
    counted: int,
    told: int | None,
    tolerance: Tolerance,
) -> str:
    if bill is None:
        return "not on the invoice: asked with another account's key, or known there by a name"
    if not cell.requests:
        return "not in the ledger: calls past this daemon, or a model of another name (--alias)"
    if cell.unknown and invoice > cell.billed and invoice <= cell.billed + cell.unknown:
        return f"within what {len(cell.calls)} unknown calls were charged: --resolve settles them"
    if told is not None and not _alike(counted, told):
        return _of_tokens(counted, told)
    if told is not None and tolerance.nano_usd < abs(invoice - cell.billed) and cell.billed:
        change = HUNDRED * (invoice - cell.billed) / cell.billed
        return f"the same tokens at prices that are {change:+.1f}%: correct the model's prices"
    return "not explained: more calls than passed this daemon, other prices, or a credit"


def _of_tokens(counted: int, told: int | None) -> str:
    if not counted:
        return "not in the ledger: calls past this daemon, or a model of another name (--alias)"
    change = HUNDRED * ((told or 0) - counted) / counted
    return f"the invoice has {change:+.1f}% tokens: calls past this daemon, or counted otherwise"


def _alike(one: int, other: int) -> bool:
    return abs(one - other) <= TOKENS_ALIKE * max(one, other)


def _by_midnight(rows: list[Difference], tolerance: Tolerance) -> list[Difference]:
    """Two days of a model that are off by as much to either side: calls around midnight, which the
    ledger counts on the day on which they end."""
    at = {(row.day, row.model): index for index, row in enumerate(rows)}
    for index, row in enumerate(rows):
        following = at.get((row.day + timedelta(days=1), row.model))
        if row.matches or following is None or rows[following].matches:
            continue
        next_row = rows[following]
        if row.off * next_row.off < 0 and tolerance.holds(row.off, -next_row.off):
            for one in (index, following):
                rows[one] = _explained_by(rows[one], "calls around midnight: the days even out")
    return rows


def _explained_by(row: Difference, words: str) -> Difference:
    fields = {name: getattr(row, name) for name in Difference.__struct_fields__}
    return Difference(**{**fields, "matches": True, "explanation": words})
