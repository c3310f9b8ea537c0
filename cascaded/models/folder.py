"""Where weights lie on this machine, and whether they are what they should be."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from cascaded.models.catalogue import ALL_MODELS, ModelFile
from cascaded.types.environment import Variable

HASH_CHUNK_BYTES = 1024 * 1024
PARTIAL_FOLDER = ".partial"
WEIGHTS_PARTIAL = "weights"

State = Literal["absent", "partial", "present", "good", "bad"]
"""`present`: the size is right and nobody has hashed it; `good` and `bad`: hashed."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one model's file."""

    model: ModelFile
    state: State
    path: Path
    """Where the finished file is or would be."""
    bytes_on_disk: int = 0
    detail: str = ""
    """For `bad`: what is wrong with it and what to do."""

    @property
    def usable(self) -> bool:
        """Whether a child may be started on it."""
        return self.state in ("present", "good")


def models_folder(environ: Mapping[str, str]) -> Path:
    """`$CASCADED_MODELS`, else systemd's cache folder, else `$XDG_CACHE_HOME/cascaded/models`,
    else `~/.cache/cascaded/models`. A relative path in the last three is ignored."""
    if own := environ.get(Variable.MODELS):
        return Path(own).expanduser().absolute()
    if (service := environ.get(Variable.CACHE_DIRECTORY, "").partition(":")[0]).startswith("/"):
        return Path(service, "models")
    cache = environ.get(Variable.XDG_CACHE_HOME, "")
    base = Path(cache) if cache.startswith("/") else Path("~/.cache").expanduser()
    return base / "cascaded" / "models"


def weights_path(model: ModelFile, folder: Path) -> Path:
    """The finished file."""
    return folder / model.file_name


def work_folder(model: ModelFile, folder: Path) -> Path:
    """Where a pull keeps what it has so far."""
    return folder / PARTIAL_FOLDER / model.name


def look(model: ModelFile, folder: Path) -> Finding:
    """What is there, by size alone: cheap enough for every start."""
    path = weights_path(model, folder)
    size = size_of(path)
    if size is None:
        pulled = bytes_under(work_folder(model, folder))
        state: State = "partial" if pulled else "absent"
        return Finding(model=model, state=state, path=path, bytes_on_disk=pulled)
    if size != model.size_bytes:
        return _bad(model, path, size, f"it has {size} bytes instead of {model.size_bytes}")
    return Finding(model=model, state="present", path=path, bytes_on_disk=size)


def listing(folder: Path, models: Sequence[ModelFile] = ALL_MODELS) -> tuple[Finding, ...]:
    """`look` at every model, in the catalogue's order."""
    return tuple(look(model, folder) for model in models)


def verify(
    model: ModelFile, folder: Path, on_bytes: Callable[[int], None] = lambda _: None
) -> Finding:
    """Hash the file against its pin. `on_bytes` hears how many bytes were read so far."""
    found = look(model, folder)
    if found.state != "present":
        return found
    actual = sha256_of(found.path, on_bytes)
    if actual != model.sha256:
        return _bad(model, found.path, found.bytes_on_disk, f"its sha256 is {actual}")
    return msgspec.structs.replace(found, state="good")


def sha256_of(path: Path, on_bytes: Callable[[int], None]) -> str:
    """Hex digest, read in chunks."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            on_bytes(done)
    return digest.hexdigest()


def size_of(path: Path) -> int | None:
    """Bytes, or `None` when there is no such file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def bytes_under(folder: Path) -> int:
    """Bytes in a folder that another process may be changing as we look."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    yield from _sizes(Path(entry.path))
                else:
                    yield entry.stat(follow_symlinks=False).st_size


def _bad(model: ModelFile, path: Path, size: int, what: str) -> Finding:
    detail = (
        f"{path} is not {model.name}: {what}. Delete it and run `cascaded models pull {model.name}`"
    )
    return Finding(model=model, state="bad", path=path, bytes_on_disk=size, detail=detail)
