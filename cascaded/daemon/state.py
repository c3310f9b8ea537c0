"""The state folder: ledger, usage and audit logs, profiles, and who watches over them."""

import asyncio
import os
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
from cascaded.jobs.batches import Batches
from cascaded.jobs.commits import Commits
from cascaded.ports import Clock, Offload
from cascaded.state.audit_log import AuditLog
from cascaded.state.backup import Copy
from cascaded.state.batches import StoredBatches
from cascaded.state.keys import KeyRing
from cascaded.state.ledger import DurableLedger
from cascaded.state.log_rows import DAY_NS
from cascaded.state.overrides import StoredOverrides
from cascaded.state.profiles import ProfileManager
from cascaded.state.usage_log import UsageLog
from cascaded.types.batch import Bounds
from cascaded.types.errors import LedgerFaultError, LedgerOpenError, StoreError
from cascaded.types.times import NS_PER_S

LEDGER, LOGS, PROFILES = "ledger", ("usage", "audit"), "profiles"
OVERRIDES, KEYS = "overrides", "keys"
BATCHES = "batches"
"""Not part of backups: a batch that is put back would ask again what was answered since."""
BATCH_SPARE = 2
"""How many times its bound that store may grow: pages are not filled to the brim."""
STORES = (*LOGS, PROFILES, OVERRIDES, KEYS)
"""The folders of the state folder: these, and the ledger's."""
FLUSH_WITHIN_S = 10.0
"""What the logs get to write what they were told, before they are copied."""
WATCH_EVERY_S = 1.0
NS_PER_MS = 1_000_000
WRONG_CLOCKS = {
    "clock_behind_ns": "the clock was set back: calendar budgets wait until it has caught up",
    "clock_leap_ns": "the clock was set ahead: calendar budgets go on as if it had not been; a"
    " restart believes it",
}
STAMP = "version"
"""The file that says how the state folder is laid out."""
VERSION = 1
"""The layout that this release writes. The ledger's records and the logs' rows have versions of
their own, and are read as they were written."""
STAGING = "restoring"
"""A folder in which a backup is put together before it takes the state's place."""


def verify(folder: Path) -> dict[str, int]:
    """Read a whole state folder that no daemon has open, or a backup; what was found, by name.

    Raises `StartError` for the first thing that is damaged.
    """
    try:
        found = {f"ledger_{name}": n for name, n in DurableLedger.verify(folder / LEDGER).items()}
        return found | {f"{name}_keys": read_through(folder / name) for name in STORES}
    except (LedgerOpenError, StoreError) as error:
        raise StartError(f"{folder}: {error}") from None


def version_of(folder: Path) -> int:
    """How a state folder is laid out; one from before there was a stamp is of the first version.

    Raises `StartError` for a stamp that is none.
    """
    try:
        return int((folder / STAMP).read_text())
    except FileNotFoundError:
        return 1
    except (OSError, ValueError) as error:
        raise StartError(f"{folder / STAMP} cannot be read: {error}") from None


def check_version(folder: Path) -> None:
    """Raises `StartError` for a state folder that this release cannot work on as it is."""
    found = version_of(folder)
    if found > VERSION:
        raise StartError(
            f"{folder} is laid out in version {found} and this release knows up to {VERSION}:"
            " start the release that wrote it, or a newer one"
        )
    if found < VERSION:
        raise StartError(
            f"{folder} is laid out in version {found}: make a copy of it, then run"
            " `cascaded state migrate`"
        )


def migrate(folder: Path) -> tuple[int, int]:
    """Bring a state folder to this release's layout; the version it had, and has.

    Raises `StartError`. There is one version yet, so none can be brought forward.
    """
    found = version_of(folder)
    if found < VERSION:
        raise StartError(
            f"{folder} is laid out in version {found}, which no release has written: look whether"
            f" {folder / STAMP} was changed by hand"
        )
    check_version(folder)
    return found, VERSION


def check_owner(folder: Path) -> None:
    """Raises `StartError` where files made here would not be the daemon's own."""
    try:
        owner = folder.stat().st_uid
    except OSError as error:
        raise StartError(f"{folder}: {error.strerror}") from None
    if owner != os.geteuid():
        raise StartError(f"{folder} belongs to user {owner}: run this as that user")


def _prepare(folder: Path) -> None:
    """See that the folder may be started on, and stamp it. Raises `StartError`."""
    if (folder / STAGING).exists():
        raise StartError(f"{folder}: a restore was cut off; run `cascaded state restore` again")
    check_version(folder)
    if (folder / LEDGER).exists():
        return  # a disk that is full holds no new stamp, and the ledger is found all the same
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / STAMP).write_text(f"{VERSION}\n")
    except OSError as error:
        raise StartError(f"ledger.dir {folder} cannot be written: {error.strerror}") from None


def advice(kind: str, folder: Path) -> str:
    """What to type about a ledger that does not open; empty where its own words are enough."""
    if kind == "gap":
        return f"\n  cascaded state gap --state {folder} --help"
    if kind == "damaged":
        return (
            f"\n  cascaded state restore BACKUP --state {folder}    (a backup of it)"
            f"\n  cascaded state cut --state {folder}               (what it would lose)"
        )
    return ""


async def open_ledger(
    config: schema.Ledger, log: JsonLog, lost: Callable[[], object], stack: AsyncExitStack
) -> DurableLedger:
    """Open the state folder; a crash's open holds are charged, and said."""
    folder = state_folder(config)
    _prepare(folder)
    try:
        loop = asyncio.get_running_loop()
        ledger = DurableLedger.open(folder / LEDGER, loop, gate=config.gate)
    except LedgerOpenError as error:
        advised = advice(error.kind, folder)
        raise StartError(f"ledger.dir {config.dir}: {error}{advised}") from None
    watch = _LedgerWatch(ledger, folder / LEDGER, log, lost)
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


def open_batches(
    config: Config, log: JsonLog, disk: Offload, stack: AsyncExitStack
) -> tuple[Batches, Commits]:
    """Batches and their files, none of them begun yet; and who writes for them."""
    bounds = Bounds(
        max_parallel=config.batch.max_parallel,
        max_lines=config.batch.max_lines,
        max_open=config.batch.max_open,
        max_user_bytes=config.batch.max_user_bytes,
        max_bytes=config.batch.max_bytes,
        keep_ns=config.batch.retention_days * DAY_NS,
    )
    try:
        folder = state_folder(config.ledger) / BATCHES
        store = LmdbStore(folder, max_bytes=BATCH_SPARE * config.batch.max_bytes)
        stack.callback(store.close)
        batches = Batches(StoredBatches(store, bounds), fault=log.fault)
    except StoreError as error:
        raise StartError(f"ledger.dir {config.ledger.dir}: {error}") from None
    return batches, Commits(store.put_many, disk)


def _copy(kept: UsageLog | AuditLog, store: LmdbStore, folder: Path) -> None:
    """Copy a log with everything that it has been told up to now."""
    kept.flushed().result(FLUSH_WITHIN_S)
    store.copy_to(folder)


def copy_ledger(ledger: DurableLedger, folder: Path) -> None:
    """Copy a ledger into a backup, with the stamp that says how the backup is laid out."""
    ledger.backup(folder)
    (folder.parent / STAMP).write_text(f"{VERSION}\n")


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
