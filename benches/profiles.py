"""What profiles cost: `python -m benches.profiles`. To make, to keep, to find, and on a call's
way."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median

from msgspec.structs import replace

from cascaded.adapters.clock import SystemClock
from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.adapters.offload import ThreadOffload
from cascaded.pipeline.rules import Rulebook, Rules
from cascaded.pipeline.stages.permit import permit
from cascaded.pipeline.stages.resolve import resolve, standing
from cascaded.policy.access.identity import AccessRules
from cascaded.policy.limits import LimitBook
from cascaded.state.profiles import ProfileManager
from cascaded.types.decision import Decision
from cascaded.types.profile import QualityPreferences, UserProfile
from cascaded.types.request import Claims, Principal
from cascaded.types.tiers import TIER_PRESETS
from tests.support.fakes import NoOverrides, ladder, model, request

BULK = 1_000
ROUNDS = 10
FOUND = 2_000
CALLS = 40_000
BURSTS = 40
"""The best of them counts: the machine has other work."""
LADDER = ladder(model("cheap", 1), model("strong", 10))
RULES = Rules(
    AccessRules(trusted=frozenset({"app"}), tiers=frozenset(TIER_PRESETS)),
    LimitBook(tiers=TIER_PRESETS),
)
ASKED = replace(request(), principal=Principal(kind="key", id="app"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, threads = LmdbStore(Path(folder, "profiles")), ThreadOffload()
        profiles = ProfileManager(store, SystemClock(), threads)
        _kept(profiles)
        asyncio.run(_called(profiles))
        threads.close()
        store.close()


def _kept(profiles: ProfileManager) -> None:
    many = [
        [UserProfile.from_tier("pro", f"u-{each}-{n}") for n in range(BULK)]
        for each in range(ROUNDS)
    ]
    bulk = [_ms(partial(profiles.create_bulk, users)) for users in many]
    print(f"{BULK} profiles created: {median(bulk):.1f} ms (slowest of {ROUNDS}: {max(bulk):.1f})")
    preset = [_ms(partial(UserProfile.from_tier, "pro", f"{n}")) for n in range(FOUND)]
    print(f"from a preset: {median(preset) * 1e3:.1f} µs")
    changed = [_ms(partial(profiles.update_tier, f"u-0-{n}", "free")) for n in range(100)]
    print(f"update_tier, on disk: {median(changed):.2f} ms (slowest of 100: {max(changed):.2f})")


async def _called(profiles: ProfileManager) -> None:
    stored = [await _awaited(profiles, f"u-1-{n % BULK}") for n in range(BULK)]
    cached = [await _awaited(profiles, f"u-1-{n % BULK}") for n in range(FOUND)]
    nobody = [await _awaited(profiles, f"nobody-{n}") for n in range(BULK)]
    for name, times in (("stored", stored), ("cached", cached), ("not stored, first", nobody)):
        worst = sorted(times)[len(times) * 99 // 100]
        print(f"found {name}: p50 {median(times) * 1e3:.1f} µs, p99 {worst * 1e3:.1f} µs")
    wanted = UserProfile(
        user_id="wants",
        tier="pro",
        preferred_models=("strong",),
        blocked_models=("o1*",),
        quality_preferences=QualityPreferences(max_cost_per_query=None),
    )
    profiles.users.put(wanted, expected="absent")
    stand = resolve(standing(Rulebook(lambda _: RULES, NoOverrides()), profiles))
    stages = {"resolve": stand, "permit": permit()}
    callers = {
        "without tier or profile": Claims(user_id="nobody-1"),
        "with a tier": Claims(user_id="nobody-1", user_tier="pro"),
        "with a profile": Claims(user_id="u-1-7"),
        "with a profile that asks for much": Claims(user_id="wants"),
    }
    for name, claims in callers.items():
        asked = replace(ASKED, claims=claims)
        resolved = await stages["resolve"](asked, Decision())
        assert isinstance(resolved, Decision)
        decision = replace(resolved, ladder=LADDER)
        each = [await _each_us(partial(stage, asked, decision)) for stage in stages.values()]
        print(f"a call {name}: resolve {each[0]:.2f} µs, permit {each[1]:.2f} µs")


async def _awaited(profiles: ProfileManager, user_id: str) -> float:
    start = time.perf_counter()
    await profiles.find(user_id)
    return (time.perf_counter() - start) * 1e3


async def _each_us(work: Callable[[], Awaitable[object]]) -> float:
    bursts = []
    for _ in range(BURSTS):
        start = time.perf_counter()
        for _ in range(CALLS // BURSTS):
            await work()
        bursts.append((time.perf_counter() - start) / (CALLS // BURSTS) * 1e6)
    return min(bursts)


def _ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    main()
