"""What runs in the child process: llama.cpp serving one model on a private Unix socket.

Run by its path, with nothing of the package but itself, so that it starts fast. Reads one line of
JSON (`Settings`) from stdin, never from arguments or the environment, which other processes can
read. Writes one line of JSON (`Greeting`) to stdout when it is ready or has failed. Then it lives
until stdin ends, which the kernel sees to when the parent dies, however it dies.
"""

import contextlib
import ctypes
import importlib
import os
import select
import signal
import sys
import threading
from typing import Any

import msgspec

RUNTIME = "xllamacpp"
LOG_BYTES_MAX = 1024 * 1024
LOG_CHECK_S = 30.0
WARNINGS_AND_ERRORS = 2
_PR_SET_PDEATHSIG = 1
_OOM_FIRST = "500"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the child needs to know."""

    parent_pid: int
    name: str
    weights: str
    socket: str
    api_key: str
    context_tokens: int
    """For each slot."""
    slots: int
    """Requests answered at the same time."""
    threads: int


class Greeting(msgspec.Struct, frozen=True, kw_only=True):
    """The child's only words on stdout."""

    ready: bool
    error: str = ""


def main() -> int:
    """The exit code; 0 also when the parent went away."""
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=Settings)
    die_with_parent(settings.parent_pid)
    os.umask(0o177)  # the socket is for this user alone
    # llama.cpp may print; the real stdout is kept for the greeting.
    greetings = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    watcher = threading.Thread(target=watch_parent, daemon=True)
    watcher.start()
    try:
        server = serve(settings)
    except Exception as fault:  # whatever stopped it belongs in the greeting
        greetings.write(_line(Greeting(ready=False, error=f"{type(fault).__name__}: {fault}")))
        return 1
    greetings.write(_line(Greeting(ready=True)))
    greetings.close()
    watcher.join()  # for ever: it ends the process
    del server  # kept alive until here
    return 0


def serve(settings: Settings) -> object:
    """Load the model and listen; the server lives as long as the returned object.

    Raises what the runtime raises, and `RuntimeError` if it listens anywhere but on our socket.
    """
    runtime: Any = importlib.import_module(RUNTIME)
    params = runtime.CommonParams()
    params.model.path = settings.weights
    params.model_alias = {settings.name}
    # Left alone it would listen on TCP, for everybody.
    params.hostnames = [settings.socket]
    params.api_keys = [settings.api_key]
    params.ui = params.endpoint_slots = False
    params.offline = True
    params.n_ctx = settings.context_tokens * settings.slots
    params.n_parallel = settings.slots
    params.fit_params = False  # a context that does not fit is an error, not a smaller context
    params.cache_ram_mib = 0
    params.no_extra_bufts = True
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = settings.threads
        cpu.poll = 0  # threads that wait give their core to the daemon
    params.verbosity = WARNINGS_AND_ERRORS
    server = runtime.Server(params)
    if server.listening_address != f"unix://{settings.socket}":
        raise RuntimeError(f"the runtime listens on {server.listening_address}")
    return server


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


def _line(greeting: Greeting) -> bytes:
    return msgspec.json.encode(greeting) + b"\n"


if __name__ == "__main__":
    sys.exit(main())
