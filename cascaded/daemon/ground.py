"""What lives as long as the process, whatever configuration is in force: the clock, the log, the
ledger, the records, the metrics, and who waits."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cascaded.adapters.analysts import Analysts
from cascaded.adapters.deferred import DeferredSinks
from cascaded.adapters.json_log import JsonLog
from cascaded.adapters.offload import ThreadOffload
from cascaded.adapters.prometheus import PrometheusMetrics
from cascaded.adapters.systemd import Systemd
from cascaded.api.money import OutsideHolds
from cascaded.api.server import Status
from cascaded.api.waiting import Size, WaitingRoom
from cascaded.config import Config
from cascaded.daemon.cache import open_cache, watch_cache
from cascaded.daemon.chance import new_id
from cascaded.daemon.lag import watch_lag
from cascaded.daemon.responses import open_responses
from cascaded.daemon.state import (
    KEYS,
    LEDGER,
    LOGS,
    OVERRIDES,
    PROFILES,
    copy_ledger,
    open_batches,
    open_keys,
    open_ledger,
    open_overrides,
    open_profiles,
    open_records,
    state_folder,
)
from cascaded.daemon.telemetry import open_telemetry
from cascaded.jobs.batches import Batches
from cascaded.jobs.bulk import Bulks
from cascaded.jobs.commits import Commits
from cascaded.pipeline.afterwards import Afterwards, AfterwardsFigures
from cascaded.pipeline.flights import Flights
from cascaded.ports import Clock, Report
from cascaded.state.audit_log import AuditLog
from cascaded.state.backup import Copy
from cascaded.state.caches.exact import ExactCache
from cascaded.state.keys import KeyRing
from cascaded.state.ledger import DurableLedger
from cascaded.state.overrides import StoredOverrides
from cascaded.state.profiles import ProfileManager
from cascaded.state.responses import KeptResponses
from cascaded.state.usage_log import UsageLog
from cascaded.types.insight import Errand, ExportQuestion, Question
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Verdict

if TYPE_CHECKING:
    from cascaded.adapters.otel import Exporter

ANALYST = Path(__file__).with_name("analyst.py")
"""What answers long questions, run in a process of its own."""
MAX_ANALYSTS = 2
MAX_QUESTIONS_WAITING = 16


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What every generation of the configuration stands on."""

    clock: Clock
    log: JsonLog
    systemd: Systemd
    ledger: DurableLedger
    usage: UsageLog
    audit: AuditLog
    overrides: StoredOverrides
    keys: KeyRing
    copies: Mapping[str, Copy]
    """How each part of the state is copied, for backups."""
    sinks: DeferredSinks
    afterwards: Afterwards
    metrics: PrometheusMetrics
    telemetry: "Exporter | None"
    status: Status
    room: WaitingRoom
    holds: OutsideHolds
    offload: ThreadOffload
    upkeep: ThreadOffload
    """A backup takes its time, and long counts must not wait for it: a thread of its own."""
    lookups: ThreadOffload
    """And another one, so that no caller's profile waits for a count or a backup."""
    profiles: ProfileManager
    cache: ExactCache
    flights: Flights
    responses: KeptResponses
    analysts: Analysts
    exporters: Analysts
    """Exports take as long as their callers: they take no other question's place."""
    usage_folder: Path
    batches: Batches
    commits: Commits
    """Of the batches."""
    bulks: Bulks
    spool: ThreadOffload
    """Their disk, which may be slow."""

    def ask(self, question: Question) -> AbstractAsyncContextManager[Report]:
        """What a process of its own finds in the usage log. See `ports.Analyst`."""
        asked = self.exporters if isinstance(question, ExportQuestion) else self.analysts
        return asked.ask(msgspec.json.encode(Errand(str(self.usage_folder), question)))

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """The metrics, with every call that has ended."""
        self.sinks.hand_on()
        return self.metrics.scrape(accept)


def room_size(config: Config) -> Size:
    """How many calls this configuration takes on."""
    server = config.server
    return Size(server.max_concurrency, server.max_waiting, server.max_wait_s)


async def open_ground(
    config: Config,
    clock: Clock,
    log: JsonLog,
    systemd: Systemd,
    lost: Callable[[], object],
    stack: AsyncExitStack,
) -> Ground:
    """Open it all; the stack closes it. Raises `StartError`."""
    status = Status(since_ns=clock.monotonic_ns())
    ledger = await open_ledger(config.ledger, log, lost, stack)
    usage, audit, copies = open_records(config, clock, log, stack)
    overrides, copies[OVERRIDES] = open_overrides(config.ledger, stack)
    keys, copies[KEYS] = open_keys(config.ledger, clock, log, stack)
    metrics = PrometheusMetrics(ledger.spend)
    room = WaitingRoom(room_size(config), clock.monotonic_ns, metrics.waited)
    _watch(metrics, ledger, status, room, {"usage": usage, "audit": audit})
    stack.callback(watch_lag(clock, metrics.lag).cancel)
    telemetry = open_telemetry(config, clock, log, metrics, stack)
    afterwards = Afterwards(partial(_low, log))
    for name in AfterwardsFigures.__struct_fields__:
        metrics.counter(
            f"cascaded_afterwards_{name}",
            f'Answers of `validation = "async"`, looked at after they had gone out: {name}.',
            partial(getattr, afterwards.figures, name),
        )
    told = (metrics, log, usage, afterwards, *(() if telemetry is None else (telemetry,)))
    sinks = DeferredSinks(*told, report=log.fault)
    stack.callback(sinks.hand_on)
    offload, upkeep, lookups, recall, keeping, spool = (ThreadOffload() for _ in range(6))
    for threads in (offload, upkeep, lookups, recall, keeping, spool):
        stack.callback(threads.close)
    profiles, copy_profiles = open_profiles(config, clock, lookups, stack)
    cache = open_cache(config, clock, log, recall, stack)
    watch_cache(metrics, cache.figures)
    responses = open_responses(config, clock, log, keeping, stack)
    batches, commits = open_batches(config, log, spool, stack)
    return Ground(
        clock=clock,
        log=log,
        systemd=systemd,
        ledger=ledger,
        usage=usage,
        audit=audit,
        overrides=overrides,
        keys=keys,
        copies={**copies, PROFILES: copy_profiles, LEDGER: partial(copy_ledger, ledger)},
        sinks=sinks,
        afterwards=afterwards,
        metrics=metrics,
        telemetry=telemetry,
        status=status,
        room=room,
        holds={},
        offload=offload,
        upkeep=upkeep,
        lookups=lookups,
        profiles=profiles,
        cache=cache,
        flights=Flights(),
        analysts=Analysts(ANALYST, at_once=MAX_ANALYSTS, waiting=MAX_QUESTIONS_WAITING),
        exporters=Analysts(ANALYST, at_once=MAX_ANALYSTS, waiting=MAX_QUESTIONS_WAITING),
        usage_folder=state_folder(config.ledger) / LOGS[0],
        responses=responses,
        batches=batches,
        commits=commits,
        bulks=Bulks(
            stored=batches.stored,
            commits=commits,
            clock=clock,
            new_id=new_id,
            poll_s=config.batch.poll_s,
            report=lambda message: log.write("warning", "batches", message=message),
        ),
        spool=spool,
    )


def _watch(
    metrics: PrometheusMetrics,
    ledger: DurableLedger,
    status: Status,
    room: WaitingRoom,
    logs: Mapping[str, UsageLog | AuditLog],
) -> None:
    """Figures that others keep, as metrics."""
    metrics.disk(ledger.stats)
    metrics.budgets(partial(ledger.counters, "global"))
    metrics.gauge("cascaded_in_flight", "Requests under way.", lambda: status.in_flight)
    metrics.gauge("cascaded_waiting", "Calls that wait for a place.", lambda: room.waiting)
    metrics.gauge("cascaded_places", "Calls that may be at work at once.", lambda: room.size.places)
    for name, log in logs.items():
        metrics.counter(
            f"cascaded_{name}_records_lost",
            f"Records of the {name} log that could not be written.",
            partial(getattr, log, "dropped"),
        )


def _low(log: JsonLog, request: Request, line: Attempt, verdict: Verdict) -> None:
    """An answer has gone out that should not have been kept."""
    log.write(
        "warning",
        "low_quality",
        request_id=request.id,
        model=line.model.name,
        quality_score=verdict.score,
        confidence=verdict.confidence,
        failed=list(verdict.failed),
    )
