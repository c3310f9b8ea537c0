"""Where the log's lines go."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from cascaded.adapters.json_log import JsonLog
from cascaded.config import schema
from cascaded.daemon.errors import StartError
from cascaded.ports import Clock


class Lines:
    """The log and the file that it is written to."""

    def __init__(self, config: schema.Log, clock: Clock) -> None:
        """Open it. Raises `StartError`."""
        self._stream = open_stream(config)
        self.log = JsonLog(self._stream, clock, level=config.level, prompts=config.prompts)

    def turn_to(self, stream: BinaryIO, config: schema.Log) -> None:
        """From now on write to a stream of `open_stream`: another file, or the same one anew, for
        it may have been moved away."""
        self.log.turn_to(stream, level=config.level, prompts=config.prompts)
        self.close()
        self._stream = stream

    def close(self) -> None:
        """Close the file."""
        close_stream(self._stream)


@contextmanager
def open_lines(config: schema.Log, clock: Clock) -> Iterator[Lines]:
    """The log, closed at the end. Raises `StartError`."""
    lines = Lines(config, clock)
    try:
        yield lines
    finally:
        lines.close()


def open_stream(config: schema.Log) -> BinaryIO:
    """The file that the config names, or standard error. Raises `StartError`."""
    if config.file is None:
        return sys.stderr.buffer
    try:
        return open(config.file, "ab", buffering=0)
    except OSError as error:
        raise StartError(f"cannot open the log {config.file}: {error.strerror}") from None


def close_stream(stream: BinaryIO) -> None:
    """Close a stream of `open_stream`. Standard error stays open: it is everybody's."""
    if stream is not sys.stderr.buffer:
        stream.close()
