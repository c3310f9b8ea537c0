"""Tiers out of a database: read before a configuration is put in force, then in the background."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random

from cascaded.adapters.postgres import TierConfigGenerator
from cascaded.adapters.prometheus import PrometheusMetrics
from cascaded.config import Config
from cascaded.daemon.errors import StartError
from cascaded.daemon.ground import Ground
from cascaded.ports import Directory
from cascaded.state.plans import PlannedUsers, PlanRules, Plans
from cascaded.types.errors import PlansUnreadError


class KeptPlans:
    """The users of one `[tiers_from_database]`, kept fresh until `close`."""

    def __init__(self, plans: Plans, made_from: object) -> None:
        self.plans = plans
        self.made_from = made_from
        self._task = asyncio.create_task(plans.keep_fresh())  # noqa: TID251  owned: see `close`

    async def close(self) -> None:
        """Read no more."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def keep_plans(config: Config, ground: Ground, former: KeptPlans | None) -> KeptPlans | None:
    """What this configuration wants: nothing, the former ones where they still fit, or others,
    read once. Raises `StartError` for a table that must be read at the start and cannot."""
    table = config.tiers_from_database
    if table is None:
        return None
    rules = PlanRules(
        tiers=tuple(config.tiers),
        default_tier=config.access.default_tier,
        unknown_tier=table.unknown_tier,
        max_rows=table.max_rows,
    )
    if former is not None and former.made_from == (table, rules):
        return former
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
            rules,
            ground.clock,
            random=Random().random,
            report=ground.log.write,
            refresh_s=table.refresh_s,
            stale_after_s=table.stale_after_s,
        )
        await plans.start(required=table.required_at_start)
    except PlansUnreadError as error:
        raise StartError(f"tiers_from_database: {error}") from None
    return KeptPlans(plans, (table, rules))


def directory(config: Config, ground: Ground, kept: KeptPlans | None) -> Directory:
    """Who knows users: what is stored, and below it the table."""
    table = config.tiers_from_database
    if table is None or kept is None:
        return ground.profiles
    return PlannedUsers(ground.profiles, kept.plans.plan, table.budget_window)


def watch_plans(metrics: PrometheusMetrics, now: Callable[[], KeptPlans | None]) -> None:
    """Show how the table in force is read; zeros where there is none."""
    figures: dict[str, tuple[str, Callable[[Plans], float]]] = {
        "users": ("Users that the table of tiers names.", len),
        "age_seconds": ("Time since the table of tiers was last read well.", Plans.age_s),
        "failures": ("Readings of the table of tiers that failed.", lambda one: one.failures),
    }
    for name, (documentation, read) in figures.items():
        metrics.gauge(f"cascaded_tiers_{name}", documentation, _figure(now, read))


def _figure(
    now: Callable[[], KeptPlans | None], read: Callable[[Plans], float]
) -> Callable[[], float]:
    def figure() -> float:
        kept = now()
        return 0 if kept is None else read(kept.plans)

    return figure
