"""The LLM cost-control sidecar.

Importing this package costs nothing: what it offers is loaded when it is first named.
"""

from importlib import import_module
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
        CreatedUsers,
        DaemonUnreachableError,
        Health,
        Hold,
        HoldResolvedError,
        LimitInfo,
        Metadata,
        ModelInfo,
        OrganizationsPage,
        ProtocolError,
        RateLimitedError,
        Readiness,
        Receipt,
        Reloaded,
        Share,
        StoredOrganization,
        StoredUser,
        StoredWorkspace,
        StreamBrokenError,
        Summary,
        ToolCall,
        UnresolvedHold,
        UsersPage,
        VersionError,
        WorkspacesPage,
    )
    from cascaded.state.profiles import ProfileManager
    from cascaded.types.profile import (
        BudgetConfig,
        ModelPreferences,
        OrganizationConfig,
        QualityPreferences,
        RateLimitConfig,
        UserProfile,
        WorkspaceConfig,
    )
    from cascaded.types.tiers import TIER_PRESETS, TierConfig

__all__ = [
    "TIER_PRESETS",
    "APIError",
    "AsyncClient",
    "AsyncHold",
    "AttemptInfo",
    "AuditEntry",
    "AuditPage",
    "Backup",
    "BackupPart",
    "Budget",
    "BudgetConfig",
    "BudgetExceededError",
    "CascadeResult",
    "CascadeStreamChunk",
    "CascadedError",
    "Check",
    "Client",
    "CreatedUsers",
    "DaemonUnreachableError",
    "Health",
    "Hold",
    "HoldResolvedError",
    "LimitInfo",
    "Metadata",
    "ModelInfo",
    "ModelPreferences",
    "OrganizationConfig",
    "OrganizationsPage",
    "ProfileManager",
    "ProtocolError",
    "QualityPreferences",
    "RateLimitConfig",
    "RateLimitedError",
    "Readiness",
    "Receipt",
    "Reloaded",
    "Share",
    "StoredOrganization",
    "StoredUser",
    "StoredWorkspace",
    "StreamBrokenError",
    "Summary",
    "TierConfig",
    "ToolCall",
    "UnresolvedHold",
    "UserProfile",
    "UsersPage",
    "VersionError",
    "WorkspaceConfig",
    "WorkspacesPage",
]

_ELSEWHERE = {
    "BudgetConfig": "cascaded.types.profile",
    "ModelPreferences": "cascaded.types.profile",
    "OrganizationConfig": "cascaded.types.profile",
    "ProfileManager": "cascaded.state.profiles",
    "QualityPreferences": "cascaded.types.profile",
    "RateLimitConfig": "cascaded.types.profile",
    "TIER_PRESETS": "cascaded.types.tiers",
    "TierConfig": "cascaded.types.tiers",
    "UserProfile": "cascaded.types.profile",
    "WorkspaceConfig": "cascaded.types.profile",
}
"""Names that are not the client's, and where they are."""


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module(_ELSEWHERE.get(name, "cascaded.client")), name)
    raise AttributeError(f"module 'cascaded' has no attribute {name!r}")
