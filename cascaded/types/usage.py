"""Token usage of one model call, normalised over all providers."""

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one call.

    `input_tokens` and `output_tokens` are totals (OpenTelemetry GenAI names); every other field
    is a *part* of one of them and never adds to it. A provider whose counts exclude their parts
    (Anthropic's `input_tokens`) is normalised by adding them.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    """Part of the input that the provider read from its prompt cache."""
    cache_write_tokens: int = 0
    """Part of the input that the provider wrote to its prompt cache."""
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    reasoning_tokens: int = 0
    """Part of the output that was hidden reasoning."""
    cache_write_1h_tokens: int | None = None
    """Part of `cache_write_tokens` that lives for an hour. `None`: the provider does not say; all
    of it is then charged at the dearer of the two rates."""
    output_image_tokens: int | None = None
    """Part of the output that is images. `None`: the provider does not say; where images have a
    rate of their own, all output that nothing else explains is then charged as images."""
    estimated: bool = False
    """Counted here because the provider did not say."""
