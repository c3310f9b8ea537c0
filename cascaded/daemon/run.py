"""A daemon from start to end, put together.

What lives as long as the process is in `ground`; what a configuration makes, and a reload
replaces, in `generation`; how one follows another in `generations`; where callers come in, in
`doors`.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import uvloop

from cascaded.adapters.clock import SystemClock
from cascaded.adapters.library_log import library_lines
from cascaded.adapters.systemd import PassedSocketError, Systemd
from cascaded.config import Config
from cascaded.daemon.batches import begin_batches
from cascaded.daemon.doors import open_doors
from cascaded.daemon.errors import StartError
from cascaded.daemon.every import Every
from cascaded.daemon.generations import SERVING, Generations, Reread
from cascaded.daemon.ground import open_ground
from cascaded.daemon.log import open_lines
from cascaded.daemon.plans import keep_plans

STDIN = 0
EXPIRE_EVERY_S = 5.0
WIND_UP_S = 15.0
"""What a stopping daemon may need after its drain, to settle and to write what it knows."""


def serve(config: Config, reread: Reread) -> None:
    """Run the daemon until SIGTERM or SIGINT; SIGHUP puts what `reread` gives in force.

    Raises `StartError`.
    """
    uvloop.run(_serve(config, reread))


async def _serve(config: Config, reread: Reread) -> None:
    stop, hangup = asyncio.Event(), asyncio.Event()
    try:
        systemd = Systemd(os.environ, pid=os.getpid())
    except PassedSocketError as error:
        raise StartError(str(error)) from None
    loop = asyncio.get_running_loop()
    terminal = os.isatty(STDIN)

    def hung_up() -> None:
        """It means a reload, unless the terminal that it was started from is gone."""
        (stop if terminal and not os.isatty(STDIN) else hangup).set()

    loop.add_signal_handler(signal.SIGHUP, hung_up)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with (
        running(config, reread, stop.set, systemd) as generations,
        asyncio.TaskGroup() as tasks,
    ):
        reloading = tasks.create_task(_reload_at(hangup, generations))
        await stop.wait()
        reloading.cancel()


async def _reload_at(hangup: asyncio.Event, generations: Generations) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        await generations.reload()


@asynccontextmanager
async def running(
    config: Config,
    reread: Reread | None = None,
    lost: Callable[[], object] = lambda: None,
    systemd: Systemd | None = None,
) -> AsyncIterator[Generations]:
    """A daemon that serves inside the block and drains at its end.

    `lost` is called when its ledger works no more: leave the block then, which raises
    `LedgerLostError`. Without `reread` a reload puts the same configuration in force again.
    """
    clock, systemd = SystemClock(), systemd or Systemd({}, pid=0)
    with open_lines(config.log, clock) as lines, library_lines(lines.log.write):
        log = lines.log
        async with AsyncExitStack() as stack:
            ground = await open_ground(config, clock, log, systemd, lost, stack)
            plans = await keep_plans(config, ground, None)
            if plans is not None:
                stack.push_async_callback(plans.close)
            generations = Generations(ground, lines, reread or (lambda: config), config, plans)
            stack.push_async_callback(generations.close)
            expiry = Every(EXPIRE_EVERY_S, lambda: generations.current().desk.expire())
            stack.callback(expiry.cancel)
            begin_batches(ground, generations, stack)
            doors = await open_doors(generations, systemd.door, log, stack)
            stack.callback(ground.batches.stop)
            ground.status.ready = True
            log.write("info", "ready", version=generations.current().version, **doors)
            systemd.ready(SERVING)
            if systemd.watchdog_s is not None:
                stack.callback(Every(systemd.watchdog_s / 2, systemd.alive).cancel)
            yield generations
            systemd.stopping(generations.now.config.server.drain_timeout_s + WIND_UP_S)
        log.write("info", "stopped")
