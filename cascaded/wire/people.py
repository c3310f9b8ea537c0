"""The routes of users, organisations and workspaces: `/users`, `/organizations`, `/workspaces`.
Pure.

Money is US dollars as an exact decimal, given as a JSON number or a string, told as a number.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from cascaded.types.kept import Expected, Kept, Page
from cascaded.types.profile import Stored, UserProfile
from cascaded.wire.openai_chat import WireError, check_text, explain_mistake

MAX_LISTED = 100
"""Rows that a refusal names."""
MAX_DIGITS = 18
"""Of a version."""
BULK = "users"
"""The member of `POST /users` that holds many."""

Item = TypeVar("Item", bound=Stored)

encode = msgspec.json.Encoder(decimal_format="number").encode
"""JSON with money as numbers, digit by digit."""
_loose = msgspec.json.Decoder(float_hook=Decimal).decode


class TierRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT /users/{id}/tier`; `null` leaves the tier to claims and the default."""

    tier: str | None


def read_item(body: bytes, shape: type[Item], id: str | None = None) -> Item:
    """One of them; `id` is that of the path, which the body may leave out. Raises `WireError`."""
    members = read_members(body)
    name = shape.__struct_fields__[0]
    if id is not None:
        members.setdefault(name, id)
        if members[name] != id:
            raise WireError(f"{name} is another than the path's; an id cannot be changed", name)
    return _typed(members, shape)


def read_users(body: bytes) -> tuple[list[UserProfile], dict[int, str]]:
    """The users of a bulk request, and what is wrong with those that are none, by row from 0.

    Raises `WireError` for a body that is no list of users.
    """
    members = read_members(body)
    rows = members[BULK]
    if not isinstance(rows, list) or len(members) > 1:
        raise WireError('give {"users": [ … ]} and nothing beside it', BULK)
    users: list[UserProfile] = []
    wrong: dict[int, str] = {}
    for row, one in enumerate(rows):
        try:
            users.append(_typed(one, UserProfile))
        except WireError as error:
            wrong[row] = str(error)
    return users, wrong


def read_members(body: bytes) -> dict[str, Any]:
    """A JSON object, its fractions exact. Raises `WireError`."""
    check_text(body)
    try:
        members = _loose(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(f"the body is not valid JSON: {error}") from None
    if not isinstance(members, dict):
        raise WireError("the body must be a JSON object")
    return members


def patched(item: Item, changes: Mapping[str, Any]) -> Item:
    """The item with these members replaced, object by object; `null` puts one back to its default
    (RFC 7396). Raises `WireError`."""
    return _typed(_merged(_loose(encode(item)), changes), type(item))


def _merged(old: object, changes: object) -> object:
    if not isinstance(changes, Mapping):
        return changes
    merged = dict(old) if isinstance(old, Mapping) else {}
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _typed(value: object, shape: type[Item]) -> Item:
    try:
        return msgspec.json.decode(encode(value), type=shape)
    except msgspec.ValidationError as error:
        raise WireError(*explain_mistake(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(str(error)) from None


def expected_version(if_match: str | None, if_none_match: str | None) -> Expected | None:
    """What the headers say of the version that is there; `None` for nothing. Raises `WireError`."""
    if if_none_match is not None:
        if if_none_match != "*" or if_match is not None:
            raise WireError("of If-None-Match only * is taken, without If-Match", "If-None-Match")
        return "absent"
    if if_match is None or if_match == "*":
        return "any" if if_match else None
    number = if_match.removeprefix('"').removesuffix('"')
    if not (number.isascii() and number.isdecimal() and len(number) <= MAX_DIGITS):
        raise WireError('If-Match must be a version such as "3", or *', "If-Match")
    return int(number)


def kept_row(name: str, kept: Kept[Item]) -> dict[str, object]:
    """One of them with its version."""
    return {name: kept.item, "version": kept.version}


def page_row(name: str, names: str, page: Page[Item]) -> dict[str, object]:
    """A page; `after` is what to ask for the next one, null at the end."""
    return {names: [kept_row(name, kept) for kept in page.rows], "after": page.after}


def rows_wrong(wrong: Mapping[int, str]) -> dict[str, object]:
    """Which rows of many cannot be stored, and why."""
    first = sorted(wrong.items())[:MAX_LISTED]
    return {
        "rows": [{"row": row, "message": message} for row, message in first],
        "more": len(wrong) - len(first),
    }
