"""Why a daemon does not start, or ends."""


class StartError(RuntimeError):
    """The daemon cannot start; the message says why and what to do."""


class LedgerLostError(StartError):
    """The daemon cannot go on: what it spent now would be forgotten."""
