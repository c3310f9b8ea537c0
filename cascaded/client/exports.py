"""Exports as they come: pieces of a file, or rows. Neither is ever in memory as a whole."""

from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from cascaded.client.answers import Head
from cascaded.client.connection import streaming
from cascaded.client.errors import ProtocolError

RECORDS_HEADER = "x-cascaded-records"
MAX_LINE_BYTES = 16 * 1024 * 1024

if TYPE_CHECKING:
    from cascaded.client.insight import UsageRow


@cache
def _reader() -> "Callable[[bytes], UsageRow]":
    from cascaded.client.insight import UsageRow

    return msgspec.json.Decoder(UsageRow).decode


class Lines:
    """Rows out of pieces of JSON lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> "Iterator[UsageRow]":
        """The rows that this piece completes. Raises `ProtocolError`."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise ProtocolError("the export has a line that never ends")
        try:
            yield from map(_reader(), whole)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"the export has a row of unknown shape: {error}") from None


def about(head: Head) -> int:
    """How many records there are, as the daemon thinks before it looks."""
    told = head.headers.get(RECORDS_HEADER, "")
    return int(told) if told.isdecimal() else 0


class Export:
    """What comes of an export: iterate over pieces of the file, or over `rows`, once."""

    def __init__(self, head: Head, pieces: Iterator[bytes]) -> None:
        self.records = about(head)
        """How many there are in that time, at most; filters leave fewer."""
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        """Raises `StreamBrokenError` when it breaks off."""
        with streaming():
            yield from self._pieces

    def rows(self) -> "Iterator[UsageRow]":
        """Of an export in JSON lines."""
        lines = Lines()
        for piece in self:
            yield from lines.feed(piece)


class AsyncExport:
    """The same for asyncio."""

    def __init__(self, head: Head, pieces: AsyncIterator[bytes]) -> None:
        self.records = about(head)
        """How many there are in that time, at most; filters leave fewer."""
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises `StreamBrokenError` when it breaks off."""
        with streaming():
            async for piece in self._pieces:
                yield piece

    async def rows(self) -> "AsyncIterator[UsageRow]":
        """Of an export in JSON lines."""
        lines = Lines()
        async for piece in self:
            for row in lines.feed(piece):
                yield row
