"""Keeps one child alive: starts it when it is wanted, and again, more and more slowly, when it
ends. Whoever needs it waits for at most one start, and never for a child that keeps crashing."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from cascaded.ports import Clock, Provider
from cascaded.providers.children.process import Child, StartError
from cascaded.types.errors import ProviderError
from cascaded.types.times import NS_PER_S


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait for a child. Seconds."""

    ready_timeout_s: float = 120.0
    """From start to ready; a large model on a slow disk takes long to load."""
    backoff_s: float = 0.5
    """Pause before the first restart; doubles with every failure in a row."""
    backoff_max_s: float = 60.0
    stable_s: float = 60.0
    """A child that lived this long is forgiven its earlier failures."""
    caller_wait_s: float = 2.0
    """Longest pause that a caller sits out; for a longer one he is told when to come back."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor needs to be told of its child."""

    title: str
    """What messages call it."""
    check: Callable[[], None]
    """Raises `ProviderError` when starting is pointless (no weights, no runtime)."""
    launch: Callable[[], Awaitable[Child]]
    """Start a child process. Raises `OSError`."""
    connect: Callable[[], Provider]
    """A client for the child that was launched last."""


class Supervisor:
    """One child's life. `stop` ends it."""

    def __init__(self, part: Part, clock: Clock, patience: Patience) -> None:
        self.starts = 0
        """How many child processes were started so far."""
        self.pid: int | None = None
        """The child that runs now."""
        self._part = part
        self._clock = clock
        self._patience = patience
        self._task: asyncio.Task[None] | None = None
        self._turn: asyncio.Future[Provider | ProviderError] | None = None
        """The start that is under way or comes next, or that has succeeded."""
        self._failures = 0
        self._fault: ProviderError | None = None
        self._retry_at_ns = 0
        self._client: Provider | None = None
        self._stopped = False

    def want(self) -> None:
        """Start supervising, unless it is so already. Does not wait."""
        if not self._stopped and (self._task is None or self._task.done()):
            self._turn = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run())  # noqa: TID251  owned: `stop` awaits it

    async def client(self) -> Provider:
        """A client for the running child. Raises `ProviderError` when there is none to be had."""
        self.want()
        if self._turn is None:
            raise self._error("it was stopped")
        pause_s = (self._retry_at_ns - self._clock.monotonic_ns()) / NS_PER_S
        if self._fault is not None and pause_s > self._patience.caller_wait_s:
            raise _again(self._fault, pause_s)
        # Shielded: one caller who gives up must not take the start from the others.
        outcome = await asyncio.shield(self._turn)
        if isinstance(outcome, ProviderError):
            raise _again(outcome, outcome.retry_after_s)
        return outcome

    async def stop(self) -> None:
        """End the child and the supervision, for good."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._resolve(self._error("it was stopped"))
        self._turn = None
        await self._hang_up()

    async def _run(self) -> None:
        try:
            while True:
                self._part.check()
                self._fault = await self._live()
                pause_s = self._pause_s()
                self._retry_at_ns = self._clock.monotonic_ns() + int(pause_s * NS_PER_S)
                await self._clock.sleep(pause_s)
                # Its calls have failed by now, so nobody is using the old client any more.
                await self._hang_up()
        except ProviderError as pointless:
            self._resolve(pointless)  # no pause: the next caller has it checked again
        finally:
            self._resolve(self._error("its supervision ended"))

    async def _live(self) -> ProviderError:
        """One child from start to end; how it ended. The next start is announced before that."""
        began_ns = self._clock.monotonic_ns()
        try:
            words = await self._start_and_wait()
        except (StartError, OSError) as trouble:
            words = str(trouble)
        finally:
            self.pid = None
        lived_s = (self._clock.monotonic_ns() - began_ns) / NS_PER_S
        stable = self._fault is None and lived_s >= self._patience.stable_s
        self._failures = 1 if stable else self._failures + 1
        fault = self._error(words, self._pause_s())
        self._resolve(fault)
        self._turn = asyncio.get_running_loop().create_future()
        return fault

    async def _start_and_wait(self) -> str:
        self.starts += 1
        child = await self._part.launch()
        try:
            await child.ready(self._patience.ready_timeout_s)
            self.pid = child.pid
            self._client = self._part.connect()
            self._fault = None
            self._resolve(self._client)
            return await child.ended()
        finally:
            await child.stop()

    def _resolve(self, outcome: Provider | ProviderError) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(outcome)

    def _pause_s(self) -> float:
        doubled = self._patience.backoff_s * 2.0 ** min(max(self._failures - 1, 0), 32)
        return min(doubled, self._patience.backoff_max_s)

    def _error(self, words: str, retry_after_s: float | None = None) -> ProviderError:
        times = f" ({self._failures} times in a row)" if self._failures > 1 else ""
        return ProviderError(
            "upstream_connect",
            f"{self._part.title} does not run{times}: {words}",
            billing="not_billed",
            retry_after_s=retry_after_s,
        )

    async def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _again(fault: ProviderError, retry_after_s: float | None) -> ProviderError:
    """The same fault, for one more caller: an exception is raised once."""
    return ProviderError(
        fault.code, fault.message, billing=fault.billing, retry_after_s=retry_after_s
    )
