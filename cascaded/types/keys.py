"""API keys that the daemon issued, as they are kept: never the key itself."""

from typing import Literal

import msgspec

from cascaded.types.request import Owner

KeyState = Literal["active", "expired", "revoked"]


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key. Times are nanoseconds since the Unix epoch."""

    id: str
    """Its public name: 12 hex digits."""
    digest: bytes
    """SHA-256 of the key: the only proof of it that there is."""
    hint: str
    """What people recognise it by: its beginning and its end."""
    name: str
    """In the operator's words."""
    owner: Owner
    admin: bool = False
    created_ns: int
    expires_ns: int | None = None
    """`None` for never."""
    revoked_ns: int | None = None

    def state(self, now_ns: int) -> KeyState:
        """Whether it opens anything now."""
        if self.revoked_ns is not None:
            return "revoked"
        return "expired" if self.expires_ns is not None and self.expires_ns <= now_ns else "active"
