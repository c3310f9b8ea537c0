"""The light client: `Client()` talks to the daemon of this host over its Unix socket."""

from cascaded.client.errors import (
    APIError,
    BudgetExceededError,
    CascadedError,
    DaemonUnreachableError,
    ProtocolError,
    RateLimitedError,
    StreamBrokenError,
)
from cascaded.client.results import (
    AuditEntry,
    AuditPage,
    Backup,
    CascadeResult,
    CascadeStreamChunk,
    Health,
    Summary,
)
from cascaded.client.sync import Client

__all__ = [
    "APIError",
    "AuditEntry",
    "AuditPage",
    "Backup",
    "BudgetExceededError",
    "CascadeResult",
    "CascadeStreamChunk",
    "CascadedError",
    "Client",
    "DaemonUnreachableError",
    "Health",
    "ProtocolError",
    "RateLimitedError",
    "StreamBrokenError",
    "Summary",
]
