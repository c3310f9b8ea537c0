"""`pull`: try the sources in order until the file is here and its hash is right."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from cascaded.models.catalogue import ModelFile
from cascaded.models.folder import (
    PARTIAL_FOLDER,
    WEIGHTS_PARTIAL,
    sha256_of,
    size_of,
    verify,
    weights_path,
    work_folder,
)
from cascaded.models.made import Fetch, MadeSource
from cascaded.models.sources import (
    DISK_FULL,
    FolderSource,
    HubSource,
    Job,
    RegistrySource,
    Source,
    SourceError,
)

SPARE_DISK_BYTES = 64 * 1024 * 1024
"""Left free on the disk whatever we pull."""
MAX_TRIES_PER_SOURCE = 2
"""A wrong hash after a resume may be the fault of the older bytes: once more, from zero."""
_MIB = 1024 * 1024


class PullError(Exception):
    """The model is not here. The message says what each source said and what to do."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One tick, for a progress bar."""

    model: str
    what: Literal["download", "check"]
    source: str
    """The source's name; empty when the file that is already here is checked."""
    bytes_done: int
    bytes_total: int


OnProgress = Callable[[Progress], None]
"""May raise to stop the pull: what came so far is kept for the next one."""


def make_sources(specs: Sequence[str], environ: Mapping[str, str]) -> tuple[Source, ...]:
    """Sources from config words, in order: `hub`, `registry`, or `folder:PATH`.

    Raises `ValueError` for any other word.
    """
    return tuple(_make_source(spec, environ) for spec in specs)


def pull(
    model: ModelFile,
    folder: Path,
    sources: Sequence[Source],
    *,
    on_progress: OnProgress = lambda _: None,
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
) -> Path:
    """Bring the model to the folder and return its file, whose sha256 is the pinned one.

    Blocks; run it in a thread where there is an event loop. A good file that is already there is
    only checked. Whatever stops it (an error, Ctrl-C, power) leaves either no file or a good
    one, and what came so far for the next pull. Raises `PullError`.
    """
    for other in model.beside:
        pull(other, folder, sources, on_progress=on_progress, free_bytes=free_bytes)

    def fetch(origin: ModelFile, into: Path) -> Path:
        try:
            return pull(origin, into, sources, on_progress=on_progress, free_bytes=free_bytes)
        except PullError as fault:
            raise SourceError(str(fault)) from fault

    try:
        with _alone(model, folder) as work:
            _Pull(model, folder, work, on_progress, free_bytes).run(
                _sources_of(model, sources, fetch)
            )
    except OSError as fault:
        raise PullError(_disk_words(model, folder, fault)) from fault
    return weights_path(model, folder)


def _sources_of(model: ModelFile, sources: Sequence[Source], fetch: Fetch) -> Sequence[Source]:
    if model.made_of is None:
        return sources
    # A folder may have the finished file: a machine without a network is given it so.
    finished = (source for source in sources if isinstance(source, FolderSource))
    return (*finished, MadeSource(model.made_of, fetch))


class _Pull:
    """One pull under way, holding the lock."""

    def __init__(
        self,
        model: ModelFile,
        folder: Path,
        work: Path,
        on_progress: OnProgress,
        free_bytes: Callable[[Path], int],
    ) -> None:
        self._model = model
        self._folder = folder
        self._work = work
        self._partial = work / WEIGHTS_PARTIAL
        self._on_progress = on_progress
        self._free_bytes = free_bytes
        self._said: list[str] = []

    def run(self, sources: Sequence[Source]) -> None:
        if self._already_good():
            return
        for source in sources:
            for _ in range(MAX_TRIES_PER_SOURCE):
                resumed = self._partial.exists()
                try:
                    self._fetch(source)
                except SourceError as fault:
                    self._said.append(f"{source.name}: {fault}")
                    break
                if self._accept(source):
                    return
                if not resumed:
                    break
        raise PullError(self._no_source_words())

    def _already_good(self) -> bool:
        found = verify(self._model, self._folder, lambda done: self._tick("check", "", done))
        if found.state == "bad":
            found.path.unlink()
            self._said.append(f"the file that was here was wrong and is deleted ({found.detail})")
        return found.state == "good"

    def _fetch(self, source: Source) -> None:
        job = Job(
            model=self._model,
            partial=self._partial,
            work=self._work,
            report=lambda done: self._tick("download", source.name, done),
        )
        have = size_of(self._partial) or 0
        if have > self._model.size_bytes:
            self._partial.unlink()
        elif have == self._model.size_bytes:
            return
        self._check_disk(source.needs_bytes(job))
        source.fetch(job)
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())

    def _accept(self, source: Source) -> bool:
        """Move the file into place if it is the model, else delete it and say so."""
        actual = sha256_of(self._partial, lambda done: self._tick("check", source.name, done))
        if actual != self._model.sha256:
            self._partial.unlink()
            self._said.append(
                f"{source.name}: what came is not {self._model.name} and is deleted: "
                f"its sha256 is {actual}, not {self._model.sha256}"
            )
            return False
        finished = weights_path(self._model, self._folder)
        finished.parent.mkdir(exist_ok=True)
        self._partial.replace(finished)
        _sync_folder(finished.parent)
        shutil.rmtree(self._work)
        return True

    def _check_disk(self, needs: int) -> None:
        needed = needs + SPARE_DISK_BYTES
        free = self._free_bytes(self._folder)
        if free < needed:
            raise SourceError(
                f"{self._folder} has {free // _MIB} MiB free and {needed // _MIB} MiB are needed: "
                "free some space or point CASCADED_MODELS at a larger disk"
            )

    def _tick(self, what: Literal["download", "check"], source: str, done: int) -> None:
        self._on_progress(
            Progress(
                model=self._model.name,
                what=what,
                source=source,
                bytes_done=done,
                bytes_total=self._model.size_bytes,
            )
        )

    def _no_source_words(self) -> str:
        said = "".join(f"\n  - {line}" for line in self._said) or " no source is configured"
        return (
            f"{self._model.name} could not be pulled:{said}\n"
            f"If you have the file, put it at {weights_path(self._model, self._folder)}; "
            f"its sha256 must be {self._model.sha256}"
        )


@contextlib.contextmanager
def _alone(model: ModelFile, folder: Path) -> Iterator[Path]:
    """The work folder, locked against other pulls of the same model.

    The lock is the kernel's and dies with its holder; the file it is on stays.
    """
    work = work_folder(model, folder)
    work.parent.mkdir(parents=True, exist_ok=True)
    with (folder / PARTIAL_FOLDER / f"{model.name}.lock").open("a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PullError(
                f"another pull of {model.name} is under way in {folder}: wait for it"
            ) from None
        work.mkdir(exist_ok=True)
        yield work


def _make_source(spec: str, environ: Mapping[str, str]) -> Source:
    kind, _, path = spec.partition(":")
    if kind == FolderSource.name and path:
        return FolderSource(Path(path).expanduser().absolute())
    if spec == HubSource.name:
        return HubSource(environ)
    if spec == RegistrySource.name:
        return RegistrySource(environ)
    raise ValueError(f"'{spec}' is not a source of models: say `hub`, `registry` or `folder:PATH`")


def _disk_words(model: ModelFile, folder: Path, fault: OSError) -> str:
    if fault.errno in DISK_FULL:
        return (
            f"the disk of {folder} is full: free some space and pull {model.name} again, "
            "it goes on where it stopped"
        )
    return f"{model.name} could not be written to {folder}: {fault.strerror or fault}"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
