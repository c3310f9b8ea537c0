"""What images and audio can cost in tokens, at most.

The formulas need the size of an image, which a URL does not tell; each has a largest result, and
that is the bound. Models without a published formula get the dearest of them.
"""

from cascaded.policy.tokens.counting import PromptCount
from cascaded.policy.tokens.names import OPENAI_PREFIXES, split_name

TILES_MAX = 8
"""An image is fitted into 2048 x 2048, then to 768 on its short side; a tile has 512 x 512."""
PATCHES_MAX = 1536
"""Patches of 32 x 32; larger images are shrunk to this many."""
AUDIO_BYTES_PER_TOKEN = 25
"""MP3 has at least 1,000 bytes a second, and a second has 10 tokens (OpenAI) to 32 (Gemini)."""
AUDIO_TOKENS_PER_CLIP = 16
"""For the frame of a clip, and fractions of a token."""


def _tiles(base: int, tile: int) -> tuple[int, int]:
    """(low detail, high detail)"""
    return base, base + tile * TILES_MAX


def _patches(hundredths: int) -> tuple[int, int]:
    """Patches times a factor of the model; these models have no cheaper detail."""
    tokens = -(-PATCHES_MAX * hundredths // 100)
    return tokens, tokens


_IMAGE_TOKENS = {
    "gpt-4o": _tiles(85, 170),
    "gpt-4.1": _tiles(85, 170),
    "gpt-4.5": _tiles(85, 170),
    "gpt-4-turbo": _tiles(85, 170),
    "gpt-4-vision": _tiles(85, 170),
    "gpt-4o-mini": _tiles(2833, 5667),
    "gpt-5": _tiles(70, 140),
    "o1": _tiles(75, 150),
    "o3": _tiles(75, 150),
    "computer-use-preview": _tiles(65, 129),
    "gpt-4.1-mini": _patches(162),
    "gpt-4.1-nano": _patches(246),
    "gpt-5-mini": _patches(162),
    "gpt-5-nano": _patches(246),
    "o4-mini": _patches(172),
}
CLAUDE = "claude"
CLAUDE_IMAGE_TOKENS = 3_750_000 // 750
"""A token for 750 pixels; the models that see most shrink an image to 3.75 megapixels."""
DEFAULT_IMAGE_TOKENS = max(high for _, high in _IMAGE_TOKENS.values())
"""For models without a published formula, whatever the detail: they may not heed it."""


def image_tokens_max(model_name: str) -> tuple[int, int]:
    """Most tokens of one image: (in low detail, otherwise)."""
    owner, family = split_name(model_name)
    if family.startswith(CLAUDE):
        return CLAUDE_IMAGE_TOKENS, CLAUDE_IMAGE_TOKENS
    if owner and owner not in OPENAI_PREFIXES:
        return DEFAULT_IMAGE_TOKENS, DEFAULT_IMAGE_TOKENS
    while family:
        if family in _IMAGE_TOKENS:
            return _IMAGE_TOKENS[family]
        family = family.rpartition("-")[0]
    return DEFAULT_IMAGE_TOKENS, DEFAULT_IMAGE_TOKENS


def media_tokens_max(model_name: str, count: PromptCount) -> int | None:
    """Most tokens of a prompt's images and audio; `None` with files, which nothing bounds."""
    if count.files:
        return None
    images = 0
    if count.images_low or count.images_other:
        low, other = image_tokens_max(model_name)
        images = count.images_low * low + count.images_other * other
    audio = -(-count.audio_bytes // AUDIO_BYTES_PER_TOKEN)
    return images + audio + count.audio_clips * AUDIO_TOKENS_PER_CLIP
