"""Where the daemon's files are when nobody says. The environment is passed in."""

from collections.abc import Mapping

from cascaded.types.environment import Variable

SOCKET_NAME = "cascaded.sock"
CONFIG_NAME = "cascaded.toml"


def socket_path(env: Mapping[str, str], uid: int) -> str:
    """In systemd's runtime directory, else in the person's, else in a private one in `/tmp`."""
    folder = _folder(env, Variable.RUNTIME_DIRECTORY) or _folder(env, Variable.XDG_RUNTIME_DIR)
    return f"{folder or f'/tmp/cascaded-{uid}'}/{SOCKET_NAME}"


def config_path(env: Mapping[str, str]) -> str | None:
    """In systemd's configuration directory, else in the person's; `None` where none is known."""
    if own := _folder(env, Variable.CONFIGURATION_DIRECTORY):
        return f"{own}/{CONFIG_NAME}"
    home = _folder(env, Variable.HOME)
    base = _folder(env, Variable.XDG_CONFIG_HOME) or (f"{home}/.config" if home else "")
    return f"{base}/cascaded/{CONFIG_NAME}" if base else None


def state_dir(env: Mapping[str, str]) -> str | None:
    """systemd's state directory, else a folder in the person's; `None` where none is known."""
    if own := _folder(env, Variable.STATE_DIRECTORY):
        return own
    home = _folder(env, Variable.HOME)
    base = _folder(env, Variable.XDG_STATE_HOME) or (f"{home}/.local/state" if home else "")
    return f"{base}/cascaded" if base else None


def _folder(env: Mapping[str, str], variable: Variable) -> str:
    """The variable's folder, if it is absolute. systemd joins several with colons; the first is
    the service's own."""
    folder = env.get(variable, "").partition(":")[0]
    return folder.rstrip("/") if folder.startswith("/") else ""
