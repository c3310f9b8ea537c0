"""Limits set, changed and taken away between calls, against a small model of what they mean."""

import asyncio
import json
from functools import partial
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cascaded.api.terms import Terms
from cascaded.pipeline.rules import Rulebook, Rules
from cascaded.policy.access.identity import AccessRules
from cascaded.policy.limits import LimitBook, named_limits
from cascaded.state.ledger import DurableLedger
from cascaded.state.overrides import StoredOverrides
from cascaded.types.limits import Admitted, Caller, Choice, Demand, Denial, Limits
from cascaded.types.money import format_usd
from cascaded.types.overrides import Overrides
from cascaded.types.quotas import Quotas, ScopeQuotas
from cascaded.types.request import Principal
from tests.support.fakes import Audited
from tests.support.memory_store import MemoryStore

Place = tuple[str, str]
USERS, ORGANIZATIONS = ("ann", "bob"), ("acme", "globex")
PLACES: list[Place] = [
    ("global", "*"),
    *(("user", id) for id in USERS),
    *(("organization", id) for id in ORGANIZATIONS),
]
FILED = [
    {("organization", "acme"): 60, ("user", "*"): 50},
    {("organization", "globex"): 20, ("global", "*"): 90},
    {},
]
"""What three versions of the configuration say; `user *` is of every user."""

amounts = st.integers(0, 100)
callers = st.tuples(st.sampled_from(USERS), st.sampled_from(ORGANIZATIONS))
steps = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(PLACES), amounts),
    st.tuples(st.just("unset"), st.sampled_from(PLACES)),
    st.tuples(st.just("call"), callers, st.integers(1, 40), st.integers(0, 40)),
    st.tuples(st.just("begin"), callers),
    st.tuples(st.just("late"), st.integers(1, 40)),
    st.tuples(st.just("reload"), st.integers(0, 2)),
    st.tuples(st.just("restart")),
)


class World:
    """Our parts, and beside them what should be."""

    def __init__(self) -> None:
        self.store, self.ledger = MemoryStore(), DurableLedger.in_memory()
        self.filed = FILED[0]
        self.set: dict[Place, int] = {}
        self.spent: dict[Place, int] = {}
        self.begun: tuple[Limits, dict[Place, int], tuple[str, str]] | None = None
        self.restart()

    def restart(self) -> None:
        self.stored = StoredOverrides(self.store)
        self.reload(self.filed)

    def reload(self, filed: dict[Place, int]) -> None:
        self.filed = filed
        self.rulebook = Rulebook(partial(rules, filed), self.stored)
        self.ledger.set_limits(named_limits(self.rulebook.now.book), reload=True)
        self.terms = Terms(
            stored=self.stored,
            rulebook=self.rulebook,
            ledger=self.ledger,
            audit=Audited(),
            offload=inline,
            uses=(),
        )

    def limit(self, place: Place) -> int | None:
        of_all = self.filed.get(("user", "*")) if place[0] == "user" else None
        return self.set.get(place, self.filed.get(place, of_all))

    def in_force(self, who: tuple[str, str]) -> tuple[Limits, dict[Place, int]]:
        user, organization = who
        caller = Caller(user_id=user, organization_id=organization)
        places: list[Place] = [("global", "*"), ("organization", organization), ("user", user)]
        known = {place: limit for place in places if (limit := self.limit(place)) is not None}
        return self.rulebook.now.limits_for(caller), known

    def admit(self, limits: Limits, known: dict[Place, int], asked: int) -> int | None:
        """The hold, if there is room under the limits that the call came with."""
        choice = Choice(nano_usd=asked, tokens=1)
        answer = self.ledger.admit(Demand(menu=(choice,), limits=limits))
        fits = all(self.spent.get(place, 0) + asked <= limit for place, limit in known.items())
        assert isinstance(answer, Admitted if fits else Denial), (answer, known, self.spent)
        if not isinstance(answer, Admitted):
            return None
        for place in known:
            self.spent[place] = self.spent.get(place, 0) + asked
        return answer.hold

    def settle(self, known: dict[Place, int], hold: int | None, asked: int, cost: int) -> None:
        if hold is not None:
            self.ledger.post(hold, min(asked, cost), "billed")
            for place in known:
                self.spent[place] -= asked - min(asked, cost)

    def check(self) -> None:
        """What was spent is never forgotten, and what is set is what the ledger keeps to."""
        seen = {(one.scope, one.id): one for one in self.ledger.counters()}
        for place, spent in self.spent.items():
            counter = seen[place]  # type: ignore[index]
            assert counter.posted + counter.held == spent
        for place, limit in self.set.items():
            counter = seen[place]  # type: ignore[index]
            assert (counter.limit, counter.origin) == (limit, "api")
        kept = StoredOverrides(self.store).now.limits
        assert kept == self.stored.now.limits
        assert {place: quotas.total_nano_usd for place, quotas in kept.items()} == self.set


async def inline(work: Any) -> Any:
    return work()


def rules(filed: dict[Place, int], overrides: Overrides) -> Rules:
    def of(scope: str) -> ScopeQuotas:
        named = {id: quotas(limit) for (kind, id), limit in filed.items() if kind == scope}
        default = named.pop("*", Quotas())
        return ScopeQuotas(default=default, ids=named)

    book = LimitBook(
        base=Quotas(enforcement="block"),
        scopes={"global": of("global"), "organization": of("organization"), "user": of("user")},
        overrides=overrides.limits,
    )
    return Rules(AccessRules(), book)


def quotas(limit: int) -> Quotas:
    return Quotas(total_nano_usd=limit)


def asking(method: str, place: Place, limit: int | None = None) -> Any:
    scope, id = place
    body = b"" if limit is None else json.dumps({"total_usd": format_usd(limit)}).encode()
    http = SimpleNamespace(method=method, match_info={"scope": scope, "id": id})
    principal = Principal(kind="peer", id="uid:0", admin=True)
    return SimpleNamespace(http=http, body=body, principal=principal, request_id="r")


async def play(world: World, step: Any) -> None:
    match step:
        case ("set", place, limit):
            answer = await world.terms.set_limits(asking("PUT", place, limit))
            assert answer.status == 200, answer.body
            world.set[place] = limit
        case ("unset", place):
            answer = await world.terms.unset_limits(asking("DELETE", place))
            assert answer.status == (200 if place in world.set else 404)
            world.set.pop(place, None)
        case ("call", who, asked, cost):
            limits, known = world.in_force(who)
            world.settle(known, world.admit(limits, known, asked), asked, cost)
        case ("begin", who):
            world.begun = (*world.in_force(who), who)
        case ("late", asked) if world.begun is not None:
            limits, known, who = world.begun
            hold = world.admit(limits, known, asked)
            world.settle(known, hold, asked, asked)
            world.begun = None
            # It brought the limits that it began with; the next call puts things right.
            now, present = world.in_force(who)
            world.settle(present, world.admit(now, present, 1), 1, 0)
            world.reload(world.filed)
        case ("reload", version):
            world.reload(FILED[version])
        case ("restart",):
            world.restart()
    world.check()


@settings(max_examples=150)
@given(st.lists(steps, max_size=25))
def test_limits_change_between_calls_as_the_model_says(taken: list[Any]) -> None:
    async def run() -> None:
        world = World()
        for step in taken:
            await play(world, step)
        world.ledger.close()

    asyncio.run(run())
