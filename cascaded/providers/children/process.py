"""One child process, from the daemon's side: start it, wait until it is ready, see it end."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cascaded.providers.children.life import Greeting

STOP_GRACE_S = 2.0
WORDS_BYTES_MAX = 600
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
"""Variables of the daemon that native code which reads strangers' prompts has no use for."""
_PACKAGE = str(Path(__file__).parents[3])
"""Where this package was found: children find the same one."""


class StartError(Exception):
    """The child did not become ready. The message says what it said."""


class Child:
    """A started child. Whoever started it calls `stop` in every case."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self, timeout_s: float) -> None:
        """Return once it listens. Raises `StartError`."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise StartError(f"it was not ready after {timeout_s:g} s") from None
        except ValueError:
            raise StartError("its greeting was too long") from None
        if not line:
            raise StartError(await self.ended())
        try:
            greeting = msgspec.json.decode(line, type=Greeting)
        except msgspec.DecodeError:
            raise StartError(f"it greeted with {line[:WORDS_BYTES_MAX]!r}") from None
        if not greeting.ready:
            raise StartError(greeting.error)

    async def ended(self) -> str:
        """Wait until it ends, and say how."""
        return _how(await self._process.wait(), self._log)

    async def stop(self) -> None:
        """End it, gently if it lets us, and collect it. Harmless when it has ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()  # its sign to leave
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(STOP_GRACE_S):
                    await self._process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
        await self._process.wait()


async def start(
    command: Sequence[str],
    environ: Mapping[str, str],
    settings: msgspec.Struct,
    socket: Path,
    log: Path,
) -> Child:
    """Start a child and hand it its settings. Raises `OSError` when it cannot be started."""
    said = _prepare(socket, log)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
            env=_environ_for(environ),
            start_new_session=True,  # Ctrl-C in the daemon's terminal is not meant for it
        )
    finally:
        os.close(said)
    child = Child(process, log)
    try:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(settings) + b"\n")
        with contextlib.suppress(ConnectionError):  # `ready` will say how it ended
            await process.stdin.drain()
    except BaseException:
        await child.stop()
        raise
    return child


def _environ_for(environ: Mapping[str, str]) -> dict[str, str]:
    """The daemon's environment without its secrets.

    Threads that wait sleep instead of spinning, unless the operator says otherwise: on a busy
    host a spinning thread holds the very core that the thread it waits for needs, and two threads
    fall from 114 to 3 tokens/s (17 and more when they sleep).
    """
    kept = {name: value for name, value in environ.items() if not _SECRET.search(name)}
    found = os.pathsep.join(filter(None, (kept.get("PYTHONPATH"), _PACKAGE)))
    return {"OMP_WAIT_POLICY": "passive", **kept, "PYTHONPATH": found}


def _prepare(socket: Path, log: Path) -> int:
    """Make the way free for a child; the descriptor of its fresh log."""
    _make_private(socket.parent)
    socket.unlink(missing_ok=True)  # a stale socket would stop it
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW
    return os.open(log, flags, 0o600)


def _make_private(folder: Path) -> None:
    """A folder that is ours alone. Raises `PermissionError` when it is somebody else's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.geteuid() or folder.is_symlink():
        raise PermissionError(f"{folder} belongs to somebody else: name another runtime folder")
    folder.chmod(0o700)


def _how(returncode: int, log: Path) -> str:
    if returncode < 0:
        with contextlib.suppress(ValueError):
            return f"it was ended by {signal.Signals(-returncode).name}{_last_words(log)}"
    return f"it ended with code {returncode}{_last_words(log)}"


def _last_words(log: Path) -> str:
    """The end of its log, in brackets and on one line."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - WORDS_BYTES_MAX))
        words = " ".join(file.read().decode("utf-8", "replace").split())
        return f" ({words})" if words else ""
    return ""
