"""The exact cache: opened with the state, and made into what each configuration recalls by."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

from cascaded.adapters.json_log import JsonLog
from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.adapters.nothing import NoCache
from cascaded.adapters.prometheus import PrometheusMetrics
from cascaded.config import Config, schema
from cascaded.daemon.answerers import BATCHES
from cascaded.daemon.every import Every
from cascaded.daemon.state import state_folder
from cascaded.pipeline.flights import Flights
from cascaded.pipeline.recollection import Recollection
from cascaded.policy.caching import Upstream
from cascaded.ports import Cache, Clock, Offload
from cascaded.state.caches.exact import ExactCache, Room
from cascaded.types.errors import StoreError
from cascaded.types.recalled import CacheFigures

CACHE = "cache"
"""Its folder in the state folder. Not part of backups: what is in it can be bought again."""
SWEEP_EVERY_S = 10.0
SPARE = 2
"""How many times its bound the cache's file may grow: pages are not filled to the brim."""
SPARE_BYTES = 64 * 1024 * 1024


def open_cache(
    config: Config, clock: Clock, log: JsonLog, offload: Offload, stack: AsyncExitStack
) -> ExactCache:
    """The cache, with what is on the disk. Without a disk it is of memory alone, which is told:
    a cache is no reason not to serve."""

    def report(message: str) -> None:
        log.write("error", "cache", message=message)

    settings = config.cache
    room = Room(
        entries=settings.max_entries,
        entry_bytes=settings.max_entry_bytes,
        memory_bytes=settings.memory_bytes,
        bytes=settings.max_bytes,
    )

    def made(store: LmdbStore | None) -> ExactCache:
        cache = ExactCache(store, clock, offload, room=room, ttl_s=settings.ttl_s, report=report)
        stack.callback(cache.close)
        stack.callback(Every(SWEEP_EVERY_S, cache.sweep).cancel)
        return cache

    if not settings.disk:
        return made(None)
    folder = state_folder(config.ledger) / CACHE
    try:
        store = LmdbStore(folder, max_bytes=SPARE * settings.max_bytes + SPARE_BYTES)
        stack.callback(store.close)
        return made(store)
    except StoreError as error:
        report(f"{error}; answers are kept in memory alone. Stop the daemon and delete {folder}")
        return made(None)


def recollection(config: Config, cache: ExactCache, flights: Flights, clock: Clock) -> Cache:
    """What this configuration's calls recall by."""
    if not config.cache.enabled:
        return NoCache()
    return Recollection(
        cache,
        flights,
        upstreams=_upstreams(config.providers),
        wait_s=config.cache.wait_s,
        wall_ns=clock.wall_ns,
    )


def _upstreams(providers: Mapping[str, schema.Provider]) -> dict[str, Upstream]:
    """By name: what of each can change its answers."""
    places = ("base_url", "uds", "organization", "project", "options", "environment")
    named = {
        name: Upstream(
            place=repr([type(settings).__name__, *(getattr(settings, at, None) for at in places)]),
            forwards_key=getattr(settings, "forward_caller_key", False),
        )
        for name, settings in providers.items()
    }
    return named | {BATCHES.format(name): one for name, one in named.items()}


def watch_cache(metrics: PrometheusMetrics, figures: CacheFigures) -> None:
    """Its figures, as metrics."""
    for name, meaning in GAUGES.items():
        metrics.gauge(f"cascaded_cache_{name}", meaning, partial(getattr, figures, name))
    for name, meaning in COUNTERS.items():
        metrics.counter(f"cascaded_cache_{name}", meaning, partial(getattr, figures, name))


GAUGES = {
    "entries": "Answers that are kept.",
    "bytes": "Room that they take.",
    "memory_bytes": "Room that those in memory take.",
}
COUNTERS = {
    "hits": "Calls that were given an earlier answer.",
    "shared": "Hits that waited for an equal call under way.",
    "misses": "Calls that could have been given an earlier answer.",
    "stored": "Answers that were kept.",
    "evicted": "Answers that went for want of room.",
    "expired": "Answers that went because of their age.",
    "damaged": "Answers that could not be read.",
    "lost": "Answers that could not be written to the disk.",
}
