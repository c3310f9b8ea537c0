"""The conversion of MiniLM, on a model of the same make with small random weights."""

import json
import struct
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from cascaded.models import catalogue, made, minilm
from cascaded.models.folder import look, models_folder, verify
from cascaded.models.minilm import ConversionError, convert
from cascaded.models.pull import Progress, PullError, pull
from cascaded.models.sources import FolderSource

WIDTH, WIDE, WORDS, PLACES = 24, 48, 40, 32


def write_weights(path: Path, *, without: str = "") -> Path:
    chance = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (WORDS, WIDTH),
        "embeddings.position_embeddings.weight": (PLACES, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(minilm.LAYERS):
        name = f"encoder.layer.{layer}"
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
        for part, (out, into) in {
            "attention.self.query": (WIDTH, WIDTH),
            "attention.self.key": (WIDTH, WIDTH),
            "attention.self.value": (WIDTH, WIDTH),
            "attention.output.dense": (WIDTH, WIDTH),
            "intermediate.dense": (WIDE, WIDTH),
            "output.dense": (WIDTH, WIDE),
        }.items():
            shapes |= {f"{name}.{part}.weight": (out, into), f"{name}.{part}.bias": (out,)}
    for norm in norms:
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    head, body = {"__metadata__": {"format": "pt"}}, b""
    for name, shape in shapes.items():
        if name != without:
            data = chance.normal(scale=0.3, size=shape).astype("<f4").tobytes()
            place = [len(body), len(body) + len(data)]
            head[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": place}  # type: ignore[dict-item]
            body += data
    told = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(told)) + told + body)
    return path


def run(
    content: bytes, rows: list[list[int]]
) -> list["np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
    [found] = session.run(None, {"input_ids": ids, "attention_mask": mask})
    return [found[at, : len(row)] for at, row in enumerate(rows)]


def test_the_same_weights_make_the_same_file(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "model.safetensors")
    assert convert(weights) == convert(weights)


def test_a_text_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    made = convert(write_weights(tmp_path / "model.safetensors"))
    [alone] = run(made, [[1, 5, 9, 2]])
    [first, _] = run(made, [[1, 5, 9, 2], list(range(3, 20))])
    assert alone.shape == (4, WIDTH)
    assert np.allclose(alone, first, atol=1e-5)


def test_what_is_not_the_model_is_said(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for content in (b"", b"\xff" * 8, struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 3) + b"{}"):
        path.write_bytes(content)
        with pytest.raises(ConversionError, match="not all-MiniLM-L6-v2"):
            convert(path)
    write_weights(path, without="encoder.layer.3.output.dense.bias")
    with pytest.raises(ConversionError, match=r"encoder\.layer\.3"):
        convert(path)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> catalogue.ModelFile:
    """A model that is made of a file, with one beside it; the operator has both in `mine`."""
    monkeypatch.setattr(made, "convert", lambda path: path.read_bytes()[::-1])
    (tmp_path / "mine" / "small").mkdir(parents=True)

    def entry(name: str, content: bytes, **more: object) -> catalogue.ModelFile:
        import hashlib

        return catalogue.ModelFile(
            name=name.replace("/", "-"),
            file_name=name,
            role="part",
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            licence="Apache-2.0",
            context_tokens=8,
            **more,  # type: ignore[arg-type]
        )

    (tmp_path / "mine" / "weights").write_bytes(b"abcdef")
    (tmp_path / "mine" / "small" / "tokens").write_bytes(b"xyz")
    return entry(
        "small/model",
        b"fedcba",
        made_of=entry("weights", b"abcdef"),
        beside=(entry("small/tokens", b"xyz"),),
    )


def test_a_model_is_made_of_what_is_fetched(tmp_path: Path, small: catalogue.ModelFile) -> None:
    seen: list[Progress] = []
    sources = [FolderSource(tmp_path / "mine")]
    path = pull(small, tmp_path / "models", sources, on_progress=seen.append)
    assert path.read_bytes() == b"fedcba"
    assert (path.parent / "tokens").read_bytes() == b"xyz"
    assert {tick.model for tick in seen} >= {"weights", "small-tokens", "small-model"}
    assert verify(small, tmp_path / "models").state == "good"
    assert not list((tmp_path / "models" / ".partial").glob("*/"))


def test_a_finished_model_of_the_operators_is_taken_as_it_is(
    tmp_path: Path, small: catalogue.ModelFile
) -> None:
    (tmp_path / "mine" / "weights").unlink()
    (tmp_path / "mine" / "small" / "model").write_bytes(b"fedcba")
    path = pull(small, tmp_path / "models", [FolderSource(tmp_path / "mine")])
    assert path.read_bytes() == b"fedcba"


def test_what_cannot_be_made_is_said(
    tmp_path: Path, small: catalogue.ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> bytes:
        raise ConversionError("no numpy")

    monkeypatch.setattr(made, "convert", fail)
    with pytest.raises(PullError, match="made here: no numpy"):
        pull(small, tmp_path / "models", [FolderSource(tmp_path / "mine")])
    (tmp_path / "mine" / "weights").unlink()
    with pytest.raises(PullError, match="has no file weights"):
        pull(small, tmp_path / "models2", [FolderSource(tmp_path / "mine")])


@pytest.mark.models
async def test_the_real_model_tells_meanings_apart() -> None:
    import os

    from cascaded.config import Config
    from cascaded.daemon.small_models import make_small_models
    from cascaded.policy.heads import similarity
    from cascaded.types.vectors import Unavailable

    if not look(catalogue.MINILM, models_folder(os.environ)).usable:
        pytest.skip("needs `cascaded models pull minilm`")
    config = Config()
    embedder = make_small_models(config, None).embedder
    embedder.boot()
    found = await embedder.embed(["a cat sat on the mat", "a kitten on a rug", "tax law"])
    while isinstance(found, Unavailable) and found.reason == "late":
        found = await embedder.embed(["a cat sat on the mat", "a kitten on a rug", "tax law"])
    assert not isinstance(found, Unavailable), found
    cat, kitten, law = found
    assert similarity(cat, kitten) > 0.5 > similarity(cat, law)
    await embedder.close()
