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
    estimated: bool = False
    """Counted here because the provider did not say."""
