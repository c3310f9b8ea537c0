"""The LLM cost-control sidecar.

Importing this package costs nothing: the client is loaded when it is first named.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cascaded.client import (
        APIError,
        AsyncClient,
        AsyncHold,
        AttemptInfo,
        AuditEntry,
        AuditPage,
        Backup,
        BackupPart,
        Budget,
        BudgetExceededError,
        CascadedError,
        CascadeResult,
        CascadeStreamChunk,
        Check,
        Client,
        DaemonUnreachableError,
        Health,
        Hold,
        LimitInfo,
        Metadata,
        ModelInfo,
        ProtocolError,
        RateLimitedError,
        Readiness,
        Receipt,
        Reloaded,
        Share,
        StreamBrokenError,
        Summary,
        ToolCall,
        UnresolvedHold,
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
]


def __getattr__(name: str) -> object:
    if name in __all__:
        import cascaded.client

        return getattr(cascaded.client, name)
    raise AttributeError(f"module 'cascaded' has no attribute {name!r}")
