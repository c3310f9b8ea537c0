"""Small ONNX models, made by the tests: words are looked up in a table of vectors."""

import json
from pathlib import Path

import numpy as np

from cascaded.models.onnx_file import Graph

WORDS = ("[PAD]", "[UNK]", "good", "bad", "cat", "dog", "law")
AXES = 4


def tokenizer_json() -> str:
    """Words are what spaces part, in lower case."""
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": None,
            "decoder": None,
            "model": {
                "type": "WordLevel",
                "vocab": {word: number for number, word in enumerate(WORDS)},
                "unk_token": "[UNK]",
            },
        }
    )


def table(width: int = AXES) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """A vector for each word."""
    return np.random.default_rng(7).normal(size=(len(WORDS), width)).astype(np.float32)


def write_embedder(folder: Path) -> Path:
    """A model whose token vectors are the table's."""
    graph = Graph()
    words = graph.constant("words", table())
    graph.node("Gather", [words, "input_ids"], "last_hidden_state")
    return _write(folder, graph, {"last_hidden_state": ("batch", "sequence", AXES)})


def write_classifier(folder: Path, labels: tuple[str, ...] = ("fine", "foul")) -> Path:
    """A model whose numbers are the mean of its words' vectors."""
    graph = Graph()
    words = graph.constant("words", table(len(labels)))
    graph.node("Gather", [words, "input_ids"], "each")
    graph.node("ReduceMean", ["each", graph.constant("axis", np.array([1]))], "logits", keepdims=0)
    (folder / "config.json").write_text(
        json.dumps({"id2label": {str(at): label for at, label in enumerate(labels)}, "other": 1})
    )
    return _write(folder, graph, {"logits": ("batch", len(labels))})


def _write(folder: Path, graph: Graph, outputs: dict[str, tuple[str | int, ...]]) -> Path:
    inputs = dict.fromkeys(("input_ids", "attention_mask"), ("batch", "sequence"))
    (folder / "model.onnx").write_bytes(graph.file("t", inputs=inputs, outputs=outputs, opset=18))
    (folder / "tokenizer.json").write_text(tokenizer_json())
    return folder
