"""Where things are when nobody says. The environment is passed in."""

from collections.abc import Mapping
from pathlib import PurePosixPath

SOCKET_NAME = "cascaded.sock"
APPLICATION = "cascaded"


def socket_path(env: Mapping[str, str], uid: int) -> str:
    """The daemon's socket: systemd's runtime directory, else the person's, else a private one
    under `/tmp`."""
    for folder in (_first(env, "RUNTIME_DIRECTORY"), _first(env, "XDG_RUNTIME_DIR")):
        if folder:
            return str(PurePosixPath(folder, SOCKET_NAME))
    return str(PurePosixPath("/tmp", f"{APPLICATION}-{uid}", SOCKET_NAME))  # noqa: S108


def models_path(env: Mapping[str, str], uid: int) -> str:
    """Where pulled models are kept: systemd's cache directory, else the person's, else `/tmp`."""
    if folder := _first(env, "CACHE_DIRECTORY"):
        return str(PurePosixPath(folder, "models"))
    if folder := _first(env, "XDG_CACHE_HOME"):
        return str(PurePosixPath(folder, APPLICATION, "models"))
    if folder := _first(env, "HOME"):
        return str(PurePosixPath(folder, ".cache", APPLICATION, "models"))
    return str(PurePosixPath("/tmp", f"{APPLICATION}-{uid}", "models"))  # noqa: S108


def _first(env: Mapping[str, str], name: str) -> str:
    """The variable's first folder (systemd joins several with colons), if it is absolute."""
    folder = env.get(name, "").partition(":")[0]
    return folder if folder.startswith("/") else ""
