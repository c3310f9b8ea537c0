"""The routes whose answers are worked out from many records, by a process of its own."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

from aiohttp import web

from cascaded.api.dialects.base import Incoming
from cascaded.api.errors import error_response
from cascaded.api.records import FLUSHED_WITHIN_S, Usage
from cascaded.ports import Clock, Report
from cascaded.types.decision import Refusal
from cascaded.types.errors import AnalystError, BusyError, StoreError
from cascaded.types.insight import ExportFormat, Question
from cascaded.wire.insight import read_export

STALLED_S = 60.0
"""How long a caller may take for the next piece of an export."""
BUSY_RETRY_S = 5
MEDIA: dict[ExportFormat, str] = {
    "jsonl": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv",
    "focus": "text/csv",
}
RECORDS_HEADER = "x-cascaded-records"

Ask = Callable[[Question], AbstractAsyncContextManager[Report]]
"""See `ports.Analyst`."""


class Insight:
    """Questions about what was spent."""

    def __init__(
        self,
        *,
        ask: Ask,
        usage: Usage,
        hand_on: Callable[[], None],
        clock: Clock,
        log_fault: Callable[[str, BaseException], None],
    ) -> None:
        """`hand_on` tells the usage log of the calls that have ended up to now."""
        self._ask = ask
        self._usage = usage
        self._hand_on = hand_on
        self._clock = clock
        self._log_fault = log_fault

    async def export(self, incoming: Incoming) -> web.StreamResponse:
        """`GET /export?format=…`: records, streamed."""
        question = read_export(incoming.http.query, self._clock.wall_ns())
        await self._settled()
        try:
            async with self._ask(question) as report:
                return await self._stream(incoming, report, MEDIA[question.format])
        except (AnalystError, BusyError) as error:
            return _unanswered(incoming, error)

    async def _settled(self) -> None:
        """Who asks after a call wants to see it. A disk that takes no more is not waited for."""
        self._hand_on()
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(FLUSHED_WITHIN_S):
                await asyncio.wrap_future(self._usage.flushed())

    async def _stream(self, incoming: Incoming, report: Report, media: str) -> web.StreamResponse:
        """The answer as it comes. One that breaks off ends without its last chunk, so that nobody
        takes it for whole."""
        response = web.StreamResponse(
            headers={
                "Content-Type": media,
                "Cache-Control": "no-store",
                "X-Request-ID": incoming.request_id,
                RECORDS_HEADER: str(report.head["records"]),
            }
        )
        await response.prepare(incoming.http)
        try:
            async for piece in report.pieces:
                async with asyncio.timeout(STALLED_S):
                    await response.write(piece)
            await response.write_eof()
        except (AnalystError, TimeoutError, ConnectionError) as error:
            if not isinstance(error, ConnectionError):
                self._log_fault(incoming.request_id, error)
            if incoming.http.transport is not None:
                incoming.http.transport.abort()
        return response


def _unanswered(incoming: Incoming, error: AnalystError | BusyError) -> web.Response:
    if isinstance(error, BusyError):
        busy = Refusal(
            code="overloaded", message=f"{error}. Try again.", retry_after_s=BUSY_RETRY_S
        )
        return error_response(busy, incoming.request_id)
    refusal = Refusal(code="records_unavailable", message=f"The usage log was not read: {error}")
    return error_response(refusal, incoming.request_id)
