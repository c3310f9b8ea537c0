"""The effective configuration, for people and programs. Secrets show as their references."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from cascaded.config.mistakes import KeyPath, dotted, quoted_key
from cascaded.config.origins import Origins
from cascaded.config.schema import Config
from cascaded.types.secret import Secret

_OVERRULED = {"threshold": "thresholds"}
"""Settings that say nothing beside another one."""


class _Entries(dict[str, Any]):
    """A table of tables with names of the operator's choice: an empty one says something too."""


def explain(config: Config, origins: Origins | None = None) -> str:
    """It as TOML that can be loaded again, and gives the same; with `origins` each line tells
    where its value comes from."""
    return "\n".join(_table(effective(config), (), origins)).strip() + "\n"


def rows(config: Config, origins: Origins) -> Iterator[dict[str, Any]]:
    """Every setting alone: its `key`, its `value`, and its `origin`."""
    for path, value in _leaves(effective(config), ()):
        yield {"key": dotted(path), "value": value, "origin": origins.of(path)}


def _leaves(settings: Mapping[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def effective(config: Config) -> dict[str, Any]:
    """It as plain data (`dict`, `list`, `str`, `int`, `float`, `bool`): amounts as exact decimal
    texts, secrets as references, settings without a value left out."""
    whole = plain(config)
    assert isinstance(whole, dict)
    return whole


def plain(value: object) -> Any:
    """One value as plain data."""
    if isinstance(value, msgspec.Struct):
        return _settings(value)
    if isinstance(value, Mapping):
        return _Entries({key: plain(entry) for key, entry in value.items()})
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.source if isinstance(value, Secret) else value


def _settings(struct: msgspec.Struct) -> dict[str, Any]:
    tag_field, tag = struct.__struct_config__.tag_field, struct.__struct_config__.tag
    settings: dict[str, Any] = {tag_field: tag} if tag_field else {}
    names = zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True)
    for name, key in names:
        value = getattr(struct, name)
        overruled = name in _OVERRULED and getattr(struct, _OVERRULED[name], None)
        if value is not None and not overruled:
            settings[key] = plain(value)
    return settings


def _table(
    settings: Mapping[str, Any],
    path: tuple[str, ...],
    origins: Origins | None,
    *,
    named: bool = False,
) -> Iterator[str]:
    scalars = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    if path and (scalars or named):
        yield f"\n[{'.'.join(map(_key, path))}]"
    for name, value in scalars.items():
        origin = f"  # {origins.of((*path, name))}" if origins else ""
        yield f"{_key(name)} = {toml_value(value)}{origin}"
    for name, value in settings.items():
        if isinstance(value, dict):
            named = isinstance(settings, _Entries)
            yield from _table(value, (*path, name), origins, named=named)


def toml_value(value: Any) -> str:
    """A plain value as TOML writes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return _string(value) if isinstance(value, str) else repr(value)


def _key(name: str) -> str:
    key = quoted_key(name)
    return key if key == name else _string(name)


def _string(text: str) -> str:
    """A TOML basic string: JSON's escapes, and one for the delete character."""
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")
