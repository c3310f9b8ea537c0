"""The checks. Each file has one: a `NAME` and a pure `check(reading) -> Check`.

To add one: write the file, add it to `CHECKS`. The conformance suite then holds it to the
rules (bounded time, determinism, a score in [0, 1]) and fails while a file is not listed.
"""

from collections.abc import Callable
from typing import Final

from cascaded.policy.quality.checks import (
    echo,
    empty,
    format,
    hedging,
    incoherent,
    instructions,
    off_topic,
    refusal,
    repetition,
    tool_calls,
    truncation,
)
from cascaded.policy.quality.reading import Reading
from cascaded.types.result import Check

CHECKS: Final[tuple[Callable[[Reading], Check], ...]] = (
    empty.check,
    refusal.check,
    truncation.check,
    repetition.check,
    incoherent.check,
    echo.check,
    off_topic.check,
    hedging.check,
    format.check,
    instructions.check,
    tool_calls.check,
)
