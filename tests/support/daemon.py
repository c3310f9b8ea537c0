"""The real daemon in a thread of the test, on a socket in a temporary folder."""

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import openai
from aiohttp import web

from cascaded.api.server import Services
from cascaded.config import Config, load
from cascaded.daemon import running
from cascaded.daemon.generations import Generations
from tests.support.upstream import PATHS, Upstream, in_thread

CASCADE = """
[server]
socket = "{socket}"
drain_timeout_s = 2

[ledger]
dir = "{folder}/state"

[log]
file = "{folder}/log.jsonl"

[providers.fake]
kind = "openai_compatible"
base_url = "{url}/v1"
api_key = "env:FAKE_KEY"
max_retries = 1
backoff_s = 0.01
backoff_max_s = 2
connect_timeout_s = 0.6
first_token_timeout_s = 0.6
idle_timeout_s = 0.6
total_timeout_s = 4
breaker_failures = 0
logprobs = true

[models.cheap]
provider = "fake"
input_usd_per_mtok = "0.15"
output_usd_per_mtok = "0.60"
vocabulary = "o200k_base"

[models.strong]
provider = "fake"
input_usd_per_mtok = "2.50"
output_usd_per_mtok = "10"
vocabulary = "o200k_base"

[ladders.default]
rungs = ["cheap", "strong"]
threshold = 0.6
aliases = ["auto"]

[access]
trusted = ["uid:{uid}"]

[tiers.free]
[tiers.pro]
"""
"""A cascade over the scripted upstream. `{url}`, `{socket}`, `{folder}`
and `{uid}` are filled in; the test's own user is trusted."""


def read(text: str, **env: str) -> Config | list[str]:
    """A config, or what is wrong with it."""
    config = load(
        text,
        source_name="test.toml",
        env={"FAKE_KEY": "sk-upstream-secret", "XDG_RUNTIME_DIR": "/tmp", **env},
        read_file=lambda path: Path(path).read_bytes(),
    )
    return config if isinstance(config, Config) else [str(mistake) for mistake in config]


def parse(text: str, **env: str) -> Config:
    """A config that must be right."""
    config = read(text, **env)
    assert isinstance(config, Config), config
    return config


U = TypeVar("U", bound=Upstream)


class Daemon:
    """A running daemon and ways to talk to it."""

    def __init__(self, config: Config, generations: Generations, folder: Path) -> None:
        self.config = config
        self.generations = generations
        self.folder = folder
        self.socket = config.server.socket
        self._open: list[httpx2.Client] = []

    def http(self) -> httpx2.Client:
        return httpx2.Client(
            transport=httpx2.HTTPTransport(uds=self.socket), base_url="http://localhost", timeout=30
        )

    def tcp(self) -> httpx2.Client:
        """A client of its TCP door, whose port stands in its log."""
        [ready] = [line for line in self.log_lines().splitlines() if '"ready"' in line]
        return httpx2.Client(base_url=f"http://{json.loads(ready)['tcp']}", timeout=10)

    def sdk(self, **options: Any) -> openai.OpenAI:
        http_client = httpx2.Client(transport=httpx2.HTTPTransport(uds=self.socket))
        self._open.append(http_client)
        return openai.OpenAI(
            api_key="sk-caller",
            base_url="http://localhost/v1",
            http_client=http_client,
            **{"max_retries": 0, **options},
        )

    def async_sdk(self, **options: Any) -> openai.AsyncOpenAI:
        http_client = httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=self.socket))
        return openai.AsyncOpenAI(
            api_key="sk-caller",
            base_url="http://localhost/v1",
            http_client=http_client,
            **{"max_retries": 0, **options},
        )

    def close(self) -> None:
        """Close the clients that were handed out."""
        for client in self._open:
            client.close()

    @property
    def toml(self) -> str:
        """What a reload reads."""
        return (self.folder / "test.toml").read_text()

    @toml.setter
    def toml(self, text: str) -> None:
        (self.folder / "test.toml").write_text(text)

    def reload(self) -> httpx2.Response:
        """Read the configuration again."""
        with self.http() as client:
            return client.post("/reload")

    @property
    def services(self) -> Services:
        """What is in force now."""
        return self.generations.current()

    @property
    def spend(self) -> dict[str, int]:
        """Nano-dollars by state."""
        ledger: Any = self.services.pipeline.ledger
        spend: dict[str, int] = ledger.spend()
        return spend

    def log_lines(self) -> str:
        """The log so far, flushed."""
        return (self.folder / "log.jsonl").read_text()


@contextmanager
def upstream_server(upstream: U) -> Iterator[U]:
    """This upstream on a loopback port."""

    @asynccontextmanager
    async def serve(_: asyncio.Event) -> AsyncIterator[U]:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        for path in PATHS:
            app.router.add_post("/v1" + path, upstream.handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        upstream.url = f"http://127.0.0.1:{port}"
        try:
            yield upstream
        finally:
            await runner.cleanup()

    with in_thread(serve) as running_upstream:
        yield running_upstream


@contextmanager
def daemon_with(toml: str, *, url: str = "", **env: str) -> Iterator[Daemon]:
    """A daemon with this config."""
    with tempfile.TemporaryDirectory(prefix="cascaded-test-") as name:
        folder = Path(name)
        text = toml.replace("{socket}", f"{name}/d.sock").replace("{folder}", name)
        text = text.replace("{uid}", str(os.getuid()))
        file = folder / "test.toml"
        file.write_text(text.replace("{url}", url))
        config = parse(file.read_text(), **env)

        @asynccontextmanager
        async def serve(_: asyncio.Event) -> AsyncIterator[Daemon]:
            async with running(config, lambda: read(file.read_text(), **env)) as generations:
                yield Daemon(config, generations, folder)

        with in_thread(serve) as daemon, closing(daemon):
            yield daemon
