"""Server-sent events: an incremental reader and a writer. No I/O."""

from collections.abc import Iterator

DONE = b"[DONE]"
MAX_EVENT_BYTES = 8 * 1024 * 1024


class SseError(ValueError):
    """The stream is not made of server-sent events, or one of them is too long."""


class SseReader:
    """Cuts a byte stream, however it was chunked, into the data of its events."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._tail: list[bytes] = []
        self._tail_size = 0
        self._data: list[bytes] = []
        self._size = 0
        self._limit = max_event_bytes

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of each event that this chunk completes.

        Raises `SseError` when an event outgrows the limit.
        """
        *lines, rest = chunk.split(b"\n")
        if lines:
            # Pieces of a long line are joined once, at its end: joining them as they come would
            # copy the line again for every piece.
            lines[0] = b"".join((*self._tail, lines[0]))
            self._tail.clear()
            self._tail_size = 0
        self._tail.append(rest)
        self._tail_size += len(rest)
        if self._tail_size + self._size > self._limit:
            raise SseError(f"an event is longer than {self._limit} bytes")
        for line in lines:
            data = self._take(line.removesuffix(b"\r"))
            if data is not None:
                yield data

    def _take(self, line: bytes) -> bytes | None:
        """One line; the event's data when the line is the blank one that ends it."""
        if line.startswith(b"data:"):
            part = line[5:].removeprefix(b" ")
            self._size += len(part)
            if self._size > self._limit:
                raise SseError(f"an event is longer than {self._limit} bytes")
            self._data.append(part)
        elif not line and self._data:
            data = b"\n".join(self._data)
            self._data.clear()
            self._size = 0
            return data
        return None


def sse(data: bytes) -> bytes:
    """One event with this single-line data."""
    return b"data: " + data + b"\n\n"


def named(kind: str, data: bytes) -> bytes:
    """One event with its name."""
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
