"""The routes of users, organisations and workspaces: read and changed off the event loop."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from aiohttp import web

from cascaded.api.changes import put_on_record
from cascaded.api.dialects.base import Incoming
from cascaded.api.errors import error_response
from cascaded.api.replies import json_response
from cascaded.ports import Audit, Offload
from cascaded.types.decision import Refusal
from cascaded.types.errors import ConflictError, RowsError, StoreError, StoreFullError
from cascaded.types.kept import Expected, Kept, Page, nothing_under
from cascaded.types.profile import (
    OrganizationConfig,
    Stored,
    Tiers,
    UserProfile,
    WorkspaceConfig,
)
from cascaded.wire import people
from cascaded.wire.money import read
from cascaded.wire.openai_chat import WireError, member_names
from cascaded.wire.records import page_limit

Item = TypeVar("Item", bound=Stored)
NOT_YOURS = Refusal(
    code="forbidden",
    message="Only administrators may read the profiles of others; yours is at /users/ and the name"
    " that your calls are charged to.",
)


class Shelf(Protocol[Item]):
    """Who keeps one kind. Waits for the disk. Raises `StoreError`, `ValueError`,
    `ConflictError`."""

    def get(self, id: str) -> Kept[Item] | None:
        """One of them."""
        ...

    def put(self, item: Item, *, expected: Expected) -> Kept[Item]:
        """Store one."""
        ...

    def change(self, id: str, how: Callable[[Item], Item], expected: Expected) -> Kept[Item]:
        """Change one."""
        ...

    def delete(self, id: str, *, expected: Expected) -> Kept[Item]:
        """Forget one."""
        ...

    def page(self, *, limit: int, after: str | None = None) -> Page[Item]:
        """Some of them."""
        ...


class Profiles(Protocol):
    """Who keeps them all."""

    @property
    def users(self) -> Shelf[UserProfile]:
        """Users."""
        ...

    @property
    def organizations(self) -> Shelf[OrganizationConfig]:
        """Organisations."""
        ...

    @property
    def workspaces(self) -> Shelf[WorkspaceConfig]:
        """Workspaces."""
        ...

    def create_bulk(self, profiles: Sequence[UserProfile]) -> list[Kept[UserProfile]]:
        """New users, all or none. Raises `RowsError` as well."""
        ...

    def update_tier(
        self, user_id: str, tier: str | None, *, expected: Expected
    ) -> Kept[UserProfile]:
        """Move a user to another tier."""
        ...


class Ward(Generic[Item]):
    """The routes of one kind. What is changed is put on record."""

    def __init__(
        self, shape: type[Item], name: str, shelf: Shelf[Item], audit: Audit, offload: Offload
    ) -> None:
        self._shape = shape
        self._name = name
        self._shelf = shelf
        self._audit = audit
        self._offload = offload

    async def list(self, incoming: Incoming) -> web.Response:
        """`GET /users?limit=…&after=…`: by id."""
        query = incoming.http.query
        work = partial(self._shelf.page, limit=page_limit(query), after=query.get("after"))
        page = await self.kept(incoming, work)
        if isinstance(page, web.Response):
            return page
        return _json(people.page_row(self._name, f"{self._name}s", page))

    async def create(self, incoming: Incoming) -> web.Response:
        """`POST /users`: a new one."""
        item = people.read_item(incoming.body, self._shape)
        work = partial(self._shelf.put, item, expected="absent")
        return await self.changed(incoming, work, before=None)

    async def get(self, incoming: Incoming) -> web.Response:
        """`GET /users/{id}`: it, and its version as `ETag`."""
        id = incoming.http.match_info["id"]
        kept = await self.kept(incoming, partial(self._shelf.get, id))
        if isinstance(kept, web.Response):
            return kept
        return _nothing(incoming, id) if kept is None else self.told(kept)

    async def put(self, incoming: Incoming) -> web.Response:
        """`PUT /users/{id}`: all of it. What is stored is replaced only by who knows its version
        (`If-Match`), so that two who change it at once do not undo each other's work."""
        id = incoming.http.match_info["id"]
        item = people.read_item(incoming.body, self._shape, id)
        said = _expected(incoming)

        def put() -> Kept[Item]:
            try:
                return self._shelf.put(item, expected="absent" if said is None else said)
            except ConflictError as conflict:
                if said is not None or conflict.code != "already_exists":
                    raise
                raise ConflictError(
                    "version_required",
                    f"{id!r} is stored already: say with If-Match which version is replaced,"
                    " or * for whatever it is",
                ) from None

        return await self.changed(incoming, put, before=id)

    async def patch(self, incoming: Incoming) -> web.Response:
        """`PATCH /users/{id}`: the members that are given; `null` puts one back to its default."""
        id = incoming.http.match_info["id"]
        changes = people.read_members(incoming.body)
        expected = _expected(incoming) or "any"
        work = partial(self._shelf.change, id, lambda item: people.patched(item, changes), expected)
        return await self.changed(incoming, work, before=id)

    async def delete(self, incoming: Incoming) -> web.Response:
        """`DELETE /users/{id}`: what it was."""
        id = incoming.http.match_info["id"]
        work = partial(self._shelf.delete, id, expected=_expected(incoming) or "any")
        return await self.changed(incoming, work, before=id, gone=True)

    async def changed(
        self,
        incoming: Incoming,
        work: Callable[[], Kept[Item]],
        *,
        before: str | None,
        gone: bool = False,
    ) -> web.Response:
        """Do it, put it on record, and tell what is there now. `before` is the id of what there
        may have been."""

        def change() -> tuple[Kept[Item] | None, Kept[Item]]:
            return None if before is None else self._shelf.get(before), work()

        done = await self.kept(incoming, change)
        if isinstance(done, web.Response):
            return done
        old, new = done
        self.put_on_record(incoming, new.item.id, old, None if gone else new)
        return self.told(new)

    def put_on_record(
        self, incoming: Incoming, id: str, old: Kept[Item] | None, new: Kept[Item] | None
    ) -> None:
        """Who changed what."""
        put_on_record(
            self._audit,
            incoming,
            f"{self._name}:{id}",
            before=None if old is None else old.item,
            after=None if new is None else new.item,
        )

    def told(self, kept: Kept[Item]) -> web.Response:
        """One of them."""
        return _json(people.kept_row(self._name, kept), etag=kept.version)

    async def kept(self, incoming: Incoming, work: Callable[[], Any]) -> Any:
        """Whatever the work gives, or the answer that tells why there is none."""
        try:
            return await self._offload(work)
        except WireError:
            raise
        except ConflictError as conflict:
            refusal = Refusal(code=conflict.code, message=str(conflict))
        except RowsError as error:
            refusal = _wrong_rows(error.rows)
        except ValueError as error:
            refusal = Refusal(code="invalid_request", message=str(error))
        except StoreFullError as error:
            refusal = Refusal(code="profiles_full", message=str(error))
        except StoreError as error:
            refusal = Refusal(code="profiles_unavailable", message=str(error))
        return error_response(refusal, incoming.request_id)


class People:
    """The routes of all three."""

    def __init__(
        self, *, profiles: Profiles, tiers: Callable[[], Tiers], audit: Audit, offload: Offload
    ) -> None:
        self._profiles = profiles
        self._tiers = tiers
        self._audit = audit
        self.users = Ward(UserProfile, "user", profiles.users, audit, offload)
        self.organizations = Ward(
            OrganizationConfig, "organization", profiles.organizations, audit, offload
        )
        self.workspaces = Ward(WorkspaceConfig, "workspace", profiles.workspaces, audit, offload)

    async def create_users(self, incoming: Incoming) -> web.Response:
        """`POST /users`: a new user, or many (`{"users": [ … ]}`), all or none."""
        if people.BULK not in member_names(incoming.body):
            return await self.users.create(incoming)

        def create() -> list[Kept[UserProfile]]:
            users, wrong = people.read_users(incoming.body)
            if wrong:
                raise RowsError(wrong)
            return self._profiles.create_bulk(users)

        made = await self.users.kept(incoming, create)
        if isinstance(made, web.Response):
            return made
        for kept in made:
            self.users.put_on_record(incoming, kept.item.id, None, kept)
        return _json({"created": len(made), "versions": [kept.version for kept in made]})

    async def get_user(self, incoming: Incoming) -> web.Response:
        """`GET /users/{id}`: a profile and the limits it makes with its tier. One's own, or as an
        administrator anybody's."""
        id, principal = incoming.http.match_info["id"], incoming.principal
        if not principal.admin and id != principal.user_id:
            self._audit.access(
                f"user:{id}",
                actor=principal.id,
                allowed=False,
                reason=NOT_YOURS.message,
                request_id=incoming.request_id,
            )
            return error_response(NOT_YOURS, incoming.request_id)
        kept = await self.users.kept(incoming, partial(self._profiles.users.get, id))
        if isinstance(kept, web.Response):
            return kept
        if kept is None:
            return _nothing(incoming, id)
        row = people.kept_row("user", kept)
        tiers = self._tiers()
        if kept.item.tier is None or kept.item.tier in tiers:
            row["effective_budget"] = kept.item.get_effective_budget(tiers)
            row["effective_rate_limits"] = kept.item.get_effective_rate_limits(tiers)
        return _json(row, etag=kept.version)

    async def set_tier(self, incoming: Incoming) -> web.Response:
        """`PUT /users/{id}/tier`: `{"tier": "pro"}`."""
        id = incoming.http.match_info["id"]
        tier = read(incoming.body, people.TierRequest).tier
        expected = _expected(incoming) or "any"
        work = partial(self._profiles.update_tier, id, tier, expected=expected)
        return await self.users.changed(incoming, work, before=id)


def _expected(incoming: Incoming) -> Expected | None:
    sent = incoming.http.headers
    return people.expected_version(sent.get("If-Match"), sent.get("If-None-Match"))


def _nothing(incoming: Incoming, id: str) -> web.Response:
    missing = Refusal(code="not_found", message=nothing_under(id))
    return error_response(missing, incoming.request_id)


def _wrong_rows(wrong: dict[int, str]) -> Refusal:
    row, why = min(wrong.items())
    return Refusal(
        code="invalid_request",
        message=f"{len(wrong)} users cannot be stored, so none was. Row {row}: {why}",
        param=people.BULK,
        details=people.rows_wrong(wrong),
    )


def _json(body: object, *, etag: int | None = None) -> web.Response:
    headers = {} if etag is None else {"ETag": f'"{etag}"'}
    return json_response(body, headers=headers, encode=people.encode)
