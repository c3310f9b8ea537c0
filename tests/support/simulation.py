"""The whole path of calls in a world that a seed decides: clock, disk, provider and callers.

The pipeline, the ledger, its journal and its recovery are the real ones. The disk is real files of
which the world alone says when they are flushed; after a power cut there is what was flushed, and
nothing else. The provider bills a call in the instant it arrives. Behind the ceiling gate calls are
sent before their record is there; what a power cut forgets of them is found on the provider's bill.
"""

import asyncio
import heapq
import json
import random
import shutil
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from cascaded import _core
from cascaded.pipeline.run import run
from cascaded.policy.access.identity import AccessRules
from cascaded.policy.pricing import cost
from cascaded.ports import Call, ProviderTraits
from cascaded.state.ledger import DurableLedger
from cascaded.types.decision import Refusal
from cascaded.types.errors import LedgerFaultError, ProviderError
from cascaded.types.event import Event
from cascaded.types.limits import (
    Admitted,
    BudgetLimit,
    Caller,
    Choice,
    CounterStatus,
    Demand,
    Enforcement,
    Existing,
    Gate,
    HoldStatus,
    Limits,
    RateLimit,
    Receipt,
    Scope,
    Window,
)
from cascaded.types.quotas import MINUTE_NS, OwnQuotas
from cascaded.types.request import Claims
from cascaded.types.usage import Usage
from tests.support.fakes import Collected, World, events, ladder, model, request
from tests.support.upstream import Says

START = 1_780_401_600 * 1_000_000_000
SECOND = 1_000_000_000
HOUR = 3600 * SECOND
USERS = ("ann", "bob", "cy")
ORGANIZATION = "acme"
KEYS_KEPT_NS = 20 * HOUR
MAX_CALLS = 8
SHARED: tuple[tuple[Scope, str], ...] = (("organization", ORGANIZATION), ("global", "*"))
"""What all calls are charged to."""
RATE = 6
"""Requests of a user in any minute."""
SEGMENT_BYTES = 1 << 20
NEVER_MS = 3_600_000
TURNS_TO_END = 400
GOOD, BAD = "The capital of France is Paris.", "I'm sorry, but I can't help with that."
LADDER = ladder(model("cheap", 10), model("strong", 100))
MODELS = {rung.model.name: rung.model for rung in LADDER.rungs}


class Broken(AssertionError):
    """An invariant does not hold."""


def must(invariant: str, holds: bool, detail: object = "") -> None:
    """Raises `Broken` unless it holds."""
    if not holds:
        raise Broken(f"{invariant}: {detail}")


class SimulatedClock:
    """Stands still until the world lets time pass; the ledger's clock goes with it."""

    def __init__(self) -> None:
        self.ledgers = _core.ManualClock(START)
        self.now_ns = 0
        self.off_ns = 0
        self.ahead_ns = 0
        """All that it was ever set ahead."""
        self._sleeping: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return START + self.now_ns + self.off_ns

    async def sleep(self, seconds: float) -> None:
        turn = asyncio.get_running_loop().create_future()
        until_ns = self.now_ns + int(seconds * SECOND)
        heapq.heappush(self._sleeping, (until_ns, next(self._order), turn))
        await turn

    def advance(self, ns: int) -> None:
        self.now_ns += ns
        self.ledgers.advance(ns)
        while self._sleeping and self._sleeping[0][0] <= self.now_ns:
            turn = heapq.heappop(self._sleeping)[2]
            if not turn.done():
                turn.set_result(None)

    def step(self, ns: int) -> None:
        """Somebody sets the wall clock."""
        self.off_ns += ns
        self.ahead_ns += max(0, ns)
        self.ledgers.set_wall(self.wall_ns())


class Provider:
    """Answers, fails and bills as the seed has it."""

    name = "fake"
    traits = ProviderTraits(logprobs=False, max_retries=1, backoff_s=0.5)

    def __init__(self, world: "Simulation") -> None:
        self._world = world
        self.bill: Counter[str] = Counter()
        """By request, whatever was told of it."""

    async def call(self, call: Call) -> AsyncGenerator[Event]:
        chance = self._world.chance
        call.progress.queued = True
        await self._turns()
        call.progress.queued = False
        self._world.dispatched(call.request_id)
        fault = chance.choices(
            [None, "upstream_server_error", "upstream_rate_limited", "upstream_reset", "cut"],
            [12, 2, 1, 2, 2],
        )[0]
        body = json.loads(msgspec.json.encode(call.fields))
        bound = body.get("max_completion_tokens") or body.get("max_tokens") or 1
        says = Says(chance.choice([GOOD, GOOD, BAD]), output_tokens=chance.randint(1, bound))
        billed = fault in (None, "cut") or (fault == "upstream_reset" and chance.random() < 0.5)
        if billed:
            self.bill[call.request_id] += _cost(call, says)
        await self._turns()
        said = list(events(body, says, stream=call.stream))
        if fault is not None:
            for event in said[: len(said) // 2] if fault == "cut" and call.stream else ():
                yield event
                await self._turns()
            certain = fault in ("upstream_server_error", "upstream_rate_limited")
            raise ProviderError(
                "upstream_reset" if fault == "cut" else fault,
                "scripted",
                billing="not_billed" if certain else "unknown",
            )
        for event in said:
            yield event
            await self._turns()

    async def close(self) -> None: ...

    async def _turns(self) -> None:
        for _ in range(self._world.chance.randint(0, 3)):
            await asyncio.sleep(0)


def _cost(call: Call, says: Says) -> int:
    price = MODELS[call.model.name].price
    assert price is not None
    return cost(price, Usage(input_tokens=says.input_tokens, output_tokens=says.output_tokens))


class Ledger:
    """The real ledger on the world's disk. What is planted overrides one of these."""

    def __init__(self, real: DurableLedger, world: "Simulation") -> None:
        self.real = real
        self.world = world
        self._resolved: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def admit(self, demand: Demand) -> Any:
        answer = self.real.admit(demand)
        if isinstance(answer, Admitted) and demand.label is not None:
            answer = msgspec.structs.replace(answer, clear=self.clear(demand, answer))
            self.world.admitted(demand.label[0], demand.label[1], answer)
        return answer

    def clear(self, demand: Demand, answer: Admitted) -> bool:
        """Whether it may be sent at once."""
        return answer.clear

    async def durable(self, seq: int) -> None:
        await self.world.disk.flushed(seq)

    def settle(self, hold: int, attempts: Any) -> Receipt:
        return self._once(self.real.settle(hold, attempts))

    def post(self, hold: int, nano_usd: int, billing: Any) -> Receipt:
        return self._once(self.real.post(hold, nano_usd, billing))

    def release(self, hold: int) -> Receipt:
        return self._once(self.real.release(hold))

    def _once(self, receipt: Receipt) -> Receipt:
        must("I4 a hold resolves once", receipt.hold not in self._resolved, receipt)
        self._resolved.add(receipt.hold)
        self.world.receipts[receipt.hold] = receipt
        return receipt


class Disk:
    """A state folder, and what of it would be there after a power cut."""

    def __init__(self, folder: Path, clock: SimulatedClock, gate: Gate) -> None:
        self._folder = folder
        self._clock = clock
        self._gate: Gate = gate
        self._number = count(1)
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._failed = False
        self.seq = 0
        """What waited for any of these has been told that it is flushed."""
        self.kept = 0
        """Everything up to this survives; it is more where a flush was not told yet."""
        self._image = folder / "image"
        self._live = folder / "live-0"
        self.real = self._open(self._live)
        self.flush()

    async def flushed(self, seq: int) -> None:
        if seq > self.seq:
            if self._failed:
                raise LedgerFaultError("the disk has failed")
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((seq, turn))
            await turn

    def flush(self, *, tell: bool = True) -> None:
        self.kept = self.settle()
        shutil.rmtree(self._image, ignore_errors=True)
        # A spare segment may be in the making, and matters to nobody.
        shutil.copytree(self._live, self._image, ignore=shutil.ignore_patterns("*.tmp"))
        if tell:
            self.acknowledge(self.kept)

    def acknowledge(self, last: int) -> None:
        self.seq = last
        for seq, turn in self._waiting:
            if seq <= last and not turn.done():
                turn.set_result(None)
        self._waiting = [one for one in self._waiting if one[0] > last]

    def fail(self) -> None:
        """A flush fails; nothing is ever durable again."""
        self._failed = True
        for _, turn in self._waiting:
            if not turn.done():
                turn.set_exception(LedgerFaultError("the disk has failed"))
        self._waiting = []

    def cut_power(self) -> DurableLedger:
        """The ledger as it is recovered from what was flushed."""
        self.close()
        shutil.rmtree(self._live)
        self._live = self._folder / f"live-{next(self._number)}"
        shutil.copytree(self._image, self._live)
        return self.start()

    def start(self) -> DurableLedger:
        """The ledger from what is there, after it was closed."""
        self._waiting, self._failed = [], False
        self.real = self._open(self._live)
        self.flush()
        return self.real

    def close(self) -> None:
        with suppress(LedgerFaultError):
            self.real.close()

    def last(self) -> int:
        return self.real.stats()["last_seq"]

    def settle(self) -> int:
        """Have the files say everything, and the ledger know it."""
        last = self.last()
        self.real._core.hurry()
        while self.real._core.durable_seq() < last:
            time.sleep(0.0002)
        return last

    def _open(self, folder: Path) -> DurableLedger:
        return DurableLedger.open(
            folder,
            asyncio.get_running_loop(),
            clock=self._clock.ledgers,
            gate=self._gate,
            checkpoint_ms=NEVER_MS,
            linger_ms=NEVER_MS,
            segment_bytes=SEGMENT_BYTES,
        )


@dataclass
class Outside:
    """What an application knows of its hold."""

    user: str
    hold: int
    amount: int
    at_ns: int
    over: bool = False
    """Somebody resolved it, though maybe nobody was told."""
    settled: bool = False
    """It was told that it is settled."""


class Simulation:
    """One world and everything that may happen in it. Bugs are planted in `ledger` and `disk`."""

    def __init__(
        self, seed: int, folder: Path, gate: Gate, ledger: type[Ledger], disk: type[Disk]
    ) -> None:
        self.chance = random.Random(seed)
        self.clock = SimulatedClock()
        self.gate: Gate = gate
        self.disk = disk(folder, self.clock, gate)
        self._ledger = ledger
        self.provider = Provider(self)
        self.user_of: dict[str, str] = {}
        self.receipts: dict[int, Receipt] = {}
        self._outside: dict[str, Outside] = {}
        """What applications were told, by their idempotency keys."""
        self.seen: Counter[str] = Counter()
        self._rates: dict[str, deque[int]] = {user: deque() for user in USERS}
        self._admitted: dict[str, tuple[int, Admitted]] = {}
        self._holds: dict[str, Admitted] = {}
        """Of every request, since the last power cut."""
        self._days: dict[str, int | None] = {}
        """In which day of its user each call was reserved: its first nanosecond."""
        self._lost: dict[int, list[str]] = {}
        """Which calls each crash made the ledger forget, by the number of its charge."""
        self._soft = gate == "ceiling" and self.chance.random() < 0.25
        """Whether no budget refuses anything: the bill is covered all the same."""
        self._vague = self.chance.random() < 0.25
        """Whether nobody knows whose the calls were that a crash lost, only what all cost."""
        self._tasks: dict[str, asyncio.Task[object]] = {}
        self._opened: dict[tuple[str, str, str], int] = {}
        self._caps: dict[tuple[str, str], int] = {}
        self._caps_kept: dict[tuple[str, str], int] = {}
        self._limits = {
            **{("user", user): self.chance.randint(2, 60) * 100_000 for user in USERS},
            ("organization", ORGANIZATION): self.chance.randint(50, 200) * 100_000,
            ("global", "*"): self.chance.randint(50, 300) * 100_000,
        }
        self._leapt_ns = 0
        """How far the clock was set forward since the daemon's start."""
        self._number = count(1)
        self._start()

    # What it is told of.

    def admitted(self, request_id: str, user: str, answer: Admitted) -> None:
        self.user_of[request_id] = user
        self._holds[request_id] = answer
        self._admitted[request_id] = self.clock.now_ns, answer
        self._days[request_id] = self.day_of(user)

    def day_of(self, user: str) -> int | None:
        """When a user's day began, as the ledger has it."""
        found = [one for one in self.disk.real.counters("user", user) if one.window == "day"]
        return found[0].starts_at_ns if found else None

    def dispatched(self, request_id: str) -> None:
        """A provider hears of a call: its hold is durable, or covered (I5), and its rate counts
        (I8)."""
        found = self._admitted.pop(request_id, None)
        if found is None:
            return
        at_ns, held = found
        user = self.user_of[request_id]
        early = held.seq > self.disk.seq
        covered = held.clear and self.gate == "ceiling"
        must("I5 nothing is sent before its hold is durable", covered or not early, request_id)
        self.seen["calls"] += 1
        self.seen["sent early"] += early
        times = self._rates[user]
        times.append(at_ns)
        near = [one for one in times if at_ns - MINUTE_NS < one <= at_ns]
        must("I8 no trailing window has more", len(near) <= RATE, (user, len(near)))

    # What may happen.

    async def live(self, steps: int) -> None:
        """So many things happen; then everything ends and the books are compared."""
        happenings: dict[Callable[[], Any], int] = {
            self._call: 20,
            self._apply: 3,
            self._again: 2,
            self._turn: 24,
            self._hang_up: 2,
            self._let_time_pass: 8,
            self._flush: 14,
            self._fail: 1,
            self._cut_power: 2,
            self._end_in_order: 1,
            self._change_limit: 3,
            self._step_clock: 1,
            self._checkpoint: 1,
            self._resolve_one: 2,
        }
        kinds, weights = [*happenings], [*happenings.values()]
        for _ in range(steps):
            happened = self.chance.choices(kinds, weights)[0]()
            if asyncio.iscoroutine(happened):
                await happened
            self.check()
        await self._end()

    def _call(self) -> None:
        if len(self._tasks) >= MAX_CALLS:
            return
        name = f"r{next(self._number)}"
        asked = request(
            stream=self.chance.random() < 0.5,
            model=self.chance.choice(["auto", "auto", "cheap", "strong"]),
            max_tokens=self.chance.choice([5, 20, 60]),
        )
        asked = msgspec.structs.replace(
            asked,
            id=name,
            received_ns=self.clock.now_ns,
            claims=Claims(user_id=self.chance.choice(USERS), organization_id=ORGANIZATION),
        )
        leaves = self.chance.choice([None, None, None, 0, 1, 3])
        self._spawn(name, run(self._pipeline, asked, Collected(leaves)))

    def _apply(self) -> None:
        """An application reserves, and later settles or releases; it may vanish in between."""
        name, user = f"o{next(self._number)}", self.chance.choice(USERS)
        self._spawn(name, self._application(name, user, self.chance.randint(1, 20) * 50_000))

    async def _application(self, name: str, user: str, amount: int) -> None:
        ledger, at_ns = self._books, self.clock.now_ns
        answer = ledger.admit(self._demand(name, user, amount))
        if not isinstance(answer, Admitted):
            return
        await ledger.durable(answer.seq)
        told = self._outside[name] = Outside(user, answer.hold, amount, at_ns)
        spent = self.chance.randint(0, amount)
        self.provider.bill[name] += spent
        await self.clock.sleep(self.chance.choice([0, 1, 60]))
        if self.chance.random() < 0.2:
            return  # it vanishes: its hold stays open
        told.over = True
        receipt = ledger.post(answer.hold, spent, "billed")
        await ledger.durable(receipt.seq)
        told.settled = True

    def _demand(self, name: str, user: str, amount: int) -> Demand:
        return Demand(
            menu=(Choice(nano_usd=amount, tokens=1),),
            limits=self._limits_of(user),
            idempotency=(name.encode().ljust(16), str(amount).encode().ljust(16)),
            label=(name, user, "app"),
        )

    def _again(self) -> None:
        """An application asks with a key that it used before (I10)."""
        young = [
            name
            for name, told in self._outside.items()
            if self.clock.now_ns - told.at_ns < KEYS_KEPT_NS
        ]
        if not young:
            return
        name = self.chance.choice(young)
        told = self._outside[name]
        answer = self._books.admit(self._demand(name, told.user, told.amount))
        same = isinstance(answer, Existing) and answer.hold == told.hold
        must("I10 a key means its hold", same, (name, answer))
        answer = self._books.admit(self._demand(name, told.user, told.amount + 1))
        conflict = isinstance(answer, Refusal) and answer.code == "idempotency_conflict"
        must("I10 with another body it is a conflict", conflict, (name, answer))

    async def _turn(self) -> None:
        for _ in range(self.chance.randint(1, 8)):
            await asyncio.sleep(0)

    def _hang_up(self) -> None:
        under_way = [task for name, task in self._tasks.items() if name.startswith("r")]
        if under_way:
            self.seen["hang-ups"] += 1
            self.chance.choice(under_way).cancel()

    def _let_time_pass(self) -> None:
        self.clock.advance(self.chance.choice([1, SECOND, 20 * SECOND, HOUR, 9 * HOUR]))

    def _flush(self) -> None:
        self.disk.flush(tell=self.chance.random() < 0.8)
        self._caps_kept = dict(self._caps)

    async def _fail(self) -> None:
        """A flush fails: what waits is refused, and the daemon ends."""
        self.disk.fail()
        await self._turn()
        await self._cut_power()

    async def _cut_power(self) -> None:
        self.seen["power cuts"] += 1
        await self._cancel_all()
        self._busy()
        kept = self.disk.kept
        self.disk.cut_power()
        self._caps = dict(self._caps_kept)
        self._opened = {}  # a window that nothing durable was charged to may open again
        self.receipts = {n: one for n, one in self.receipts.items() if one.seq <= kept}
        lost = [name for name, held in self._holds.items() if held.seq > kept]
        self._note_lost([name for name in lost if self.provider.bill[name]])
        self._holds = {}
        if self.chance.random() < 0.3:
            before = self._everything()
            self.disk.cut_power()
            must("I6 recovery is idempotent", self._everything() == before)
        self._start_again()

    def _note_lost(self, names: list[str]) -> None:
        """What a crash made the ledger forget belongs to the charge of this crash."""
        found = [one.hold for one in self.disk.real.unresolved() if one.lost]
        new = [hold for hold in found if hold not in self._lost]
        must("one crash is one unknown", len(new) <= 1, new)
        self.seen["lost calls"] += len(names)
        self.seen["crashes charged"] += len(new)
        if new:
            self._lost[new[0]] = names
        else:
            must("I2 the bill is covered", not names, names)

    async def _end_in_order(self) -> None:
        """The daemon is stopped and started: what it charges is what was still open."""
        await self._cancel_all()
        self._busy()
        left = sum(one.state == "open" for one in self.disk.real.unresolved())
        self.disk.close()
        found = self.disk.start().recovered
        assert found is not None
        must("I11 an orderly end charges nothing", found.lost_nano_usd == 0, found)
        must("I11 an orderly end charges nothing", found.charged == left, found)
        self.seen["orderly ends"] += 1
        self._caps_kept, self._holds = dict(self._caps), {}
        self._start_again()

    def _start_again(self) -> None:
        # Keys are kept for a day of the wall clock, and a start believes it, wherever it was set.
        for told in self._outside.values():
            told.at_ns -= self._leapt_ns
        self._leapt_ns = 0
        self._start()
        self._check_acknowledged()

    def _change_limit(self) -> None:
        """From now on calls have another limit; those under way keep theirs."""
        which = self.chance.choice(sorted(self._limits))
        self._limits[which] = max(1, self._limits[which] * self.chance.randint(5, 18) // 10)
        self._pipeline = self._made_pipeline()

    def _step_clock(self) -> None:
        ns = self.chance.choice([-26, -3, -1, 1, 3, 26]) * HOUR
        self.clock.step(ns)
        self._leapt_ns += max(0, ns)

    def _checkpoint(self) -> None:
        self.disk.real.checkpoint()
        self._flush()

    def _resolve_one(self) -> None:
        """Somebody looks up an unknown on the provider's bill."""
        unknown = [one for one in self.disk.real.unresolved() if one.state == "unknown"]
        if unknown:
            self._resolve(self.chance.choice(unknown))

    def _resolve(self, found: HoldStatus) -> None:
        if found.lost:
            self._find(found)
            return
        if found.request_id in self._outside:
            self._outside[found.request_id].over = True
        receipt = self.receipts.get(found.hold)
        told = receipt is not None and receipt.unknown == found.unknown
        posted = receipt.posted if told and receipt is not None else 0
        self.disk.real.adjust(found.hold, self.provider.bill[found.request_id] - posted)

    def _find(self, found: HoldStatus) -> None:
        """What a crash lost: what all of it cost, and whose it was as far as that is known."""
        users: Counter[str] = Counter()
        for name in self._lost[found.hold]:
            users[self.user_of[name]] += self.provider.bill[name]
        sum = users.total()
        must("I2 the bill is covered", sum <= found.unknown, (sum, found))
        if self._vague:
            self.disk.real.adjust(found.hold, sum)
            return
        scopes = [(scope, id, sum) for scope, id in SHARED]
        scopes += [("user", user, users[user]) for user in USERS]
        self.disk.real.adjust(found.hold, sum, scopes)

    async def _cancel_all(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        """The end of the world, also of one that is broken."""
        await self._cancel_all()
        self.disk.close()

    # What must hold.

    def check(self) -> None:
        """Every invariant that can be seen at any instant."""
        self._busy()
        counters = {(one.scope, one.id, one.window): one for one in self.disk.real.counters()}
        for which, one in counters.items():
            self._check_limit(which, one)
            if one.starts_at_ns is not None:
                opened = self._opened.setdefault(which, one.starts_at_ns)
                must(
                    "I7 windows never open again", one.starts_at_ns >= opened, (which, one, opened)
                )
                self._opened[which] = one.starts_at_ns
        self._check_bill(counters)
        self._check_shared(counters)

    def _check_bill(self, counters: dict[tuple[Scope, str, Window], CounterStatus]) -> None:
        """I2, on every counter, and for users also in the day that is."""
        billed: Counter[tuple[Scope, str]] = Counter()
        for name, amount in self.provider.bill.items():
            user = self.user_of[name]
            for scope in (("user", user), *SHARED):
                billed[scope] += amount
            day, at_ns = counters.get(("user", user, "day")), self._days[name]
            if day is not None and day.starts_at_ns is not None and at_ns is not None:
                must(
                    "I2 no bill of a day that nobody knows", not amount or at_ns <= day.starts_at_ns
                )
        for (scope_kind, id), amount in billed.items():
            one = counters.get((scope_kind, id, "total"))
            used = 0 if one is None else _used(one)
            must("I2 the bill is covered", amount <= used, (scope_kind, id, amount, one))
        for user in USERS:
            one = counters.get(("user", user, "day"))
            if one is not None and not self._may_be_over(one):
                of_day = sum(
                    amount
                    for name, amount in self.provider.bill.items()
                    if self.user_of[name] == user and self._days[name] == one.starts_at_ns
                )
                must("I2 the bill is covered", of_day <= _used(one), (of_day, one))

    def _may_be_over(self, one: CounterStatus) -> bool:
        """A window that is over shows as empty until something is charged to the next."""
        latest = START + self.clock.now_ns + self.clock.ahead_ns
        return _used(one) == 0 and (one.resets_at_ns or 0) <= latest

    def _check_shared(self, counters: dict[tuple[Scope, str, Window], CounterStatus]) -> None:
        """I3: what all calls are charged to has what the users have, but for what crashes lost:
        that is each counter's own."""
        if self._vague and self.seen["lost calls"]:
            return  # what is not known of a user stays charged there
        lost: Counter[tuple[str, str]] = Counter()
        for found in self.disk.real.unresolved():
            for charge in found.charges:
                if charge.window == "total":
                    lost[charge.scope, charge.id] += charge.nano_usd
        totals = [one for one in counters.values() if (one.scope, one.window) == ("user", "total")]
        for scope, id in SHARED:
            shared = counters.get((scope, id, "total"))
            if shared is None:
                continue
            for part in ("posted", "held", "overrun"):
                whole = sum(getattr(one, part) for one in totals)
                must("I3 all counters or none", getattr(shared, part) == whole, (scope, part))
            of_users = sum(one.unknown - lost["user", one.id] for one in totals)
            must("I3 all counters or none", shared.unknown - lost[scope, id] == of_users, scope)

    def _check_limit(self, which: tuple[str, str, str], one: CounterStatus) -> None:
        """I1. A limit that was lowered only stops new holds, so what was used then is allowed."""
        key = (which[0] + which[2], which[1])
        limit = one.limit or 0
        cap = max(limit, min(self._caps.get(key, limit), _used(one)))
        if not self._soft:
            must("I1 no budget is overspent", _used(one) <= cap + one.overrun, one)
        must("no overrun", one.overrun == 0, one)
        self._caps[key] = cap

    def _check_acknowledged(self) -> None:
        """I9: what an application was told is there after a crash."""
        charged = {one.hold for one in self.disk.real.unresolved()}
        for name, told in self._outside.items():
            if told.settled:
                must("I9 a settlement that was told is kept", told.hold not in charged, name)
            elif not told.over:
                must("I9 a hold that was told is kept", told.hold in charged, name)

    async def _end(self) -> None:
        for _ in range(TURNS_TO_END):
            if not self._tasks:
                break
            self.clock.advance(HOUR)
            self.disk.flush()
            await self._turn()
            self.check()
        must("every call ends", not self._tasks, [*self._tasks])
        for found in self.disk.real.unresolved():
            if found.state == "open":
                must("no hold is left but of applications", found.request_id.startswith("o"))
                self.disk.real.post(found.hold, self.provider.bill[found.request_id], "billed")
            else:
                self._resolve(found)
        self.check()
        bill = sum(self.provider.bill.values())
        posted = [one for one in self.disk.real.counters("global") if one.window == "total"]
        told = sum(one.posted for one in posted)
        must("the books are the bill", told == bill, (told, bill))
        must("nothing is left", all(_used(one) == one.posted for one in posted))

    # How it is put together.

    def _start(self) -> None:
        self._books = self._ledger(self.disk.real, self)
        self._pipeline = self._made_pipeline()

    def _made_pipeline(self) -> Any:
        world = World(
            LADDER,
            clock=self.clock,
            provider=self.provider,
            ledger=self._books,
            limits_for=self._limits_for,
            access=AccessRules(trusted=frozenset({"uid:0"})),
        )
        return world.pipeline

    def _limits_for(self, caller: Caller, _own: OwnQuotas) -> Limits:
        return self._limits_of(caller.user_id)

    def _limits_of(self, user: str) -> Limits:
        def budget(scope: Scope, id: str, window: Window, part: int = 1) -> BudgetLimit:
            limit = self._limits[scope, id] // part
            mode: Enforcement = "degrade" if scope == "organization" else "block"
            mode = "warn" if self._soft else mode
            return BudgetLimit(
                scope=scope, id=id, window=window, limit_nano_usd=limit, enforcement=mode
            )

        rate = RateLimit(scope="user", id=user, unit="requests", window_ns=MINUTE_NS, limit=RATE)
        return Limits(
            (
                budget("global", "*", "total"),
                budget("organization", ORGANIZATION, "total"),
                budget("user", user, "total"),
                budget("user", user, "day", 2),
            ),
            (rate,),
        )

    def _spawn(self, name: str, work: Any) -> None:
        self._tasks[name] = asyncio.get_running_loop().create_task(work)

    def _busy(self) -> None:
        """Forget tasks that have ended; their faults are ours unless the disk's."""
        for name, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[name]
                fault = None if task.cancelled() else task.exception()
                if fault is not None and not isinstance(fault, LedgerFaultError):
                    raise fault

    def _everything(self) -> object:
        real = self.disk.real
        return sorted(map(repr, real.counters())), sorted(map(repr, real.unresolved()))


def _used(one: CounterStatus) -> int:
    return one.posted + one.held + one.unknown


def simulate(
    seed: int,
    gate: Gate,
    *,
    steps: int = 150,
    ledger: type[Ledger] = Ledger,
    disk: type[Disk] = Disk,
) -> Counter[str]:
    """One world, from this seed, behind a gate. Raises `Broken` where a promise is. What happened,
    counted."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:

        async def live() -> Counter[str]:
            world = Simulation(seed, Path(name), gate, ledger, disk)
            try:
                await world.live(steps)
            finally:
                await world.close()
            return world.seen

        return asyncio.run(live())
