"""What is valid and yet most likely not meant: limits that are never reached, open doors."""

import stat
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from cascaded.config.limits import tables
from cascaded.config.mistakes import KeyPath, Report, shown
from cascaded.config.relations import HOOK_URLS, is_loopback
from cascaded.config.schema import Config, Limits, Upstream
from cascaded.types.secret import Secret
from cascaded.types.tables import LimitTable

ModeOf = Callable[[Path], int]
"""A file's permission bits. Raises `OSError`."""
# Of each pair the first lies within the second, so that a larger limit on it is never reached. A
# week is not within a month.
_BUDGETS: Final = (
    ("daily_usd", "weekly_usd"),
    ("daily_usd", "monthly_usd"),
    ("daily_usd", "total_usd"),
    ("weekly_usd", "total_usd"),
    ("monthly_usd", "total_usd"),
)
_RATES: Final = tuple(
    pair
    for unit, windows in (
        ("requests", ("second", "minute", "hour", "day")),
        ("tokens", ("minute", "hour", "day")),
    )
    for pair in combinations([f"{unit}_per_{window}" for window in windows], 2)
)
_FILE: Final = "file:"


def note_warnings(config: Config, report: Report, file: Path | None, mode_of: ModeOf) -> None:
    """Note what is worth a second look in a sound configuration; `file` is where it stands."""
    if file is not None and _mode(file, mode_of) & stat.S_IWOTH:
        report.add((), "everybody on this machine may write this file", f"chmod o-w {file}")
    for path, secret in _secrets(config):
        _note_secret_file(path, secret, report, mode_of)
    for name, provider in config.providers.items():
        if isinstance(provider, Upstream):
            _note_open_line(("providers", name), provider, report)
    for name in HOOK_URLS:
        hook = getattr(config.hooks, name)
        url = urlsplit(hook.url if hook else "")
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            message = "whoever is on the way can read it, and answer in its place"
            report.add(("hooks", name, "url"), message, "https://")
    _note_open_socket(config, report)
    for path, table in tables(config.limits):
        _note_unreachable(path, table, report)
    for name, tier in config.tiers.items():
        _note_unreachable(("tiers", name), tier, report)


def _secrets(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Secret]]:
    """Every secret below, and where it stands."""
    if isinstance(value, Secret):
        yield path, value
    elif isinstance(value, tuple):
        for index, entry in enumerate(value):
            yield from _secrets(entry, (*path, index))
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _secrets(entry, (*path, key))
    elif isinstance(value, msgspec.Struct):
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        for name, key in names:
            yield from _secrets(getattr(value, name), (*path, key))


def _note_secret_file(path: KeyPath, secret: Secret, report: Report, mode_of: ModeOf) -> None:
    if not secret.source.startswith(_FILE):
        return
    file = Path(secret.source.removeprefix(_FILE))
    if _mode(file, mode_of) & stat.S_IRWXO:
        report.add(path, f"everybody on this machine may read {shown(str(file))}", "chmod 0600")


def _mode(file: Path, mode_of: ModeOf) -> int:
    try:
        return mode_of(file)
    except (OSError, ValueError):
        return 0  # what cannot be looked at is not known to be open


def _note_open_line(path: KeyPath, provider: Upstream, report: Report) -> None:
    url = urlsplit(provider.base_url)
    keyed = provider.keys or provider.forward_caller_key
    if keyed and url.scheme == "http" and not provider.uds and not is_loopback(url.hostname or ""):
        report.add((*path, "base_url"), "the key goes over the network in the clear", "https://")


def _note_open_socket(config: Config, report: Report) -> None:
    if config.server.socket_mode_bits & stat.S_IWOTH and not _limited(config.limits):
        message = "everybody on this machine may spend, and there are no limits"
        report.add(("server", "socket_mode"), message, '"0660" and socket_group, or [limits]')


def _limited(limits: Limits) -> bool:
    return any(table != LimitTable() for _, table in tables(limits))


def _note_unreachable(path: KeyPath, table: LimitTable, report: Report) -> None:
    for lesser, greater in (*_BUDGETS, *_RATES):
        low, high = getattr(table, lesser), getattr(table, greater)
        if low is not None and high is not None and low > high:
            message = f"it is never reached: {greater} is {high}"
            report.add((*path, lesser), message, f"at most {high}")
