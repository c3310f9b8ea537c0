"""The configuration in force, and how another takes its place while calls are under way."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol, TypeVar, get_args

from cascaded.api.server import Services
from cascaded.config import Config
from cascaded.daemon.errors import StartError
from cascaded.daemon.generation import Generation, make_generation
from cascaded.daemon.ground import Ground, room_size
from cascaded.daemon.idle import until_idle
from cascaded.daemon.log import Lines, close_stream, open_stream
from cascaded.daemon.plans import KeptPlans, keep_plans, watch_plans
from cascaded.daemon.responses import response_room
from cascaded.policy.limits import named_limits
from cascaded.policy.outages import State
from cascaded.policy.routing.balance import DeploymentState
from cascaded.ports import Provider
from cascaded.providers.embedded.provider import EmbeddedProvider
from cascaded.types.decision import Refusal
from cascaded.types.errors import LedgerFaultError
from cascaded.wire.upkeep import Reloaded

T = TypeVar("T")
Reread = Callable[[], Config | Sequence[str]]
"""Reads the whole configuration again; or every mistake in it, a line each. May wait for disks."""

SERVING = "serving"
HOLDS = " holds until a restart: restart the daemon, or put it back to what it was"
MAX_FORMER = 32
"""Configurations that live on for calls which began with them."""
FIXED_OF_SERVER = (
    "socket",
    "socket_mode",
    "socket_group",
    "tcp",
    "max_header_bytes",
    "keepalive_timeout_s",
)
"""Settings of `[server]` that the doors are opened with: they hold until a restart."""
FIXED_OF_CACHE = ("disk", "max_entries", "max_entry_bytes", "max_bytes", "memory_bytes")
"""Settings of `[cache]` that it is opened with."""
FIXED_OF_RESPONSES = ("max_bytes",)
"""Settings of `[responses]` that their folder is opened with."""
FIXED_TABLES = ("ledger", "records", "batch", "otel")
"""Tables that the state is opened with."""


class Generations:
    """One generation is in force; former ones live until their last call has ended."""

    def __init__(
        self,
        ground: Ground,
        lines: Lines,
        reread: Reread,
        config: Config,
        plans: KeptPlans | None,
    ) -> None:
        """Put the first one in force. Raises `StartError`."""
        self._ground = ground
        self._lines = lines
        self._reread = reread
        self._turn = asyncio.Lock()
        self._tasks = set[asyncio.Task[Any]]()
        self.now = make_generation(config, ground, None, self.reload, plans)
        self._living = [self.now]
        self._tell_limits(self.now)
        self._boot(self.now)
        watch_plans(ground.metrics, lambda: self.now.plans)
        ground.metrics.states(
            "cascaded_breaker",
            "1 for the state that each provider's breaker is in.",
            "provider",
            get_args(State),
            lambda: self.now.services.breakers(),
        )
        ground.metrics.small_models(lambda: self.now.small_models.figures())
        ground.metrics.states(
            "cascaded_deployment",
            "1 for the state that each place is in of the models that are served in several.",
            "deployment",
            get_args(DeploymentState),
            lambda: _deployment_states(self.now.services.deployments()),
        )
        self._own(ground.afterwards.work(lambda: self.now.scrutiny))

    def current(self) -> Services:
        """The services in force."""
        return self.now.services

    async def reload(self) -> Reloaded | Refusal:
        """Read and check the configuration again, and put it in force; or keep the old one whole
        and say why. One at a time; whoever asked may leave meanwhile."""
        return await asyncio.shield(self._own(self._reload()))

    async def _reload(self) -> Reloaded | Refusal:
        systemd = self._ground.systemd
        async with self._turn:
            systemd.reloading(self._ground.clock.monotonic_ns())
            try:
                outcome = await self._change()
            except Exception as fault:  # whatever it is, the old one serves on
                self._ground.log.fault("reload", fault)
                outcome = _kept([f"the daemon failed on it ({type(fault).__name__}); see its log"])
            systemd.ready(outcome.message if isinstance(outcome, Refusal) else SERVING)
        if isinstance(outcome, Refusal):
            self._ground.log.write("error", "reload_refused", **outcome.details)
        else:
            told = {"generation": outcome.generation, "changed": outcome.changed}
            self._ground.log.write("info", "reloaded", **told)
        return outcome

    async def close(self) -> None:
        """Close what all of them hold open. Their calls have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        owned = {id(one): one for each in self._living for one in _owned(each)}
        for one in owned.values():
            await one.close()

    async def _change(self) -> Reloaded | Refusal:
        config = await self._ground.offload(self._reread)
        if not isinstance(config, Config):
            return _kept(config)
        former = self.now
        fixed = fixed_changes(former.config, config)
        if fixed:
            return _kept([key + HOLDS for key in fixed])
        if len(self._living) > MAX_FORMER:
            return _kept([f"{MAX_FORMER} former ones still have calls under way: wait for them"])
        plans = former.plans
        try:
            plans = await keep_plans(config, self._ground, former.plans)
            make = partial(make_generation, config, self._ground, former, self.reload, plans)
            generation = await self._ground.offload(make)
            self._swap(generation)
        except Exception as error:
            if plans is not None and plans is not former.plans:
                await plans.close()
            if isinstance(error, StartError | LedgerFaultError):
                return _kept([str(error)])
            raise
        self._boot(generation)
        self._own(self._retire(former))
        tables = [
            name
            for name in Config.__struct_fields__
            if getattr(config, name) != getattr(former.config, name)
        ]
        return Reloaded(generation=generation.number, changed=tuple(tables))

    def _own(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)  # noqa: TID251  owned: `close` awaits it
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _swap(self, generation: Generation) -> None:
        """One batch of limits, then everything else, with nothing between them: no call sees a
        mixture. Raises `StartError`, `LedgerFaultError`; then nothing changed."""
        config = generation.config
        with ExitStack() as undo:
            stream = open_stream(config.log)
            undo.callback(close_stream, stream)
            self._tell_limits(generation)
            undo.pop_all()
        self._lines.turn_to(stream, config.log)
        self._living.append(generation)
        self.now = generation
        self._ground.room.resize(room_size(config))

    async def _retire(self, former: Generation) -> None:
        """Wait for its last call, then close whom nobody else needs."""
        await until_idle(former.services.tally)
        try:
            # Its calls brought its limits with them, and may have put them back in force.
            self._tell_limits(self.now)
            others = [each for each in self._living if each is not former]
            needed = {id(one) for each in others for one in _owned(each)}
            for one in _owned(former):
                if id(one) not in needed:
                    await one.close()
            self._living.remove(former)
        except Exception as fault:  # the others' calls go on
            self._ground.log.fault("reload", fault)

    def _tell_limits(self, generation: Generation) -> None:
        rulebook = generation.rulebook
        try:
            self._ground.ledger.set_limits(named_limits(rulebook.now.book), reload=True)
        except ValueError as error:
            raise StartError(f"limits: {error}") from None
        self._ground.cache.ttl_s = generation.config.cache.ttl_s
        self._ground.responses.room = response_room(generation.config.responses)
        self._ground.profiles.tiers = lambda: rulebook.now.book.tiers
        self._ground.audit.crossed = generation.hooks.crossed if generation.hooks else None

    def _boot(self, generation: Generation) -> None:
        for provider in _providers(generation):
            if isinstance(provider, EmbeddedProvider):
                provider.boot()
        generation.small_models.boot()


def fixed_changes(old: Config, new: Config) -> list[str]:
    """The settings, by name, that differ although they are fixed while the daemon runs."""
    fixed = {"server": FIXED_OF_SERVER, "cache": FIXED_OF_CACHE, "responses": FIXED_OF_RESPONSES}
    tables = fixed | {table: type(getattr(old, table)).__struct_fields__ for table in FIXED_TABLES}
    return [
        f"{table}.{key}"
        for table, keys in tables.items()
        for key in keys
        if getattr(getattr(old, table), key) != getattr(getattr(new, table), key)
    ]


class Closes(Protocol):
    """Whatever holds something open."""

    async def close(self) -> None:
        """Give it back."""
        ...


def _owned(generation: Generation) -> list[Closes]:
    """What is closed with the last generation that has it."""
    return [
        *_providers(generation),
        *generation.small_models.all,
        generation.customs,
        *(one for one in (generation.plans, generation.hooks) if one is not None),
    ]


def _providers(generation: Generation) -> list[Provider]:
    return [answerer.provider for answerer in generation.answerers.values()]


def _kept(mistakes: Sequence[str]) -> Refusal:
    return Refusal(
        code="config_invalid",
        message="The configuration was not changed: " + "; ".join(mistakes),
        details={"mistakes": list(mistakes)},
    )


def _deployment_states(rows: Iterable[Mapping[str, object]]) -> dict[str, str]:
    """Each place by a name that tells it from the others."""
    return {
        f"{row['model']}@{row['provider']}/{row['upstream_name']}": str(row["state"])
        for row in rows
    }
