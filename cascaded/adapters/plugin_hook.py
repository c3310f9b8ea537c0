"""Hooks and guardrails that are Python: what an installed package offers as an entry point."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import entry_points
from queue import SimpleQueue
from typing import Any, TypeVar

from cascaded.types.errors import HookError
from cascaded.types.guarding import Place
from cascaded.types.hooks import EnforcementContext, HookKind, HookTerms, Point

GROUP = "cascaded.hooks"
"""The group of entry points."""
GUARDRAILS = "cascaded.guardrails"
"""That of guardrails."""
THREADS = 4
"""For one plug-in's synchronous hooks: so many run at once, the others wait within their
deadlines."""
METHODS: dict[Point, str] = {
    "budget_check": "on_budget_check",
    "model_filter": "on_model_filter",
    "budget_warning": "on_budget_warning",
}
_Job = Callable[[], None]
T = TypeVar("T")


class PluginError(Exception):
    """There is no such plug-in, or it cannot be used; the message says why."""


def load_plugin(name: str, terms: HookTerms) -> "PluginHook":
    """The plug-in of this name: a module or an object with any of the three hooks, or a class,
    which is called for one. Raises `PluginError`."""
    return _loaded(GROUP, name, lambda offered: PluginHook(name, offered, terms))


def load_guardrail(name: str) -> "PluginGuardrail":
    """The guardrail of this name: a module, an object or a class as above, with `check`. Raises
    `PluginError`."""
    return _loaded(GUARDRAILS, name, lambda offered: PluginGuardrail(name, offered))


def _loaded(group: str, name: str, make: Callable[[object], T]) -> T:
    found = tuple(entry_points(group=group, name=name))
    if len(found) != 1:
        many = f"{len(found)} installed packages offer" if found else "no installed package offers"
        raise PluginError(f"{many} the entry point '{name}' of group '{group}'")
    try:
        offered = found[0].load()
        return make(offered() if inspect.isclass(offered) else offered)
    except PluginError:
        raise
    except Exception as fault:
        named = isinstance(fault, ImportError | AttributeError)
        why = fault if named else type(fault).__name__
        raise PluginError(f"'{name}' ({found[0].value}) cannot be loaded: {why}") from fault


class PluginHook:
    """A `ports.Hook` in this process. Coroutine functions run on the loop and must not block it;
    all others run on threads. A thread whose time is up goes on, unheard."""

    kind: HookKind = "plugin"

    def __init__(self, name: str, plugin: object, terms: HookTerms) -> None:
        self.name = name
        self.terms = terms
        self._calls: dict[Point, Callable[..., Any]] = {
            point: getattr(plugin, method)
            for point, method in METHODS.items()
            if callable(getattr(plugin, method, None))
        }
        if not self._calls:
            raise PluginError(f"'{name}' has none of {', '.join(METHODS.values())}")
        self.points = frozenset(self._calls)
        self._threads = _Threads(f"hook-{name}")

    async def ask(
        self, point: Point, context: EnforcementContext, models: tuple[str, ...]
    ) -> object:
        """See `ports.Hook.ask`."""
        arguments = (context, models) if point == "model_filter" else (context,)
        return await _called(self._threads, self._calls[point], arguments)

    async def close(self) -> None:
        """Let the threads end, those that hang with the process."""
        self._threads.close()


class PluginGuardrail:
    """A `ports.CustomGuardrail` in this process; runs as hooks do."""

    def __init__(self, name: str, plugin: object) -> None:
        check = getattr(plugin, "check", None)
        if not callable(check):
            raise PluginError(f"'{name}' has no check")
        self.name = name
        self._check: Callable[..., Any] = check
        self._threads = _Threads(f"guardrail-{name}")

    async def check(self, text: str, place: Place) -> object:
        """See `ports.CustomGuardrail.check`."""
        return await _called(self._threads, self._check, (text, place))

    async def close(self) -> None:
        """Let the threads end, those that hang with the process."""
        self._threads.close()


async def _called(
    threads: "_Threads", call: Callable[..., Any], arguments: tuple[object, ...]
) -> object:
    """What it returns, on the loop or on a thread. Raises what it raises, but for what would end
    more than the call."""
    if not inspect.iscoroutinefunction(call):
        return await threads.run(lambda: call(*arguments))
    try:
        return await call(*arguments)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise HookError("CancelledError") from None
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as fault:
        raise HookError(type(fault).__name__) from None


class _Threads:
    """A few threads, begun when there is work, that a process does not wait for at its end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._free = asyncio.Semaphore(THREADS)
        self._jobs = SimpleQueue[_Job | None]()
        self._begun = 0

    async def run(self, work: Callable[[], object]) -> object:
        """The work's result, or what it raised. Only as much is queued as threads are free."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        ending = loop.create_future()

        def job() -> None:
            result, fault = None, None
            try:
                result = work()
            except BaseException as raised:  # also what no future takes, such as StopIteration
                fault = HookError(type(raised).__name__)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(done, result, fault)

        def done(result: object, fault: Exception | None) -> None:
            self._free.release()
            if ending.done():
                return  # its time was up
            if fault is None:
                ending.set_result(result)
            else:
                ending.set_exception(fault)

        if self._begun < THREADS:
            self._begun += 1
            name = f"{self._name}-{self._begun}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        self._jobs.put(job)
        return await ending

    def close(self) -> None:
        for _ in range(self._begun):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
