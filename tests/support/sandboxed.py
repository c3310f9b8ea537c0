"""Runs a command as our unit would: no memory both writable and executable, and its system calls
filtered by the lists of `systemd-analyze`. `python sandboxed.py COMMAND…`"""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

UNIT = Path(__file__).parents[2] / "systemd" / "cascaded.service"
PR_SET_NO_NEW_PRIVS, PR_SET_MDWE, REFUSE_EXEC_GAIN = 38, 65, 1
ALLOW, EPERM = 0x7FFF0000, 0x00050001
LINUX_MIN = (6, 3)
LIBRARY = "libseccomp.so.2"


def there() -> bool:
    """Whether this machine can."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and (int(release[1]), int(release[2])) >= LINUX_MIN


def calls_of(group: str) -> set[str]:
    """The system calls of one of systemd's groups."""
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", group],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = set(re.findall(r"^ +([@a-z0-9_-]+)$", listed, re.MULTILINE))
    inner = {name for name in names if name.startswith("@")}
    return (names - inner).union(*(calls_of(name) for name in inner))


def allowed() -> set[str]:
    """What the unit lets through."""
    calls: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE):
        groups = set().union(*(calls_of(group) for group in line.lstrip("~").split()))
        calls = calls - groups if line.startswith("~") else calls | groups
    return calls


def main() -> None:
    """Close the sandbox and become the command."""
    libc, seccomp = ctypes.CDLL(None, use_errno=True), ctypes.CDLL(LIBRARY)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(EPERM))
    for name in allowed():
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            seccomp.seccomp_rule_add_exact(context, ALLOW, number, 0)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0
    ):
        sys.exit("this kernel knows no MemoryDenyWriteExecute")
    if seccomp.seccomp_load(context):
        sys.exit("the filter cannot be loaded")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
