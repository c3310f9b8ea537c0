"""The light client: `Client()` and `AsyncClient()` talk to the daemon of this host."""

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
    Budget,
    CascadeResult,
    CascadeStreamChunk,
    Check,
    Health,
    LimitInfo,
    Metadata,
    ModelInfo,
    Readiness,
    Receipt,
    Reloaded,
    Share,
    Summary,
    ToolCall,
    UnresolvedHold,
)
from cascaded.client.sync import Client, Hold

if TYPE_CHECKING:
    from cascaded.client.aio import AsyncClient, AsyncHold

__all__ = [
    "APIError",
    "AsyncClient",
    "AsyncHold",
    "AttemptInfo",
    "AuditEntry",
    "AuditPage",
    "Backup",
    "BackupPart",
    "Budget",
    "BudgetExceededError",
    "CascadeResult",
    "CascadeStreamChunk",
    "CascadedError",
    "Check",
    "Client",
    "DaemonUnreachableError",
    "Health",
    "Hold",
    "HoldResolvedError",
    "LimitInfo",
    "Metadata",
    "ModelInfo",
    "ProtocolError",
    "RateLimitedError",
    "Readiness",
    "Receipt",
    "Reloaded",
    "Share",
    "StreamBrokenError",
    "Summary",
    "ToolCall",
    "UnresolvedHold",
    "VersionError",
]


def __getattr__(name: str) -> object:
    """The asynchronous half is loaded when it is first named: asyncio takes its time."""
    if name in ("AsyncClient", "AsyncHold"):
        from cascaded.client import aio

        return getattr(aio, name)
    raise AttributeError(f"module 'cascaded.client' has no attribute {name!r}")
