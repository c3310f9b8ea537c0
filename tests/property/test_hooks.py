"""Whatever hooks answer, a call may do no more than without them."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cascaded.pipeline.hooks import Hooks
from cascaded.pipeline.stages.price import price
from cascaded.pipeline.stages.tighten import tighten
from cascaded.types.decision import Decision, Plan, Refusal
from cascaded.types.hooks import EnforcementContext, HookKind, HookTerms, Point
from cascaded.types.limits import BudgetLimit, Caller, Limits, Peek
from tests.support.fakes import FakeClock, ladder, model, request

MODELS = [model(f"m{price}", price) for price in (1, 20, 3, 7)]
NAMES = [one.name for one in MODELS]
BUDGET = Limits(budgets=(BudgetLimit(scope="user", id="a", window="day", limit_nano_usd=1),))

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
actions = st.sampled_from(["allow", "warn", "degrade", "block"])
advice = actions | st.tuples(actions, st.text(max_size=5)) | junk
kept = st.lists(st.sampled_from([*NAMES, "gpt-9"])) | junk


class Says:
    """A hook that says this; an exception it raises."""

    kind: HookKind = "plugin"
    points: frozenset[Point] = frozenset({"budget_check", "model_filter"})

    def __init__(self, name: str, answers: tuple[object, object], terms: HookTerms) -> None:
        self.name = name
        self.terms = terms
        self._answers = answers

    async def ask(
        self, point: Point, context: EnforcementContext, models: tuple[str, ...]
    ) -> object:
        answer = self._answers[point == "model_filter"]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None: ...


class Ledger:
    def peek(self, _: object) -> Peek:
        return Peek(choice=0, denial=None, limits=())


def names(plan: Plan) -> set[str]:
    return {one.name for rung in plan.ladder.rungs for one in rung.models}


hooks = st.builds(
    lambda answers, on_failure: (answers, on_failure),
    st.tuples(advice | st.just(OSError()), kept | st.just(OSError())),
    st.sampled_from(["allow", "block"]),
)


@given(
    said=st.lists(hooks, min_size=1, max_size=3),
    rungs=st.lists(st.sampled_from(MODELS), min_size=1, max_size=4, unique=True),
    cheap=st.sets(st.sampled_from(NAMES)),
    budget=st.booleans(),
    retries=st.integers(0, 2),
    asked=st.none() | st.integers(1, 500),
    fallback=st.none() | st.sampled_from(MODELS),
    covered=st.booleans(),
)
def test_hooks_only_tighten(
    said: list[Any],
    rungs: list[Any],
    cheap: set[str],
    budget: bool,
    retries: int,
    asked: int | None,
    fallback: Any,
    covered: bool,
) -> None:
    call = request(max_output_tokens=asked) if asked else request()
    wanted = ladder(*rungs, top_retries=retries)
    if fallback is not None:
        first = replace(wanted.rungs[0], fallbacks=(fallback,))
        wanted = replace(wanted, rungs=(first, *wanted.rungs[1:]), doubt_covered=covered)
    begun = Decision(
        caller=Caller(user_id="a"),
        ladder=wanted,
        limits=BUDGET if budget else Limits(),
        input_tokens=10,
    )
    ledger: Any = Ledger()
    every = Hooks(
        [
            Says(f"h{i}", answers, HookTerms(deadline_s=1, on_failure=on_failure))
            for i, (answers, on_failure) in enumerate(said)
        ],
        ledger,
        FakeClock(),
        told={},
        report=lambda *_, **__: None,
        count=lambda *_: None,
    )

    async def both() -> tuple[Any, Any, Any]:
        without = await price(4096, cheap)(call, begun)
        planned: Any = await price(4096, cheap, may_degrade=True)(call, begun)
        return without, planned, await tighten(every, ledger, cheap)(call, planned)

    without, planned, step = asyncio.run(both())
    if isinstance(step, Refusal):
        assert step.code in {"budget_exceeded", "model_forbidden", "hook_unavailable"}
        return
    assert 0 < len(step.menu) == len(step.choices) <= len(planned.menu)
    allowed = names(without.menu[0])
    for plan, choice in zip(step.menu, step.choices, strict=True):
        assert choice.nano_usd == plan.worst_nano_usd <= without.choices[0].nano_usd
        assert choice.tokens <= without.choices[0].tokens
        assert names(plan) <= allowed
        assert plan.max_output_tokens <= without.menu[0].max_output_tokens
    if not budget:
        assert len(step.menu) == 1
    assert step.limits == begun.limits
