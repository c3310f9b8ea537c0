"""Questions whose answers take long, each asked of a process of its own.

Threads would not do: one that is busy in Python moves a `/check` from 0.1 to 5 ms. A process is
told its errand on its standard input, says on the first line of its output whether it can do it,
and then answers; only one that ends with 0 has said everything.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from cascaded.ports import Report
from cascaded.types.errors import AnalystError, BusyError

ROOT = Path(__file__).parents[2]
PIECE_BYTES = 256 * 1024
STOP_GRACE_S = 2.0
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Of the environment: an analyst needs no secrets."""


class Analysts:
    """See `ports.Analyst`."""

    def __init__(self, script: Path, *, at_once: int, waiting: int) -> None:
        """`script` is what each of them runs; more questions than are `waiting` are refused."""
        self._command: Sequence[str] = (sys.executable, "-P", str(script))
        self._places = asyncio.Semaphore(at_once)
        self._most = at_once + waiting
        self._asked = 0

    @asynccontextmanager
    async def ask(self, errand: bytes) -> AsyncIterator[Report]:
        """See `ports.Analyst.ask`."""
        if self._asked >= self._most:
            raise BusyError(f"{self._asked} such questions are being answered already")
        self._asked += 1
        try:
            async with self._places, _started(self._command, errand) as process:
                assert process.stdout is not None
                yield Report(head=await _first_line(process), pieces=_pieces(process))
        finally:
            self._asked -= 1


@asynccontextmanager
async def _started(
    command: Sequence[str], errand: bytes
) -> AsyncIterator[asyncio.subprocess.Process]:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=PIECE_BYTES,
            env=_environ(os.environ),
            start_new_session=True,  # Ctrl-C in the daemon's terminal is not meant for it
        )
    except OSError as error:
        raise AnalystError(f"no process could be started: {error}") from error
    try:
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):  # its first line, or none, says why
            process.stdin.write(errand)
            process.stdin.close()
            await process.stdin.wait_closed()
        yield process
    finally:
        await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End it, if it has not ended, and collect it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()  # it reads, and has nothing to lose
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_GRACE_S):
            await process.wait()


async def _first_line(process: asyncio.subprocess.Process) -> Mapping[str, object]:
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        head: dict[str, object] = msgspec.json.decode(line, type=dict[str, object])
    except (ValueError, msgspec.DecodeError) as error:
        raise AnalystError("the process that was asked ended before it answered") from error
    if "error" in head:
        raise AnalystError(str(head["error"]))
    return head


async def _pieces(process: asyncio.subprocess.Process) -> AsyncIterator[bytes]:
    assert process.stdout is not None
    while piece := await process.stdout.read(PIECE_BYTES):
        yield piece
    if await process.wait() != 0:
        raise AnalystError("the process that was asked ended in the middle of its answer")


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """What it needs of the environment; and that it finds this very package, wherever it is."""
    kept = {name: environ[name] for name in PASSED_ON if name in environ}
    found = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(found)}
