"""Users, organisations and workspaces, as the operator stored them, with a cache before the disk.

A user's row only names its organisation and workspace: what those are stands in rows of their own,
and a name without a row is one without settings.
"""

import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar
from zoneinfo import available_timezones

import msgspec
from msgspec.structs import replace

from cascaded.ports import Clock, Offload, Store
from cascaded.state.log_rows import MAX_PAGE
from cascaded.state.shelf import Shelf
from cascaded.types.kept import Expected, Kept
from cascaded.types.profile import OrganizationConfig, UserProfile, WorkspaceConfig
from cascaded.types.times import NS_PER_S

CACHE_TTL_S = 300
MAX_CACHED = 10_000
MAX_BULK = 10_000
"""Users that are created at once."""
MAX_METADATA_BYTES = 8 * 1024
USER, ORGANIZATION, WORKSPACE = b"u", b"o", b"w"

Item = TypeVar("Item", UserProfile, OrganizationConfig, WorkspaceConfig)
Owner = TypeVar("Owner", OrganizationConfig, WorkspaceConfig)
T = TypeVar("T")


class _Cached(NamedTuple):
    item: Any
    """`None`: nothing is stored."""
    until_ns: int


class ProfileManager:
    """The profiles of a daemon. `find` is for calls; everything else waits for the disk.

    Methods raise `StoreError` where the disk fails, `ValueError` for what cannot be stored and
    `ConflictError` where something else is stored than the writer thinks.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        offload: Offload,
        *,
        cache_ttl_seconds: float = CACHE_TTL_S,
    ) -> None:
        self.tiers: Callable[[], Collection[str]] | None = None
        """Those that a profile may name; `None` for any."""
        self._now_ns = clock.monotonic_ns
        self._offload = offload
        self._ttl_ns = int(cache_ttl_seconds * NS_PER_S)
        self._caching = threading.Lock()
        self._cache: dict[tuple[bytes, str], _Cached] = {}
        self._changes = 0
        self._blank = store.count() == 0
        writing = threading.Lock()
        self.users = Shelf(
            store,
            USER,
            UserProfile,
            checked=self._checked_user,
            shown=self._joined,
            changed=partial(self._changed, USER),
            writing=writing,
        )
        self.organizations = Shelf(
            store,
            ORGANIZATION,
            OrganizationConfig,
            checked=_checked,
            shown=_as_it_is,
            changed=partial(self._changed, ORGANIZATION),
            writing=writing,
        )
        self.workspaces = Shelf(
            store,
            WORKSPACE,
            WorkspaceConfig,
            checked=_checked,
            shown=_as_it_is,
            changed=partial(self._changed, WORKSPACE),
            writing=writing,
        )

    async def find(self, user_id: str) -> UserProfile | None:
        """See `ports.Profiles.find`."""
        return await self._found(USER, user_id, self.get_profile)

    async def organization(self, id: str) -> OrganizationConfig | None:
        """See `ports.Directory.organization`."""
        return await self._found(ORGANIZATION, id, self._organization)

    async def workspace(self, id: str) -> WorkspaceConfig | None:
        """See `ports.Directory.workspace`."""
        return await self._found(WORKSPACE, id, self._workspace)

    def get_profile(self, user_id: str) -> UserProfile | None:
        """A stored user, with organisation and workspace as they are now."""
        return self._through(USER, user_id, self._read_user)

    def create_bulk(self, profiles: Sequence[UserProfile]) -> list[Kept[UserProfile]]:
        """Store new users, all or none, in one transaction. Raises `RowsError` naming every row
        that cannot be stored."""
        if len(profiles) > MAX_BULK:
            raise ValueError(f"{len(profiles)} users at once; at most {MAX_BULK}")
        return self.users.create(profiles)

    def users_of(self, tier: str) -> list[str]:
        """Who would miss a tier: the users that are stored on it. Reads every row: for a thread.

        Raises `StoreError`.
        """
        found: list[str] = []
        after: str | None = None
        while True:
            page = self.users.page(limit=MAX_PAGE, after=after)
            found += [f"user '{kept.item.id}'" for kept in page.rows if kept.item.tier == tier]
            after = page.after
            if after is None:
                return found

    def update_tier(
        self, user_id: str, tier: str | None, *, expected: Expected = "any"
    ) -> Kept[UserProfile]:
        """Move a stored user to another tier; the next call is under it."""
        return self.users.change(user_id, lambda user: replace(user, tier=tier), expected)

    async def _found(self, kind: bytes, id: str, read: Callable[[str], T | None]) -> T | None:
        """Out of the cache; else off the event loop."""
        if self._blank:
            return None
        known = self._cache.get((kind, id))
        if known is not None and known.until_ns > self._now_ns():
            found: T | None = known.item
            return found
        return await self._offload(partial(read, id))

    def _through(self, kind: bytes, id: str, read: Callable[[str], T | None]) -> T | None:
        """Out of the cache, or read and kept there unless something was changed meanwhile."""
        known = self._cache.get((kind, id))
        if known is not None and known.until_ns > self._now_ns():
            found: T | None = known.item
            return found
        changes = self._changes
        item = read(id)
        with self._caching:
            if changes == self._changes:
                self._cache.pop((kind, id), None)
                if len(self._cache) >= MAX_CACHED:
                    del self._cache[next(iter(self._cache))]
                self._cache[kind, id] = _Cached(item, self._now_ns() + self._ttl_ns)
        return item

    def _organization(self, id: str) -> OrganizationConfig | None:
        return self._through(ORGANIZATION, id, self.organizations.read)

    def _workspace(self, id: str) -> WorkspaceConfig | None:
        return self._through(WORKSPACE, id, self.workspaces.read)

    def _read_user(self, user_id: str) -> UserProfile | None:
        user = self.users.read(user_id)
        return None if user is None else self._joined(user)

    def _joined(self, user: UserProfile) -> UserProfile:
        """The user with whom it belongs to, as that is now. A workspace tells its organisation."""
        organization, workspace = user.organization, user.workspace
        if workspace is not None:
            workspace = self._workspace(workspace.id) or workspace
            if organization is None and workspace.organization_id is not None:
                organization = OrganizationConfig(organization_id=workspace.organization_id)
        if organization is not None:
            organization = self._organization(organization.id) or organization
        return replace(user, organization=organization, workspace=workspace)

    def _changed(self, kind: bytes, ids: Sequence[str]) -> None:
        """Forget what was known before a change. Whom it belongs to is part of every user."""
        with self._caching:
            self._changes += 1
            self._blank = False
            if kind != USER:
                self._cache.clear()
            for id in ids:
                self._cache.pop((kind, id), None)

    def _checked_user(self, user: UserProfile) -> UserProfile:
        """A user as it is stored: whom it belongs to only by name. Raises `ValueError`."""
        _checked(user)
        tiers = self.tiers() if self.tiers is not None else None
        if tiers is not None and user.tier is not None and user.tier not in tiers:
            names = ", ".join(tiers) or "none"
            raise ValueError(f"there is no tier {user.tier[:64]!r}; there are: {names}")
        if len(msgspec.json.encode(user.metadata)) > MAX_METADATA_BYTES:
            raise ValueError(f"metadata has more than {MAX_METADATA_BYTES} bytes")
        organization, workspace = user.organization, user.workspace
        if organization is not None:
            organization = _named(organization, self._organization)
        if workspace is not None:
            workspace = _named(workspace, self._workspace)
        return replace(user, organization=organization, workspace=workspace)


def _checked(item: Item) -> Item:
    """Raises `ValueError` for what no call could work with."""
    zone = _zone(item)
    # Where the system knows no zones at all, the ledger's own list is the judge.
    known = available_timezones() if zone is not None and zone != "UTC" else set()
    if zone is not None and known and zone not in known:
        raise ValueError(f"there is no time zone {zone[:64]!r}")
    return item


def _as_it_is(item: Item) -> Item:
    return item


def _zone(item: UserProfile | OrganizationConfig | WorkspaceConfig) -> str | None:
    match item:
        case UserProfile():
            budget = item.budget_overrides
        case OrganizationConfig():
            budget = item.shared_budget
        case WorkspaceConfig():
            budget = item.workspace_budget
    return budget.zone if budget is not None else None


def _named(given: Owner, stored: Callable[[str], Owner | None]) -> Owner:
    """Whom a user belongs to, by name alone. Raises `ValueError` where the user comes with other
    settings of it than are stored: those are changed in their own place."""
    bare = given.bare
    if given not in (bare, stored(given.id)):
        raise ValueError(
            f"{given.id!r} is stored with other settings: give its id alone here, and change the"
            " rest where organizations and workspaces are kept"
        )
    return bare
