"""`EmbeddedProvider`: answers calls with models that run here, one child process each.

A child speaks OpenAI's dialect on its socket, so the call itself is left to the client that
`connect` makes; this file adds the child's life, a bounded queue, and plain words when something
is missing.
"""

import asyncio
import contextlib
import importlib.util
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from cascaded.ports import Call, Clock, Provider, ProviderTraits
from cascaded.providers.children.place import Place
from cascaded.providers.children.supervisor import Part, Patience, Supervisor
from cascaded.providers.embedded import child
from cascaded.providers.embedded.child import RUNTIME, Settings
from cascaded.types.errors import ProviderError
from cascaded.types.event import Event
from cascaded.types.secret import Secret

CHILD_COMMAND = (sys.executable, "-P", child.__file__)
"""By path and without the working directory on Python's path: it may be anybody's."""
CONTEXT_TOKENS = 8_192
CODE_BUSY = "upstream_overloaded"
_TRUE = b"true"
_ONE = msgspec.Raw(b"1")

TRAITS = ProviderTraits(
    max_retries=2,
    # Long enough for a first restart, which a retry then sits out.
    backoff_s=0.25,
    bills_on_5xx=False,
    cancel_stops_billing=True,
    logprobs=True,
)

Connect = Callable[[str, Secret], Provider]
"""Makes an OpenAI-compatible client for a socket path and the key that its server wants."""


class EmbeddedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model to serve."""

    weights: Path
    """A GGUF file."""
    start: Literal["first_use", "boot"] = "first_use"
    context_tokens: int = CONTEXT_TOKENS
    """Room for prompt and answer of one request; memory grows with it."""
    slots: int = 1
    """Requests answered at the same time, each with a context of its own. Also the most `n` that
    a caller may ask for."""
    threads: int | None = None
    """By default one less than there are cores, and at least one: the daemon and its callers need
    one too, and threads of a model are slower than one thread where they have to share cores."""
    queue_max: int = 64
    """Requests that may wait for a slot; one more is turned away."""
    queue_timeout_s: float = 60.0
    """Longest wait for a slot."""


class EmbeddedProvider:
    """See `ports.Provider`."""

    def __init__(
        self,
        name: str,
        models: Mapping[str, EmbeddedModel],
        *,
        runtime_folder: Path,
        stem: str = "embedded",
        connect: Connect,
        clock: Clock,
        patience: Patience | None = None,
        command: Sequence[str] = CHILD_COMMAND,
        environ: Mapping[str, str] = os.environ,
        runtime_there: Callable[[], bool] = lambda: importlib.util.find_spec(RUNTIME) is not None,
    ) -> None:
        """`models` by what calls name as upstream. `runtime_folder` belongs to this daemon alone:
        it is made private, and sockets and logs are kept in it, their names beginning with `stem`.
        Raises `ValueError` when its path is too long for a socket.
        """
        self.name = name
        self.traits = TRAITS
        self._served = {
            upstream: _Served(
                upstream,
                model,
                Place(
                    runtime_folder / f"{stem}-{index}",
                    command,
                    environ,
                    partial(_settings, upstream, model),
                    f"embedded:{upstream}",
                ),
                connect,
                clock,
                patience or Patience(),
                runtime_there,
            )
            for index, (upstream, model) in enumerate(models.items())
        }

    def boot(self) -> None:
        """Begin to start the models that are wanted at boot, without waiting for them.

        Call it in the event loop. A model that cannot be started says so to its callers.
        """
        for served in self._served.values():
            if served.model.start == "boot":
                served.supervisor.want()

    def pids(self) -> dict[str, int]:
        """The children that run now, by model: for status and memory figures."""
        running = {name: served.supervisor.pid for name, served in self._served.items()}
        return {name: pid for name, pid in running.items() if pid is not None}

    async def call(self, call: Call) -> AsyncGenerator[Event]:
        """See `ports.Provider.call`."""
        served = self._served.get(call.model.upstream_name)
        if served is None:
            there = ", ".join(self._served) or "none"
            raise ProviderError(
                "upstream_refused",
                f"no embedded model '{call.model.upstream_name}' is configured (there are: "
                f"{there}): set the model's `upstream_name` to one of them",
                billing="not_billed",
            )
        async with aclosing(served.answer(_fewer_logprobs(call))) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        """End all children."""
        for served in self._served.values():
            await served.supervisor.stop()
            served.place.tidy()


def _settings(name: str, model: EmbeddedModel, socket: str, key: str) -> Settings:
    return Settings(
        parent_pid=os.getpid(),
        name=name,
        weights=str(model.weights),
        socket=socket,
        api_key=key,
        context_tokens=model.context_tokens,
        slots=model.slots,
        threads=model.threads or max(1, _cores() - 1),
    )


class _Served:
    """One model: its child's supervisor and the queue before it."""

    def __init__(
        self,
        name: str,
        model: EmbeddedModel,
        place: Place,
        connect: Connect,
        clock: Clock,
        patience: Patience,
        runtime_there: Callable[[], bool],
    ) -> None:
        self.place = place
        self.model = model
        self._name = name
        self._runtime_there = runtime_there
        self._slots = asyncio.Semaphore(self.model.slots)
        self._inside = 0
        part = Part(
            title=f"embedded model '{name}' (log: {place.log})",
            check=self._check,
            launch=place.launch,
            connect=lambda: connect(str(place.socket), place.key),
        )
        self.supervisor = Supervisor(part, clock, patience)

    async def answer(self, call: Call) -> AsyncGenerator[Event]:
        """The child's events. Raises `ProviderError`."""
        async with self._turn():
            client = await self.supervisor.client()
            try:
                async with aclosing(client.call(call)) as events:
                    async for event in events:
                        yield event
            except ProviderError as fault:
                raise ProviderError(
                    fault.code,
                    fault.message,
                    billing="not_billed",  # it runs here: nobody sends a bill
                    status=fault.status,
                    retry_after_s=fault.retry_after_s,
                    body=fault.body,
                ) from fault

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """A slot of a child that runs, waited for in a bounded queue."""
        if self._inside >= self.model.slots + self.model.queue_max:
            raise self._busy(f"{self._inside} requests are with it already")
        self._inside += 1
        try:
            await self.supervisor.client()  # its start does not count as waiting in the queue
            await self._take_slot()
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._inside -= 1

    async def _take_slot(self) -> None:
        try:
            async with asyncio.timeout(self.model.queue_timeout_s):
                await self._slots.acquire()
        except TimeoutError:
            waited = f"{self.model.queue_timeout_s:g} s"
            raise self._busy(f"it had no time for this request in {waited}") from None

    def _busy(self, words: str) -> ProviderError:
        return ProviderError(
            CODE_BUSY,
            f"embedded model '{self._name}' is busy: {words}",
            billing="not_billed",
            retry_after_s=1.0,
        )

    def _check(self) -> None:
        """Raises `ProviderError` for what no restart can mend."""
        name = self._name
        if not self._runtime_there():
            raise _missing(f"'{name}' needs llama.cpp: `pip install 'cascaded[embedded]'`")
        if not self.model.weights.is_file():
            raise _missing(
                f"the weights of '{name}' are not at {self.model.weights}: "
                f"`cascaded models pull {name}`"
            )


def _missing(words: str) -> ProviderError:
    return ProviderError("upstream_connect", words, billing="not_billed")


def _fewer_logprobs(call: Call) -> Call:
    """Ask for one alternative a token where the caller did not say: the runtime would send 20."""
    fields = call.fields
    wanted = fields.get("logprobs")
    if wanted is None or bytes(wanted) != _TRUE or "top_logprobs" in fields:
        return call
    return msgspec.structs.replace(call, fields={**fields, "top_logprobs": _ONE})


def _cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
