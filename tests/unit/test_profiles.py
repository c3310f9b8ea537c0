"""The store of users, organisations and workspaces, and its cache."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from msgspec.structs import replace

from cascaded.adapters.lmdb_store import LmdbStore
from cascaded.ports import Store
from cascaded.state import profiles, shelf
from cascaded.state.profiles import ProfileManager
from cascaded.types.errors import ConflictError, RowsError, StoreError, StoreFullError
from cascaded.types.profile import (
    BudgetConfig,
    OrganizationConfig,
    UserProfile,
    WorkspaceConfig,
)
from tests.support.fakes import FakeClock
from tests.support.memory_store import MemoryStore

T = TypeVar("T")
ALICE = UserProfile(user_id="alice", tier="pro")
ACME = OrganizationConfig(organization_id="acme", data_region="eu")
LAB = WorkspaceConfig(workspace_id="lab", organization_id="acme")


LONG_WORDS = tuple(f"{number:0256}" for number in range(100))


class Counted:
    """Work off the loop, counted."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self, work: Callable[[], T]) -> T:
        self.times += 1
        return work()


class World:
    def __init__(self, store: Store, **options: Any) -> None:
        self.store = store
        self.clock = FakeClock()
        self.offload = Counted()
        self.profiles = ProfileManager(store, self.clock, self.offload, **options)
        self.profiles.tiers = lambda: ["free", "pro"]


@pytest.fixture
def world() -> World:
    return World(MemoryStore())


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[World]:
    store = LmdbStore(tmp_path / "profiles")
    yield World(store)
    store.close()


class TestCalls:
    async def test_nothing_stored_costs_nothing(self, world: World) -> None:
        assert await world.profiles.find("alice") is None
        assert await world.profiles.organization("acme") is None
        assert await world.profiles.workspace("lab") is None
        assert world.offload.times == 0

    async def test_a_profile_is_read_once_and_again_when_its_time_is_up(self, world: World) -> None:
        world.profiles.users.put(ALICE, expected="absent")
        first = await world.profiles.find("alice")
        assert first == ALICE
        assert await world.profiles.find("alice") is first, "memoised by what hangs on it"
        assert world.offload.times == 1
        world.clock.now_ns += 300 * 10**9
        assert await world.profiles.find("alice") == ALICE
        assert world.offload.times == 2

    async def test_who_is_not_there_is_remembered_as_well(self, world: World) -> None:
        world.profiles.users.put(ALICE, expected="absent")
        for _ in range(3):
            assert await world.profiles.find("bob") is None
        assert world.offload.times == 1
        world.profiles.users.put(UserProfile(user_id="bob"), expected="absent")
        assert await world.profiles.find("bob") == UserProfile(user_id="bob")

    async def test_a_change_acts_on_the_next_call(self, world: World) -> None:
        world.profiles.users.put(replace(ALICE, workspace=LAB.bare), expected="absent")
        assert (await world.profiles.find("alice") or ALICE).organization is None
        world.profiles.workspaces.put(LAB, expected="absent")
        found = await world.profiles.find("alice")
        assert found is not None
        assert found.workspace == LAB
        assert found.organization == OrganizationConfig(organization_id="acme")
        world.profiles.organizations.put(ACME, expected="absent")
        found = await world.profiles.find("alice")
        assert found is not None
        assert found.organization == ACME
        assert await world.profiles.organization("acme") == ACME
        assert await world.profiles.workspace("lab") == LAB
        world.profiles.organizations.delete("acme")
        found = await world.profiles.find("alice")
        assert found is not None
        assert found.organization == OrganizationConfig(organization_id="acme")
        world.profiles.update_tier("alice", "free")
        found = await world.profiles.find("alice")
        assert found is not None
        assert found.tier == "free"

    async def test_what_was_read_before_a_change_is_not_remembered_after_it(self) -> None:
        store = MemoryStore()
        world = World(store)
        world.profiles.users.put(ALICE, expected="absent")
        read = store.get_many
        changes: list[int] = []

        def changed_meanwhile(keys: Any) -> Any:
            found = read(keys)
            if not changes:
                changes.append(1)
                world.profiles.update_tier("alice", "free")
            return found

        store.get_many = changed_meanwhile  # type: ignore[method-assign]
        assert world.profiles.get_profile("alice") == ALICE
        assert world.profiles.get_profile("alice") == replace(ALICE, tier="free")

    async def test_the_cache_is_bounded(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(profiles, "MAX_CACHED", 2)
        world.profiles.users.put(ALICE, expected="absent")
        for user in ("alice", "bob", "carol", "bob", "carol"):
            await world.profiles.find(user)
        assert world.offload.times == 3
        await world.profiles.find("alice")
        assert world.offload.times == 4

    async def test_an_id_that_nobody_can_have(self, world: World) -> None:
        world.profiles.users.put(ALICE, expected="absent")
        assert await world.profiles.find("x" * 300) is None
        assert world.profiles.users.get("") is None


class TestWriting:
    def test_versions_are_never_given_twice(self, world: World) -> None:
        users = world.profiles.users
        first = users.put(ALICE, expected="absent").version
        second = users.put(ALICE, expected=first).version
        assert second > first
        assert users.delete("alice", expected=second).item == ALICE
        third = users.put(ALICE, expected="absent").version
        assert third > second
        assert users.get("alice") == (ALICE, third)

    @pytest.mark.parametrize(
        ("expected", "code", "why"),
        [
            ("absent", "already_exists", "'alice' is stored already"),
            (7, "version_conflict", "'alice' is at version 1, not at 7"),
        ],
    )
    def test_two_who_write_do_not_overwrite_each_other(
        self, world: World, expected: Any, code: str, why: str
    ) -> None:
        world.profiles.users.put(ALICE, expected="absent")
        users = world.profiles.users
        writes: list[Callable[[], object]] = [
            lambda: users.put(replace(ALICE, tier=None), expected=expected),
            lambda: users.delete("alice", expected=expected),
            lambda: world.profiles.update_tier("alice", "free", expected=expected),
        ]
        for write in writes:
            with pytest.raises(ConflictError, match=why) as caught:
                write()
            assert caught.value.code == code
        assert world.profiles.users.read("alice") == ALICE

    def test_what_is_not_there(self, world: World) -> None:
        with pytest.raises(ConflictError, match="nothing is stored under 'bob'") as caught:
            world.profiles.update_tier("bob", "pro")
        assert caught.value.code == "not_found"
        with pytest.raises(ConflictError, match="nothing is stored"):
            world.profiles.users.delete("bob")
        with pytest.raises(ConflictError, match="'bob' is not there any more, not at 3"):
            world.profiles.users.delete("bob", expected=3)

    def test_whom_it_belongs_to_is_stored_by_name_alone(self, world: World) -> None:
        world.profiles.organizations.put(ACME, expected="absent")
        kept = world.profiles.users.put(replace(ALICE, organization=ACME), expected="absent").item
        assert kept.organization == ACME
        assert world.profiles.users.read("alice") == replace(ALICE, organization=ACME.bare)
        for wrong in (replace(ACME, data_region="us"), OrganizationConfig(
            organization_id="other", data_region="us")):  # fmt: skip
            with pytest.raises(ValueError, match="stored with other settings"):
                world.profiles.users.put(replace(ALICE, organization=wrong), expected="any")
        world.profiles.workspaces.put(LAB, expected="absent")
        other = replace(LAB, environment="staging")
        with pytest.raises(ValueError, match="stored with other settings"):
            world.profiles.users.put(replace(ALICE, workspace=other), expected="any")
        assert world.profiles.users.change("alice", lambda user: user).item == kept

    @pytest.mark.parametrize(
        ("profile", "why"),
        [
            (replace(ALICE, tier="gold"), "no tier 'gold'; there are: free, pro"),
            (replace(ALICE, metadata={"a": "x" * 9000}), "metadata has more than 8192 bytes"),
            (replace(ALICE, tags=LONG_WORDS, blocked_models=LONG_WORDS), "at most 32768 are kept"),
            (
                replace(ALICE, budget_overrides=BudgetConfig(zone="Mars/Olympus")),
                "no time zone 'Mars/Olympus'",
            ),
        ],
    )
    def test_what_cannot_be_stored(self, world: World, profile: UserProfile, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            world.profiles.users.put(profile, expected="any")
        assert world.store.count() == 0

    def test_zones_of_shared_budgets_are_looked_at_too(self, world: World) -> None:
        nowhere, berlin = BudgetConfig(zone="No/Where"), BudgetConfig(zone="Europe/Berlin")
        with pytest.raises(ValueError, match="no time zone"):
            world.profiles.organizations.put(replace(ACME, shared_budget=nowhere), expected="any")
        with pytest.raises(ValueError, match="no time zone"):
            world.profiles.workspaces.put(replace(LAB, workspace_budget=nowhere), expected="any")
        world.profiles.workspaces.put(replace(LAB, workspace_budget=berlin), expected="any")

    def test_an_id_does_not_change(self, world: World) -> None:
        world.profiles.users.put(ALICE, expected="absent")
        with pytest.raises(ValueError, match="an id cannot be changed"):
            world.profiles.users.change("alice", lambda user: replace(user, user_id="bob"))

    def test_any_tier_where_nobody_lists_them(self) -> None:
        world = World(MemoryStore())
        world.profiles.tiers = None
        assert world.profiles.users.put(replace(ALICE, tier="gold"), expected="any").item.tier


class TestBulk:
    def test_all_in_one_transaction(self) -> None:
        store = MemoryStore()
        world = World(store)
        made = world.profiles.create_bulk([UserProfile(user_id=f"u{n}") for n in range(1000)])
        assert (len(made), store.puts) == (1000, 1)
        assert [one.version for one in made] == list(range(1, 1001))
        assert world.profiles.get_profile("u999") == UserProfile(user_id="u999")

    def test_none_if_one_cannot_be_stored(self, world: World) -> None:
        world.profiles.users.put(ALICE, expected="absent")
        rows = [
            UserProfile(user_id="a"),
            ALICE,
            UserProfile(user_id="a"),
            UserProfile(user_id="b", tier="gold"),
        ]
        with pytest.raises(RowsError) as caught:
            world.profiles.create_bulk(rows)
        assert caught.value.rows == {
            1: "'alice' is there already",
            2: "'a' is there already",
            3: "there is no tier 'gold'; there are: free, pro",
        }
        assert world.profiles.get_profile("a") is None

    def test_bounds(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(profiles, "MAX_BULK", 1)
        monkeypatch.setattr(shelf, "MAX_ROWS", 2)
        with pytest.raises(ValueError, match="2 users at once; at most 1"):
            world.profiles.create_bulk([ALICE, ALICE])
        world.profiles.create_bulk([ALICE])
        with pytest.raises(StoreFullError, match="at most 2 users"):
            world.profiles.create_bulk([UserProfile(user_id="b")])
        with pytest.raises(StoreFullError, match="at most 2 users"):
            world.profiles.users.put(UserProfile(user_id="b"), expected="any")
        world.profiles.update_tier("alice", "free")

    def test_a_disk_that_fails_leaves_everything_as_it_was(self) -> None:
        store = MemoryStore()
        world = World(store)
        world.profiles.create_bulk([ALICE])
        store.fails = StoreError("no space")
        with pytest.raises(StoreError, match="no space"):
            world.profiles.create_bulk([UserProfile(user_id="b")])
        with pytest.raises(StoreError, match="no space"):
            world.profiles.update_tier("alice", "free")
        assert world.profiles.get_profile("alice") == ALICE


class TestOnDisk:
    def test_it_is_there_after_a_restart(self, tmp_path: Path) -> None:
        store = LmdbStore(tmp_path / "p")
        first = World(store).profiles.users.put(ALICE, expected="absent").version
        store.close()
        store = LmdbStore(tmp_path / "p")
        world = World(store)
        assert world.profiles.get_profile("alice") == ALICE
        assert world.profiles.users.put(ALICE, expected=first).version > first
        store.close()

    def test_pages(self, on_disk: World) -> None:
        on_disk.profiles.organizations.put(ACME, expected="absent")
        on_disk.profiles.workspaces.put(LAB, expected="absent")
        ids = sorted([f"u{n}" for n in range(7)] + ["ü", "z" * 256, "u3/x", "u3 "], key=str.encode)
        on_disk.profiles.create_bulk([UserProfile(user_id=id) for id in ids])
        found: list[str] = []
        after: str | None = None
        while True:
            page = on_disk.profiles.users.page(limit=3, after=after)
            found += [kept.item.id for kept in page.rows]
            after = page.after
            if after is None:
                break
        assert found == ids
        assert [kept.item for kept in on_disk.profiles.organizations.page(limit=9).rows] == [ACME]
        assert [kept.item for kept in on_disk.profiles.workspaces.page(limit=9).rows] == [LAB]
        for limit, after in ((0, None), (1001, None), (1, "x" * 300), (1, "")):
            with pytest.raises(ValueError, match="must be"):
                on_disk.profiles.users.page(limit=limit, after=after)

    def test_writers_at_once_count_every_change(self, on_disk: World) -> None:
        on_disk.profiles.users.put(replace(ALICE, metadata={"n": 0}), expected="absent")

        def more(user: UserProfile) -> UserProfile:
            n = user.metadata["n"]
            assert isinstance(n, int)
            return replace(user, metadata={"n": n + 1})

        threads = [
            threading.Thread(
                target=lambda: [on_disk.profiles.users.change("alice", more) for _ in range(5)]
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        profile = on_disk.profiles.get_profile("alice")
        assert profile is not None
        assert profile.metadata["n"] == 20

    def test_a_row_that_cannot_be_read_is_a_fault_of_the_store(self, on_disk: World) -> None:
        on_disk.store.put_many([(b"ualice", b"\x01" + bytes(8) + b"{}")])
        with pytest.raises(StoreError, match="cannot be read"):
            on_disk.profiles.get_profile("alice")
        on_disk.store.put_many([(b"ualice", b"\x02" + bytes(8) + msgspec.json.encode(ALICE))])
        with pytest.raises(StoreError, match="newer version"):
            on_disk.profiles.get_profile("alice")
