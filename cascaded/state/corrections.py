"""A record that corrects another one, so that the log sums up to what the ledger has."""

from collections.abc import Iterator

from msgspec.structs import replace

from cascaded.state.log_rows import text_of, text_or_none
from cascaded.types.records import (
    ADJUSTED,
    AttemptRecord,
    Correction,
    UsageRecord,
    without_attempts,
)


def corrected(by: Correction, original: UsageRecord | None) -> UsageRecord:
    """The difference between what a call was charged and what it cost, at the original's time and
    with its owners. Of a call that a crash has kept from the log it is all that it cost."""
    if original is None:
        return _unrecorded(by)
    difference = by.posted_nano_usd - by.charged_nano_usd
    attempts = tuple(_differences(original.attempts, difference))
    return replace(
        original,
        status=ADJUSTED,
        scope=None,
        reasons=(),
        notices=(),
        attempts=attempts,
        input_tokens=0,
        output_tokens=0,
        cost_nano_usd=difference,
        unknown_nano_usd=-by.charged_nano_usd,
        saved_nano_usd=-difference if original.saved_nano_usd else 0,
        elapsed_ns=0,
        overhead_ns=0,
    )


def _differences(attempts: tuple[AttemptRecord, ...], difference: int) -> Iterator[AttemptRecord]:
    """The calls whose bill was not known, each with its share of the difference."""
    unknown = [one for one in attempts if one.billing == "unknown"]
    left, weight = difference, sum(one.cost_nano_usd for one in unknown) or 1
    for position, one in enumerate(unknown, 1):
        share = left if position == len(unknown) else difference * one.cost_nano_usd // weight
        left -= share
        yield replace(one, billing="billed", cost_nano_usd=share, input_tokens=0, output_tokens=0)


def _unrecorded(by: Correction) -> UsageRecord:
    return replace(
        without_attempts(text_of(by.request_id), by.at_ns),
        user_id=text_or_none(by.user_id),
        status=ADJUSTED,
        hold=by.hold,
        cost_nano_usd=by.posted_nano_usd,
    )
