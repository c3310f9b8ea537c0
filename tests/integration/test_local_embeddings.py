"""Embeddings by the model of this machine, by the official SDK over the socket."""

import struct
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.daemon import CASCADE, Daemon, daemon_with
from tests.support.onnx_models import AXES, write_embedder
from tests.support.upstream import Upstream

HERE = """
[embedder]
folder = "{model}"

[providers.here]
kind = "embedder"

[models.minilm]
provider = "here"
free = true
tokenizer_file = "{model}/tokenizer.json"

[limits.users.default]
daily_usd = "0.01"
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("model")
    write_embedder(folder)
    with daemon_with(
        CASCADE + HERE.replace("{model}", str(folder)), url="http://127.0.0.1:1"
    ) as daemon:
        yield daemon
        assert daemon.spend["held"] == 0


def test_texts_become_vectors_of_length_one(local: Daemon) -> None:
    made = local.sdk().embeddings.create(model="minilm", input=["good cat", "bad dog", "good cat"])
    assert [one.index for one in made.data] == [0, 1, 2]
    first, second, third = (one.embedding for one in made.data)
    assert first == third != second
    assert len(first) == AXES
    assert sum(axis * axis for axis in first) == pytest.approx(1)
    assert made.usage.prompt_tokens == made.usage.total_tokens == 6
    assert made.model == "minilm"


async def test_many_texts_are_in_their_order(local: Daemon) -> None:
    words = ["good", "bad", "cat", "dog", "law"] * 60
    async with local.async_sdk() as client:
        made = await client.embeddings.create(model="minilm", input=words)
    vectors = [tuple(one.embedding) for one in made.data]
    assert vectors[:5] * 60 == vectors
    assert len(set(vectors)) == 5


def test_both_encodings_tell_the_same(local: Daemon) -> None:
    with local.http() as http:
        plain, packed = (
            http.post("/v1/embeddings", json={"model": "minilm", "input": "cat", **more}).json()
            for more in ({}, {"encoding_format": "base64"})
        )
    floats = struct.unpack(f"<{AXES}f", b64decode(packed["data"][0]["embedding"]))
    assert list(floats) == pytest.approx(plain["data"][0]["embedding"])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"input": [1, 2, 3]}, "token ids"),
        ({"input": "cat", "dimensions": 2}, "gives 4 dimensions"),
        ({"input": "cat", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_it_cannot_do_is_said(local: Daemon, asked: dict[str, object], words: str) -> None:
    with local.http() as http:
        answer = http.post("/v1/embeddings", json={"model": "minilm", **asked})
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_it_answers_no_chat(local: Daemon) -> None:
    with pytest.raises(openai.BadRequestError):
        local.sdk().chat.completions.create(
            model="minilm", messages=[{"role": "user", "content": "cat"}]
        )


def test_without_the_model_it_says_how_to_get_it(tmp_path: Path, upstream: Upstream) -> None:
    config = HERE.replace("{model}", str(tmp_path)).replace(
        f'tokenizer_file = "{tmp_path}/tokenizer.json"\n', ""
    )
    with daemon_with(CASCADE + config, url=upstream.url) as daemon, daemon.http() as http:
        answer = http.post("/v1/embeddings", json={"model": "minilm", "input": "cat"})
        assert answer.status_code >= 500
        assert str(tmp_path) in answer.json()["error"]["message"]
        assert daemon.spend["held"] == 0
