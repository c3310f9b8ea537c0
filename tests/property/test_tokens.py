"""Counts against `tiktoken` itself, and properties of the bounds.

`tiktoken` would download its rank files. They are also in the source of the crate that our own
tables are built from, so wherever the extension was built here, they are at hand.
"""

import base64
import contextlib
import hashlib
import json
import os
import random
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tiktoken_ext import openai_public  # type: ignore[import-untyped]

from cascaded.policy.tokens import PromptError, Vocabularies, count_chat, count_text

CARGO_HOME = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
VOCABULARIES = ("cl100k_base", "o200k_base")
RANDOM_TEXTS = 3000


def local_ranks(address: str, expected_hash: str) -> dict[bytes, int]:
    """In place of `tiktoken`'s download."""
    name = address.rpartition("/")[2]
    found = sorted(CARGO_HOME.glob(f"registry/src/*/tiktoken-rs-*/assets/{name}"))
    if not found:
        pytest.skip(f"{name} is not here: the extension was built elsewhere")
    content = found[0].read_bytes()
    assert hashlib.sha256(content).hexdigest() == expected_hash
    lines = (line.split() for line in content.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


@cache
def reference(name: str) -> tiktoken.Encoding:
    """`tiktoken`'s own encoding, without the network."""
    with patch.object(openai_public, "load_tiktoken_bpe", local_ranks):
        return tiktoken.Encoding(**openai_public.ENCODING_CONSTRUCTORS[name]())


def random_text(source: random.Random) -> str:
    """Words, spaces, symbols, digits, other scripts, and any character at all."""
    alphabets = [
        "abcdefghijklmnopqrstuvwxyz",
        "ABCDEFGHijklmnop'sSſ",
        " \t\n\r\u00a0\u2028\u3000",
        "0123456789½²٣",
        ".,;:!?/\\()[]{}<>|=+-_*&^%$#@~`'\"",
        "éüßñÀÇşžžαβγδЖЩЫ",
        "中文字日本語한국어",
        "कखगघङािीु",
        "אבגדابتث",
        "😀👩‍👩‍👧🇩🇪\u0301\u0302ǅʰ",
    ]
    pieces = []
    for _ in range(source.randrange(1, 30)):
        if source.random() < 0.05:
            code = source.randrange(0x110000)
            pieces.append("?" if 0xD800 <= code < 0xE000 else chr(code))
        else:
            length = source.choice([1, 1, 2, 3, 5, 8, 13, 40])
            pieces.append("".join(source.choices(source.choice(alphabets), k=length)))
    return "".join(pieces)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_random_counts_equal_tiktoken(vocabulary: str) -> None:
    source = random.Random(20_261_121)
    encoding = reference(vocabulary)
    for _ in range(RANDOM_TEXTS):
        text = random_text(source)
        assert count_text(vocabulary, text) == len(encoding.encode_ordinary(text)), text


@given(st.text(max_size=200), st.sampled_from(VOCABULARIES))
def test_any_count_equals_tiktoken(text: str, vocabulary: str) -> None:
    assert count_text(vocabulary, text) == len(reference(vocabulary).encode_ordinary(text))


@given(st.text(max_size=200), st.sampled_from(VOCABULARIES))
def test_bytes_bound_every_count(text: str, vocabulary: str) -> None:
    assert count_text(vocabulary, text) <= count_text("", text)


@given(st.text(max_size=50), st.text(max_size=50), st.sampled_from(VOCABULARIES))
def test_chats_are_their_texts_and_three_for_each_message(
    first: str, second: str, vocabulary: str
) -> None:
    messages = [{"role": "user", "content": first}, {"role": "assistant", "content": second}]
    count = count_chat(vocabulary, json.dumps(messages).encode())
    texts = ("user", first, "assistant", second)
    assert count.exact
    assert count.tokens == 3 + 2 * 3 + sum(count_text(vocabulary, text) for text in texts)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "image_url", "detail", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=4), st.none() | st.lists(json_values, max_size=3))
def test_any_json_is_counted_or_refused(messages: list[object], tools: list[object] | None) -> None:
    given_tools = None if tools is None else json.dumps(tools).encode()
    for vocabulary in ("", *VOCABULARIES):
        with contextlib.suppress(PromptError):
            count = count_chat(vocabulary, json.dumps(messages).encode(), given_tools)
            assert count.tokens >= 3


@given(st.binary(max_size=300))
def test_any_bytes_are_counted_or_refused(garbage: bytes) -> None:
    with pytest.raises(ValueError, match="not a Hugging Face"):
        Vocabularies({"x": garbage})
    with contextlib.suppress(PromptError):
        count_chat("", garbage)
