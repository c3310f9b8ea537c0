"""A disk that takes its time: `fdatasync` with a pause before it, for a daemon that is killed.

What is written survives a `kill -9` in the page cache. What still waits for the flush before it is
lost, and a slow flush makes that much.
"""

import shutil
import subprocess
from pathlib import Path

SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    usleep(%d);
    return real(fd);
}
"""


def slow_disk(folder: Path, pause_ms: int) -> str:
    """What a daemon on such a disk has as `LD_PRELOAD`; nothing where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return ""
    source, library = folder / "slow_disk.c", folder / "slow_disk.so"
    source.write_text(SOURCE % (pause_ms * 1_000))
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return str(library)
