"""The reader of server-sent events, at every place where a chunk can end."""

import pytest

from cascaded.wire.sse import DONE, SseError, SseReader, sse

STREAM = (
    b": a comment\n"
    b"event: message\n"
    b"id: 7\n"
    b"data: one\n"
    b"\n"
    b"\n"
    b"data:two\r\n"
    b"retry: 5\r\n"
    b"\r\n"
    b"data: three\n"
    b"data:  3b\n"
    b"data:\n"
    b"\n"
    b"data: f\xc3\xbcnf\n\n"
    b"datax: no\n\n"
    b"data: [DONE]\n\n"
)
EVENTS = [b"one", b"two", b"three\n 3b\n", b"f\xc3\xbcnf", DONE]


def read(*chunks: bytes, limit: int = 1000) -> list[bytes]:
    reader = SseReader(limit)
    return [data for chunk in chunks for data in reader.feed(chunk)]


def test_in_one_piece() -> None:
    assert read(STREAM) == EVENTS


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_cut_anywhere(cut: int) -> None:
    assert read(STREAM[:cut], STREAM[cut:]) == EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_in_small_pieces(size: int) -> None:
    pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert read(*pieces) == EVENTS


def test_an_event_that_was_not_ended_is_none() -> None:
    assert read(b"data: one\n") == []
    assert read(b"data: one\n\ndata: two") == [b"one"]
    assert read(b"", b"\n\n\n") == []


def test_nothing_is_held_back() -> None:
    reader = SseReader()
    assert list(reader.feed(b"data: 1\n\ndata: 2")) == [b"1"]
    assert list(reader.feed(b"\n")) == []
    assert list(reader.feed(b"\n")) == [b"2"]


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 101 + b"\n\n"],
        [b"data: " + b"x" * 60 + b"\n", b"data: " + b"x" * 60 + b"\n"],
        [b"x" * 120],
        [b"x" * 60, b"x" * 60],
        [b"data: " + b"x" * 60 + b"\n", b"y" * 60],
    ],
)
def test_what_outgrows_the_limit_is_refused(chunks: list[bytes]) -> None:
    with pytest.raises(SseError, match="longer than 100 bytes"):
        read(*chunks, limit=100)


def test_the_limit_is_for_one_event() -> None:
    assert read(*([b"data: " + b"x" * 90 + b"\n\n"] * 5), limit=100) == [b"x" * 90] * 5


def test_what_is_written_can_be_read() -> None:
    assert sse(b"{}") == b"data: {}\n\n"
    assert read(sse(b"{}") + sse(DONE)) == [b"{}", DONE]
