"""What a caller says of how closely its answers are to be looked at."""

from typing import get_args

from cascaded.types.quality import QualityMode
from cascaded.wire.openai_chat import WireError

QUALITY_HEADER = "x-cascaded-quality"
_MODES: dict[str, QualityMode] = {mode: mode for mode in get_args(QualityMode)}


def read_quality(header: str | None) -> QualityMode | None:
    """The mode that the header names. Raises `WireError`."""
    if header is None:
        return None
    mode = _MODES.get(header.strip().lower())
    if mode is None:
        known = ", ".join(_MODES)
        raise WireError(f"{QUALITY_HEADER}: give one of {known}", QUALITY_HEADER)
    return mode
