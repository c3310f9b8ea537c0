"""The routes that tell what was: `/summary` and `/audit`."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from aiohttp import web

from cascaded.api.dialects.base import Incoming
from cascaded.api.errors import error_response
from cascaded.api.replies import json_response
from cascaded.ports import Clock, Offload
from cascaded.types.decision import Refusal
from cascaded.types.errors import StoreError
from cascaded.types.records import AuditPage, UsageSummary
from cascaded.wire.records import PAGE, audit_row, page_limit, summary_row


class Usage(Protocol):
    """Who remembers finished requests."""

    def summary(self, user_id: str | None, now_ns: int) -> UsageSummary:
        """Today, this week, this month. Reads the disk. Raises `StoreError`."""
        ...


class Trail(Protocol):
    """Who remembers decisions."""

    def query(
        self, *, limit: int = PAGE, after: str | None = None, newest_first: bool = False
    ) -> AuditPage:
        """A page of records. Reads the disk. Raises `ValueError`, `StoreError`."""
        ...


class Records:
    """What was spent and decided, read off the event loop."""

    def __init__(self, *, usage: Usage, trail: Trail, clock: Clock, offload: Offload) -> None:
        self._usage = usage
        self._trail = trail
        self._clock = clock
        self._offload = offload

    async def summary(self, incoming: Incoming) -> web.Response:
        """`GET /summary?user_id=…`: what a user spent. Others' and everybody's (no `user_id`)
        are for administrators."""
        user_id = incoming.http.query.get("user_id")
        if not incoming.principal.admin:
            user_id = incoming.principal.user_id
        now_ns = self._clock.wall_ns()
        return await self._told(
            incoming, partial(self._usage.summary, user_id, now_ns), summary_row
        )

    async def audit(self, incoming: Incoming) -> web.Response:
        """`GET /audit?limit=…&after=…`: decisions about money and access, the newest first."""
        query = incoming.http.query
        limit, after = page_limit(query), query.get("after")
        read = partial(self._trail.query, limit=limit, after=after, newest_first=True)
        return await self._told(incoming, read, _page)

    async def _told(
        self,
        incoming: Incoming,
        read: Callable[[], UsageSummary] | Callable[[], AuditPage],
        shape: Callable[..., dict[str, object]],
    ) -> web.Response:
        try:
            found = await self._offload(read)
        except ValueError as error:
            wrong = Refusal(code="invalid_request", message=str(error))
            return error_response(wrong, incoming.request_id)
        except StoreError as error:
            unread = Refusal(code="records_unavailable", message=str(error))
            return error_response(unread, incoming.request_id)
        return json_response(shape(found))


def _page(page: AuditPage) -> dict[str, object]:
    return {"records": [audit_row(record) for record in page.records], "after": page.cursor}
