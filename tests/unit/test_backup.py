"""A backup is whole or not there."""

from pathlib import Path

import pytest

from cascaded.adapters.lmdb_store import LmdbStore, read_through
from cascaded.state.backup import Copy, back_up
from cascaded.types.errors import LedgerFaultError, StoreError


def written(text: str) -> Copy:
    def copy(folder: Path) -> None:
        folder.mkdir()
        (folder / "data").write_text(text)

    return copy


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


def test_parts_in_order_and_their_sizes(tmp_path: Path, own: Path) -> None:
    order: list[str] = []

    def copy(name: str, size: int) -> Copy:
        def into(folder: Path) -> None:
            order.append(name)
            (folder / "deep").mkdir(parents=True)
            (folder / "deep" / "data").write_bytes(b"x" * size)

        return into

    parts = {"one": copy("one", 3), "two": copy("two", 0)}
    sizes = back_up(tmp_path / "copy", parts, own=own)
    assert sizes == {"one": 3, "two": 0}
    assert order == ["one", "two"]
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["one", "two"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        StoreError("the map is full"),
        LedgerFaultError("the disk is gone"),
        TimeoutError("too late"),
    ],
)
def test_what_fails_leaves_nothing(tmp_path: Path, own: Path, error: Exception) -> None:
    def fails(folder: Path) -> None:
        raise error

    with pytest.raises(StoreError, match="the backup was not made"):
        back_up(tmp_path / "copy", {"one": written("1"), "two": fails}, own=own)
    assert list(tmp_path.iterdir()) == [own]


def test_another_backup_under_way_is_left_alone(tmp_path: Path, own: Path) -> None:
    theirs = tmp_path / "copy.unfinished"
    theirs.mkdir()
    (theirs / "data").write_text("theirs")
    with pytest.raises(ValueError, match="cut off; remove it"):
        back_up(tmp_path / "copy", {}, own=own)
    assert (theirs / "data").read_text() == "theirs"


def test_links_do_not_lead_into_the_state(tmp_path: Path, own: Path) -> None:
    (tmp_path / "link").symlink_to(own)
    for place in (own / "copy", tmp_path / "link" / "copy", own / ".." / "own" / "copy"):
        with pytest.raises(ValueError, match="inside the daemon's own state"):
            back_up(place, {}, own=own)
    assert list(own.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path, own: Path) -> None:
    """`/proc` takes no folders, not even from root."""
    with pytest.raises(StoreError, match="cannot make /proc/copy"):
        back_up(Path("/proc/copy"), {}, own=own)


class TestStores:
    def test_a_copy_has_everything_and_can_be_written(self, tmp_path: Path) -> None:
        rows = [(b"k%06d" % number, b"v" * 200) for number in range(5_000)]
        store = LmdbStore(tmp_path / "store")
        store.put_many(rows)
        store.copy_to(tmp_path / "copy")
        store.put_many([(b"later", b"1")])
        assert read_through(tmp_path / "copy") == len(rows)
        copy = LmdbStore(tmp_path / "copy")
        assert copy.scan(b"", b"\xff", 10_000) == rows
        copy.put_many([(b"other", b"2")])
        assert store.get_many([b"later", b"other"]) == [b"1", None]
        for one in (store, copy):
            one.close()
        assert read_through(tmp_path / "store") == len(rows) + 1

    def test_places_that_are_taken_and_stores_that_are_closed(self, tmp_path: Path) -> None:
        store = LmdbStore(tmp_path / "store")
        with pytest.raises(StoreError, match="cannot copy"):
            store.copy_to(tmp_path)
        store.close()
        with pytest.raises(StoreError, match="is closed"):
            store.copy_to(tmp_path / "copy")

    def test_reading_through_writes_nothing_and_finds_damage(self, tmp_path: Path) -> None:
        store = LmdbStore(tmp_path / "store")
        store.put_many([(b"k%06d" % number, b"v" * 200) for number in range(5_000)])
        store.copy_to(tmp_path / "copy")
        store.close()
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").iterdir()}
        assert read_through(tmp_path / "copy") == 5_000
        after = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").iterdir()}
        assert before == after
        for damage in (b"", b"nonsense"):
            (tmp_path / "copy" / "data.mdb").write_bytes(damage)
            with pytest.raises(StoreError, match="cannot read"):
                read_through(tmp_path / "copy")
        with pytest.raises(StoreError, match="cannot read"):
            read_through(tmp_path / "nothing")
        assert not (tmp_path / "nothing").exists()
