"""What libraries say through `logging`, as lines of our own log."""

import logging
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Write = Callable[..., None]
"""Writes a line: level, event and fields."""
_LEFT_OUT = re.compile(r"%(\([^)]*\))?[-+ #0-9.*]*[a-zA-Z]")
"""Where a message has room for something, which may be anything."""


class _LibraryLines(logging.Handler):
    """Tells that something happened and where, not what messages are filled with nor the words of
    exceptions: those of the HTTP parser quote what came in, which may be a key or a prompt."""

    def __init__(self, write: Write) -> None:
        super().__init__(logging.WARNING)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[1] if record.exc_info else None
        frames = traceback.extract_tb(fault.__traceback__) if fault else []
        self._write(
            "warning" if record.levelno < logging.ERROR else "error",
            "library",
            logger=record.name,
            message=_LEFT_OUT.sub("…", str(record.msg)) if record.args else str(record.msg),
            error=type(fault).__name__ if fault else None,
            where=f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None,
        )


@contextmanager
def library_lines(write: Write) -> Iterator[None]:
    """Libraries' warnings and errors become lines inside the block."""
    handler = _LibraryLines(write)
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
