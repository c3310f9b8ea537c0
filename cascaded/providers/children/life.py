"""What every child does beside its work: it greets, it dies with its parent, it bounds its log.

A child reads one line of JSON, its settings, from stdin, never from arguments or the environment,
which other processes can read. It writes one line of JSON (`Greeting`) to stdout when it is ready
or has failed. Then it lives until stdin ends, which the kernel sees to when the parent dies,
however it dies.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys

import msgspec

LOG_BYTES_MAX = 1024 * 1024
LOG_CHECK_S = 30.0
_PR_SET_PDEATHSIG = 1
_OOM_FIRST = "500"


class Greeting(msgspec.Struct, frozen=True, kw_only=True):
    """The child's only words on stdout."""

    ready: bool
    error: str = ""


def say(greeting: Greeting) -> bytes:
    """It as a line."""
    return msgspec.json.encode(greeting) + b"\n"


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill us with our parent, even while the runtime is busy in C++."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Out of memory, the model goes before the daemon that keeps the books.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
            score.write(_OOM_FIRST)
    if os.getppid() != parent_pid:  # it died before we could ask
        os._exit(0)


def watch_parent() -> None:
    """Return never: end the process when stdin ends. Meanwhile keep the log (stderr) bounded."""
    while True:
        readable, _, _ = select.select([0], [], [], LOG_CHECK_S)
        if readable and not os.read(0, 1):
            os._exit(0)
        bound_log(2)


def bound_log(descriptor: int) -> None:
    """Start the log over when it is too long. It is opened for appending, so writing goes on."""
    if os.fstat(descriptor).st_size > LOG_BYTES_MAX:
        os.ftruncate(descriptor, 0)
