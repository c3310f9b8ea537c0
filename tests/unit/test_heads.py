"""Heads: what is read from their files, and what they say of vectors."""

import struct
from math import exp

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded.policy.heads import MAX_HEAD_BYTES, Head, HeadError, HeadFile, Provenance, similarity

PROVENANCE = Provenance(script="a test", data=())


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def file(**changes: object) -> HeadFile:
    whole = HeadFile(
        model="tiny",
        kind="one_of",
        labels=("a", "b"),
        weights=floats(1, 0, 0, 2),
        bias=(0.0, 1.0),
        provenance=PROVENANCE,
    )
    return msgspec.structs.replace(whole, **changes)


def test_one_label_of_several() -> None:
    head = Head.read(msgspec.msgpack.encode(file()))
    assert (head.model, head.dimensions, head.labels) == ("tiny", 2, ("a", "b"))
    found = head.probabilities(floats(1, 0.5))
    assert found == pytest.approx({"a": 1 / (1 + exp(1)), "b": exp(1) / (1 + exp(1))})


def test_a_temperature_softens() -> None:
    sharp = Head(file()).probabilities(floats(0, 1))["b"]
    assert 0.5 < Head(file(temperature=4.0)).probabilities(floats(0, 1))["b"] < sharp


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=2))
def test_probabilities_are_such_whatever_the_vector(values: list[float]) -> None:
    one_of = Head(file()).probabilities(floats(*values))
    assert sum(one_of.values()) == pytest.approx(1)
    each = Head(file(kind="each")).probabilities(floats(*values))
    assert all(0 <= chance <= 1 for chance in (*one_of.values(), *each.values()))


def test_any_label_of_several() -> None:
    found = Head(file(kind="each")).probabilities(floats(0, 0))
    assert found == pytest.approx({"a": 0.5, "b": 1 / (1 + exp(-1))})


@pytest.mark.parametrize(
    "changes",
    [{"labels": ("a",)}, {"weights": floats(1, 2, 3)}, {"temperature": 0.0}, {"weights": b""}],
)
def test_what_does_not_fit_is_no_head(changes: dict[str, object]) -> None:
    with pytest.raises(HeadError):
        Head(file(**changes))


def test_what_is_no_head() -> None:
    for content in (b"", b"\x80", b"x" * (MAX_HEAD_BYTES + 1)):
        with pytest.raises(HeadError):
            Head.read(content)


def test_a_vector_of_another_model() -> None:
    with pytest.raises(ValueError, match="bytes"):
        Head(file()).probabilities(floats(1, 2, 3))


def test_similarity_is_the_cosine() -> None:
    assert similarity(floats(0.6, 0.8), floats(0.6, 0.8)) == pytest.approx(1)
    assert similarity(floats(1, 0), floats(-1, 0)) == -1
    with pytest.raises(ValueError, match="bytes"):
        similarity(floats(1), floats(1, 0))
