"""Which version of the native API is spoken: `x-cascaded-protocol` on requests and answers.

Within one version answers only gain members and words; readers ignore members that they do not
know. A version is counted up when something that was there changes or goes.
"""

HEADER = "x-cascaded-protocol"
CURRENT = 1
OLDEST = 1
"""The oldest that is still spoken, by the daemon and by the client of this package."""
FIRST = 1
"""What is spoken by whoever does not say."""
MAX_DIGITS = 6


def version(said: str | None) -> int | None:
    """The version that a header names; `None` when it names none."""
    if said is None:
        return FIRST
    return int(said) if said.isascii() and said.isdigit() and len(said) <= MAX_DIGITS else None


def spoken(number: int | None) -> bool:
    """Whether this package speaks it."""
    return number is not None and OLDEST <= number <= CURRENT
