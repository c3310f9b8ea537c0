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
from cascaded.client.results import CascadeResult, CascadeStreamChunk, Health
from cascaded.client.sync import Client

__all__ = [
    "APIError",
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
]
