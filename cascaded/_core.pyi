"""The Rust core as Python sees it."""

from typing import Final, Literal, final

__all__ = ["LONG_INPUT_BYTES", "Vocabulary", "toml_tree"]

_TomlKind = Literal["string", "integer", "float", "boolean", "datetime", "array", "table"]
_TomlNode = tuple[int, _TomlKind, object]

def toml_tree(text: str) -> tuple[dict[str, _TomlNode], list[tuple[int, int, str]]]:
    """Read a TOML document: `({key: (line, kind, value)}, [(line, column, message)])`.

    A value is a `str` (strings, dates, and floats as they were written), an `int` of 64 bits, a
    `bool`, a `list` of nodes or a `dict` of nodes. With faults the table is what could be made out.
    """

LONG_INPUT_BYTES: Final[int]
"""Inputs up to here are counted with the GIL held: they take less than a hop to a thread."""

@final
class Vocabulary:
    """What turns text into tokens. Long inputs are counted without the GIL."""

    @staticmethod
    def public(name: str) -> Vocabulary | None:
        """A public vocabulary by name, or `None`. Loaded by its first use."""

    @staticmethod
    def unknown() -> Vocabulary:
        """The vocabulary of models whose own is not public: bounded by bytes."""

    @staticmethod
    def from_tokenizer_json(json: bytes) -> Vocabulary:
        """A vocabulary from the content of a Hugging Face `tokenizer.json`. Raises `ValueError`."""

    def load(self) -> None:
        """Load what the first count would load."""

    def is_long(self, input_bytes: int) -> bool:
        """Whether an input of this size takes too long for an event loop."""

    def count_text(self, text: str) -> tuple[int, bool]:
        """`(tokens, exact)`. Raises `ValueError` for a `str` with lone surrogates."""

    def count_chat(
        self, messages: bytes, tools: bytes | None = None
    ) -> tuple[int, bool, int, int, int, int, int, int]:
        """Count a chat prompt from the JSON of its messages and tools.

        `(tokens, exact, images_low, images_other, audio_clips, audio_bytes, files, file_bytes)`.
        Raises `ValueError` that says what is wrong with the JSON.
        """
