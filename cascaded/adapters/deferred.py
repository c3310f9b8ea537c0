"""Records gathered while calls are answered, and handed on in a quiet moment."""

import asyncio
from collections.abc import Callable

from cascaded.ports import Sink
from cascaded.types.request import Request
from cascaded.types.result import Outcome

HAND_ON_AFTER_S = 0.05
MAX_WAITING = 512


class DeferredSinks:
    """A `ports.Sink` over several others, so that a call pays for an append and nothing else.

    Requests and outcomes are frozen, so that what the others see later is what happened. Only
    what may be lost with the process belongs here: the ledger has settled before.
    """

    def __init__(self, *sinks: Sink, report: Callable[[str, BaseException], None]) -> None:
        """`report` hears of a sink's fault, with the request's id; the others are told all the
        same."""
        self._sinks = sinks
        self._report = report
        self._waiting: list[tuple[Request, Outcome]] = []
        self._timer: asyncio.TimerHandle | None = None

    def record(self, request: Request, outcome: Outcome) -> None:
        """See `ports.Sink.record`."""
        self._waiting.append((request, outcome))
        if len(self._waiting) >= MAX_WAITING:
            self.hand_on()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(HAND_ON_AFTER_S, self.hand_on)

    def hand_on(self) -> None:
        """Tell the others of everything that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for request, outcome in waiting:
            for sink in self._sinks:
                try:
                    sink.record(request, outcome)
                except Exception as fault:
                    self._report(request.id, fault)
