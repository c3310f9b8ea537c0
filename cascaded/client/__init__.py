"""The light client: `Client()` and `AsyncClient()` talk to the daemon of this host."""

from importlib import import_module
from typing import TYPE_CHECKING

from cascaded.client.errors import (
    APIError,
    BudgetExceededError,
    CascadedError,
    DaemonUnreachableError,
    HoldResolvedError,
    ProtocolError,
    RateLimitedError,
    StreamBrokenError,
    VersionError,
)
from cascaded.client.results import (
    AttemptInfo,
    AuditEntry,
    AuditPage,
    Backup,
    BackupPart,
    BatchError,
    BatchInfo,
    BatchPage,
    BatchResult,
    Budget,
    CacheChecked,
    CacheInfo,
    CascadeResult,
    CascadeStreamChunk,
    Check,
    Cleared,
    DeploymentInfo,
    Health,
    KeyInfo,
    KeyPage,
    LimitInfo,
    Metadata,
    ModelInfo,
    NewKey,
    Readiness,
    Receipt,
    Reloaded,
    SetLimits,
    Share,
    StreamConfig,
    Summary,
    TierInfo,
    ToolCall,
    UnresolvedHold,
)
from cascaded.client.sync import Client, Hold

if TYPE_CHECKING:
    from cascaded.client.aio import AsyncClient, AsyncHold
    from cascaded.client.stored import (
        CreatedUsers,
        OrganizationsPage,
        StoredOrganization,
        StoredUser,
        StoredWorkspace,
        UsersPage,
        WorkspacesPage,
    )

__all__ = [
    "APIError",
    "AsyncClient",
    "AsyncHold",
    "AttemptInfo",
    "AuditEntry",
    "AuditPage",
    "Backup",
    "BackupPart",
    "BatchError",
    "BatchInfo",
    "BatchPage",
    "BatchResult",
    "Budget",
    "BudgetExceededError",
    "CacheChecked",
    "CacheInfo",
    "CascadeResult",
    "CascadeStreamChunk",
    "CascadedError",
    "Check",
    "Cleared",
    "Client",
    "CreatedUsers",
    "DaemonUnreachableError",
    "DeploymentInfo",
    "Health",
    "Hold",
    "HoldResolvedError",
    "KeyInfo",
    "KeyPage",
    "LimitInfo",
    "Metadata",
    "ModelInfo",
    "NewKey",
    "OrganizationsPage",
    "ProtocolError",
    "RateLimitedError",
    "Readiness",
    "Receipt",
    "Reloaded",
    "SetLimits",
    "Share",
    "StoredOrganization",
    "StoredUser",
    "StoredWorkspace",
    "StreamBrokenError",
    "StreamConfig",
    "Summary",
    "TierInfo",
    "ToolCall",
    "UnresolvedHold",
    "UsersPage",
    "VersionError",
    "WorkspacesPage",
]


_LATE = {"AsyncClient": "aio", "AsyncHold": "aio"} | dict.fromkeys(
    (
        "CreatedUsers",
        "OrganizationsPage",
        "StoredOrganization",
        "StoredUser",
        "StoredWorkspace",
        "UsersPage",
        "WorkspacesPage",
    ),
    "stored",
)


def __getattr__(name: str) -> object:
    """What takes its time, asyncio and profiles, is loaded when it is first named."""
    if name in _LATE:
        return getattr(import_module(f"cascaded.client.{_LATE[name]}"), name)
    raise AttributeError(f"module 'cascaded.client' has no attribute {name!r}")
