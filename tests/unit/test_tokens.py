"""Token counts, by name and by text. The counter's own tests are in the Rust crate."""

import json
import threading
import time
from pathlib import Path

import msgspec
import pytest

from cascaded.policy import tokens
from cascaded.policy.tokens import (
    PromptCount,
    PromptError,
    Vocabularies,
    count_chat,
    count_prompt,
    count_text,
    image_tokens_max,
    is_long,
    media_tokens_max,
    vocabulary_of,
)

SHARED_COUNTS = Path(__file__).parents[3] / "shared" / "data" / "tokens" / "token_counts.jsonl"

TOKENIZER: dict[str, object] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": "?",
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {"l": 0, "o": 1, "w": 2, "lo": 3, "low": 4, "?": 5},
        "merges": ["l o", "lo w"],
    },
}


def chat(*messages: dict[str, object]) -> bytes:
    return json.dumps(messages).encode()


@pytest.mark.parametrize(
    ("model", "vocabulary"),
    [
        ("gpt-4", "cl100k_base"),
        ("gpt-4-0613", "cl100k_base"),
        ("gpt-4-turbo-2024-04-09", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("gpt-35-turbo-16k", "cl100k_base"),
        ("ft:gpt-3.5-turbo-1106:acme::abc", "cl100k_base"),
        ("text-embedding-3-large", "cl100k_base"),
        ("text-embedding-ada-002", "cl100k_base"),
        ("gpt-4o", "o200k_base"),
        ("GPT-4o-mini", "o200k_base"),
        ("openai/gpt-4o-2024-08-06", "o200k_base"),
        ("openrouter/openai/gpt-4.1-nano", "o200k_base"),
        ("azure/gpt-4.1", "o200k_base"),
        ("ft:gpt-4o-mini-2024-07-18:acme:x:id", "o200k_base"),
        ("ft:gpt-4:acme::id", "cl100k_base"),
        ("chatgpt-4o-latest", "o200k_base"),
        ("gpt-4.5-preview", "o200k_base"),
        ("gpt-5", "o200k_base"),
        ("gpt-5.1-codex", "o200k_base"),
        ("gpt-5-mini-2025-08-07", "o200k_base"),
        ("o1", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("o4-mini-high", "o200k_base"),
        ("gpt-oss-120b", "o200k_harmony"),
        ("gpt-oss:20b", "o200k_harmony"),
        ("accounts/fireworks/models/gpt-oss-20b", "o200k_harmony"),
        # Not public, or not OpenAI's.
        ("", ""),
        ("claude-sonnet-4", ""),
        ("gemini-2.5-pro", ""),
        ("smollm2-135m", ""),
        ("qwen2.5-coder-1.5b", ""),
        ("gpt-4all", ""),
        ("gpt4all", ""),
        ("gpt-6", ""),
        ("gpt-50", ""),
        ("gpt-4.7", ""),
        ("o1js", ""),
        ("o11", ""),
        ("EleutherAI/gpt-4-like", ""),
        ("somebody/o1-preview", ""),
        ("text-embedding-4", ""),
    ],
)
def test_vocabulary_of(model: str, vocabulary: str) -> None:
    assert vocabulary_of(model) == vocabulary


def test_known_counts() -> None:
    assert count_text("cl100k_base", "hello world") == 2
    assert count_text("o200k_base", "hello world") == 2
    assert count_text("o200k_base", "") == 0
    assert count_text("cl100k_base", "<|endoftext|>") > 1


def test_unknown_vocabularies_are_bounded_by_bytes() -> None:
    assert count_text("", "") == 0
    assert count_text("", "héllo") == 6 + 1
    assert count_text("claude", "abc") == 3 + 1
    assert count_text("claude", "\ufdfa") == 33 + 1, "what it is in normal form NFKC"


def shared_counts() -> list[dict[str, object]]:
    if not SHARED_COUNTS.exists():
        pytest.skip("the shared development data is not here")
    return [json.loads(line) for line in SHARED_COUNTS.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("vocabulary", ["cl100k_base", "o200k_base"])
def test_counts_of_the_shared_data(vocabulary: str) -> None:
    for row in shared_counts():
        counts, text = row["counts"], row["text"]
        assert isinstance(counts, dict)
        assert isinstance(text, str)
        assert count_text(vocabulary, text) == counts[vocabulary], text[:60]


def test_bytes_bound_every_vocabulary_of_the_shared_data() -> None:
    for row in shared_counts():
        counts, text = row["counts"], row["text"]
        assert isinstance(counts, dict)
        assert isinstance(text, str)
        assert count_text("", text) >= max(counts.values()), text[:60]


@pytest.mark.parametrize("vocabulary", ["cl100k_base", "o200k_base"])
def test_hostile_text_takes_linear_time(vocabulary: str) -> None:
    start = time.perf_counter()
    assert count_text(vocabulary, "a" * 200_000) == 25_000
    assert count_text(vocabulary, " " * 200_000) < 10_000
    assert count_text(vocabulary, "QUJDREVGRw" * 500_000) <= 5_000_000
    assert time.perf_counter() - start < 10


def test_half_a_surrogate_pair_is_an_error() -> None:
    with pytest.raises(PromptError, match="surrogate pair at 1"):
        count_text("o200k_base", "a\ud800")


def test_plain_chat_is_exact() -> None:
    count = count_chat("o200k_base", chat({"role": "user", "content": "hi"}))
    assert count == PromptCount(tokens=8, exact=True)


def test_other_chats_are_bounds() -> None:
    messages = chat({"role": "user", "content": "hi"})
    for vocabulary in ("", "o200k_harmony", "nobody's"):
        count = count_chat(vocabulary, messages)
        assert not count.exact
        assert count.tokens > 8


def test_media_are_reported_apart() -> None:
    picture = {"url": "data:image/png;base64," + "A" * 100_000}
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": picture | {"detail": "low"}},
        {"type": "image_url", "image_url": picture},
        {"type": "input_audio", "input_audio": {"data": "A" * 4000, "format": "mp3"}},
        {"type": "file", "file": {"file_id": "f"}},
    ]
    count = count_chat("o200k_base", chat({"role": "user", "content": content}))
    assert count.tokens < 20
    assert (count.images_low, count.images_other, count.audio_clips, count.files) == (1, 1, 1, 1)
    assert 3000 <= count.audio_bytes <= 3006
    assert count.file_bytes > 0


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (b"", "not valid JSON"),
        (b"{}", "messages must be an array"),
        (b'[{"content":"\\ud800"}]', "not valid JSON"),
        (b'["\xff"]', "not UTF-8 at byte 2"),
        (b"[" * 100_000, "nested deeper than"),
        (b" " * (33 << 20), "at most"),
    ],
)
def test_bad_prompts(messages: bytes, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        count_chat("o200k_base", messages)


def openai_tool_tokens(tools: list[dict[str, object]], vocabulary: str) -> int:
    """What OpenAI's cookbook found that tools add to a prompt of GPT-4o."""
    total = 12 if tools else 0
    for tool in tools:
        function = msgspec.convert(tool["function"], dict[str, object])
        total += 7 + count_text(vocabulary, f"{function['name']}:{function['description']}")
        parameters = msgspec.convert(function["parameters"], dict[str, object])
        properties = msgspec.convert(parameters["properties"], dict[str, dict[str, object]])
        total += 3 if properties else 0
        for name, schema in properties.items():
            total += 3 + count_text(vocabulary, f"{name}:{schema['type']}:{schema['description']}")
            choices = msgspec.convert(schema.get("enum", []), list[str])
            total += sum(3 + count_text(vocabulary, choice) for choice in choices)
    return total


@pytest.mark.parametrize("vocabulary", ["cl100k_base", "o200k_base"])
@pytest.mark.parametrize("choices", [0, 1, 300])
@pytest.mark.parametrize("number", [1, 40])
def test_tools_are_never_under_the_published_estimate(
    vocabulary: str, choices: int, number: int
) -> None:
    unit: dict[str, object] = {"type": "string", "description": "unit"}
    if choices:
        unit["enum"] = [f"c{i}" for i in range(choices)]
    parameters = {"type": "object", "properties": {"unit": unit, "x": unit}}
    function = {"name": "weather", "description": "Now.", "parameters": parameters}
    tools: list[dict[str, object]] = [{"type": "function", "function": function}] * number
    messages = chat({"role": "user", "content": "hi"})
    with_tools = count_chat(vocabulary, messages, msgspec.json.encode(tools))
    added = with_tools.tokens - count_chat(vocabulary, messages).tokens
    assert not with_tools.exact
    assert openai_tool_tokens(tools, vocabulary) <= added
    assert added < 3 * len(msgspec.json.encode(tools)) + 500


def test_operators_tokenizers() -> None:
    vocabularies = Vocabularies({"mine": json.dumps(TOKENIZER).encode()})
    assert vocabularies.names == (*tokens.PUBLIC_VOCABULARIES, "mine")
    assert vocabularies.count_text("mine", "low low lol") == 4
    assert vocabularies.count_text("yours", "low") == 4
    count = vocabularies.count_chat("mine", chat({"role": "user", "content": "low"}))
    assert not count.exact
    vocabularies.load("mine")
    assert not vocabularies.is_long("mine", 100)
    assert vocabularies.is_long("mine", 10_000)


def test_bad_tokenizers() -> None:
    with pytest.raises(ValueError, match=r"tokenizer file 'mine': not a Hugging Face"):
        Vocabularies({"mine": b"{}"})
    for name in ("", "o200k_base"):
        with pytest.raises(ValueError, match="choose another name"):
            Vocabularies({name: b"{}"})


def test_long_inputs_belong_off_the_event_loop() -> None:
    Vocabularies().load("cl100k_base")
    assert not is_long(1000, "cl100k_base")
    assert not is_long(tokens.LONG_PROMPT_BYTES)
    assert is_long(tokens.LONG_PROMPT_BYTES + 1)


def test_long_counts_let_other_threads_run() -> None:
    text = "some words and 12 numbers, " * 400_000
    turns = 0
    done = threading.Event()

    def count() -> None:
        count_text("o200k_base", text)
        done.set()

    worker = threading.Thread(target=count)
    worker.start()
    while not done.wait(0.001):
        turns += 1
    worker.join()
    assert turns > 3


@pytest.mark.parametrize(
    ("model", "low", "other"),
    [
        ("gpt-4o", 85, 1445),
        ("openai/gpt-4o-2024-08-06", 85, 1445),
        ("gpt-4o-mini-2024-07-18", 2833, 48169),
        ("gpt-4.1-mini", 2489, 2489),
        ("o3", 75, 1275),
        ("gpt-5-nano", 3779, 3779),
        ("somebody/gpt-4o", 48169, 48169),
        ("claude-opus-4", 5000, 5000),
        ("anthropic/claude-opus-4-7", 5000, 5000),
        ("a-model", 48169, 48169),
        ("", 48169, 48169),
    ],
)
def test_image_bounds(model: str, low: int, other: int) -> None:
    assert image_tokens_max(model) == (low, other)


def test_media_bounds() -> None:
    count = PromptCount(
        tokens=5, exact=True, images_low=2, images_other=1, audio_clips=1, audio_bytes=1001
    )
    assert media_tokens_max("gpt-4o", count) == 2 * 85 + 1445 + 41 + 16
    assert media_tokens_max("gpt-4o", PromptCount(tokens=5, exact=True)) == 0
    assert media_tokens_max("gpt-4o", PromptCount(tokens=5, exact=True, files=1)) is None


def test_count_prompt_adds_it_all_up() -> None:
    messages = msgspec.Raw(chat({"role": "user", "content": "hi"}))
    assert count_prompt("o200k_base", messages) == 8
    with_tools = count_prompt("o200k_base", messages, msgspec.Raw(b'[{"type":"function"}]'))
    assert with_tools > 8 + 3
    picture = {"type": "image_url", "image_url": {"url": "https://a.example/p.png"}}
    seen = count_prompt(
        "o200k_base", chat({"role": "user", "content": [picture]}), model_name="gpt-4o"
    )
    assert seen == 3 + 3 + 1 + 1445
    with pytest.raises(PromptError, match="cannot be bounded"):
        count_prompt("o200k_base", chat({"role": "user", "content": [{"type": "file"}]}))
