"""The store on disk against a dictionary."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cascaded.adapters.lmdb_store import LmdbStore
from tests.support.memory_store import MemoryStore

KEYS = st.binary(min_size=1, max_size=4) | st.sampled_from([b"\0", b"\xff", b"a", b"a\0", b"b"])
BOUNDS = st.binary(max_size=4)
LIMITS = st.integers(-1, 6)
STEPS = st.one_of(
    st.tuples(st.just("put_many"), st.tuples(st.lists(st.tuples(KEYS, st.binary(max_size=40))))),
    st.tuples(st.just("delete_many"), st.tuples(st.lists(KEYS, unique=True))),
    st.tuples(st.just("delete_range"), st.tuples(BOUNDS, BOUNDS, LIMITS)),
    st.tuples(st.just("scan"), st.tuples(BOUNDS, BOUNDS, LIMITS)),
    st.tuples(st.just("reverse"), st.tuples(BOUNDS, BOUNDS, LIMITS)),
    st.tuples(st.just("get_many"), st.tuples(st.lists(KEYS))),
    st.tuples(st.just("count"), st.just(())),
)


def _call(store: Any, name: str, arguments: tuple[Any, ...]) -> Any:
    if name == "reverse":
        return store.scan(*arguments, reverse=True)
    method: Callable[..., Any] = getattr(store, name)
    return method(*arguments)


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=20))
def test_it_behaves_as_the_model(steps: list[tuple[str, tuple[Any, ...]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, model = LmdbStore(Path(folder)), MemoryStore()
        try:
            for name, arguments in steps:
                assert _call(store, name, arguments) == _call(model, name, arguments)
            assert store.scan(b"", b"\xff" * 9, 999) == model.scan(b"", b"\xff" * 9, 999)
        finally:
            store.close()
