"""The routes by which administrators issue keys and take them back: `/keys`."""

import asyncio
from collections.abc import Callable
from functools import partial

from aiohttp import web
from msgspec.structs import replace

from cascaded.api.auth import digest
from cascaded.api.changes import put_on_record
from cascaded.api.dialects.base import Incoming
from cascaded.api.errors import error_response
from cascaded.api.replies import json_response
from cascaded.pipeline.rules import Rulebook
from cascaded.policy.access.keys import SECRET_BYTES, compose, hint_of
from cascaded.ports import Audit, Clock, Offload
from cascaded.state.keys import MAX_KEYS, KeyRing
from cascaded.types.decision import Refusal
from cascaded.types.errors import StoreError
from cascaded.types.keys import IssuedKey
from cascaded.types.request import Owner
from cascaded.types.times import NS_PER_S
from cascaded.wire.keys import IssueRequest, key_row, read_issue
from cascaded.wire.openai_chat import WireError

ID_BYTES = 6
MAX_ROWS = 1_000

Chance = Callable[[int], bytes]
"""So many bytes that nobody can guess."""


class Keys:
    """A key is shown once, when it is issued, and kept only as its hash."""

    def __init__(
        self,
        *,
        ring: KeyRing,
        rulebook: Rulebook,
        chance: Chance,
        clock: Clock,
        audit: Audit,
        offload: Offload,
    ) -> None:
        self._ring = ring
        self._rulebook = rulebook
        self._chance = chance
        self._clock = clock
        self._audit = audit
        self._offload = offload

    async def issue(self, incoming: Incoming) -> web.Response:
        """`POST /keys`: a new key. Answered once its hash is on the disk."""
        asked = read_issue(incoming.body)
        tiers = self._rulebook.now.book.tiers
        if asked.tier is not None and asked.tier not in tiers:
            known = ", ".join(tiers) or "none"
            raise WireError(f"there is no tier {asked.tier[:64]!r}; there are: {known}", "tier")
        if self._ring.full():
            raise WireError(f"{MAX_KEYS} keys are kept: those that were revoked go after 90 days")
        secret = compose(asked.tier, self._chance(SECRET_BYTES))
        key = self._made(asked, secret)
        try:
            await asyncio.shield(self._offload(partial(self._ring.write, key)))
        except StoreError as error:
            return error_response(_unkept(f"No key was issued: {error}"), incoming.request_id)
        self._ring.put_in_force(key)
        row = self._row(key)
        self._told(incoming, key, before=None, after=row)
        return _json({"key": secret, **row})

    async def list(self, incoming: Incoming) -> web.Response:
        """`GET /keys?user_id=…&after=…`: every key, by its hint; `after` is the id to go on
        from."""
        query = incoming.http.query
        user_id, after = query.get("user_id"), query.get("after", "")
        keys = [
            key
            for key in self._ring.all()
            if key.id > after and user_id in (None, key.owner.user_id)
        ]
        shown = keys[:MAX_ROWS]
        cursor = shown[-1].id if len(keys) > MAX_ROWS else None
        return _json({"keys": [self._row(key) for key in shown], "after": cursor})

    async def revoke(self, incoming: Incoming) -> web.Response:
        """`DELETE /keys/{id}`: from now on it opens nothing. Answered once that is on the disk."""
        id = incoming.http.match_info["id"]
        key = self._ring.get(id)
        if key is None:
            message = f"There is no key {id[:64]!r}; `GET /keys` lists them."
            none = Refusal(code="not_found", message=message, param="id")
            return error_response(none, incoming.request_id)
        if key.revoked_ns is None:
            before = self._row(key)
            key = replace(key, revoked_ns=self._clock.wall_ns())
            self._ring.put_in_force(key)
            self._told(incoming, key, before=before, after=self._row(key))
        try:
            await asyncio.shield(self._offload(partial(self._ring.write, key)))
        except StoreError as error:
            lost = f"The key opens nothing until the daemon is restarted; revoke it again: {error}"
            return error_response(_unkept(lost), incoming.request_id)
        return _json(self._row(key))

    def _made(self, asked: IssueRequest, secret: str) -> IssuedKey:
        now_ns = self._clock.wall_ns()
        life_ns = None if asked.expires_in_s is None else asked.expires_in_s * NS_PER_S
        return IssuedKey(
            id=self._chance(ID_BYTES).hex(),
            digest=digest(secret),
            hint=hint_of(secret),
            name=asked.name,
            owner=Owner(
                user_id=asked.user_id,
                tier=asked.tier,
                organization_id=asked.organization_id,
                workspace_id=asked.workspace_id,
            ),
            admin=asked.admin,
            created_ns=now_ns,
            expires_ns=None if life_ns is None else now_ns + life_ns,
        )

    def _row(self, key: IssuedKey) -> dict[str, object]:
        return key_row(key, self._ring.used_ns(key.id), self._clock.wall_ns())

    def _told(self, incoming: Incoming, key: IssuedKey, *, before: object, after: object) -> None:
        put_on_record(self._audit, incoming, f"key:{key.id}", before=before, after=after)


def _unkept(message: str) -> Refusal:
    return Refusal(code="state_unavailable", message=message)


_json = partial(json_response, headers={"Cache-Control": "no-store"})
