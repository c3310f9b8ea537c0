"""The socket: whether a daemon answers there, and whether one could be started."""

import os
import stat
from importlib.metadata import version
from pathlib import Path

from cascaded.cli.doctor.finding import Finding, ok, problem, warning
from cascaded.cli.doctor.state import lock_holder
from cascaded.client import CascadedError, Client

AREA = "socket"
ANSWER_WITHIN_S = 3.0


def look(path: Path) -> tuple[list[Finding], bool]:
    """What there is to say, and whether a daemon answers."""
    if not path.parent.is_dir():
        return [ok(AREA, f"no daemon runs; {path.parent} will be made for its socket")], False
    findings = _folder(path.parent)
    try:
        kind = path.lstat().st_mode
    except OSError:
        return [*findings, _nobody(path)], False
    if not stat.S_ISSOCK(kind):
        advice = "move it away, or choose another server.socket"
        return [*findings, problem(AREA, f"{path} is there and is no socket", advice)], False
    try:
        with Client(str(path), timeout_s=ANSWER_WITHIN_S) as client:
            theirs = client.health().version
    except CascadedError as error:
        return [*findings, _silent(path, error)], False
    return [*findings, _answers(path, theirs)], True


def _folder(folder: Path) -> list[Finding]:
    found = folder.stat()
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        return [problem(AREA, f"{folder} may be written by anybody", "choose a folder of your own")]
    if found.st_uid not in (0, os.getuid()):
        said = f"{folder} belongs to another user (uid {found.st_uid})"
        return [problem(AREA, said, "run the daemon as that user, or choose another server.socket")]
    return []


def _nobody(path: Path) -> Finding:
    return ok(AREA, f"no daemon runs on {path}; `cascaded serve` starts one")


def _silent(path: Path, error: CascadedError) -> Finding:
    holder = lock_holder(path.with_name(path.name + ".lock"))
    if holder is not None:
        advice = "look at its log; restart it if it stays so"
        return problem(AREA, f"the daemon (pid {holder}) does not answer: {error}", advice)
    advice = "none is needed: the next start replaces it"
    return warning(AREA, f"{path} is stale: nobody serves it", advice)


def _answers(path: Path, theirs: str) -> Finding:
    ours = version("cascaded")
    if theirs != ours:
        said = f"the daemon on {path} is version {theirs}, this command {ours}"
        return warning(AREA, said, "restart the daemon after an upgrade")
    return ok(AREA, f"a daemon of version {theirs} answers on {path}")
