"""`load`: a text → a checked `Config`, or every mistake in it."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from cascaded.config.defaults import complete
from cascaded.config.mistakes import KeyPath, Mistake, Report, dotted
from cascaded.config.origins import Origins
from cascaded.config.relations import check_relations
from cascaded.config.schema import Config
from cascaded.config.secrets import Vault
from cascaded.config.shape import read_config
from cascaded.config.toml import Node, read
from cascaded.config.warnings import ModeOf, note_warnings
from cascaded.types.places import socket_path, state_dir

ReadFile = Callable[[Path], bytes]


class Loaded(NamedTuple):
    """A sound configuration, and what there is to say about it."""

    config: Config
    warnings: list[Mistake]
    origins: Origins

    def mistake(self, path: KeyPath, message: str) -> Mistake:
        """One that others find, with its line."""
        source, line = self.origins.place(path)
        return Mistake(source=source, line=line, key=dotted(path), message=message)


def load(
    text: str | bytes,
    *,
    source_name: str,
    env: Mapping[str, str],
    read_file: ReadFile,
    uid: int | None = None,
) -> Config | list[Mistake]:
    """Read a configuration; the empty text is a valid one.

    `source_name` stands before each mistake. Secrets come out of `env` and `read_file`, which may
    raise `OSError`; certificates and tokenizers that the text names are read, to see that they can
    be. `uid` (by default the process's own) goes into the default socket's path. Never raises for
    anything that `text` may hold.
    """
    found = _read(text, source_name, env, read_file, uid)
    return found if isinstance(found, list) else found[0]


def examine(
    text: str | bytes,
    *,
    file: Path | None,
    env: Mapping[str, str],
    read_file: ReadFile,
    mode_of: ModeOf,
    uid: int | None = None,
) -> Loaded | list[Mistake]:
    """`load`, and more to say: warnings, and where each value comes from.

    `file` is where the text stands (`None`: nowhere); `mode_of` tells a file's permissions.
    """
    source = str(file) if file else NO_FILE
    found = _read(text, source, env, read_file, uid)
    if isinstance(found, list):
        return found
    config, document = found
    report = Report(source, document.line_of, "warning")
    note_warnings(config, report, file, mode_of)
    return Loaded(config, report.mistakes(), Origins(config, document, source, env))


NO_FILE = "(no file)"


def _read(
    text: str | bytes, source: str, env: Mapping[str, str], read_file: ReadFile, uid: int | None
) -> tuple[Config, Node] | list[Mistake]:
    document = read(text, source)
    if not isinstance(document, Node):
        return document
    report = Report(source, document.line_of)
    partial = read_config(document, report, Vault(env, read_file))
    socket = socket_path(env, os.getuid() if uid is None else uid)
    config = complete(partial, document, socket, state_dir(env))
    check_relations(config, document, report, read_file)
    return report.mistakes() or (config, document)
