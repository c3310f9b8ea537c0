"""The routes that tell what was: `/summary` and `/audit`."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Protocol

from aiohttp import web
from msgspec.structs import asdict

from cascaded.api.changes import put_on_record
from cascaded.api.dialects.base import Incoming
from cascaded.api.errors import error_response
from cascaded.api.replies import json_response
from cascaded.ports import Audit, Clock, Ledger, Offload
from cascaded.types.decision import Refusal
from cascaded.types.errors import StoreError
from cascaded.types.records import AuditPage, Imported, Owner, UsageRecord, UsageSummary
from cascaded.wire.insight import read_import, read_owner
from cascaded.wire.records import PAGE, audit_row, page_limit, summary_row

FLUSHED_WITHIN_S = 1.0


class Usage(Protocol):
    """Who remembers finished requests."""

    def summary(self, id: str | None, now_ns: int, *, owner: Owner = "user") -> UsageSummary:
        """Today, this week, this month. Reads the disk. Raises `StoreError`."""
        ...

    def flushed(self) -> "Future[None]":
        """Done when everything told before can be read."""
        ...

    def bring_in(self, records: Sequence[UsageRecord]) -> Imported:
        """Append history, once. Writes the disk. Raises `StoreError`."""
        ...


class Trail(Protocol):
    """Who remembers decisions."""

    def query(
        self, *, limit: int = PAGE, after: str | None = None, newest_first: bool = False
    ) -> AuditPage:
        """A page of records. Reads the disk. Raises `ValueError`, `StoreError`."""
        ...

    def flushed(self) -> "Future[None]":
        """Done when everything told before can be read."""
        ...


class Records:
    """What was spent and decided, read off the event loop."""

    def __init__(
        self,
        *,
        usage: Usage,
        ledger: Ledger,
        trail: Trail,
        hand_on: Callable[[], None],
        clock: Clock,
        audit: Audit,
        offload: Offload,
        upkeep: Offload,
    ) -> None:
        """`hand_on` tells the usage log of the calls that have ended up to now; `upkeep` is for
        what takes longer than a look."""
        self._usage = usage
        self._ledger = ledger
        self._hand_on = hand_on
        self._trail = trail
        self._clock = clock
        self._audit = audit
        self._offload = offload
        self._upkeep = upkeep

    async def summary(self, incoming: Incoming) -> web.Response:
        """`GET /summary?user_id=…`: what an owner spent. Others' and everybody's (nobody named)
        are for administrators."""
        principal, query = incoming.principal, incoming.http.query
        owner, id = read_owner(query, None if principal.admin else principal.user_id)
        now_ns = self._clock.wall_ns()
        self._hand_on()
        read = partial(self._usage.summary, id, now_ns, owner=owner)
        budgets = [] if id is None else self._ledger.counters(owner, id)
        shape = partial(summary_row, budgets=budgets)
        return await self._told(incoming, self._usage, read, shape)

    async def bring_in(self, incoming: Incoming) -> web.Response:
        """`POST /import`: history of another log."""
        records = read_import(incoming.body)
        try:
            done = await asyncio.shield(self._upkeep(partial(self._usage.bring_in, records)))
        except StoreError as error:
            unwritten = Refusal(code="records_unavailable", message=str(error))
            return error_response(unwritten, incoming.request_id)
        told = asdict(done)
        if done.added:
            put_on_record(self._audit, incoming, "usage", before=None, after=told)
        return json_response(told)

    async def audit(self, incoming: Incoming) -> web.Response:
        """`GET /audit?limit=…&after=…`: decisions about money and access, the newest first."""
        query = incoming.http.query
        limit, after = page_limit(query), query.get("after")
        read = partial(self._trail.query, limit=limit, after=after, newest_first=True)
        return await self._told(incoming, self._trail, read, _page)

    async def _told(
        self,
        incoming: Incoming,
        log: Usage | Trail,
        read: Callable[[], UsageSummary] | Callable[[], AuditPage],
        shape: Callable[..., dict[str, object]],
    ) -> web.Response:
        def settled() -> UsageSummary | AuditPage:
            # Who asks after a call wants to see it. A disk that takes no more is not waited for.
            with suppress(TimeoutError, StoreError):
                log.flushed().result(FLUSHED_WITHIN_S)
            return read()

        try:
            found = await self._offload(settled)
        except ValueError as error:
            wrong = Refusal(code="invalid_request", message=str(error))
            return error_response(wrong, incoming.request_id)
        except StoreError as error:
            unread = Refusal(code="records_unavailable", message=str(error))
            return error_response(unread, incoming.request_id)
        return json_response(shape(found))


def _page(page: AuditPage) -> dict[str, object]:
    return {"records": [audit_row(record) for record in page.records], "after": page.cursor}
