"""How bad a finding is, against the default acceptance threshold of 0.60.

A verdict multiplies its checks' scores, so the steps say what it takes to reject an answer:
one `SERIOUS` finding does it at every built-in threshold (the lowest is 0.45), one `MILD`
finding never does at 0.60, two together do, and `SLIGHT` ones only tip a balance.
"""

from typing import Final

from cascaded.types.result import Check

FINE: Final = 1.0
SLIGHT: Final = 0.9
MILD: Final = 0.75
SERIOUS: Final = 0.4
FATAL: Final = 0.05


def fine(name: str) -> Check:
    """Nothing found."""
    return Check(name=name, score=FINE)


def found(name: str, score: float, reason: str) -> Check:
    """Something found; `reason` is ours, never a quotation of the caller's or model's text."""
    return Check(name=name, score=score, reason=reason)
