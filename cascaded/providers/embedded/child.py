"""What runs in the child process: llama.cpp serving one model on a private Unix socket.

Run by its path, with next to nothing of the package, so that it starts fast. `children.life`
tells how it lives and ends.
"""

import importlib
import os
import sys
import threading
from typing import Any

import msgspec

from cascaded.providers.children.life import Greeting, die_with_parent, say, watch_parent

RUNTIME = "xllamacpp"
WARNINGS_AND_ERRORS = 2


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
        greetings.write(say(Greeting(ready=False, error=f"{type(fault).__name__}: {fault}")))
        return 1
    greetings.write(say(Greeting(ready=True)))
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


if __name__ == "__main__":
    sys.exit(main())
