"""`load`: a text → a checked `Config`, or every mistake in it."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from cascaded.config.defaults import complete
from cascaded.config.mistakes import Mistake, Report
from cascaded.config.relations import check_relations
from cascaded.config.schema import Config
from cascaded.config.secrets import Vault
from cascaded.config.shape import read_config
from cascaded.config.toml import Node, read
from cascaded.types.places import socket_path, state_dir


def load(
    text: str | bytes,
    *,
    source_name: str,
    env: Mapping[str, str],
    read_file: Callable[[Path], bytes],
    uid: int | None = None,
) -> Config | list[Mistake]:
    """Read a configuration; the empty text is a valid one.

    `source_name` stands before each mistake. Secrets come out of `env` and `read_file`, which may
    raise `OSError`; certificates and tokenizers that the text names are read, to see that they can
    be. `uid` (by default the process's own) goes into the default socket's path. Never raises for
    anything that `text` may hold.
    """
    document = read(text, source_name)
    if not isinstance(document, Node):
        return document
    report = Report(source_name, document.line_of)
    partial = read_config(document, report, Vault(env, read_file))
    socket = socket_path(env, os.getuid() if uid is None else uid)
    config = complete(partial, document, socket, state_dir(env))
    check_relations(config, document, report, read_file)
    return report.mistakes() or config
