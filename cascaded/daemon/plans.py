"""Tiers out of a database: read once at the start, and then in the background."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from cascaded.adapters.json_log import JsonLog
from cascaded.adapters.postgres import TierConfigGenerator
from cascaded.config import Config
from cascaded.daemon.errors import StartError
from cascaded.ports import Clock
from cascaded.state.plans import PlanRules, Plans
from cascaded.types.errors import PlansUnreadError


async def open_plans(
    config: Config, clock: Clock, log: JsonLog, random: Callable[[], float], stack: AsyncExitStack
) -> Plans | None:
    """The users of `[tiers_from_database]`, read once and then kept fresh; `None` without it.

    Raises `StartError` for a table that must be read at the start and cannot.
    """
    table = config.tiers_from_database
    if table is None:
        return None
    try:
        generator = TierConfigGenerator.from_database(
            table.connection.reveal(),
            table.mapping,
            table=table.table,
            max_rows=table.max_rows,
            timeout_s=table.timeout_s,
        )
        plans = Plans(
            generator.read,
            PlanRules(
                tiers=tuple(config.tiers),
                default_tier=config.access.default_tier,
                unknown_tier=table.unknown_tier,
                max_rows=table.max_rows,
            ),
            clock,
            random=random,
            report=log.write,
            refresh_s=table.refresh_s,
            stale_after_s=table.stale_after_s,
        )
        await plans.start(required=table.required_at_start)
    except PlansUnreadError as error:
        raise StartError(f"tiers_from_database: {error}") from None
    await stack.enter_async_context(_kept_fresh(plans))
    return plans


@asynccontextmanager
async def _kept_fresh(plans: Plans) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        refreshing = group.create_task(plans.keep_fresh())
        try:
            yield
        finally:
            refreshing.cancel()
