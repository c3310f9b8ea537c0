"""An upstream with OpenAI's batches of its own: files, batches, and a bill at half the price."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web

from tests.support.upstream import JSON, Says, Upstream, in_thread, whole


class BulkUpstream(Upstream):
    """Batches wait until `release` says that they may end."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, JSON] = {}
        self.billed: Counter[str] = Counter()
        """How often each call was answered in a batch, by its id."""
        self.released = False
        self.refuses = 0
        """How many submissions are refused."""
        self.mute = 0
        """How many submissions are taken, and not answered."""
        self.failing: set[str] = set()
        """Calls, by the end of their id, that get an error."""
        self.missing: set[str] = set()
        """Those that get nothing, once."""

    def release(self) -> None:
        """Answer what is there, and all that comes."""
        self.released = True

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        field = form["file"]
        assert isinstance(field, web.FileField)
        assert form["purpose"] == "batch"
        id = f"file-{len(self.files)}"
        self.files[id] = field.file.read()
        return web.json_response({"id": id, "object": "file"})

    async def create(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"].startswith("Bearer ")
        if self.refuses:
            self.refuses -= 1
            return web.json_response({"error": {"message": "not today"}}, status=429)
        asked = await request.json()
        id = f"batch_{len(self.batches)}"
        batch = {"id": id, "object": "batch", "status": "in_progress", **asked}
        self.batches[id] = batch
        if self.mute:
            self.mute -= 1
            await asyncio.sleep(3600)
        return web.json_response(batch)

    async def list(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": list(self.batches.values())[::-1]})

    async def retrieve(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        if batch["status"] == "in_progress" and self.released:
            self._end(batch, "completed")
        return web.json_response(batch)

    async def cancel(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        self._end(batch, "cancelled", most=1)
        return web.json_response(batch)

    async def content(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.match_info["id"]])

    def _end(self, batch: JSON, status: str, most: int | None = None) -> None:
        """Answer its calls, or only some."""
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        output, errors = [], []
        for line in lines[:most]:
            id, end = line["custom_id"], line["custom_id"].rpartition("-")[2]
            if end in self.missing:
                self.missing.remove(end)
                continue
            told: JSON = {"custom_id": id, "error": None}
            if end in self.failing:
                told["response"] = {"status_code": 400, "body": {"error": {"message": "no"}}}
                errors.append(told)
                continue
            self.billed[id] += 1
            body = whole(line["body"], Says())
            output.append({**told, "response": {"status_code": 200, "body": body}})
        batch["status"] = status
        for name, rows in (("output_file_id", output), ("error_file_id", errors)):
            if rows:
                batch[name] = f"{batch['id']}-{name}"
                self.files[batch[name]] = "\n".join(map(json.dumps, rows)).encode()


@contextmanager
def bulk_server() -> Iterator[BulkUpstream]:
    """One on a loopback port."""
    upstream = BulkUpstream()

    @asynccontextmanager
    async def serve(_: asyncio.Event) -> AsyncIterator[BulkUpstream]:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        add: Any = app.router.add_route
        add("POST", "/v1/chat/completions", upstream.handle)
        add("POST", "/v1/files", upstream.upload)
        add("GET", "/v1/files/{id}/content", upstream.content)
        add("POST", "/v1/batches", upstream.create)
        add("GET", "/v1/batches", upstream.list)
        add("GET", "/v1/batches/{id}", upstream.retrieve)
        add("POST", "/v1/batches/{id}/cancel", upstream.cancel)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield upstream
        finally:
            await runner.cleanup()

    with in_thread(serve) as running:
        yield running
