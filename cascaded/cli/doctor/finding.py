"""What was found, one thing a line."""

from typing import Literal

import msgspec

Verdict = Literal["ok", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    area: str
    """`config`, `state`, `socket`, `models`, `provider`, `clock`, `limits` or `software`."""
    verdict: Verdict
    message: str
    advice: str = ""
    """What to do about it; empty where all is well."""


def ok(area: str, message: str) -> Finding:
    """All is well."""
    return Finding(area=area, verdict="ok", message=message)


def warning(area: str, message: str, advice: str) -> Finding:
    """It works, and may disappoint."""
    return Finding(area=area, verdict="warning", message=message, advice=advice)


def problem(area: str, message: str, advice: str) -> Finding:
    """The daemon will not start, not serve, or forget."""
    return Finding(area=area, verdict="problem", message=message, advice=advice)
