"""Questions about what was spent, as they travel. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from cascaded.types.insight import EXPORT_FORMATS, ExportQuestion
from cascaded.types.records import UsageFilter
from cascaded.wire.exports import parse_timestamp
from cascaded.wire.openai_chat import WireError

TEXTS = (
    "user_id",
    "organization_id",
    "workspace_id",
    "team_id",
    "tier",
    "model",
    "provider",
    "feature",
    "domain",
    "status",
)
"""Members of a filter that are compared as they are."""
FILTER = ("since", "until", *TEXTS, "imported")
_FLAGS = {"true": True, "false": False}


def read_export(query: Mapping[str, str], now_ns: int) -> ExportQuestion:
    """`GET /export`. Raises `WireError`."""
    known(query, ("format", *FILTER))
    asked = query.get("format", EXPORT_FORMATS[0])
    if asked not in EXPORT_FORMATS:
        raise WireError(
            f"format must be one of {', '.join(EXPORT_FORMATS)}; `cascaded export` also writes"
            " SQLite and Parquet",
            "format",
        )
    return ExportQuestion(format=asked, filter=read_filter(query), now_ns=now_ns)


def read_filter(query: Mapping[str, str]) -> UsageFilter:
    """Which records are meant. Raises `WireError`."""
    imported = query.get("imported")
    if imported is not None and imported not in _FLAGS:
        raise WireError("imported must be true or false", "imported")
    said: dict[str, object] = {name: query[name] for name in TEXTS if name in query}
    for name in ("since", "until"):
        if name in query:
            said[f"{name}_ns"] = read_time(name, query[name])
    if imported is not None:
        said["imported"] = _FLAGS[imported]
    wanted = msgspec.convert(said, UsageFilter)
    if wanted.since_ns >= wanted.until_ns:
        raise WireError("since must be before until", "since")
    return wanted


def read_time(name: str, text: str) -> int:
    """A day or a moment in ISO 8601, in UTC unless it says otherwise. Raises `WireError`."""
    try:
        # A plus sign in an address stands for a space.
        return parse_timestamp(text.replace(" ", "+") if "T" in text else text)
    except (ValueError, OverflowError):
        raise WireError(
            f"{name} must be a day or a time, such as 2026-11-01 or 2026-11-01T12:00:00Z", name
        ) from None


def known(query: Mapping[str, str], names: Sequence[str]) -> None:
    """Raises `WireError` for a parameter that is none: it would be a filter that does nothing."""
    for name in query:
        if name not in names:
            raise WireError(f"there is no {name[:64]!r} here; there are {', '.join(names)}", name)
