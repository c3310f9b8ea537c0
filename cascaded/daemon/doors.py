"""The doors: where the daemon listens, and how it leaves."""

import asyncio
import socket
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from aiohttp import web

from cascaded.adapters.http_protocol import CallerConnection
from cascaded.adapters.json_log import JsonLog
from cascaded.adapters.unix_socket import SocketError, listen
from cascaded.api.server import Status, application, goes_on, unreadable
from cascaded.api.table import ROUTES
from cascaded.config import schema
from cascaded.daemon.errors import StartError
from cascaded.daemon.generations import Generations
from cascaded.daemon.idle import until_idle

LISTEN_BACKLOG = 4096
HEAD_TIMEOUT_S = 30.0
"""What a connection gets for its first request's head."""
LINGER_S = 0.5
"""How long those who are connected are served on when somebody holds the door open for the next
daemon: each answer tells them to connect anew."""
CANCEL_AFTER_S = 0.001
"""What the server waits after the drain before it cancels; 0 would mean for ever."""
SETTLE_WITHIN_S = 2.0
"""What cancelled calls get to hang up and settle."""


async def open_doors(
    generations: Generations, door: socket.socket | None, log: JsonLog, stack: AsyncExitStack
) -> dict[str, str]:
    """Listen on the Unix socket (`door` where one was passed), and on loopback TCP where that is
    asked for; where they are.

    What is entered last is left first: the doors close, the calls under way drain, those that
    take too long are cancelled, and their settlements are waited for.
    """
    config, status = generations.now.config.server, generations.current().status
    runner = web.AppRunner(
        application(generations.current, ROUTES),
        handler_cancellation=True,
        shutdown_timeout=CANCEL_AFTER_S,
    )
    await runner.setup()
    assert runner.server is not None
    stack.push_async_callback(until_idle, status, SETTLE_WITHIN_S)
    stack.push_async_callback(runner.cleanup)
    stack.push_async_callback(_drain, status, generations, log, linger=door is not None)
    loop = asyncio.get_running_loop()
    answer = partial(
        CallerConnection,
        runner.server,
        loop=loop,
        head_timeout_s=HEAD_TIMEOUT_S,
        unreadable=partial(unreadable, generations.current),
        goes_on=goes_on,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=config.keepalive_timeout_s,
        max_line_size=config.max_header_bytes,
        max_field_size=config.max_header_bytes,
    )
    listener = stack.enter_context(door) if door else _listen(config, stack)
    server = await loop.create_server(answer, sock=listener, backlog=LISTEN_BACKLOG)
    stack.callback(server.close)
    places = {"socket": str(listener.getsockname())}
    if config.tcp_address is not None:
        host, port = config.tcp_address
        try:
            server = await loop.create_server(answer, host, port, backlog=LISTEN_BACKLOG)
        except OSError as error:
            raise StartError(f"cannot listen on {config.tcp}: {error.strerror}") from None
        stack.callback(server.close)
        places["tcp"] = "{}:{}".format(*server.sockets[0].getsockname())
    return places


def _listen(config: schema.Server, stack: AsyncExitStack) -> socket.socket:
    try:
        return stack.enter_context(
            listen(
                Path(config.socket),
                mode=config.socket_mode_bits,
                group=config.socket_group,
                backlog=LISTEN_BACKLOG,
            )
        )
    except SocketError as error:
        raise StartError(str(error)) from None


async def _drain(status: Status, generations: Generations, log: JsonLog, *, linger: bool) -> None:
    """Let the calls under way end, as long as the limit allows; the rest is then cancelled. Calls
    that still wait for a place are sent away."""
    limit_s = generations.now.config.server.drain_timeout_s
    status.draining = True
    if linger:
        status.handing_over = True
        await asyncio.sleep(min(LINGER_S, limit_s))
    status.refusing = True
    generations.current().room.close()
    if not await until_idle(status, limit_s):
        log.write("warning", "drain_cut_short", in_flight=status.in_flight)
    for task in status.left_behind:
        task.cancel()
