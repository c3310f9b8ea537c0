"""Responses that are kept: their folder, which is there from the first of them on."""

import asyncio
from contextlib import AsyncExitStack

from cascaded.adapters.json_log import JsonLog
from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.config import Config, schema
from cascaded.daemon.cache import SPARE, SPARE_BYTES
from cascaded.daemon.every import Every
from cascaded.daemon.state import state_folder
from cascaded.ports import Clock, Offload
from cascaded.state.responses import KeptResponses, ResponseRoom
from cascaded.types.errors import StoreError

RESPONSES = "responses"
"""Its folder in the state folder. Not part of backups."""
SWEEP_EVERY_S = 60.0


def open_responses(
    config: Config, clock: Clock, log: JsonLog, offload: Offload, stack: AsyncExitStack
) -> KeptResponses:
    """What is kept. Nothing is opened before somebody keeps or asks."""
    folder = state_folder(config.ledger) / RESPONSES
    most = SPARE * config.responses.max_bytes + SPARE_BYTES
    kept = KeptResponses(
        lambda: LmdbStore(folder, max_bytes=most),
        clock,
        offload,
        response_room(config.responses),
        there=folder.exists(),
    )
    tasks = set[asyncio.Task[None]]()

    async def sweep() -> None:
        try:
            await kept.sweep()
        except StoreError as error:
            log.write("error", "responses", message=str(error))

    def begin() -> None:
        if not tasks:
            task = asyncio.create_task(sweep())  # noqa: TID251  one at a time, ended below
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def end() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await offload(kept.close)

    stack.push_async_callback(end)
    stack.callback(Every(SWEEP_EVERY_S, begin).cancel)
    return kept


def response_room(settings: schema.Responses) -> ResponseRoom:
    """How much is kept, and for how long."""
    return ResponseRoom(
        ttl_s=settings.ttl_s,
        entry_bytes=settings.max_entry_bytes,
        per_owner=settings.max_per_owner,
        bytes=settings.max_bytes,
    )
