"""The doors: where the daemon listens, and how it leaves."""

from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web

from cascaded.adapters.json_log import JsonLog
from cascaded.adapters.unix_socket import SocketError, listen
from cascaded.api.server import Services, application
from cascaded.daemon.errors import StartError
from cascaded.daemon.generations import Generations
from cascaded.daemon.idle import until_idle

LISTEN_BACKLOG = 4096
CANCEL_AFTER_S = 0.001
"""What the server waits after the drain before it cancels; 0 would mean for ever."""
SETTLE_WITHIN_S = 2.0
"""What cancelled calls get to hang up and settle."""


async def open_doors(
    generations: Generations, log: JsonLog, stack: AsyncExitStack
) -> dict[str, str]:
    """Listen on the Unix socket, and on loopback TCP where that is asked for; where they are.

    What is entered last is left first: the doors close, the calls under way drain, those that
    take too long are cancelled, and their settlements are waited for.
    """
    config, services = generations.now.config.server, generations.current()
    runner = web.AppRunner(
        application(generations.current),
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        keepalive_timeout=config.keepalive_timeout_s,
        shutdown_timeout=CANCEL_AFTER_S,
        max_line_size=config.max_header_bytes,
        max_field_size=config.max_header_bytes,
    )
    await runner.setup()
    stack.push_async_callback(until_idle, services.status, SETTLE_WITHIN_S)
    stack.push_async_callback(runner.cleanup)
    stack.push_async_callback(_drain, services, generations, log)
    try:
        listener = stack.enter_context(
            listen(
                Path(config.socket),
                mode=config.socket_mode_bits,
                group=config.socket_group,
                backlog=LISTEN_BACKLOG,
            )
        )
    except SocketError as error:
        raise StartError(str(error)) from None
    sites: list[web.BaseSite] = [web.SockSite(runner, listener, backlog=LISTEN_BACKLOG)]
    if config.tcp_address is not None:
        host, port = config.tcp_address
        sites.append(web.TCPSite(runner, host, port, backlog=LISTEN_BACKLOG))
    for site in sites:
        try:
            await site.start()
        except OSError as error:
            raise StartError(f"cannot listen on {site.name}: {error}") from None
        stack.push_async_callback(site.stop)
    tcp = [f"{host}:{port}" for host, port, *_ in runner.addresses[1:]]
    return {"socket": config.socket} | ({"tcp": tcp[0]} if tcp else {})


async def _drain(services: Services, generations: Generations, log: JsonLog) -> None:
    """Let the calls under way end, as long as the limit allows; the rest is then cancelled. Calls
    that still wait for a place are sent away."""
    status = services.status
    status.draining = True
    services.room.close()
    if not await until_idle(status, generations.now.config.server.drain_timeout_s):
        log.write("warning", "drain_cut_short", in_flight=status.in_flight)
