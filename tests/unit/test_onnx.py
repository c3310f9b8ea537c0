"""Small models on their threads, with models that the test makes."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded.adapters.onnx.classifier import OnnxClassifier
from cascaded.adapters.onnx.embedder import MAX_REMEMBERED, OnnxEmbedder
from cascaded.adapters.onnx.folder import (
    MAX_BATCH_TEXTS,
    PADDING_ALLOWED,
    PADDING_SPARE,
    FolderModel,
    OnnxError,
    batches,
    labels_in,
)
from cascaded.adapters.onnx.worker import Terms
from cascaded.policy.heads import similarity
from cascaded.types.vectors import Unavailable
from tests.support.onnx_models import WORDS, table, write_classifier, write_embedder

TERMS = Terms(deadline_s=20.0, max_waiting=64)


def loading(folder: Path) -> Callable[[], FolderModel]:
    return lambda: FolderModel(folder, max_tokens=8, threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_embedder(tmp_path)


@pytest.fixture
async def embedder(folder: Path) -> AsyncIterator[OnnxEmbedder]:
    one = OnnxEmbedder("tiny", loading(folder), TERMS)
    yield one
    await one.close()


async def classifier(folder: Path, *, independent: bool = False) -> OnnxClassifier:
    load = loading(write_classifier(folder))
    return OnnxClassifier("judge", load, TERMS, labels=labels_in(folder), independent=independent)


def mean_of(*words: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    mean = table()[[WORDS.index(word) for word in words]].mean(axis=0)
    unit: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = mean / np.linalg.norm(mean)
    return unit


async def test_a_text_becomes_the_mean_of_its_tokens(embedder: OnnxEmbedder) -> None:
    found = await embedder.embed(["good cat", "LAW", "good cat"])
    assert not isinstance(found, Unavailable)
    assert [len(vector) for vector in found] == [16, 16, 16]
    assert np.allclose(np.frombuffer(found[0], "<f4"), mean_of("good", "cat"), atol=1e-6)
    assert np.allclose(np.frombuffer(found[1], "<f4"), mean_of("law"), atol=1e-6)
    assert similarity(found[0], found[2]) == pytest.approx(1.0)
    figures = embedder.figures
    assert (figures.answered, figures.remembered) == (2, 1)


async def test_a_text_is_worked_out_once_also_when_many_ask_at_once(
    embedder: OnnxEmbedder,
) -> None:
    found = await asyncio.gather(*(embedder.embed(["bad dog"]) for _ in range(5)))
    assert len({str(each) for each in found}) == 1
    assert (embedder.figures.answered, embedder.figures.remembered) == (1, 4)
    await embedder.embed(["bad dog"])
    assert embedder.figures.remembered == 5


async def test_what_was_used_longest_ago_is_forgotten(embedder: OnnxEmbedder) -> None:
    for start in range(0, MAX_REMEMBERED + 1, 50):
        texts = [f"cat {n}" for n in range(start, min(start + 50, MAX_REMEMBERED + 1))]
        assert not isinstance(await embedder.embed(texts), Unavailable)
    before = embedder.figures.answered
    await embedder.embed([f"cat {MAX_REMEMBERED}"])
    assert embedder.figures.answered == before
    await embedder.embed(["cat 0"])
    assert embedder.figures.answered == before + 1


async def test_odd_texts_are_no_fault(embedder: OnnxEmbedder) -> None:
    texts = ["", "\ud800 cat", "cat " * 100_000, "\0", "猫 🐈 é"]
    found = await embedder.embed(texts)
    assert isinstance(found, Unavailable) or len(found) == len(texts)
    assert not isinstance(await embedder.embed(["cat"]), Unavailable)


async def test_an_absent_model_is_told_each_time_and_tried_once(tmp_path: Path) -> None:
    loads = []

    def load() -> FolderModel:
        loads.append(1)
        return loading(tmp_path)()

    one = OnnxEmbedder("gone", load, TERMS)
    for _ in range(2):
        found = await one.embed(["cat"])
        assert isinstance(found, Unavailable)
        assert found.reason == "absent"
        assert str(tmp_path) in found.message
    assert len(loads) == 1
    await one.close()


async def test_a_busy_model_is_late_then_overloaded(folder: Path) -> None:
    go = threading.Event()

    def load() -> FolderModel:
        go.wait(20)
        return loading(folder)()

    one = OnnxEmbedder("slow", load, Terms(deadline_s=0.02, max_waiting=2))
    first = await one.embed(["cat", "dog"])
    assert isinstance(first, Unavailable)
    assert first.reason == "late"
    third = await one.embed(["law"])
    assert isinstance(third, Unavailable)
    assert third.reason == "overloaded"
    assert (one.figures.late, one.figures.overloaded) == (2, 1)
    go.set()
    await one.close()


async def test_who_waits_while_it_is_closed_is_told(folder: Path) -> None:
    go = threading.Event()

    def load() -> FolderModel:
        go.wait(20)
        return loading(folder)()

    one = OnnxEmbedder("slow", load, TERMS)
    asked = asyncio.ensure_future(one.embed(["cat"]))  # noqa: TID251
    await asyncio.sleep(0)
    await one.close()
    go.set()
    found = await asked
    assert isinstance(found, Unavailable)
    assert found.reason == "absent"
    again = await one.embed(["dog"])
    assert isinstance(again, Unavailable)


async def test_a_model_that_fails_on_one_text_answers_the_others(tmp_path: Path) -> None:
    write_classifier(tmp_path)

    class Picky(FolderModel):
        def encode(self, text: str | tuple[str, str]) -> tuple[list[int], list[int]]:
            if text == "boom":
                raise ValueError("no")
            return super().encode(text)

    one = OnnxClassifier(
        "picky",
        lambda: Picky(tmp_path, max_tokens=8, threads=1),
        TERMS,
        labels=("fine", "foul"),
        independent=False,
    )
    good, bad = await asyncio.gather(one.classify(["cat"]), one.classify(["boom"]))
    assert not isinstance(good, Unavailable)
    assert isinstance(bad, Unavailable)
    assert bad.reason == "fault"
    assert (one.figures.answered, one.figures.fault) == (1, 1)
    await one.close()


async def test_a_classifier_gives_probabilities(tmp_path: Path) -> None:
    one = await classifier(tmp_path)
    assert one.labels == ("fine", "foul")
    found = await one.classify(["good cat", ("law", "bad dog"), "x"])
    assert not isinstance(found, Unavailable)
    assert [sum(row) for row in found] == pytest.approx([1.0, 1.0, 1.0])
    assert await one.classify([]) == ()
    await one.close()
    any_of = await classifier(tmp_path, independent=True)
    alone = await any_of.classify(["good"])
    assert not isinstance(alone, Unavailable)
    logits = table(2)[WORDS.index("good")]
    assert alone[0] == pytest.approx(tuple(1 / (1 + np.exp(-logits))), abs=1e-6)
    await any_of.close()


async def test_labels_that_do_not_fit_are_a_fault(tmp_path: Path) -> None:
    load = loading(write_classifier(tmp_path))
    one = OnnxClassifier("three", load, TERMS, labels=("a", "b", "c"), independent=False)
    found = await one.classify(["cat"])
    assert isinstance(found, Unavailable)
    assert "3 labels" in found.message
    await one.close()


async def test_a_model_can_be_loaded_before_it_is_asked(folder: Path) -> None:
    one = OnnxEmbedder("tiny", loading(folder), TERMS)
    one.boot()
    one.boot()
    assert not isinstance(await one.embed(["cat"]), Unavailable)
    await one.close()
    one.boot()


def test_what_is_not_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(OnnxError, match=r"tokenizer\.json"):
        loading(tmp_path)()
    write_embedder(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"no")
    with pytest.raises(OnnxError, match="cannot be loaded"):
        loading(tmp_path)()
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(OnnxError, match="not there"):
        loading(tmp_path)()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(OnnxError, match=r"tokenizer\.json"):
        loading(tmp_path)()


@pytest.mark.parametrize("content", ["", "[]", '{"id2label": {"1": "a"}}', "{}"])
def test_labels_must_be_numbered(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(OnnxError):
        labels_in(tmp_path)


def test_labels_must_be_somewhere(tmp_path: Path) -> None:
    with pytest.raises(OnnxError, match="name the labels"):
        labels_in(tmp_path)


@given(st.lists(st.integers(1, 300), max_size=60))
def test_batches_hold_every_text_once_with_little_padding(lengths: list[int]) -> None:
    made = batches(lengths)
    assert sorted(place for batch in made for place in batch) == list(range(len(lengths)))
    for batch in made:
        inside = [lengths[place] for place in batch]
        assert len(inside) <= MAX_BATCH_TEXTS
        assert max(inside) <= min(inside) * PADDING_ALLOWED + PADDING_SPARE
