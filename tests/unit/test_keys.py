"""Issued keys: their form, what is kept of them, and for how long."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cascaded.api.auth import digest
from cascaded.policy.access.keys import SECRET_BYTES, compose, hint_of, is_ours
from cascaded.state.keys import KEEP_DEAD_NS, KEY, USED_EVERY_NS, KeyRing
from cascaded.types.errors import StoreError
from cascaded.types.keys import IssuedKey
from cascaded.types.request import Owner
from tests.support.fakes import FakeClock
from tests.support.memory_store import MemoryStore

tiers = st.none() | st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,63}\Z")
secrets = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)


@given(tiers, secrets)
def test_a_key_has_a_form_of_its_own(tier: str | None, secret: bytes) -> None:
    key = compose(tier, secret)
    assert is_ours(key)
    assert key.startswith(f"sk_{tier or 'key'}_")
    assert re.fullmatch(r"[\w-]+", key, re.ASCII)
    hint = hint_of(key)
    assert hint == f"sk_{tier or 'key'}_…{key[-4:]}"
    assert is_ours(compose(tier, secret[::-1]))
    assert (compose(tier, secret[::-1]) == key) == (secret == secret[::-1])


@given(tiers, secrets, st.data())
def test_a_key_that_was_changed_anywhere_is_none_of_ours(
    tier: str | None, secret: bytes, data: Any
) -> None:
    key = compose(tier, secret)
    at = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda one: one != key[at]))
    assert not is_ours(key[:at] + other + key[at + 1 :])
    assert not is_ours(key[:at] + key[at + 1 :])
    assert not is_ours(key + other)


@pytest.mark.parametrize(
    "other",
    ["", "unused", "sk-proj-abc", "sk_", "sk_enterprise_" + "0" * 39, "sk_" + "x" * 10**6, "ſk_é"],
)
def test_other_keys_are_none_of_ours(other: str) -> None:
    assert not is_ours(other)


def test_another_tier_in_front_breaks_it() -> None:
    key = compose("free", b"x" * SECRET_BYTES)
    assert not is_ours(key.replace("sk_free_", "sk_enterprise_"))


CLOCK = FakeClock()
NOW = CLOCK.wall_ns()
SECRET = compose("pro", b"s" * SECRET_BYTES)


def made(id: str = "0123456789ab", **fields: Any) -> IssuedKey:
    first = IssuedKey(
        id=id,
        digest=digest(SECRET + fields.pop("more", "")),
        hint=hint_of(SECRET),
        name="app",
        owner=Owner(user_id="alice", tier="pro"),
        created_ns=NOW,
    )
    return replace(first, **fields)


def ring(store: MemoryStore, clock: FakeClock = CLOCK) -> KeyRing:
    return KeyRing(store, clock, report=lambda _: None)


def test_what_is_kept_is_no_key() -> None:
    store = MemoryStore()
    known = ring(store)
    known.write(made())
    known.close()
    [(_, value)] = store.scan(b"", b"\xff", 9)
    assert SECRET.encode() not in value
    assert SECRET.split("_")[-1][:33].encode() not in value
    assert made().digest in value


def test_it_is_found_by_its_hash_also_after_a_restart() -> None:
    store = MemoryStore()
    first = ring(store)
    assert first.find(digest(SECRET)) is None
    first.write(made())
    assert first.find(digest(SECRET)) is None, "not in force yet"
    first.put_in_force(made())
    assert first.find(digest(SECRET)) == first.get("0123456789ab") == made()
    first.close()
    again = ring(store)
    assert again.find(digest(SECRET)) == made()
    assert again.find(digest(SECRET + "x")) is None
    assert again.users_of("pro") == ["key 'app' (0123456789ab)"]
    assert again.users_of("free") == []
    again.close()


def test_the_last_use_is_kept_to_the_hour_and_never_undoes_a_revocation() -> None:
    store, clock = MemoryStore(), FakeClock()
    known = ring(store, clock)
    known.write(made())
    known.put_in_force(made())
    assert known.used_ns("0123456789ab") is None
    for _ in range(3):
        known.find(digest(SECRET))
        clock.now_ns += USED_EVERY_NS // 4
    dead = made(revoked_ns=NOW)
    known.write(dead)
    known.put_in_force(dead)
    clock.now_ns += 9 * USED_EVERY_NS
    known.find(digest(SECRET))
    known.close()
    again = ring(store, clock)
    used = again.used_ns("0123456789ab")
    assert used is not None
    assert used % USED_EVERY_NS == 0
    assert used <= NOW < used + USED_EVERY_NS
    assert again.get("0123456789ab") == dead
    assert again.users_of("pro") == []
    again.close()


def test_states() -> None:
    assert made().state(NOW) == "active"
    assert made(expires_ns=NOW + 1).state(NOW) == "active"
    assert made(expires_ns=NOW).state(NOW) == "expired"
    assert made(expires_ns=NOW, revoked_ns=NOW).state(NOW) == "revoked"


def test_what_has_been_dead_for_long_is_forgotten() -> None:
    store = MemoryStore()
    first = ring(store)
    long_ago = NOW - KEEP_DEAD_NS
    for key in (
        made("a" * 12, more="a"),
        made("b" * 12, more="b", revoked_ns=long_ago),
        made("c" * 12, more="c", expires_ns=long_ago),
        made("d" * 12, more="d", revoked_ns=long_ago + 1),
    ):
        first.write(key)
    first.close()
    again = ring(store)
    assert [key.id[0] for key in again.all()] == ["a", "d"]
    assert len(store.scan(KEY, b"\xff", 9)) == 2
    again.close()


@pytest.mark.parametrize("value", [b"", b"\x02new", b"\x01not a key"])
def test_keys_that_cannot_be_read_stop_the_start(value: bytes) -> None:
    store = MemoryStore()
    store.put_many([(KEY + b"x", value)])
    with pytest.raises(StoreError):
        ring(store)


def test_no_secret_in_its_words() -> None:
    assert SECRET.split("_")[-1] not in repr(made())
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made()), type=IssuedKey) == made()
