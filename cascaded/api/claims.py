"""What a call says of whom it is for, in any of the places that clients put it."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from cascaded.types.request import Claims
from cascaded.wire.native import Who
from cascaded.wire.openai_chat import WireError

HEADERS = {
    "user_id": ("X-User-ID", "x-litellm-end-user-id", "Helicone-User-Id"),
    "user_tier": ("X-User-Tier",),
    "organization_id": ("X-Organization-ID",),
    "workspace_id": ("X-Workspace-ID",),
    "team_id": ("X-Team-ID",),
    "run_id": ("x-session-id", "Helicone-Session-Id"),
}
TAG_HEADERS = ("x-cascaded-tags", "x-litellm-tags")
NAMES = frozenset(name.lower() for names in (*HEADERS.values(), TAG_HEADERS) for name in names)


def from_headers(sent: Mapping[str, str], user: str | None = None) -> Claims:
    """The headers' claims; `user` is what the body says where they say nothing.

    Raises `WireError` for a header that is not printable text: it could be neither kept nor told.
    """
    if not any(name.lower() in NAMES for name in sent):
        return Claims(user_id=user)
    said = {field: _first(sent, names) for field, names in HEADERS.items()}
    tags = _tags(_first(sent, TAG_HEADERS) or "")
    return Claims(**{**said, "user_id": said["user_id"] or user}, tags=tags)


def _first(sent: Mapping[str, str], names: Sequence[str]) -> str | None:
    name = next((one for one in names if one in sent), None)
    if name is None:
        return None
    if not sent[name].isprintable():
        raise WireError(f"the header {name} is not printable text")
    return sent[name]


def with_body(claims: Claims, who: Who) -> Claims:
    """The claims of a native body over those of the headers."""
    context = who.context
    return replace(
        claims,
        user_id=who.user_id or (context and context.user_id) or claims.user_id,
        user_tier=who.user_tier or (context and context.tier) or claims.user_tier,
        organization_id=(context and context.organization) or claims.organization_id,
        tags={**claims.tags, **who.metadata},
    )


def _tags(header: str) -> dict[str, str]:
    """`name=value` pairs between commas; a bare name is its own value."""
    pairs = (part.strip().partition("=") for part in header.split(",") if part.strip())
    return {name: value or name for name, _, value in pairs}
