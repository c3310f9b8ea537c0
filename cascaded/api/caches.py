"""The routes by which administrators look after the cache."""

from aiohttp import web
from msgspec.structs import asdict

from cascaded.api.dialects.base import Incoming
from cascaded.api.errors import error_response
from cascaded.api.replies import json_response
from cascaded.policy.caching import of_organization, of_user
from cascaded.state.caches.exact import ExactCache
from cascaded.types.decision import Refusal
from cascaded.types.errors import StoreError
from cascaded.types.recalled import CacheFigures
from cascaded.wire.openai_chat import WireError


class Caches:
    """The exact cache: what is in it, and that taken away."""

    def __init__(self, exact: ExactCache, *, enabled: bool) -> None:
        self._exact = exact
        self._enabled = enabled

    @property
    def figures(self) -> CacheFigures:
        """What it holds and did."""
        return self._exact.figures

    async def show(self, incoming: Incoming) -> web.Response:  # noqa: ARG002
        """`GET /cache`: what it holds, and what it did since the start."""
        told = {"enabled": self._enabled, "ttl_s": self._exact.ttl_s, **asdict(self.figures)}
        return json_response(told)

    async def clear(self, incoming: Incoming) -> web.Response:
        """`DELETE /cache?organization=…&user_id=…&model=…`: forget these, or all."""
        query = incoming.http.query
        organization, user = query.get("organization"), query.get("user_id")
        if organization is not None and user is not None:
            raise WireError(
                "the answers of an organisation belong to all its users: name one of the two",
                "user_id",
            )
        tenant = None if user is None else of_user(user)
        if organization is not None:
            tenant = of_organization(organization)
        try:
            return json_response({"cleared": await self._exact.clear(tenant, query.get("model"))})
        except StoreError as error:
            return _unavailable(incoming, error)

    async def verify(self, incoming: Incoming) -> web.Response:
        """`POST /cache/verify`: read every answer, and forget what is damaged."""
        try:
            return json_response((await self._exact.verify())._asdict())
        except StoreError as error:
            return _unavailable(incoming, error)


def _unavailable(incoming: Incoming, error: StoreError) -> web.Response:
    refusal = Refusal(code="state_unavailable", message=f"The cache's disk says no: {error}")
    return error_response(refusal, incoming.request_id)
