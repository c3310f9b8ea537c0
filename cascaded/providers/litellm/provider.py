"""`LiteLLMProvider`: answers calls through one worker process.

The worker speaks chat completions on its socket, so the call itself is left to the client that
`connect` makes; this file adds the worker's life, and what a fault there means for the bill.
"""

import importlib.util
import os
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

import msgspec

from cascaded.ports import Call, Clock, Provider, ProviderTraits
from cascaded.providers.children.place import Place
from cascaded.providers.children.supervisor import Part, Patience, Supervisor
from cascaded.providers.litellm import worker
from cascaded.providers.litellm.worker import RUNTIME, Settings
from cascaded.types.errors import ProviderError
from cascaded.types.event import Event
from cascaded.types.secret import HIDDEN, Secret

COMMAND = (sys.executable, "-P", worker.__file__)
"""By path and without the working directory on Python's path: it may be anybody's."""

Connect = Callable[[str, Secret], Provider]
"""Makes an OpenAI-compatible client for a socket path and the key that its server wants."""


class _Told(msgspec.Struct):
    doubt: bool = False


class _Body(msgspec.Struct):
    error: _Told = msgspec.field(default_factory=_Told)


class LiteLLMProvider:
    """See `ports.Provider`."""

    def __init__(
        self,
        name: str,
        traits: ProviderTraits,
        *,
        environment: Mapping[str, Secret],
        options: Mapping[str, Secret],
        timeout_s: float,
        stem: Path,
        connect: Connect,
        clock: Clock,
        patience: Patience | None = None,
        command: Sequence[str] = COMMAND,
        environ: Mapping[str, str] = os.environ,
        runtime_there: Callable[[], bool] = lambda: importlib.util.find_spec(RUNTIME) is not None,
    ) -> None:
        """`environment`: variables for the worker alone; `options`: further arguments of its calls.
        `stem`: where its socket and its log are, without their endings, in a folder that belongs to
        this daemon alone. Raises `ValueError` when that is too long for a socket.
        """
        self.name = name
        self.traits = traits
        self._runtime_there = runtime_there

        def settings(socket: str, key: str) -> Settings:
            return Settings(
                parent_pid=os.getpid(),
                socket=socket,
                api_key=key,
                environment=_revealed(environment),
                options=_revealed(options),
                timeout_s=timeout_s,
            )

        self._place = Place(stem, command, environ, settings, f"litellm:{name}")
        part = Part(
            title=f"the LiteLLM worker of provider '{name}' (log: {self._place.log})",
            check=self._check,
            launch=self._place.launch,
            connect=lambda: connect(str(self._place.socket), self._place.key),
        )
        self._supervisor = Supervisor(part, clock, patience or Patience())
        self._hide = partial(_hidden, [*environment.values(), *options.values()])

    @property
    def pid(self) -> int | None:
        """The worker that runs now."""
        return self._supervisor.pid

    async def call(self, call: Call) -> AsyncGenerator[Event]:
        """See `ports.Provider.call`. The worker is started by the first call."""
        client = await self._supervisor.client()
        try:
            async with aclosing(client.call(call)) as events:
                async for event in events:
                    yield event
        except ProviderError as fault:
            raise self._meant(fault) from fault

    async def close(self) -> None:
        """End the worker."""
        await self._supervisor.stop()
        self._place.tidy()

    def _meant(self, fault: ProviderError) -> ProviderError:
        """What a fault of the worker's client means: its doubts are ours, and sellers have been
        seen to repeat the key that they refuse."""
        return ProviderError(
            fault.code,
            self._hide(fault.message),
            billing="unknown" if _in_doubt(fault.body) else fault.billing,
            status=fault.status,
            retry_after_s=fault.retry_after_s,
            body=self._hide(fault.body.decode(errors="replace")).encode(),
        )

    def _check(self) -> None:
        """Raises `ProviderError` for what no restart can mend."""
        if not self._runtime_there():
            raise ProviderError(
                "upstream_connect",
                f"provider '{self.name}' needs LiteLLM: `pip install 'cascaded[litellm]'`",
                billing="not_billed",
            )


def _revealed(secrets: Mapping[str, Secret]) -> dict[str, str]:
    return {name: secret.reveal() for name, secret in secrets.items()}


def _in_doubt(body: bytes) -> bool:
    try:
        return msgspec.json.decode(body, type=_Body).error.doubt
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _hidden(secrets: Sequence[Secret], text: str) -> str:
    for secret in secrets:
        value = secret.reveal()
        if value and value != secret.source:  # a literal is none
            text = text.replace(value, HIDDEN)
    return text
