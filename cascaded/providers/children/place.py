"""Where one child has its things, and how it is started."""

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from cascaded.providers.children import process
from cascaded.types.secret import Secret

SOCKET_PATH_BYTES_MAX = 107
KEY_BYTES = 32


class Place:
    """Its socket, its log, and the key that its callers need, another one with each start."""

    def __init__(
        self,
        stem: Path,
        command: Sequence[str],
        environ: Mapping[str, str],
        settings: Callable[[str, str], msgspec.Struct],
        source: str,
    ) -> None:
        """`settings` are made for a socket and a key, `source` is what the key is called.

        Raises `ValueError` when the path is too long for a socket.
        """
        self.socket = stem.absolute().with_suffix(".sock")
        self.log = stem.absolute().with_suffix(".log")
        self.key = Secret("")
        self._command = command
        self._environ = environ
        self._settings = settings
        self._source = source
        if len(os.fsencode(self.socket)) > SOCKET_PATH_BYTES_MAX:
            raise ValueError(
                f"{self.socket} is too long for a Unix socket ({SOCKET_PATH_BYTES_MAX} bytes): "
                "name a shorter runtime folder"
            )

    async def launch(self) -> process.Child:
        """Start a child with a new key. Raises `OSError`."""
        self.key = Secret(secrets.token_urlsafe(KEY_BYTES), source=self._source)
        settings = self._settings(str(self.socket), self.key.reveal())
        return await process.start(self._command, self._environ, settings, self.socket, self.log)

    def tidy(self) -> None:
        """Remove the socket and the log, and the folder with the last of them."""
        with contextlib.suppress(OSError):
            self.socket.unlink(missing_ok=True)
            self.log.unlink(missing_ok=True)
            self.socket.parent.rmdir()
