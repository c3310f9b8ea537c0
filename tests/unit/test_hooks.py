"""Hooks: what is believed of them, and the bracket around them."""

import asyncio
import hmac
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from msgspec.structs import replace

from cascaded.adapters import plugin_hook
from cascaded.adapters.http_hook import signature
from cascaded.adapters.plugin_hook import PluginError, PluginHook, load_plugin
from cascaded.pipeline import hooks as bracket
from cascaded.pipeline.hooks import Hooks
from cascaded.pipeline.stages.tighten import tighten
from cascaded.policy.hooks import (
    NonsenseError,
    context_of,
    crossing_context,
    read_advice,
    read_models,
)
from cascaded.policy.outages import NEVER
from cascaded.types.decision import Decision, Plan, Refusal
from cascaded.types.errors import LedgerFaultError
from cascaded.types.hooks import Advice, EnforcementContext, HookTerms, OnFailure
from cascaded.types.limits import (
    Caller,
    Choice,
    CounterStatus,
    Crossing,
    LimitView,
    Peek,
    Receipt,
    Scope,
)
from cascaded.types.secret import Secret
from tests.support.fakes import FakeClock, ladder, model, request

ALICE = EnforcementContext(user_id="alice")
CHEAP, STRONG = model("cheap", 1), model("strong", 10)


class Plain:
    """The least of a ledger."""

    def __init__(self) -> None:
        self.began = 100
        self.fault: Exception | None = None

    def peek(self, _: object) -> Peek:
        return Peek(choice=0, denial=None, limits=())

    def counters(self, scope: Scope, id: str) -> list[CounterStatus]:
        if self.fault:
            raise self.fault
        return [
            CounterStatus(
                scope=scope, id=id, window="day", zone="UTC", limit=10, enforcement="warn",
                origin="file", posted=0, held=0, unknown=0, overrun=0, degraded=False,
                starts_at_ns=self.began, resets_at_ns=None,
            )
        ]  # fmt: skip


class World:
    """Hooks made of plug-ins, and what they told."""

    def __init__(self, *plugins: object, **terms: Any) -> None:
        terms = {"deadline_s": 9, **terms}
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.counts: list[tuple[str, str, str]] = []
        self.ledger = Plain()
        self.clock = FakeClock()
        ledger: Any = self.ledger
        self.hooks = Hooks(
            [PluginHook(f"p{i}", one, HookTerms(**terms)) for i, one in enumerate(plugins)],
            ledger,
            self.clock,
            told={},
            report=lambda _, event, **fields: self.lines.append((event, fields)),
            count=lambda *labels: self.counts.append(labels),
        )

    @property
    def outcomes(self) -> list[str]:
        return [outcome for _, _, outcome in self.counts]


class Checks:
    """A plug-in that does this when it is asked about a budget."""

    def __init__(self, do: Callable[[], object]) -> None:
        self.do = do
        self.asked = 0

    def on_budget_check(self, context: EnforcementContext) -> object:
        self.asked += 1
        return self.do()


def raises(fault: BaseException) -> Callable[[], object]:
    def do() -> object:
        raise fault

    return do


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("allow", Advice("allow")),
        (("warn", "soon over"), Advice("warn", "soon over")),
        (["block", ""], Advice("block")),
        ({"action": "degrade", "message": None}, Advice("degrade")),
        ({"action": "warn", "message": "a\r\nx-evil: 1\0"}, Advice("warn", "a x-evil: 1")),
        ({"action": "warn", "message": "\ud800ä"}, Advice("warn", "ä")),
        (("warn", "x" * 999), Advice("warn", "x" * 299 + "…")),
    ],
)
def test_advice_is_read(said: object, advice: Advice) -> None:
    assert read_advice(said) == advice


@pytest.mark.parametrize(
    "said", [None, True, 1, "ALLOW", "", (), ("allow",), {}, {"action": []}, ("warn", 5), [[], ""]]
)
def test_nonsense_is_no_advice(said: object) -> None:
    with pytest.raises(NonsenseError):
        read_advice(said)


def test_models_are_read() -> None:
    assert read_models({"models": ["a", "b"]}) == read_models(("b", "a")) == {"a", "b"}
    for said in (None, "abc", {"models": {"a": 1}}, ["a", 1], ["a"] * 10_001):
        with pytest.raises(NonsenseError):
            read_models(said)


def test_a_context_tells_the_users_own_tightest_budget() -> None:
    def view(**fields: Any) -> LimitView:
        known = {"unit": None, "degraded": False, "fits": True, "enforced": True}
        return LimitView(**{"id": "x", "reset_at_ns": None, **known, **fields})

    views = [
        view(scope="global", window="day", limit=5, used=5, remaining=0),
        view(scope="user", window="day", limit=3_000_000_000, used=10, remaining=2_999_999_990),
        view(scope="user", window="total", limit=3, used=1, remaining=2),
        view(scope="user", window="month", limit=None, used=1, remaining=None),
        view(scope="user", unit="requests", window_ns=1, limit=9, used=1, remaining=8),
        view(scope="user", unit="requests", window_ns=60, limit=9, used=7, remaining=2),
    ]
    found = context_of(Caller(user_id="alice", tier="pro"), views, 1_500_000_000)
    assert (found.budget_window, found.budget_remaining) == ("total", Decimal("0.000000002"))
    assert (found.current_cost, found.budget_pct_used) == (Decimal("1.5"), Decimal("33.33"))
    assert (found.total_requests, found.user_tier) == (7, "pro")
    others = context_of(Caller(user_id="alice"), views[:1], 0)
    assert (others.budget_scope, others.total_requests) == ("global", None)
    assert context_of(Caller(user_id="alice"), (), 0).budget_limit is None


def test_a_threshold_of_a_budget_of_nothing_can_be_told() -> None:
    crossing = Crossing(scope="user", id="a", window="day", threshold_bp=7_000, limit=0, spent=5)
    told = crossing_context(crossing, "a", 5)
    assert told.budget_pct_used == 100
    assert (told.budget_remaining, told.threshold_pct) == (Decimal(0), Decimal(70))


@pytest.mark.parametrize("on_failure", ["allow", "block"])
@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (ValueError("secret"), "nonsense"),
        (SystemExit(3), "nonsense"),
        (StopIteration(), "nonsense"),
        (None, "nonsense"),
    ],
)
async def test_a_fault_has_the_stated_default(
    fault: BaseException | None, outcome: str, on_failure: OnFailure
) -> None:
    plugin = Checks(raises(fault) if fault else lambda: "maybe")
    world = World(plugin, on_failure=on_failure)
    for _ in range(2):
        said = await world.hooks.advise(ALICE)
        assert said == [] if on_failure == "allow" else isinstance(said, Refusal)
    assert world.outcomes == [outcome] * 2
    assert len(world.lines) == 1
    assert "secret" not in str(world.lines)
    plugin.do = lambda: "allow"
    assert await world.hooks.advise(ALICE) == [Advice("allow")]
    assert [event for event, _ in world.lines] == ["hook_failed", "hook_recovered"]
    await world.hooks.close()


async def test_an_asynchronous_hook_may_do_anything_too() -> None:
    class Coroutine:
        do: Any

        async def on_budget_check(self, context: EnforcementContext) -> object:
            return await self.do()

    async def cancels() -> object:
        raise asyncio.CancelledError

    async def leaves() -> object:
        sys.exit(3)

    async def fails() -> object:
        raise KeyError("secret")

    async def sleeps() -> None:
        await asyncio.sleep(9)

    async def warns() -> object:
        return "warn", "careful"

    plugin = Coroutine()
    world = World(plugin, deadline_s=0.05)
    for do in (cancels, leaves, fails, sleeps):
        plugin.do = staticmethod(do)
        world.clock.now_ns += 31 * 10**9  # so that it is not left alone
        assert await world.hooks.advise(ALICE) == []
    assert world.outcomes == ["nonsense", "nonsense", "failed", "late"]
    plugin.do = staticmethod(warns)
    assert await world.hooks.advise(ALICE) == [Advice("warn", "careful")]


async def test_a_call_that_is_cancelled_stays_cancelled() -> None:
    class Sleeps:
        async def on_budget_check(self, context: EnforcementContext) -> None:
            await asyncio.sleep(9)

    world = World(Sleeps(), deadline_s=9)
    task = asyncio.create_task(world.hooks.advise(ALICE))  # noqa: TID251
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.counts == []


async def test_threads_that_hang_take_no_more_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bracket, "OUTAGE", NEVER)
    gate = threading.Event()
    plugin = Checks(lambda: gate.wait(9) and "allow")
    world = World(plugin, deadline_s=0.02)
    for _ in range(plugin_hook.THREADS + 2):
        assert await world.hooks.advise(ALICE) == []
    while plugin.asked < plugin_hook.THREADS:
        await asyncio.sleep(0.01)
    gate.set()
    plugin.do = lambda: "allow"
    for _ in range(500):
        if await world.hooks.advise(ALICE):
            break
    else:
        pytest.fail("the threads did not come back")
    await world.hooks.close()


async def test_the_strictest_counts_and_nobody_is_asked_after_a_block() -> None:
    late = Checks(lambda: "allow")
    world = World(Checks(lambda: "degrade"), Checks(lambda: "block"), late)
    said = await world.hooks.advise(ALICE)
    assert isinstance(said, list)
    assert [advice.action for advice in said] == ["degrade", "block"]
    assert late.asked == 0


async def test_answers_hold_for_a_while_for_one_user(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Checks(lambda: "allow")
    world = World(plugin, cache_s=2)
    for _ in range(3):
        await world.hooks.advise(ALICE)
    await world.hooks.advise(EnforcementContext(user_id="bob"))
    assert plugin.asked == 2
    world.clock.now_ns += 3_000_000_000
    await world.hooks.advise(ALICE)
    assert plugin.asked == 3
    plugin.do = lambda: "nonsense"
    world.clock.now_ns += 3_000_000_000
    await world.hooks.advise(ALICE)
    await world.hooks.advise(ALICE)
    assert plugin.asked == 5  # failures are not remembered
    monkeypatch.setattr(bracket, "MAX_REMEMBERED", 1)
    plugin.do = lambda: "allow"
    await world.hooks.advise(EnforcementContext(user_id="carol"))
    assert await world.hooks.advise(EnforcementContext(user_id="carol")) == [Advice("allow")]
    assert plugin.asked == 6


class TestFilter:
    class Keeps:
        def __init__(self, said: object) -> None:
            self.said = said

        def on_model_filter(self, context: object, models: tuple[str, ...]) -> object:
            return self.said

    DECISION = Decision(
        caller=Caller(user_id="alice"),
        input_tokens=10,
        menu=(
            Plan(
                ladder=ladder(CHEAP, STRONG, top_retries=2),
                max_output_tokens=10,
                worst_nano_usd=350_000,
            ),
            Plan(ladder=ladder(CHEAP, top_retries=0), max_output_tokens=10, worst_nano_usd=20_000),
        ),
        choices=(
            Choice(nano_usd=350_000, tokens=80),
            Choice(nano_usd=20_000, tokens=20, cheap=True),
        ),
    )

    FIRST = replace(DECISION, menu=DECISION.menu[:1], choices=DECISION.choices[:1])

    async def step(self, said: object, **terms: Any) -> tuple[Any, World]:
        world = World(self.Keeps(said), **terms)
        ledger: Any = world.ledger
        stage = tighten(world.hooks, ledger, frozenset({"cheap"}))
        return await stage(request(), self.DECISION), world

    async def test_it_takes_models_away_and_the_plan_is_costed_anew(self) -> None:
        step, _ = await self.step(["cheap"])
        assert [[r.model.name for r in plan.ladder.rungs] for plan in step.menu] == [["cheap"]]
        assert step.menu[0].worst_nano_usd == 20_000
        assert step.choices[0] == Choice(nano_usd=20_000, tokens=20, cheap=True)
        assert step.notices == ("The operator's model filter leaves out strong.",)
        step, _ = await self.step(["strong"])
        [plan] = step.menu
        assert plan.worst_nano_usd == 330_000
        assert plan.ladder.top_retries == 2

    async def test_what_it_adds_is_ignored(self) -> None:
        step, world = await self.step(["strong", "cheap", "gpt-9"])
        assert step == self.FIRST
        assert "ignored" in str(world.lines)

    async def test_nothing_left_is_a_no(self) -> None:
        step, _ = await self.step([])
        assert step.code == "model_forbidden"
        assert "cheap, strong" in step.message

    async def test_nonsense_has_its_default(self) -> None:
        assert (await self.step(5))[0] == self.FIRST
        assert (await self.step(5, on_failure="block"))[0].code == "hook_unavailable"

    async def test_without_budgets_the_cheap_plan_is_there_for_a_degrade_only(self) -> None:
        step, _ = await self.step(["strong", "cheap"])
        assert step.menu == self.DECISION.menu[:1]
        assert step.choices == self.DECISION.choices[:1]

    async def test_a_block_and_a_degrade(self) -> None:
        for action, code in (("block", "budget_exceeded"), ("degrade", None)):
            world = World(Checks(lambda action=action: (action, "no credit")))  # type: ignore[misc]
            ledger: Any = world.ledger
            step: Any = await tighten(world.hooks, ledger, frozenset())(request(), self.DECISION)
            if code:
                assert (step.code, "no credit" in step.message) == (code, True)
            else:
                assert step.choices == self.DECISION.choices[1:]
                assert step.menu == self.DECISION.menu[1:]


def receipt(*thresholds: int, window: Any = "day") -> Receipt:
    return Receipt(
        hold=1, seq=1, state="settled", posted=3, unknown=0, returned=0, overrun=0,
        crossings=tuple(
            Crossing(
                scope="user", id="alice", window=window, threshold_bp=bp, limit=10, spent=9
            )
            for bp in thresholds
        ),
    )  # fmt: skip


class TestWarnings:
    class Told:
        def __init__(self) -> None:
            self.heard: list[EnforcementContext] = []

        async def on_budget_warning(self, context: EnforcementContext) -> None:
            self.heard.append(context)

    async def test_each_threshold_is_told_once_a_window(self) -> None:
        plugin = self.Told()
        world = World(plugin)
        world.hooks.crossed(receipt(7_000, 9_000), "alice")
        world.hooks.crossed(receipt(9_000), "alice")
        assert plugin.heard == []  # not on the call's way
        await world.hooks.close()
        assert [one.threshold_pct for one in plugin.heard] == [70, 90]
        world.ledger.began += 1
        world.hooks.crossed(receipt(9_000, window="total"), "alice")
        world.hooks.crossed(receipt(9_000, window="rolling_day"), "alice")
        world.hooks.crossed(receipt(9_000), "alice")
        await world.hooks.close()
        assert len(plugin.heard) == 5

    async def test_it_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bracket, "MAX_TELLING", 1)
        monkeypatch.setattr(bracket, "MAX_TOLD", 1)
        plugin = self.Told()
        world = World(plugin)
        world.hooks.crossed(receipt(7_000, 9_000), "alice")
        await world.hooks.close()
        assert len(plugin.heard) == len(world.hooks.told) == 1
        assert sorted(world.outcomes) == ["answered", "dropped"]

    async def test_a_ledger_at_fault_breaks_nothing(self) -> None:
        world = World(self.Told())
        world.ledger.fault = LedgerFaultError("gone")
        world.hooks.crossed(receipt(7_000), "alice")
        assert world.lines == [("hook_not_told", {"why": "LedgerFaultError"})]

    async def test_those_who_hang_are_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Hangs:
            async def on_budget_warning(self, context: EnforcementContext) -> None:
                await asyncio.sleep(9)

        monkeypatch.setattr(bracket, "LAST_WORDS_S", 0.01)
        world = World(Hangs(), deadline_s=9)
        world.hooks.crossed(receipt(7_000), "alice")
        await world.hooks.close()
        assert world.counts == []

    async def test_nobody_waits_for_it(self) -> None:
        world = World(Checks(lambda: "allow"))
        world.hooks.crossed(receipt(7_000), "alice")
        assert world.hooks.told == {}


async def test_plugins_are_found_by_their_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = {
        "checks": ["tests.unit.test_hooks:OFFERED"],
        "made": ["tests.unit.test_hooks:Offered"],
        "twice": ["a:b", "c:d"],
        "gone": ["tests.unit.no_such_module:x"],
        "breaks": ["tests.unit.test_hooks:broken_secret"],
        "empty": ["tests.unit.test_hooks:ALICE"],
    }

    def found(group: str, name: str) -> list[EntryPoint]:
        return [EntryPoint(name, value, group) for value in offered.get(name, [])]

    monkeypatch.setattr(plugin_hook, "entry_points", found)
    terms = HookTerms(deadline_s=1)
    for name in ("checks", "made"):
        assert load_plugin(name, terms).points == {"budget_check"}
    for name, words in (
        ("none", "no installed package offers"),
        ("twice", "2 installed packages"),
        ("gone", "no_such_module"),
        ("breaks", "broken_secret"),
        ("empty", "has none of on_budget_check"),
    ):
        with pytest.raises(PluginError, match=words):
            load_plugin(name, terms)
    offered["fails"] = ["tests.unit.test_hooks:Fails"]
    with pytest.raises(PluginError, match="ValueError"):
        load_plugin("fails", terms)


class Offered:
    def on_budget_check(self, context: EnforcementContext) -> str:
        return "allow"


OFFERED = Offered()


class Fails:
    def __init__(self) -> None:
        raise ValueError("a secret")


def test_the_signature_is_what_the_guide_says() -> None:
    expected = hmac.new(b"s", b"5.{}", "sha256").hexdigest()
    assert signature(Secret("s"), b"{}", 5) == f"t=5,v1={expected}"


async def test_a_hook_that_keeps_failing_is_left_alone_for_a_while() -> None:
    hook = Checks(raises(OSError()))
    world = World(hook)
    for _ in range(10):
        assert await world.hooks.advise(ALICE) == []
    assert hook.asked == 3
    assert world.outcomes == ["nonsense"] * 3 + ["left_alone"] * 7
    for pause_s in (5, 10):
        world.clock.now_ns += pause_s * 10**9
        await world.hooks.advise(ALICE)
        await world.hooks.advise(ALICE)
    assert hook.asked == 5, "one call tries it after each pause"
    hook.do = lambda: "allow"
    world.clock.now_ns += 20 * 10**9
    for _ in range(2):
        assert await world.hooks.advise(ALICE) == [Advice("allow")]
    assert [event for event, _ in world.lines] == ["hook_failed", "hook_recovered"]


async def test_a_hook_that_is_left_alone_has_its_default() -> None:
    world = World(Checks(raises(OSError())), on_failure="block")
    for _ in range(5):
        refusal = await world.hooks.advise(ALICE)
        assert isinstance(refusal, Refusal)
        assert refusal.code == "hook_unavailable"
    assert world.outcomes[-1] == "left_alone"


async def test_a_caller_who_leaves_in_a_trial_leaves_it_to_the_next() -> None:
    hook = Checks(raises(OSError()))
    world = World(hook)
    for _ in range(3):
        await world.hooks.advise(ALICE)
    world.clock.now_ns += 5 * 10**9
    gate = threading.Event()
    hook.do = lambda: gate.wait(9) and "allow"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await world.hooks.advise(ALICE)
    gate.set()
    assert await world.hooks.advise(ALICE) == [Advice("allow")]
