"""Counts in the vocabularies that are public or that the operator supplied."""

from collections.abc import Mapping

import msgspec

from cascaded import _core

PUBLIC_VOCABULARIES = ("cl100k_base", "o200k_base", "o200k_harmony")


class PromptError(ValueError):
    """The prompt cannot be counted; the message says why, in words for the caller."""


class PromptCount(msgspec.Struct, frozen=True, kw_only=True):
    """What a chat prompt is made of."""

    tokens: int
    """Of all text, with the chat format's overhead."""
    exact: bool
    """Whether `tokens` is the count; else it is a bound. Images and the like do not touch it."""
    images_low: int = 0
    """Images that are asked for in low detail."""
    images_other: int = 0
    audio_clips: int = 0
    audio_bytes: int = 0
    """Inline audio, decoded; rounded up."""
    files: int = 0
    """Files, references and parts of unknown kind: nothing here bounds their tokens."""
    file_bytes: int = 0
    """Of those that are inline, as sent."""


class Vocabularies:
    """The public vocabularies and the operator's own. Immutable; safe to share by threads."""

    def __init__(self, tokenizer_files: Mapping[str, bytes] | None = None) -> None:
        """`tokenizer_files`: the content of a `tokenizer.json` for each name.

        Raises `ValueError` for content that is none, and for a name that is taken.
        """
        self._known: dict[str, _core.Vocabulary] = {}
        self._unknown = _core.Vocabulary.unknown()
        for name in PUBLIC_VOCABULARIES:
            public = _core.Vocabulary.public(name)
            assert public is not None
            self._known[name] = public
        for name, content in (tokenizer_files or {}).items():
            if not name or name in PUBLIC_VOCABULARIES:
                raise ValueError(f"a tokenizer file cannot be called {name!r}: choose another name")
            try:
                self._known[name] = _core.Vocabulary.from_tokenizer_json(content)
            except ValueError as error:
                raise ValueError(f"tokenizer file {name!r}: {error}") from None

    @property
    def names(self) -> tuple[str, ...]:
        """Of all vocabularies in which there is more than a bound."""
        return tuple(self._known)

    def _find(self, vocabulary: str) -> _core.Vocabulary:
        return self._known.get(vocabulary, self._unknown)

    def load(self, vocabulary: str) -> None:
        """Load what the first count would load (tens of milliseconds)."""
        self._find(vocabulary).load()

    def is_long(self, vocabulary: str, nbytes: int) -> bool:
        """Whether counting so many bytes belongs off the event loop; so does a first use."""
        return self._find(vocabulary).is_long(nbytes)

    def count_text(self, vocabulary: str, text: str) -> int:
        """Tokens of a text, or the bound by bytes where the vocabulary is unknown.

        Special tokens that are spelled out are ordinary text. Raises `PromptError` for a `str`
        that no UTF-8 can express.
        """
        try:
            return self._find(vocabulary).count_text(text)[0]
        except UnicodeEncodeError as error:
            raise PromptError(f"the text has half a surrogate pair at {error.start}") from None

    def count_chat(
        self, vocabulary: str, messages: bytes, tools: bytes | None = None
    ) -> PromptCount:
        """What a chat prompt is made of, from the JSON of its messages and tools.

        Raises `PromptError` for what is not JSON, not a list of messages, too large or too deep.
        """
        try:
            counts = self._find(vocabulary).count_chat(messages, tools)
        except ValueError as error:
            raise PromptError(str(error)) from None
        return _prompt_count(*counts)


def _prompt_count(
    tokens: int,
    exact: bool,
    images_low: int,
    images_other: int,
    audio_clips: int,
    audio_bytes: int,
    files: int,
    file_bytes: int,
) -> PromptCount:
    return PromptCount(
        tokens=tokens,
        exact=exact,
        images_low=images_low,
        images_other=images_other,
        audio_clips=audio_clips,
        audio_bytes=audio_bytes,
        files=files,
        file_bytes=file_bytes,
    )
