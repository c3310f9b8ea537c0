"""Batches: begun with the daemon, and given what they ask through."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from cascaded.api.lines import ask, check, in_bulk
from cascaded.daemon.answerers import bulk_apis
from cascaded.daemon.chance import new_id
from cascaded.daemon.every import Every
from cascaded.daemon.generations import Generations
from cascaded.daemon.ground import Ground
from cascaded.jobs.run import World
from cascaded.types.batch import Batch, Line

SWEEP_EVERY_S = 60.0


def begin_batches(ground: Ground, generations: Generations, stack: AsyncExitStack) -> None:
    """Take up every batch that has not ended, and look after their age."""
    batches = ground.batches

    def report(message: str) -> None:
        ground.log.write("error", "batches", message=message)

    def check_line(batch: Batch, line: Line) -> None:
        check(generations.current(), batch, line)

    apis = bulk_apis(generations.now.answerers)
    ground.bulks.resume(apis)
    charged = {
        hold.request_id: hold.hold
        for hold in ground.ledger.unresolved()
        if hold.state == "unknown" and ground.bulks.waits(hold.request_id)
    }
    batches.begin(
        World(
            stored=batches.stored,
            commits=ground.commits,
            clock=ground.clock,
            disk=ground.spool,
            ask=partial(ask, generations.current, charged),
            bulks=ground.bulks,
            offered=lambda: bool(bulk_apis(generations.now.answerers)),
            in_bulk=lambda line: in_bulk(generations.current(), line),
            check=check_line,
            places=asyncio.Semaphore(batches.stored.bounds.max_parallel),
            new_id=new_id,
            report=report,
        )
    )
    stack.push_async_callback(batches.close)
    stack.callback(Every(SWEEP_EVERY_S, batches.sweep).cancel)
