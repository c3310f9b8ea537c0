"""What the calls about users, organisations and workspaces answer. Loaded when one is made: most
programs make none."""

import msgspec

from cascaded.types.profile import (
    BudgetConfig,
    OrganizationConfig,
    RateLimitConfig,
    UserProfile,
    WorkspaceConfig,
)


class StoredUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user as the daemon keeps it."""

    user: UserProfile
    version: int
    """Give it back with a change, so that nobody's change in between is undone."""
    effective_budget: BudgetConfig | None = None
    """The profile's budgets over its tier's; only of `user`."""
    effective_rate_limits: RateLimitConfig | None = None


class UsersPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some users, by id."""

    users: tuple[StoredUser, ...]
    after: str | None = None
    """Give it back to read on; `None` at the end."""


class CreatedUsers(msgspec.Struct, frozen=True, kw_only=True):
    """Users that were created together."""

    created: int
    versions: tuple[int, ...] = ()
    """In their order."""


class StoredOrganization(msgspec.Struct, frozen=True, kw_only=True):
    """An organisation as the daemon keeps it."""

    organization: OrganizationConfig
    version: int


class OrganizationsPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some organisations, by id."""

    organizations: tuple[StoredOrganization, ...]
    after: str | None = None


class StoredWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace as the daemon keeps it."""

    workspace: WorkspaceConfig
    version: int


class WorkspacesPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some workspaces, by id."""

    workspaces: tuple[StoredWorkspace, ...]
    after: str | None = None
