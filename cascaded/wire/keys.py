"""Issued keys as they travel. Pure."""

import msgspec

from cascaded.types.ids import ID_WORDS, is_id
from cascaded.types.keys import IssuedKey
from cascaded.wire.money import moment
from cascaded.wire.money import read as read_body
from cascaded.wire.openai_chat import WireError

MAX_NAME_CHARS = 128
MAX_LIFE_S = 10 * 366 * 86_400


class IssueRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /keys`."""

    name: str
    """What people call it."""
    user_id: str | None = None
    """Whose calls it makes; by default the key is a user of its own."""
    tier: str | None = None
    organization_id: str | None = None
    workspace_id: str | None = None
    admin: bool = False
    """Whether it may administer."""
    expires_in_s: int | None = None
    """By default it does not expire."""


def read_issue(body: bytes) -> IssueRequest:
    """Raises `WireError`."""
    asked = read_body(body, IssueRequest)
    if not 0 < len(asked.name) <= MAX_NAME_CHARS or not asked.name.isprintable():
        raise WireError(f"name has 1 to {MAX_NAME_CHARS} printable characters", "name")
    for field in ("user_id", "organization_id", "workspace_id"):
        id = getattr(asked, field)
        if id is not None and not is_id(id):
            raise WireError(f"{field} has {ID_WORDS}", field)
    if asked.expires_in_s is not None and not 0 < asked.expires_in_s <= MAX_LIFE_S:
        raise WireError(f"expires_in_s is from 1 to {MAX_LIFE_S}", "expires_in_s")
    return asked


def key_row(key: IssuedKey, used_ns: int | None, now_ns: int) -> dict[str, object]:
    """A key as it may be shown to administrators: never its secret."""
    return {
        "id": key.id,
        "hint": key.hint,
        "name": key.name,
        "state": key.state(now_ns),
        "user_id": key.owner.user_id,
        "tier": key.owner.tier,
        "organization_id": key.owner.organization_id,
        "workspace_id": key.owner.workspace_id,
        "admin": key.admin,
        "created_at": moment(key.created_ns),
        "expires_at": moment(key.expires_ns),
        "revoked_at": moment(key.revoked_ns),
        "last_used_at": moment(used_ns),
    }
