"""What limits, tiers and access ask of each other and of the rest."""

from collections.abc import Iterator, Mapping, Set
from functools import cached_property
from typing import Final
from zoneinfo import available_timezones

from cascaded.config.mistakes import KeyPath, Report, quoted_key, shown
from cascaded.config.schema import (
    MAX_SCOPE_ID_BYTES,
    Config,
    Limits,
    ScopeLimits,
)
from cascaded.config.toml import Node
from cascaded.types.quotas import MAX_BUDGETS, MAX_RATES, largest_call
from cascaded.types.tables import LimitTable, Tier

_KINDS: Final = ("organizations", "workspaces", "teams", "users", "tiers")
# Of each pair the first must not be above the second.
_SHARES: Final = (
    ("warn_threshold", "block_at"),
    ("degrade_at", "block_at"),
)
_NOT_NAMED: Final = ("uid:", "key:")
UTC: Final = "UTC"


def check_limits(config: Config, document: Node, report: Report) -> None:
    """Note every mistake of `[limits]`, `[tiers]` and `[access]` that no setting shows alone."""
    _LimitRelations(config, document, report).check()


class _LimitRelations:
    def __init__(self, config: Config, document: Node, report: Report) -> None:
        self._config = config
        self._report = report
        self._document = document
        self._tiers = self._names("tiers", config.tiers)

    def check(self) -> None:
        self._check_zone(("limits", "zone"), self._config.limits.zone)
        for path, table in tables(self._config.limits):
            self._check_table(path, table)
        for name, tier in self._config.tiers.items():
            self._check_tier(("tiers", name), tier)
        for name in self._config.limits.tiers.ids:
            self._check_tier_name(("limits", "tiers", "ids", name), name)
        self._check_ids()
        self._check_sizes()
        self._check_access()

    def _names(self, table: str, sound: Mapping[str, object]) -> set[str]:
        # A name counts even where its table has mistakes: those are told already.
        node = self._document.child(table)
        return {*sound, *(node.entries() if node else ())}

    # [limits]

    @cached_property
    def _zones(self) -> set[str]:
        return available_timezones()

    def _check_table(self, path: KeyPath, table: LimitTable) -> None:
        if table.zone is not None:
            self._check_zone((*path, "zone"), table.zone)
        for lesser, greater in _SHARES:
            low, high = getattr(table, lesser), getattr(table, greater)
            if low is not None and high is not None and low > high:
                self._report.add(
                    (*path, lesser), f"{low:g} is above {greater}", f"at most {high:g}"
                )

    def _check_zone(self, path: KeyPath, zone: str) -> None:
        if zone == UTC:
            return
        known = self._zones
        # Where the system knows no zones at all, the ledger's own list is the judge.
        if known and zone not in known:
            near = self._report.nearest(zone, sorted(known))
            expected = 'a time zone such as "Europe/Berlin" or "UTC"'
            self._report.add(path, f"there is no time zone {shown(zone)}", expected, near)

    def _check_ids(self) -> None:
        for kind in _KINDS:
            for id in getattr(self._config.limits, kind).ids:
                self._check_id(("limits", kind, "ids", id), id)
        for name, tag in self._config.limits.tags.items():
            for value in tag.values:
                self._check_id(("limits", "tags", name, "values", value), f"{name}={value}")

    def _check_id(self, path: KeyPath, id: str) -> None:
        length = len(id.encode())
        if length > MAX_SCOPE_ID_BYTES:
            self._report.add(
                path, f"the name has {length} bytes", f"at most {MAX_SCOPE_ID_BYTES} bytes"
            )

    def _check_sizes(self) -> None:
        """One call can be charged to so many limits at most."""
        limits = self._config.limits
        budgets, rates = largest_call(
            limits.scopes,
            limits.tag_quotas,
            [tier.tier(name).limits for name, tier in self._config.tiers.items()],
            {},
        )
        if budgets > MAX_BUDGETS or rates > MAX_RATES:
            self._report.add(
                ("limits",),
                f"one call can be charged to {budgets} budgets and {rates} rates (a burst is one"
                " more)",
                f"at most {MAX_BUDGETS} and {MAX_RATES} over all scopes that a call belongs to",
            )

    # [tiers.NAME]

    def _check_tier(self, path: KeyPath, tier: Tier) -> None:
        self._check_table(path, tier)
        whole = tier.tier(str(path[-1]))
        low, high = whole.default_quality_threshold, whole.max_quality_threshold
        if low is not None and high is not None and low > high:
            own, other = "default_quality_threshold", "max_quality_threshold"
            at = own if tier.default_quality_threshold is not None else other
            message = f"{own} {low:g} is above {other} {high:g}"
            self._report.add((*path, at), message, "the other way round")

    def _check_tier_name(self, path: KeyPath, name: str) -> None:
        if name not in self._tiers:
            near = self._report.nearest(name, sorted(self._tiers))
            self._report.add(
                path,
                f"there is no tier {shown(name)}",
                f"a name that has a table [tiers.{quoted_key(name)}]",
                near,
            )

    # [access]

    def _check_access(self) -> None:
        access = self._config.access
        if access.default_tier is not None:
            self._check_tier_name(("access", "default_tier"), access.default_tier)
        keys: Set[str] = self._config.server.tcp_keys.keys()
        for index, principal in enumerate(access.trusted):
            if not principal.startswith(_NOT_NAMED) and principal not in keys:
                self._report.add(
                    ("access", "trusted", index),
                    f"there is no {shown(principal)}",
                    '"uid:NUMBER", "key:ID", or a name of [server.tcp_keys]',
                    self._report.nearest(principal, sorted(keys)),
                )


def tables(limits: Limits) -> Iterator[tuple[KeyPath, LimitTable]]:
    """Every table of limits, and where it stands."""
    yield ("limits", "global"), limits.global_
    yield ("limits", "runs"), limits.runs
    for kind in _KINDS:
        known: ScopeLimits = getattr(limits, kind)
        yield ("limits", kind, "default"), known.default
        for id, table in known.ids.items():
            yield ("limits", kind, "ids", id), table
    for name, tag in limits.tags.items():
        yield ("limits", "tags", name, "default"), tag.default
        for value, table in tag.values.items():
            yield ("limits", "tags", name, "values", value), table
