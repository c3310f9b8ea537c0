"""How many tokens a prompt has: exactly where the vocabulary is public, else an upper bound.

The functions here know the public vocabularies, and bound everything else by bytes; a
`Vocabularies` also knows the tokenizers that the operator supplied.
"""

from msgspec import Raw

from cascaded._core import LONG_INPUT_BYTES
from cascaded.policy.tokens.counting import (
    PUBLIC_VOCABULARIES,
    PromptCount,
    PromptError,
    Vocabularies,
)
from cascaded.policy.tokens.media import image_tokens_max, media_tokens_max
from cascaded.policy.tokens.names import vocabulary_of

__all__ = [
    "LONG_PROMPT_BYTES",
    "PUBLIC_VOCABULARIES",
    "PromptCount",
    "PromptError",
    "Vocabularies",
    "count_chat",
    "count_prompt",
    "count_text",
    "image_tokens_max",
    "is_long",
    "media_tokens_max",
    "vocabulary_of",
]

LONG_PROMPT_BYTES = LONG_INPUT_BYTES
"""Prompts above this are counted off the event loop."""

_PUBLIC = Vocabularies()

count_text = _PUBLIC.count_text
count_chat = _PUBLIC.count_chat


def is_long(nbytes: int, vocabulary: str = "") -> bool:
    """Whether counting so many bytes belongs off the event loop."""
    return _PUBLIC.is_long(vocabulary, nbytes)


def count_prompt(
    vocabulary: str,
    messages: bytes | Raw,
    tools: bytes | Raw | None = None,
    *,
    model_name: str = "",
    vocabularies: Vocabularies = _PUBLIC,
) -> int:
    """An upper bound on all of a prompt's tokens: text, format, images and audio.

    Raises `PromptError` for what cannot be counted, and for files, which nothing bounds.
    """
    given = None if tools is None else bytes(tools)
    count = vocabularies.count_chat(vocabulary, bytes(messages), given)
    media = media_tokens_max(model_name, count)
    if media is None:
        raise PromptError(
            "the prompt has a file, or a part of unknown kind, whose tokens cannot be bounded; "
            "send its text instead"
        )
    return count.tokens + media
