"""References to secrets → secrets. A secret itself never stands in the file."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from cascaded.config.mistakes import nearest, shown
from cascaded.types.environment import Variable
from cascaded.types.secret import Secret

MAX_SECRET_BYTES = 8 * 1024
REFERENCE = '"env:NAME", "file:/path" or "credential:NAME"'
_SCHEMES = ("env", "file", "credential")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELL_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_LIKE_A_VARIABLE = re.compile(r"[A-Z]{2,16}(_[A-Z]{2,16}){1,4}")
"""Nothing that a key could be: letters alone, in words."""
_CREDENTIAL = re.compile(r"(?!\.)[A-Za-z0-9._@-]{1,255}")
_PRINTABLE = re.compile(r"[\x20-\x7e]+")


class Unresolved(NamedTuple):
    """Why a reference gives no secret. Never holds the text of one."""

    message: str
    expected: str = f"a reference to a secret: {REFERENCE}"
    suggestion: str | None = None


class Vault:
    """Where secrets come from."""

    def __init__(self, env: Mapping[str, str], read_file: Callable[[Path], bytes]) -> None:
        self._env = env
        self._read_file = read_file

    def resolve(self, text: str, *, literal: bool, variable: str) -> Secret | Unresolved:
        """The secret that `text` refers to; with `literal`, any other text stands for itself.

        `variable` is a fitting environment variable, to be suggested.
        """
        scheme, _, rest = text.partition(":")
        if scheme in _SCHEMES:
            found = getattr(self, f"_from_{scheme}")(rest)
        else:
            found = text if literal else _not_a_reference(text, variable)
        if isinstance(found, Unresolved):
            return found
        value = text if scheme not in _SCHEMES else found.strip()
        problem = _unfit(value)
        return (
            Unresolved(problem, "one line of printable ASCII")
            if problem
            else Secret(value, source=text)
        )

    def _from_env(self, name: str) -> str | Unresolved:
        if not _VARIABLE.fullmatch(name):
            return Unresolved(
                "what follows env: is not the name of an environment variable",
                "env: and letters, digits and _",
            )
        value = self._env.get(name)
        if value is None:
            return Unresolved(
                f"the environment variable {name} is not set",
                "a value for it in the daemon's environment",
            )
        return value

    def _from_file(self, name: str) -> str | Unresolved:
        if not name.startswith("/"):
            return Unresolved("what follows file: is not an absolute path", "file:/path/to/secret")
        return self._read(Path(name))

    def _from_credential(self, name: str) -> str | Unresolved:
        if not _CREDENTIAL.fullmatch(name):
            return Unresolved(
                "what follows credential: is not the name of a credential",
                "credential: and letters, digits and . _ @ -",
            )
        folder = self._env.get(Variable.CREDENTIALS_DIRECTORY, "")
        if not folder:
            return Unresolved(
                f"there are no credentials here: {Variable.CREDENTIALS_DIRECTORY} is not set",
                f"a systemd service with LoadCredential={name}:/path",
            )
        return self._read(Path(folder, name))

    def _read(self, path: Path) -> str | Unresolved:
        try:
            data = self._read_file(path)
        except (OSError, ValueError) as fault:
            reason = unreadable(path, fault)
            return Unresolved(reason, "a file that the daemon may read")
        if len(data) > MAX_SECRET_BYTES:
            return Unresolved(
                f"{shown(str(path))} is longer than a secret", f"at most {MAX_SECRET_BYTES} bytes"
            )
        # What is not ASCII is refused anyway; a decoding error would carry the secret along.
        return data.decode("ascii", "replace")


def is_literal(secret: Secret) -> bool:
    """Whether it stands in the file as it is, and so is none."""
    return secret.source == secret.reveal()


def unreadable(path: Path, fault: Exception) -> str:
    """Why a file could not be read, without the words of the system that differ by version."""
    reason = (fault.strerror if isinstance(fault, OSError) else None) or "no such path"
    return f"{shown(str(path))} cannot be read ({reason})"


def _not_a_reference(text: str, variable: str) -> Unresolved:
    shell = _SHELL_VARIABLE.fullmatch(text)
    if shell:
        suggestion = f"env:{shell[1] or shell[2]}"
        return Unresolved("variables of a shell are not expanded", suggestion=suggestion)
    if _LIKE_A_VARIABLE.fullmatch(text):
        return Unresolved("a variable's name alone is not looked up", suggestion=f"env:{text}")
    scheme, colon, rest = text.partition(":")
    near = nearest(scheme, _SCHEMES) if colon else None
    if near:
        name = rest if _LIKE_A_VARIABLE.fullmatch(rest) else "…"
        message = f"unknown kind of reference {shown(scheme)}"
        return Unresolved(message, suggestion=f"{near}:{name}")
    return Unresolved(
        "a secret may not stand in the file: put it in the environment, a file or a credential",
        suggestion=f"env:{variable}",
    )


def _unfit(value: str) -> str:
    if not value:
        return "the value is empty"
    if not _PRINTABLE.fullmatch(value):
        return "the value has several lines, or characters that no HTTP header can carry"
    return ""
