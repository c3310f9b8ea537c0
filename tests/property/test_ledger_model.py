"""The ledger against a small model: whatever is asked of it, in whatever order.

Held here: P + H + X <= L + O on every hard budget (I1); all counters or none (I3); a hold resolves
once (I4); the same key and body give the same hold, another body a conflict (I10); budgets in
`warn` and `shadow` never refuse.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from cascaded import _core
from cascaded.state.ledger import DurableLedger
from cascaded.types.decision import Refusal
from cascaded.types.errors import HoldError
from cascaded.types.limits import (
    Admitted,
    BudgetLimit,
    Choice,
    Demand,
    Denial,
    Enforcement,
    Existing,
    Limits,
)
from cascaded.types.model import Model
from cascaded.types.result import Attempt, Billing

START = 1_780_401_600 * 1_000_000_000
MODEL = Model(name="m", provider="p", upstream_name="m")
HARD = ("block", "degrade")
MODES: dict[str, Enforcement] = {"b": "block", "d": "degrade", "w": "warn", "s": "shadow"}


@dataclass
class Counter:
    """One budget as the model has it."""

    limit: int | None
    mode: Enforcement
    posted: int = 0
    held: int = 0
    unknown: int = 0
    overrun: int = 0
    unbounded: bool = False
    """It had no limit, or one above what it has now: a lowered limit only stops new holds."""

    def set_limit(self, limit: int | None) -> None:
        lowered = limit is not None and (self.limit is None or limit < self.limit)
        self.unbounded = self.unbounded or lowered
        self.limit = limit

    @property
    def used(self) -> int:
        return self.posted + self.held + self.unknown

    def refuses(self, amount: int) -> bool:
        if self.mode not in HARD or self.limit is None or amount == 0:
            return False
        return self.used + amount > self.limit


@dataclass
class Hold:
    """One hold as the model has it."""

    names: frozenset[str]
    amount: int
    state: str = "open"
    unknown: int = 0


@dataclass
class Key:
    """What an idempotency key stands for."""

    body: bytes
    hold: int


LIMITS = {"b": 100, "d": 150, "w": 40, "s": 30}
amounts = st.integers(0, 60)
names = st.frozensets(st.sampled_from(sorted(LIMITS)))
results = st.lists(
    st.tuples(st.sampled_from(["billed", "not_billed", "unknown"]), st.integers(0, 40)), max_size=3
)


class LedgerMachine(RuleBasedStateMachine):
    """Everything that can be asked of a ledger, by anybody, in any order."""

    holds = Bundle("holds")
    over = Bundle("over")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = DurableLedger.in_memory(clock=_core.ManualClock(START))
        self.limits: dict[str, int | None] = dict(LIMITS)
        self.counters: dict[str, Counter] = {}
        self.known: dict[int, Hold] = {}
        self.keys: dict[bytes, Key] = {}

    def teardown(self) -> None:
        self.ledger.close()

    def demand(
        self, wanted: frozenset[str], amount: int, key: tuple[bytes, bytes] | None = None
    ) -> Demand:
        budgets = tuple(
            BudgetLimit(
                scope="user",
                id=name,
                window="total",
                limit_nano_usd=self.limits[name],
                enforcement=MODES[name],
            )
            for name in sorted(wanted)
        )
        choice = Choice(nano_usd=amount, tokens=1, cheap=True)
        return Demand(menu=(choice,), limits=Limits(budgets), idempotency=key)

    def expect(self, wanted: frozenset[str], amount: int) -> bool:
        """Bring the model's limits up to date; whether the demand should be refused."""
        for name in wanted & self.counters.keys():
            self.counters[name].set_limit(self.limits[name])
        return any(self.counter(name).refuses(amount) for name in wanted)

    def counter(self, name: str) -> Counter:
        return self.counters.get(name, Counter(self.limits[name], MODES[name]))

    def take(self, answer: Admitted, wanted: frozenset[str], amount: int) -> int:
        assert answer.nano_usd == amount
        assert answer.hold not in self.known
        for name in wanted:
            counter = self.counters.setdefault(name, self.counter(name))
            counter.held += amount
        self.known[answer.hold] = Hold(wanted, amount)
        return answer.hold

    @rule(target=holds, wanted=names, amount=amounts)
    def admit(self, wanted: frozenset[str], amount: int) -> int:
        refused = self.expect(wanted, amount)
        peek = self.ledger.peek(self.demand(wanted, amount))
        answer = self.ledger.admit(self.demand(wanted, amount))
        assert (peek.choice is None) == refused
        if refused:
            assert isinstance(answer, Denial)
            assert answer == peek.denial
            assert MODES[answer.id] in HARD, "what only warns never refuses"
            assert answer.used + answer.asked > answer.limit
            return 0
        assert isinstance(answer, Admitted), answer
        over = {one.id for one in answer.warnings if one.over}
        assert over <= {"w"}
        assert {one.id for one in answer.shadow} <= {"s"}
        return self.take(answer, wanted, amount)

    @rule(
        target=holds,
        wanted=names,
        amount=amounts,
        key=st.sampled_from([b"k" * 16, b"l" * 16]),
        body=st.sampled_from([b"1" * 16, b"2" * 16]),
    )
    def admit_by_key(self, wanted: frozenset[str], amount: int, key: bytes, body: bytes) -> int:
        refused = self.expect(wanted, amount)
        answer = self.ledger.admit(self.demand(wanted, amount, (key, body)))
        known = self.keys.get(key)
        if known is None:
            if refused:
                assert isinstance(answer, Denial)
                return 0
            assert isinstance(answer, Admitted)
            self.keys[key] = Key(body, answer.hold)
            return self.take(answer, wanted, amount)
        if known.body != body:
            assert isinstance(answer, Refusal)
            assert answer.code == "idempotency_conflict"
            return 0
        assert isinstance(answer, Existing)
        hold = self.known[known.hold]
        assert (answer.hold, answer.nano_usd) == (known.hold, hold.amount)
        assert answer.state == hold.state
        return 0

    @rule(target=over, hold=holds, results=results)
    def settle(self, hold: int, results: list[tuple[Billing, int]]) -> int:
        attempts = [
            Attempt(rung=0, model=MODEL, billing=billing, cost_nano_usd=cost)
            for billing, cost in results
        ]
        known = self.known.get(hold)
        if known is None or known.state != "open":
            self.rejects(lambda: self.ledger.settle(hold, attempts))
            return hold
        receipt = self.ledger.settle(hold, attempts)
        posted = sum(cost for billing, cost in results if billing == "billed")
        unknown = sum(cost for billing, cost in results if billing == "unknown")
        overrun = max(posted + unknown - known.amount, 0)
        assert (receipt.posted, receipt.unknown, receipt.overrun) == (posted, unknown, overrun)
        assert receipt.returned == max(known.amount - posted - unknown, 0)
        for name in known.names:
            counter = self.counters[name]
            counter.held -= known.amount
            counter.posted += posted
            counter.unknown += unknown
            counter.overrun += overrun
        known.state, known.unknown = "unknown" if unknown else "settled", unknown
        assert receipt.state == known.state
        return hold

    @rule(target=over, hold=consumes(holds))
    def release(self, hold: int) -> int:
        known = self.known.get(hold)
        if known is None or known.state != "open":
            self.rejects(lambda: self.ledger.release(hold))
            return hold
        receipt = self.ledger.release(hold)
        assert (receipt.state, receipt.returned) == ("released", known.amount)
        for name in known.names:
            self.counters[name].held -= known.amount
        known.state = "released"
        return hold

    @rule(hold=over, cost=amounts)
    def adjust(self, hold: int, cost: int) -> None:
        known = self.known.get(hold)
        if known is None or known.state != "unknown":
            self.rejects(lambda: self.ledger.adjust(hold, cost))
            return
        receipt = self.ledger.adjust(hold, cost)
        assert (receipt.state, receipt.posted, receipt.unknown) == ("adjusted", cost, 0)
        for name in known.names:
            counter = self.counters[name]
            counter.unknown -= known.unknown
            counter.posted += cost
            counter.overrun += max(cost - known.unknown, 0)
        known.state, known.unknown = "adjusted", 0

    @rule(name=st.sampled_from(sorted(LIMITS)), limit=st.none() | st.integers(0, 200))
    def change_limit(self, name: str, limit: int | None) -> None:
        """The profile changes; the ledger learns of it with the next demand."""
        self.limits[name] = limit

    @rule()
    def keep(self) -> None:
        self.ledger.checkpoint()

    def rejects(self, call: Callable[[], object]) -> None:
        with pytest.raises(HoldError) as caught:
            call()
        assert caught.value.code in ("hold_resolved", "no_such_hold")

    @invariant()
    def agrees_with_the_model(self) -> None:
        found = {one.id: one for one in self.ledger.counters("user")}
        assert found.keys() == self.counters.keys(), "a refusal creates nothing"
        for name, counter in self.counters.items():
            status = found[name]
            assert (status.posted, status.held, status.unknown, status.overrun) == (
                counter.posted,
                counter.held,
                counter.unknown,
                counter.overrun,
            )
        spend = self.ledger.spend()
        unresolved = {one.hold: one for one in self.ledger.unresolved()}
        live = {id: one for id, one in self.known.items() if one.state in ("open", "unknown")}
        assert unresolved.keys() == live.keys()
        held = sum(one.amount for one in live.values() if one.state == "open")
        unknown = sum(one.unknown for one in live.values())
        assert (spend["held"], spend["unknown"]) == (held, unknown)

    @invariant()
    def no_hard_budget_is_overspent(self) -> None:
        for one in self.ledger.counters("user"):
            counter = self.counters[one.id]
            if one.enforcement in HARD and one.limit is not None and not counter.unbounded:
                assert one.posted + one.held + one.unknown <= one.limit + one.overrun


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=120, stateful_step_count=40)
