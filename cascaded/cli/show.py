"""How answers and amounts look in a terminal."""

from decimal import Decimal

from cascaded.client.results import Metadata

MIB = 1024 * 1024


def dollars(amount: Decimal) -> str:
    """An amount with every digit it has, at least cents."""
    return f"{'-' if amount < 0 else ''}${abs(amount):f}"


def verdict(metadata: Metadata) -> str:
    """What became of the draft, in words."""
    if metadata.draft_model is None:
        return "asked by name"
    if metadata.draft_accepted:
        return "draft accepted"
    if metadata.flagged:
        return f"escalated, and flagged: {', '.join(metadata.quality_failed) or 'unsure'}"
    return "escalated"


def saving(metadata: Metadata) -> str:
    """The saving; where the models are free, at whose price it is shown."""
    verb = "lost" if metadata.cost_saved < 0 else "saved"
    told = f"{verb} {dollars(abs(metadata.cost_saved))} ({metadata.savings_percent:g}%)"
    if metadata.savings_reference:
        told += f" at the prices of {metadata.savings_reference}; these models are free"
    return told


def footer(metadata: Metadata) -> str:
    """One line under an answer."""
    return (
        f"— {metadata.model_used}, {verdict(metadata)}, cost {dollars(metadata.total_cost)},"
        f" {saving(metadata)}, {metadata.latency_ms / 1000:.2f} s"
    )
