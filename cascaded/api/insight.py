"""The routes whose answers are worked out from many records, by a process of its own."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import TypeVar

from aiohttp import web
from msgspec.structs import replace

from cascaded.api.dialects.base import Incoming
from cascaded.api.errors import error_response
from cascaded.api.records import FLUSHED_WITHIN_S, Usage
from cascaded.ports import Clock, Ledger, Report
from cascaded.types.decision import Refusal
from cascaded.types.errors import AnalystError, BusyError, StoreError
from cascaded.types.insight import (
    AdviceQuestion,
    ExportFormat,
    ForecastQuestion,
    Period,
    Question,
    Subject,
)
from cascaded.types.limits import Scope
from cascaded.types.overrides import GLOBAL_ID
from cascaded.wire.insight import (
    read_advice,
    read_anomalies,
    read_breakdown,
    read_export,
    read_forecast,
    read_subject,
)

ANSWERED_WITHIN_S = 120.0
STALLED_S = 60.0
"""How long a caller may take for the next piece of an export."""
BUSY_RETRY_S = 5
MEDIA: dict[ExportFormat, str] = {
    "jsonl": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv",
    "focus": "text/csv",
}
Q = TypeVar("Q", ForecastQuestion, AdviceQuestion)
RECORDS_HEADER = "x-cascaded-records"

Ask = Callable[[Question], AbstractAsyncContextManager[Report]]
"""See `ports.Analyst`."""


class Insight:
    """Questions about what was spent."""

    def __init__(
        self,
        *,
        ask: Ask,
        ledger: Ledger,
        usage: Usage,
        hand_on: Callable[[], None],
        clock: Clock,
        log_fault: Callable[[str, BaseException], None],
    ) -> None:
        """`hand_on` tells the usage log of the calls that have ended up to now."""
        self._ask = ask
        self._ledger = ledger
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

    async def forecast(self, incoming: Incoming) -> web.Response:
        """`GET /forecast?period=…`: what will have been spent at the period's end."""
        subject = self._subject(incoming)
        question, limited = read_forecast(incoming.http.query, subject, self._clock.wall_ns())
        if not limited:
            question = self._beside_budget(incoming, question, question.period)
        return await self._answered(incoming, question)

    async def anomalies(self, incoming: Incoming) -> web.Response:
        """`GET /anomalies?sensitivity=…`: days or hours that were out of the ordinary."""
        subject = self._subject(incoming)
        asked = read_anomalies(incoming.http.query, subject, self._clock.wall_ns())
        return await self._answered(incoming, asked)

    async def recommendations(self, incoming: Incoming) -> web.Response:
        """`GET /recommendations`: what would cost less, with the money at stake."""
        subject = self._subject(incoming)
        question = read_advice(incoming.http.query, subject, self._clock.wall_ns())
        return await self._answered(incoming, self._beside_budget(incoming, question, "month"))

    async def breakdown(self, incoming: Incoming) -> web.Response:
        """`GET /breakdown?by=…`: what was spent, by user, model, day …: of oneself, for
        administrators of whom they name."""
        question = read_breakdown(incoming.http.query)
        if not incoming.principal.admin:
            own = replace(question.filter, user_id=incoming.principal.user_id)
            question = replace(question, filter=own)
        return await self._answered(incoming, question)

    def _subject(self, incoming: Incoming) -> Subject:
        """Whose spend is asked after: others' and everybody's are for administrators."""
        principal = incoming.principal
        own = None if principal.admin else principal.user_id
        return read_subject(incoming.http.query, own)

    def _beside_budget(self, incoming: Incoming, question: Q, period: Period) -> Q:
        """The question beside the tightest budget of its subject for such a period, by whose zone
        days are counted unless the caller says otherwise."""
        scope, id = _scope(question.subject)
        counters = [] if scope is None else self._ledger.counters(scope, id)
        limited = [one for one in counters if one.window == period and one.limit is not None]
        budget = min(limited, key=lambda one: one.limit or 0, default=None)
        if budget is None:
            return question
        zone = question.zone if "zone" in incoming.http.query else budget.zone
        return replace(question, limit_nano_usd=budget.limit, zone=zone)

    async def _answered(self, incoming: Incoming, question: Question) -> web.Response:
        """The answer, whole."""
        await self._settled()
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_S), self._ask(question) as report:
                body = b"".join([piece async for piece in report.pieces])
        except (AnalystError, BusyError) as error:
            return _unanswered(incoming, error)
        except TimeoutError:
            late = f"it took longer than {ANSWERED_WITHIN_S:g} s"
            return _unanswered(incoming, AnalystError(late))
        return web.Response(body=body, content_type="application/json")

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


def _scope(subject: Subject) -> tuple[Scope | None, str | None]:
    """Of the budget that a subject's spend is charged to; models have none."""
    if subject.model is not None:
        return None, None
    if subject.feature is not None:
        return ("tag", subject.feature) if subject.id is None else (None, None)
    return ("global", GLOBAL_ID) if subject.id is None else (subject.owner, subject.id)
