"""Every environment variable that the programs read, declared once; the reference is made of it."""

from enum import StrEnum


class Variable(StrEnum):
    """A variable's name, and what it means. Secrets in variables are named by the operator."""

    meaning: str

    def __new__(cls, name: str, meaning: str) -> "Variable":
        """The name is the value; the meaning goes with it."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        return member

    SOCKET = "CASCADED_SOCKET", "The daemon's socket, for the client and the command line."
    CONFIG = "CASCADED_CONFIG", "The configuration file, where the command line names none."
    MODELS = "CASCADED_MODELS", "The folder of the models that run on this machine."
    RUNTIME_DIRECTORY = (
        "RUNTIME_DIRECTORY",
        "Set by systemd for the service: the folder of its socket.",
    )
    STATE_DIRECTORY = "STATE_DIRECTORY", "Set by systemd: the folder of the ledger and the records."
    CONFIGURATION_DIRECTORY = (
        "CONFIGURATION_DIRECTORY",
        "Set by systemd: the folder of `cascaded.toml`.",
    )
    CACHE_DIRECTORY = "CACHE_DIRECTORY", "Set by systemd: models lie in its `models`."
    CREDENTIALS_DIRECTORY = (
        "CREDENTIALS_DIRECTORY",
        "Set by systemd for a service with `LoadCredential=`: what `credential:NAME` is read from.",
    )
    NOTIFY_SOCKET = "NOTIFY_SOCKET", "Set by systemd: where the daemon tells that it is ready."
    WATCHDOG_USEC = (
        "WATCHDOG_USEC",
        "Set by systemd: how long the daemon may be silent before it is taken for hung.",
    )
    WATCHDOG_PID = "WATCHDOG_PID", "Set by systemd: for which process that is meant."
    LISTEN_FDS = "LISTEN_FDS", "Set by systemd: how many listening sockets it passes on."
    LISTEN_PID = "LISTEN_PID", "Set by systemd: to which process."
    LISTEN_FDNAMES = "LISTEN_FDNAMES", "Set by systemd: the names of those sockets; not looked at."
    XDG_RUNTIME_DIR = "XDG_RUNTIME_DIR", "A person's folder for sockets."
    XDG_CONFIG_HOME = (
        "XDG_CONFIG_HOME",
        "A person's configuration: `cascaded/cascaded.toml` in it. By default `~/.config`.",
    )
    XDG_STATE_HOME = (
        "XDG_STATE_HOME",
        "A person's state: `cascaded` in it. By default `~/.local/state`.",
    )
    XDG_CACHE_HOME = (
        "XDG_CACHE_HOME",
        "A person's cache: `cascaded/models` in it. By default `~/.cache`.",
    )
    HOME = "HOME", "The person's home, where the three above are not set."
    NO_COLOR = "NO_COLOR", "Set to anything: no colours."
    FORCE_COLOR = "FORCE_COLOR", "Set to anything: colours even where no terminal is."
    TERM = "TERM", "`dumb`: neither colours nor progress bars."
