"""The doors: where the daemon listens, and how it leaves."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web

from cascaded.adapters.json_log import JsonLog
from cascaded.adapters.unix_socket import SocketError, listen
from cascaded.api.server import Services, Status, application
from cascaded.config import schema
from cascaded.daemon.errors import StartError

LISTEN_BACKLOG = 4096
DRAIN_POLL_S = 0.02
CANCEL_AFTER_S = 0.001
"""What the server waits after the drain before it cancels; 0 would mean for ever."""
SETTLE_WITHIN_S = 2.0
"""What cancelled calls get to hang up and settle."""


async def open_doors(
    config: schema.Server, services: Services, log: JsonLog, stack: AsyncExitStack
) -> dict[str, str]:
    """Listen on the Unix socket, and on loopback TCP where that is asked for; where they are.

    What is entered last is left first: the doors close, the calls under way drain, those that
    take too long are cancelled, and their settlements are waited for.
    """
    runner = web.AppRunner(
        application(services),
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        keepalive_timeout=config.keepalive_timeout_s,
        shutdown_timeout=CANCEL_AFTER_S,
        max_line_size=config.max_header_bytes,
        max_field_size=config.max_header_bytes,
    )
    await runner.setup()
    stack.push_async_callback(_until_idle, services.status, SETTLE_WITHIN_S)
    stack.push_async_callback(runner.cleanup)
    stack.push_async_callback(_drain, services.status, config.drain_timeout_s, log)
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


async def _drain(status: Status, seconds: float, log: JsonLog) -> None:
    """Let the calls under way end, as long as the limit allows; the rest is then cancelled."""
    status.draining = True
    if not await _until_idle(status, seconds):
        log.write("warning", "drain_cut_short", in_flight=status.in_flight)


async def _until_idle(status: Status, seconds: float) -> bool:
    """Wait until no call is under way; whether that came about in time."""
    try:
        async with asyncio.timeout(seconds):
            while status.in_flight:  # noqa: ASYNC110 (an event would cost every call)
                await asyncio.sleep(DRAIN_POLL_S)
    except TimeoutError:
        return False
    return True
