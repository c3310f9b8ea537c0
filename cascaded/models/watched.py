"""Run a download tool, watch its bytes arrive, and never wait for one that has stalled."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

POLL_S = 0.1
KILL_GRACE_S = 3.0
MAX_WORDS_BYTES = 4096


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait for bytes."""

    first_byte_s: float = 20.0
    stall_s: float = 60.0
    """Longest time without a new byte once the first has come."""


class StalledError(Exception):
    """Nothing arrived for too long, so the tool was stopped."""

    def __init__(self, waited_s: float, words: str) -> None:
        super().__init__(f"nothing arrived for {waited_s:.0f} s")
        self.words = words


def run_watched(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    log: Path,
    arrived: Callable[[], int],
    report: Callable[[int], None],
    patience: Patience,
) -> tuple[int, str]:
    """The exit code and the last of what it said on stderr.

    `arrived` counts the bytes on disk; `report` hears the count at every poll and may raise to
    stop. However this ends, Ctrl-C included, the tool and its children are gone. Raises
    `StalledError`.
    """
    with (
        log.open("wb") as said,
        subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=dict(environ),
            start_new_session=True,  # Ctrl-C is ours to handle
        ) as tool,
    ):
        try:
            _watch(tool, log, arrived, report, patience)
        finally:
            _stop(tool)
    return tool.returncode, last_words(log)


def last_words(log: Path) -> str:
    """The end of a log, on one line."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_WORDS_BYTES))
        return " ".join(file.read().decode("utf-8", "replace").split())
    return ""


def _watch(
    tool: subprocess.Popen[bytes],
    log: Path,
    arrived: Callable[[], int],
    report: Callable[[int], None],
    patience: Patience,
) -> None:
    start = most = arrived()
    moved_at = time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            tool.wait(POLL_S)
            return
        count = arrived()
        report(count)
        now = time.monotonic()
        if count > most:
            most, moved_at = count, now
        limit = patience.first_byte_s if most == start else patience.stall_s
        if now - moved_at > limit:
            raise StalledError(now - moved_at, last_words(log))


def _stop(tool: subprocess.Popen[bytes]) -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if tool.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(tool.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            tool.wait(KILL_GRACE_S)
