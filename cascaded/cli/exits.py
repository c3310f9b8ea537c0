"""How commands end, for scripts. The manual's list is made of it."""

from enum import IntEnum


class Exit(IntEnum):
    """An exit code, and what it means."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> "Exit":
        """The code is the value; the meaning goes with it."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    OK = 0, "It was done."
    FAULT = 1, "It failed, or something is wrong: a problem of the machine, a damaged file."
    REFUSED = (
        2,
        "The daemon refused or does not answer; or the command line was not understood.",
    )
    NO = 3, "The answer is no: `check` would be refused, `status` found a daemon that is not ready,"
    " `reconcile` what does not match."
    CONFIG = 78, "The configuration has mistakes; starting again does not help."
