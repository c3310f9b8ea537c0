"""What the daemon is measured against: an instant upstream, and a bare aiohttp pass-through."""

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import cast

import uvloop
from aiohttp import ClientSession, DummyCookieJar, UnixConnector, web

ANSWER = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "bench",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The capital of France is Paris."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 14, "completion_tokens": 8, "total_tokens": 22},
    }
).encode()
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    + str(len(ANSWER)).encode()
    + b"\r\n\r\n"
    + ANSWER
)


class InstantUpstream(asyncio.Protocol):
    """Answers every complete request at once with the same bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by duck type
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head, separator, rest = self.buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            length = _content_length(head)
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            self.transport.write(RESPONSE)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def upstream(path: str) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_unix_server(InstantUpstream, path)
    await server.serve_forever()


async def pass_through(path: str, upstream_path: str) -> None:
    """The floor of the stack: aiohttp in, decode, encode, aiohttp out, and the same back."""
    async with ClientSession(
        connector=UnixConnector(upstream_path), cookie_jar=DummyCookieJar()
    ) as session:

        async def handle(request: web.Request) -> web.Response:
            body = json.loads(await request.read())
            async with session.post(
                "http://upstream/v1/chat/completions",
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
            ) as response:
                answer = json.loads(await response.read())
            return web.Response(body=json.dumps(answer).encode(), content_type="application/json")

        await _serve(path, "/v1/chat/completions", handle)


async def json_handler(path: str) -> None:
    """The floor of a route that answers by itself: aiohttp in, decode, encode."""

    async def handle(request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        answer = json.dumps({"allowed": True, "asked": body}, separators=(",", ":"))
        return web.Response(body=answer.encode(), content_type="application/json")

    await _serve(path, "/check", handle)


async def _serve(
    path: str, route: str, handle: Callable[[web.Request], Awaitable[web.Response]]
) -> None:
    app = web.Application()
    app.router.add_post(route, handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, path, backlog=socket.SOMAXCONN).start()
    await asyncio.Event().wait()


Role = Callable[..., Coroutine[object, object, None]]
ROLES: dict[str, Role] = {"upstream": upstream, "pass-through": pass_through, "json": json_handler}

if __name__ == "__main__":
    role, *paths = sys.argv[1:]
    uvloop.run(ROLES[role](*paths))
