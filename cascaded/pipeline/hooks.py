"""The bracket around the operator's hooks: deadlines, defaults, and a word on what went wrong.

Whatever a hook does, a call gets an answer or the default that was stated for it.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar, get_args

from cascaded.policy.hooks import (
    NonsenseError,
    crossing_context,
    read_advice,
    read_models,
    unavailable,
)
from cascaded.policy.outages import NEVER, Breaker, Thresholds
from cascaded.ports import Clock, Hook, Ledger
from cascaded.types.decision import Refusal
from cascaded.types.errors import HookError
from cascaded.types.hooks import Action, Advice, EnforcementContext, Point
from cascaded.types.limits import Crossing, Receipt
from cascaded.types.times import NS_PER_S

T = TypeVar("T")
DAY_NS = 86_400 * NS_PER_S
MAX_REMEMBERED = 10_000
"""Answers that hold for a while; with one more all are forgotten."""
MAX_TOLD = 100_000
"""Thresholds that are known to have been told; with one more the oldest is forgotten."""
MAX_TELLING = 64
"""Warnings on their way at once; one more is dropped, counted and logged."""
OUTAGE = Thresholds(failures=3, open_ns=5 * NS_PER_S, max_open_ns=60 * NS_PER_S)
"""When a hook is left alone, so that one that is always late costs calls its deadline only now and
then. Until it is tried again its default holds."""
LAST_WORDS_S = 1.0
"""What warnings under way get when their hooks are closed."""
_SEVERITY = {action: place for place, action in enumerate(get_args(Action))}

Told = dict[tuple[object, ...], None]
"""Thresholds that hooks were told of, the oldest first."""
Count = Callable[[str, str, str], None]
"""(point, kind of hook, how it ended)."""
Report = Callable[..., object]
"""Writes a line to the log: level, event and its fields."""


class Hooks:
    """The hooks of one configuration, in order."""

    def __init__(
        self,
        hooks: Sequence[Hook],
        ledger: Ledger,
        clock: Clock,
        *,
        told: Told,
        report: Report,
        count: Count,
    ) -> None:
        """`told` outlives these hooks, so that a reload repeats no warning."""
        self.told = told
        self._hooks = hooks
        self._ledger = ledger
        self._clock = clock
        self._report = report
        self._count = count
        self._failing = set[tuple[str, Point]]()
        self._breakers = {
            (hook.name, point): Breaker(NEVER if point == "budget_warning" else OUTAGE)
            for hook in hooks
            for point in hook.points
        }
        self._known: dict[tuple[object, ...], tuple[int, object]] = {}
        self._telling = set[asyncio.Task[None]]()

    async def advise(self, context: EnforcementContext) -> list[Advice] | Refusal:
        """What they say of a call, the mildest first; nobody is asked after a `block`."""
        said: list[Advice] = []
        for hook in self._at("budget_check"):
            advice = await self._asked(hook, "budget_check", context, (), read_advice)
            if advice is None:
                if hook.terms.on_failure == "block":
                    return unavailable("budget_check")
                continue
            said.append(advice)
            if advice.action == "block":
                break
        return sorted(said, key=lambda advice: _SEVERITY[advice.action])

    async def filter(
        self, context: EnforcementContext, models: tuple[str, ...]
    ) -> tuple[str, ...] | Refusal:
        """Those of the models that all of them leave, in their order."""
        for hook in self._at("model_filter") if models else ():
            kept = await self._asked(hook, "model_filter", context, models, read_models)
            if kept is None:
                if hook.terms.on_failure == "block":
                    return unavailable("model_filter")
                continue
            if not kept.issubset(models):
                self._note(hook, "model_filter", "added models, which were ignored")
            models = tuple(model for model in models if model in kept)
        return models

    def crossed(self, receipt: Receipt, user_id: str) -> None:
        """Tell those who wait for it of the thresholds that a call has reached, off its way and
        once for each window. Never raises."""
        if not any(True for _ in self._at("budget_warning")):
            return
        for crossing in receipt.crossings:
            try:
                began = self._began(crossing)
            except Exception as fault:  # a ledger at fault: money is settled all the same
                self._report("warning", "hook_not_told", why=type(fault).__name__)
                return
            key = (crossing.scope, crossing.id, crossing.window, crossing.threshold_bp, began)
            if key in self.told:
                continue
            self.told[key] = None
            if len(self.told) > MAX_TOLD:
                del self.told[next(iter(self.told))]
            cost = receipt.posted + receipt.unknown
            self._warn(crossing_context(crossing, user_id, cost))

    async def close(self) -> None:
        """Let warnings under way end, for a moment; then close the hooks."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=LAST_WORDS_S)
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)
        for hook in self._hooks:
            await hook.close()

    def _at(self, point: Point) -> list[Hook]:
        return [hook for hook in self._hooks if point in hook.points]

    def _began(self, crossing: Crossing) -> int:
        """When the budget's window began; of one without a beginning, the day."""
        for counter in self._ledger.counters(crossing.scope, crossing.id):
            if counter.window == crossing.window and counter.starts_at_ns is not None:
                return counter.starts_at_ns
        return 0 if crossing.window == "total" else self._clock.wall_ns() // DAY_NS

    def _warn(self, context: EnforcementContext) -> None:
        for hook in self._at("budget_warning"):
            if len(self._telling) >= MAX_TELLING:
                self._failed(hook, "budget_warning", "dropped", "too many warnings at once")
                continue
            task = asyncio.create_task(self._tell(hook, context))  # noqa: TID251  see `close`
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, hook: Hook, context: EnforcementContext) -> None:
        await self._asked(hook, "budget_warning", context, (), lambda _: True)

    async def _asked(
        self,
        hook: Hook,
        point: Point,
        context: EnforcementContext,
        models: tuple[str, ...],
        read: Callable[[object], T],
    ) -> T | None:
        """Its answer, perhaps an earlier one; `None` where it gave none."""
        key = (hook.name, point, context.user_id, context.user_tier, models, read)
        found = self._known.get(key)
        if found is not None and found[0] > self._clock.monotonic_ns():
            self._count(point, hook.kind, "remembered")
            return found[1]  # type: ignore[return-value]  # its key names its reader
        breaker = self._breakers[hook.name, point]
        number = breaker.enter(self._clock.monotonic_ns())
        if number is None:
            self._count(point, hook.kind, "left_alone")
            return None
        try:
            answer = await self._answer(hook, point, context, models, read)
        except BaseException:
            breaker.unknown(number, self._clock.monotonic_ns())
            raise
        now_ns = self._clock.monotonic_ns()
        if answer is None:
            breaker.failed(number, now_ns, chance=1)
            return None
        breaker.answered(number, now_ns)
        if hook.terms.cache_s:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[key] = now_ns + int(hook.terms.cache_s * NS_PER_S), answer
        return answer

    async def _answer(
        self,
        hook: Hook,
        point: Point,
        context: EnforcementContext,
        models: tuple[str, ...],
        read: Callable[[object], T],
    ) -> T | None:
        """What it answers now; `None` where it gives none, which is counted and told."""
        try:
            async with asyncio.timeout(hook.terms.deadline_s):
                said = await hook.ask(point, context, models)
            answer = read(said)
        except TimeoutError:
            self._failed(hook, point, "late", "no answer within its deadline")
        except (NonsenseError, HookError) as error:
            self._failed(hook, point, "nonsense", str(error))
        except Exception as fault:  # whatever it is: the call has its default
            self._failed(hook, point, "failed", type(fault).__name__)
        else:
            self._answered(hook, point)
            return answer
        return None

    def _answered(self, hook: Hook, point: Point) -> None:
        self._count(point, hook.kind, "answered")
        if (hook.name, point) in self._failing:
            self._failing.discard((hook.name, point))
            self._report("info", "hook_recovered", hook=hook.name, point=point)

    def _failed(self, hook: Hook, point: Point, outcome: str, why: str) -> None:
        """Counted each time; a line when it begins. Never the exception's own words: they may
        quote a secret."""
        self._count(point, hook.kind, outcome)
        self._note(hook, point, why)

    def _note(self, hook: Hook, point: Point, why: str) -> None:
        if (hook.name, point) not in self._failing:
            self._failing.add((hook.name, point))
            self._report("warning", "hook_failed", hook=hook.name, point=point, why=why)
