"""The state folder: ledger, usage and audit logs, profiles, and who watches over them."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from msgspec.structs import asdict

from cascaded.adapters.json_log import JsonLog
from cascaded.adapters.lmdb_store import LmdbStore, read_through
from cascaded.config import Config, schema
from cascaded.daemon.errors import LedgerLostError, StartError
from cascaded.daemon.every import Every
from cascaded.ports import Clock, Offload
from cascaded.state.audit_log import AuditLog
from cascaded.state.backup import Copy
from cascaded.state.keys import KeyRing
from cascaded.state.ledger import DurableLedger
from cascaded.state.overrides import StoredOverrides
from cascaded.state.profiles import ProfileManager
from cascaded.state.usage_log import UsageLog
from cascaded.types.errors import LedgerFaultError, LedgerOpenError, StoreError

LEDGER, LOGS, PROFILES = "ledger", ("usage", "audit"), "profiles"
OVERRIDES, KEYS = "overrides", "keys"
"""The folders of the state folder."""
FLUSH_WITHIN_S = 10.0
"""What the logs get to write what they were told, before they are copied."""
WATCH_EVERY_S = 1.0
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
WRONG_CLOCKS = {
    "clock_behind_ns": "the clock was set back: calendar budgets wait until it has caught up",
    "clock_leap_ns": "the clock was set ahead: calendar budgets go on as if it had not been; a"
    " restart believes it",
}


def verify(folder: Path) -> dict[str, int]:
    """Read a whole state folder that no daemon has open, or a backup; what was found, by name.

    Raises `StartError` for the first thing that is damaged.
    """
    try:
        found = {f"ledger_{name}": n for name, n in DurableLedger.verify(folder / LEDGER).items()}
        stores = (*LOGS, PROFILES, OVERRIDES, KEYS)
        return found | {f"{name}_keys": read_through(folder / name) for name in stores}
    except (LedgerOpenError, StoreError) as error:
        raise StartError(f"{folder}: {error}") from None


async def open_ledger(
    config: schema.Ledger, log: JsonLog, lost: Callable[[], object], stack: AsyncExitStack
) -> DurableLedger:
    """Open the state folder; a crash's open holds are charged, and said."""
    try:
        folder, loop = state_folder(config) / LEDGER, asyncio.get_running_loop()
        ledger = DurableLedger.open(folder, loop, gate=config.gate)
    except LedgerOpenError as error:
        raise StartError(f"ledger.dir {config.dir}: {error}") from None
    watch = _LedgerWatch(ledger, state_folder(config) / LEDGER, log, lost)
    stack.callback(watch.close)
    stack.callback(Every(WATCH_EVERY_S, watch.look).cancel)
    recovered = ledger.recovered
    if recovered is not None:
        flush_ms = ledger.stats()["flush_at_start_ns"] / NS_PER_MS
        found = {**asdict(recovered), "gate": config.gate, "flush_ms": round(flush_ms, 3)}
        log.write("info", "ledger_open", dir=config.dir, **found)
    return ledger


def state_folder(config: schema.Ledger) -> Path:
    """The state folder: the ledger, and beside it the stores of the logs."""
    assert config.dir is not None  # the config's defaults fill it in
    return Path(config.dir)


def open_records(
    config: Config, clock: Clock, log: JsonLog, stack: AsyncExitStack
) -> tuple[UsageLog, AuditLog, dict[str, Copy]]:
    """The usage and audit logs, beside the ledger in stores of their own, and how each of them
    is copied."""

    def trouble(message: str) -> None:
        log.write("error", "records", message=message)

    try:
        stores = [LmdbStore(state_folder(config.ledger) / name) for name in LOGS]
        for store in stores:
            stack.callback(store.close)
        days = config.records.retention_days
        usage = UsageLog(stores[0], clock, report=trouble, retention_days=days)
        level = config.records.audit_level
        audit = AuditLog(stores[1], clock, report=trouble, level=level, retention_days=days)
    except StoreError as error:
        raise StartError(f"ledger.dir {config.ledger.dir}: {error}") from None
    stack.callback(usage.close)
    stack.callback(audit.close)
    copies: list[Copy] = [partial(_copy, usage, stores[0]), partial(_copy, audit, stores[1])]
    return usage, audit, dict(zip(LOGS, copies, strict=True))


def open_profiles(
    config: Config, clock: Clock, offload: Offload, stack: AsyncExitStack
) -> tuple[ProfileManager, Copy]:
    """Users, organisations and workspaces, in a store of their own, and how it is copied."""
    try:
        store = LmdbStore(state_folder(config.ledger) / PROFILES)
        stack.callback(store.close)
        profiles = ProfileManager(store, clock, offload)
    except StoreError as error:
        raise StartError(f"ledger.dir {config.ledger.dir}: {error}") from None
    return profiles, store.copy_to


def open_overrides(config: schema.Ledger, stack: AsyncExitStack) -> tuple[StoredOverrides, Copy]:
    """What was set at run time, and how it is copied."""
    try:
        store = LmdbStore(state_folder(config) / OVERRIDES)
        stack.callback(store.close)
        return StoredOverrides(store), store.copy_to
    except StoreError as error:
        raise StartError(f"ledger.dir {config.dir}: {error}") from None


def open_keys(
    config: schema.Ledger, clock: Clock, log: JsonLog, stack: AsyncExitStack
) -> tuple[KeyRing, Copy]:
    """The keys that were issued, and how they are copied."""

    def trouble(message: str) -> None:
        log.write("error", "records", message=message)

    try:
        store = LmdbStore(state_folder(config) / KEYS)
        stack.callback(store.close)
        ring = KeyRing(store, clock, report=trouble)
    except StoreError as error:
        raise StartError(f"ledger.dir {config.dir}: {error}") from None
    stack.callback(ring.close)
    return ring, store.copy_to


def _copy(kept: UsageLog | AuditLog, store: LmdbStore, folder: Path) -> None:
    """Copy a log with everything that it has been told up to now."""
    kept.flushed().result(FLUSH_WITHIN_S)
    store.copy_to(folder)


class _LedgerWatch:
    """Looks whether the ledger still works and its folder is still there, and says it once."""

    def __init__(
        self, ledger: DurableLedger, folder: Path, log: JsonLog, lost: Callable[[], object]
    ) -> None:
        self.open_ledger = ledger
        self._folder = folder
        self._id = _file_id(folder)
        self._log = log
        self._lost = lost
        self._why: str | None = None
        self._distrusted: str | None = None

    def look(self) -> None:
        """Tell of a fault that is new, and of a clock that is not believed."""
        why = self.open_ledger.fault()
        if why is None and _file_id(self._folder) != self._id:
            why = f"{self._folder} was deleted, moved or replaced while the daemon ran"
        if why is not None and self._why is None:
            self._say(why)
            self._lost()
        if why is None:
            self._look_at_clock()

    def _look_at_clock(self) -> None:
        stats = self.open_ledger.stats()
        found = next((name for name in WRONG_CLOCKS if stats[name]), None)
        if found != self._distrusted:
            self._distrusted = found
            if found is None:
                self._log.write("info", "clock_believed")
            else:
                seconds, why = stats[found] // NS_PER_S, WRONG_CLOCKS[found]
                self._log.write("warning", "clock_distrusted", message=why, seconds=seconds)

    def close(self) -> None:
        """Give the folder back. Raises `LedgerLostError` when not all of it is on the disk."""
        try:
            self.open_ledger.close()
        except LedgerFaultError as fault:
            if self._why is None:
                self._say(str(fault))
        if self._why is not None:
            raise LedgerLostError(f"the ledger works no more: {self._why}")

    def _say(self, why: str) -> None:
        self._why = why
        self._log.write("error", "ledger_lost", message=why)


def _file_id(path: Path) -> tuple[int, int] | None:
    """Device and inode; `None` for what is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
