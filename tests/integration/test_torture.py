"""A hard budget is never overspent, a spend record is never lost: a daemon killed again and again.

The upstream keeps its own bill. After every `kill -9` and at the end the daemon's books are held
against it; at last every unknown is resolved from that bill, and the two must be equal.

`CASCADED_TORTURE_KILLS` sets how often the daemon is killed behind each gate,
`CASCADED_TORTURE_SEED` the seed.
"""

import asyncio
import json
import os
import random
import shutil
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import aiohttp
import pytest

from cascaded.client import Client
from cascaded.client.results import UnresolvedHold
from tests.support.billing import GOOD, BillingUpstream
from tests.support.daemon import CASCADE, daemon_with, upstream_server
from tests.support.process import Served, serving
from tests.support.slow_disk import slow_disk
from tests.support.upstream import Says, Upstream

KILLS = int(os.environ.get("CASCADED_TORTURE_KILLS", "3"))
SEED = int(os.environ.get("CASCADED_TORTURE_SEED", random.SystemRandom().getrandbits(32)))
CALLERS = 40
FEW = 8
"""On a slow disk: then nobody else has the journal written just before the kill."""
FRESH = 20
"""Users whom nobody knew, when a kill is aimed at the call of one of them: no ceiling covers it."""
LIVES_S = (0.4, 1.6)
"""How long a daemon serves before it is killed."""
SLOW_FLUSH_MS = 40
PYTHON_PATH = os.environ.get("PYTHONPATH", "")
MANY_KILLS = 10
"""From so many on, a call has ended in every way."""
HALF_STARTS = 3
"""Of so many starts one is killed before it has recovered."""
START_MOST_S = 60.0
"""A start with recovery, on a machine that does other things as well."""
NANO = 10**9

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
PRICES = {"cheap": (150, 600), "strong": (2_500, 10_000)}
"""Those of `CASCADE`, in nano-dollars a token."""
CONFIG = (
    CASCADE.replace("_timeout_s = 0.6", "_timeout_s = 0.5").replace(
        "threshold = 0.6", "threshold = 0.6\ntop_retries = 0"
    )
    + """
[limits]
enforcement = "block"

[limits.users.default]
total_usd = "0.10"

[limits.users.ids.roomy]
total_usd = 5000

[limits.users.ids.member]
total_usd = 5000

[limits.organizations.ids.roomy-org]
total_usd = 5000

[limits.organizations.ids.tight-org]
total_usd = "1.5"
"""
)


SOFT = """
[limits.users.ids.soft]
total_usd = 5000
enforcement = "warn"

[limits.organizations.ids.soft-org]
total_usd = 5000
enforcement = "shadow"
"""
"""Limits that refuse nothing: behind the ceiling, what they count is not lost either."""
GATES = {"strict": CONFIG, "ceiling": CONFIG + SOFT}


NEW = "new-"


class Owner(NamedTuple):
    """Who pays."""

    user: str
    organization: str


@dataclass
class Books:
    """What the callers and the provider know, apart from the daemon."""

    upstream: BillingUpstream
    gate: str
    owners: dict[str, Owner] = field(default_factory=dict)
    """By request id."""
    told: dict[str, int] = field(default_factory=dict)
    """Nano-dollars that an answer said it cost, by request id."""
    exact: set[str] = field(default_factory=set)
    """Requests of one attempt that was billed: what they were told is the bill itself."""
    outside: dict[str, int] = field(default_factory=dict)
    """Bills of calls that applications made themselves, by request id."""
    by_amount: dict[int, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """Which request and models an unknown of this amount is of. Amounts are not used twice."""
    ended: Counter[str] = field(default_factory=Counter)
    resolved: int = 0
    """Unknowns, from the bill."""
    lost: int = 0
    """Nano-dollars of calls that a crash made the ledger forget."""

    def bill(self) -> dict[str, int]:
        """Nano-dollars by request id."""
        bills: defaultdict[str, int] = defaultdict(int, self.outside)
        for (request_id, _), cost in self.upstream.bill().items():
            bills[request_id] += cost
        return bills

    def per_counter(self, sums: dict[str, int]) -> dict[tuple[str, str], int]:
        """What users and organisations owe."""
        owed: defaultdict[tuple[str, str], int] = defaultdict(int)
        for request_id, cost in sums.items():
            owner = self.owners[request_id]
            owed["user", owner.user] += cost
            owed["organization", owner.organization] += cost
            if self.gate == "ceiling":
                owed["global", "*"] += cost
        return owed

    def evidence(self, amount: int) -> int:
        """What the provider's bill says of the hold with this unknown amount."""
        request_id, models = self.by_amount[amount]
        if request_id in self.outside:
            return self.outside[request_id]
        bills = self.upstream.bill()
        return sum(bills.get((request_id, model), 0) for model in models)


class Standing(NamedTuple):
    """One counter in nano-dollars."""

    limit: int | None
    posted: int
    held: int
    unknown: int
    overrun: int


def nano(usd: Decimal | float | str) -> int:
    return int(Decimal(str(usd)) * NANO)


def standings(rows: list[dict[str, Any]]) -> dict[tuple[str, str], Standing]:
    return {
        (row["scope"], row["id"]): Standing(
            None if row["limit"] is None else nano(row["limit"]),
            *(nano(row[name]) for name in ("posted", "held", "unknown", "overrun")),
        )
        for row in rows
    }


def check(owed: dict[tuple[str, str], int], found: dict[tuple[str, str], Standing]) -> None:
    """The bill is covered, and no limit is passed. `owed` was read before `found`."""
    for which, cost in owed.items():
        assert which in found or not cost, f"{which} owes {cost} and has no counter"
    for which, standing in found.items():
        spent = standing.posted + standing.held + standing.unknown
        assert owed.get(which, 0) <= spent, (which, owed.get(which), standing)
        assert standing.limit is None or spent <= standing.limit, (which, standing)
        assert standing.overrun == 0, (which, standing)


class Callers:
    """Concurrent callers of every temper, on a daemon that comes and goes."""

    def __init__(self, books: Books, socket: Path, chance: random.Random) -> None:
        self.books = books
        self.round = 0
        self.most = CALLERS
        self.fresh = 0
        """So many more calls may be of users whom nobody knows."""
        self._socket = socket
        self._chance = chance
        self._open = asyncio.Event()
        self._busy = 0
        self._serial = 0
        self._worst: dict[str, int] = {}
        self._pool: list[int] = []

    def learn(self, client: Client) -> None:
        """How holds are reckoned, from the daemon's own forecast."""
        for model in ("strong", "cheap"):
            told = client.check("What is the capital of France?", model=model, max_tokens=100)
            assert told.worst_cost is not None
            self._worst[model] = nano(told.worst_cost) - 100 * PRICES[model][1]
        self._pool = list(range(20, 2_000))
        self._chance.shuffle(self._pool)

    def go(self) -> None:
        self._open.set()

    async def halt(self) -> None:
        """No new calls; returns when those under way have ended."""
        self._open.clear()
        while self._busy:
            await asyncio.sleep(0.005)

    async def run(self) -> None:
        """Call for ever."""
        connector = aiohttp.UnixConnector(path=str(self._socket), limit=0)
        async with aiohttp.ClientSession(connector=connector, base_url="http://d/") as session:
            await asyncio.gather(*(self._caller(session, number) for number in range(CALLERS)))

    async def budgets(self) -> list[dict[str, Any]]:
        connector = aiohttp.UnixConnector(path=str(self._socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://d/budgets") as answer,
        ):
            rows: list[dict[str, Any]] = (await _json(answer))["budgets"]
            return rows

    async def _caller(self, session: aiohttp.ClientSession, number: int) -> None:
        kinds = [self._ask, self._stream, self._leave, self._outside]
        while True:
            await self._open.wait()
            if number >= self.most:
                await asyncio.sleep(0.05)
                continue
            self._busy += 1
            try:
                await self._chance.choices(kinds, [4, 4, 2, 2])[0](session)
            except (aiohttp.ClientError, OSError):
                self.books.ended["cut off"] += 1
                await asyncio.sleep(0.01)
            finally:
                self._busy -= 1

    def _request(self) -> tuple[str, Owner]:
        self._serial += 1
        owners = [
            Owner("roomy", "roomy-org"),
            Owner(f"tight-{self.round}", "roomy-org"),
            Owner("member", "tight-org"),
        ]
        if self.books.gate == "ceiling":
            owners.append(Owner("soft", "soft-org"))
        owner = self._chance.choice(owners)
        if self.fresh:
            self.fresh -= 1
            owner = Owner(f"{NEW}{self._serial}", "roomy-org")
        request_id = f"call-{self._serial}"
        self.books.owners[request_id] = owner
        return request_id, owner

    def _call(self, *, stream: bool) -> tuple[str, str, dict[str, Any]]:
        """Request id, model and what to post. Each has a bound of its own, so that the amount of
        a hold tells whose it is."""
        request_id, owner = self._request()
        model = self._chance.choice(["strong", "auto"])
        body = {
            "model": model,
            "messages": QUESTION,
            "stream": stream,
            "max_tokens": self._bound(request_id, model),
        }
        if stream:
            body["stream_options"] = {"include_usage": True}
        headers = {
            "X-Request-ID": request_id,
            "X-User-ID": owner.user,
            "X-Organization-ID": owner.organization,
        }
        return request_id, model, {"json": body, "headers": headers}

    def _bound(self, request_id: str, model: str) -> int:
        while True:
            bound = self._pool.pop()
            cheap, strong = (self._worst[name] + bound * PRICES[name][1] for name in PRICES)
            means: dict[int, tuple[str, ...]] = {strong: ("strong",)}
            if model == "auto":
                means |= {cheap: ("cheap",), cheap + strong: ("cheap", "strong")}
            if not means.keys() & self.books.by_amount.keys():
                for amount, models in means.items():
                    self.books.by_amount[amount] = (request_id, models)
                return bound

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        request_id, model, what = self._call(stream=False)
        async with session.post("v1/chat/completions", **what) as answer:
            body = await _json(answer)
            if answer.status == 200:
                self._told(request_id, model, answer.headers["x-cascaded-cost"])
            self.books.ended[_ending(answer.status, body)] += 1

    async def _stream(self, session: aiohttp.ClientSession) -> None:
        request_id, model, what = self._call(stream=True)
        async with session.post("v1/chat/completions", **what) as answer:
            if answer.status != 200:
                self.books.ended[_ending(answer.status, await _json(answer))] += 1
                return
            async for line in answer.content:
                if line.startswith(b"data: {") and b'"cost"' in line:
                    usage = json.loads(line[6:], parse_float=Decimal)["usage"]
                    self._told(request_id, model, usage["cost"])
                    self.books.ended["streamed"] += 1

    async def _leave(self, session: aiohttp.ClientSession) -> None:
        """Hang up, somewhere."""
        _, _, what = self._call(stream=self._chance.random() < 0.5)
        try:
            async with (
                asyncio.timeout(self._chance.uniform(0.001, 0.06)),
                session.post("v1/chat/completions", **what) as answer,
            ):
                await answer.read()
        except TimeoutError:
            self.books.ended["left"] += 1

    async def _outside(self, session: aiohttp.ClientSession) -> None:
        """Hold, make the call, settle; some forget to settle."""
        request_id, owner = self._request()
        most = self._serial * 1_000 + 7  # no hold of ours ends in 7
        self.books.by_amount[most] = (request_id, ())
        self.books.outside[request_id] = 0
        context = {"user_id": owner.user, "organization": owner.organization}
        body = {"cost": f"{Decimal(most) / NANO:f}", "context": context}
        async with session.post("reserve", json=body) as answer:
            held = await _json(answer)
            if answer.status != 200:
                self.books.ended[_ending(answer.status, held)] += 1
                return
        cost = self.books.outside[request_id] = self._chance.choice([0, most, most // 3])
        if self._chance.random() < 0.2:
            self.books.ended["forgot"] += 1
            return
        end = {"hold": held["hold"], "cost": f"{Decimal(cost) / NANO:f}"}
        async with session.post("settle", json=end) as answer:
            settled = await _json(answer)
            assert answer.status == 200, settled
            assert nano(settled["posted"]) == cost
            self.books.told[request_id] = cost
            self.books.exact.add(request_id)
            self.books.ended["settled"] += 1

    def _told(self, request_id: str, model: str, cost: str | Decimal) -> None:
        self.books.told[request_id] = nano(cost)
        if model == "strong":
            self.books.exact.add(request_id)


async def _json(answer: aiohttp.ClientResponse) -> Any:
    return json.loads(await answer.read(), parse_float=Decimal)


def _ending(status: int, body: Any) -> str:
    return "answered" if status == 200 else str(body["error"]["code"])


def after_a_start(books: Books, client: Client) -> None:
    """Nothing is under way: what the books say of the past must hold to the nano-dollar."""
    owed = books.per_counter(books.bill())
    # Of others an attempt's bill was unknown when they were told; by now it may be resolved.
    told = books.per_counter({one: books.told[one] for one in books.exact})
    found = standings(_rows(client))
    check(owed, found)
    for which, standing in found.items():
        assert standing.held == 0, (which, standing, "open holds are charged on recovery")
        assert told.get(which, 0) <= standing.posted + standing.unknown, (which, standing)


def resolve(books: Books, client: Client) -> int:
    """Every unknown from the provider's bill; then the books must equal it. How many there were."""
    unknowns = client.unknowns()
    for hold in unknowns:
        assert hold.state == "unknown"
        if not hold.lost:
            client.resolve(hold.hold, Decimal(books.evidence(nano(hold.unknown))) / NANO)
    owed = books.per_counter(books.bill())
    for hold in unknowns:
        if hold.lost:
            books.lost += find(hold, owed, client)
    found = standings(_rows(client))
    assert {which: one.posted for which, one in found.items() if one.posted} == {
        which: cost for which, cost in owed.items() if cost
    }
    assert all(one.unknown == one.held == one.overrun == 0 for one in found.values())
    bills = books.bill()
    for request_id, cost in books.told.items():
        assert bills[request_id] <= cost, f"{request_id} was told less than it cost"
        assert request_id not in books.exact or bills[request_id] == cost, request_id
    books.by_amount.clear()
    return len(unknowns)


def find(hold: UnresolvedHold, owed: dict[tuple[str, str], int], client: Client) -> int:
    """What was billed and is in no book was lost by the crash: it must be within its charge."""
    found = standings(_rows(client))
    missing = {which: owed.get(which, 0) - one.posted for which, one in found.items()}
    total = missing["global", "*"]
    assert 0 <= total <= nano(hold.unknown), (total, hold)
    shares = {
        which: Decimal(cost) / NANO for which, cost in missing.items() if found[which].unknown
    }
    client.resolve(hold.hold, Decimal(total) / NANO, shares)
    return total


def _rows(client: Client) -> list[dict[str, Any]]:
    names = ("scope", "id", "limit", "posted", "held", "unknown", "overrun")
    return [{name: getattr(one, name) for name in names} for one in client.budgets()]


@asynccontextmanager
async def watched(callers: Callers, books: Books) -> AsyncIterator[None]:
    """The invariant while everything moves: the bill is read first, so it must be covered."""
    looks = 0

    async def look() -> None:
        nonlocal looks
        while True:
            owed = books.per_counter(books.bill())
            check(owed, standings(await callers.budgets()))
            looks += 1
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(look())
        yield
        async with asyncio.timeout(START_MOST_S):
            while not looks:
                await asyncio.sleep(0.01)
        watching.cancel()


async def one_life(
    callers: Callers, books: Books, served: Served, chance: random.Random, *, aimed: bool
) -> None:
    """Serve for a while, then die: at any moment, or at the instant when the provider has billed
    the call of a user whom nobody knew, whose hold must be on the disk by then."""

    def strike(request_id: str) -> bool:
        if callers.fresh and not books.owners[request_id].user.startswith(NEW):
            return False
        served.process.kill()
        return True

    callers.most = FEW if aimed else CALLERS
    callers.go()
    async with watched(callers, books):
        await asyncio.sleep(chance.uniform(*LIVES_S))
    if aimed:
        callers.fresh, books.upstream.strike = FRESH, strike
        async with asyncio.timeout(START_MOST_S):
            while served.process.poll() is None:
                await asyncio.sleep(0.001)
        callers.fresh = 0
    else:
        served.process.kill()
    await callers.halt()
    served.process.wait()


def half_start(folder: Path, config: str, chance: random.Random) -> None:
    """A start that is killed, perhaps in the middle of its recovery."""
    with serving(folder, config, ready=False) as served:
        time.sleep(chance.uniform(0.2, 1.2))
        served.process.kill()


def say(words: str) -> None:
    """Shown with `pytest -s`, and when the test fails."""
    sys.stdout.write(words + "\n")


@pytest.fixture
def billing() -> Iterator[BillingUpstream]:
    with upstream_server(BillingUpstream(SEED, PRICES)) as upstream:
        yield upstream


async def torture(
    books: Books,
    tmp_path: Path,
    kills: int,
    *,
    slow: Callable[[int], bool],
    python_path: str = PYTHON_PATH,
) -> list[float]:
    """Kill daemons, compare the books after each; on a slow disk aimed. How long starts took."""
    chance = random.Random(SEED)
    gate, billing = books.gate, books.upstream
    config = GATES[gate].replace("{url}", billing.url)
    config = config.replace("[ledger]", f'[ledger]\ngate = "{gate}"')
    callers = Callers(books, tmp_path / "d.sock", chance)
    slowly = slow_disk(tmp_path, SLOW_FLUSH_MS)
    starts: list[float] = []
    async with asyncio.TaskGroup() as group:
        calling = group.create_task(callers.run())
        for life in range(kills + 1):
            if life % HALF_STARTS == HALF_STARTS - 1:
                half_start(tmp_path, config, chance)
            began = time.monotonic()
            preload = slowly if slow(life) else ""
            with (
                serving(tmp_path, config, LD_PRELOAD=preload, PYTHONPATH=python_path) as served,
                served.client() as client,
            ):
                starts.append(time.monotonic() - began)
                after_a_start(books, client)
                books.resolved += resolve(books, client)
                if life == kills:
                    break
                callers.round = life
                callers.learn(client)
                await one_life(callers, books, served, chance, aimed=slow(life))
        calling.cancel()
    return starts


@pytest.mark.parametrize("gate", GATES)
async def test_nothing_is_overspent_or_lost_however_often_it_is_killed(
    billing: BillingUpstream, tmp_path: Path, gate: str
) -> None:
    say(f"CASCADED_TORTURE_SEED={SEED}, gate {gate}")
    books = Books(billing, gate)
    # Every other life is on a slow disk, where a crash forgets more.
    starts = await torture(books, tmp_path, KILLS, slow=lambda life: life % 2 == 0)
    total, resolved = sum(books.bill().values()), books.resolved
    say(f"{KILLS} kills, {sum(books.ended.values())} calls: {dict(books.ended)}")
    say(f"bill {total / NANO:.6f} USD = posted; {resolved} unknowns resolved; none lost")
    say(f"without a record, within what was charged for it: {books.lost / NANO:.6f} USD")
    say(f"starts with recovery: median {median(starts):.2f} s, slowest {max(starts):.2f} s")
    assert max(starts) < START_MOST_S
    # A busy machine does not get round to every ending in the short form's few lives.
    rare = ("streamed", "left", "settled", "insufficient_quota") if KILLS >= MANY_KILLS else ()
    for ending in ("answered", "cut off", *rare):
        assert books.ended[ending], f"nothing ended as {ending}: this proved little"
    assert resolved


SENDS_AT_ONCE = """
import msgspec
from cascaded.state.ledger import Admitted, DurableLedger

admit = DurableLedger.admit


def at_once(self, demand):
    answer = admit(self, demand)
    return msgspec.structs.replace(answer, clear=True) if isinstance(answer, Admitted) else answer


DurableLedger.admit = at_once
"""
"""A daemon without a gate: Python runs this before anything else."""
KILLS_OF_IT = 12


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler makes a slow disk")
@pytest.mark.parametrize("gate", GATES)
async def test_a_daemon_that_sends_every_call_at_once_is_caught(
    billing: BillingUpstream, tmp_path: Path, gate: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SENDS_AT_ONCE)
    path = os.pathsep.join([str(tmp_path), PYTHON_PATH])
    books = Books(billing, gate)
    with pytest.raises((AssertionError, ExceptionGroup)) as caught:
        await torture(books, tmp_path, KILLS_OF_IT, slow=lambda _: True, python_path=path)
    say(f"{gate}: {caught.value!r}")
    assert NEW in repr(caught.value), "it is missed where no ceiling covered it"


RACE = """
[limits]
enforcement = "block"

[limits.users.default]
total_usd = "0.0075"

[limits.organizations.default]
total_usd = "0.0225"
"""
"""Room for a hundred answers a user, three hundred an organisation of four users."""
RACERS = 1_000
ANSWER_NANO = 75_000
"""10 input and 5 output tokens of `strong`."""


async def test_a_thousand_plain_and_streamed_callers_race_for_two_budgets() -> None:
    """Neither a user's budget nor the organisation's is passed, and both are used."""
    upstream = Upstream()
    upstream.on("strong", Says(GOOD, delay_s=0.02))
    config = CASCADE.replace("[server]", "[server]\nmax_concurrency = 2000")
    config = config.replace("_timeout_s = 0.6", "_timeout_s = 30")
    config = config.replace("total_timeout_s = 4", "total_timeout_s = 60") + RACE
    answered: Counter[str] = Counter()
    refused: Counter[str] = Counter()

    async def race(session: aiohttp.ClientSession, number: int) -> None:
        user = f"racer-{number % 4}"
        body = {"model": "strong", "messages": QUESTION, "max_tokens": 5, "stream": number % 3 == 0}
        headers = {"X-User-ID": user, "X-Organization-ID": "racers"}
        async with session.post("v1/chat/completions", json=body, headers=headers) as answer:
            text = await answer.read()
            if answer.status == 200:
                answered[user] += 1
            else:
                refused[json.loads(text)["error"]["code"]] += 1

    with upstream_server(upstream), daemon_with(config, url=upstream.url) as daemon:
        connector = aiohttp.UnixConnector(path=daemon.socket, limit=0)
        async with aiohttp.ClientSession(connector=connector, base_url="http://d/") as session:
            await asyncio.gather(*(race(session, number) for number in range(RACERS)))
        with Client(daemon.socket) as client:
            found = standings(_rows(client))
        bills = {("organization", "racers"): ANSWER_NANO * len(upstream.calls("strong"))}
    assert refused.keys() == {"insufficient_quota"}
    for user, answers in answered.items():
        bills["user", user] = answers * ANSWER_NANO
    for which, bill in bills.items():
        assert found[which] == (found[which].limit, bill, 0, 0, 0)
        assert bill <= (found[which].limit or 0)
    assert bills["organization", "racers"] == sum(answered.values()) * ANSWER_NANO
    assert sum(answered.values()) >= 150, "the budgets were used, not merely guarded"


async def test_nothing_is_sent_before_its_hold_is_on_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What no `kill -9` can show, because the page cache survives it: the order itself."""
    upstream = Upstream()
    upstream.on("strong", Says(GOOD))
    asked, flushed = threading.Event(), threading.Event()

    async def durable(seq: int) -> None:
        asked.set()
        while not flushed.is_set():
            await asyncio.sleep(0.01)

    body = {"model": "strong", "messages": QUESTION, "max_tokens": 5}
    with upstream_server(upstream), daemon_with(CASCADE + RACE, url=upstream.url) as daemon:
        monkeypatch.setattr(daemon.services.pipeline.ledger, "durable", durable)
        connector = aiohttp.UnixConnector(path=daemon.socket)
        async with aiohttp.ClientSession(connector=connector, base_url="http://d/") as session:
            async with asyncio.TaskGroup() as group:
                call = group.create_task(session.post("v1/chat/completions", json=body))
                await asyncio.to_thread(asked.wait, 5)
                await asyncio.sleep(0.2)
                assert asked.is_set()
                assert not upstream.received
                flushed.set()
            answer = await call
            assert (answer.status, len(upstream.received)) == (200, 1)
            answer.release()
