"""Providers by their names: where each is, in what it differs from OpenAI, and what it bills when
something fails.

The last is said by each for itself. Sellers' price lists are for tokens of answers, so that nobody
bills a 5xx; OpenRouter says so in words. Whether hanging up stops the bill no seller promises:
OpenRouter's documents name those that stop (OpenAI, Azure, Together, DeepSeek) and those that do
not (Groq, Google, Mistral), and yet a seller may count what it has written unread. So for all of
them a call is heard to its end, and its bill is known. Machines of one's own stop when the line is
closed, and nobody writes a bill.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

_SELLER: Final = {"bills_on_5xx": False, "cancel_stops_billing": False}
"""https://openrouter.ai/docs/features/zero-completion-insurance (no answer, no bill),
https://openrouter.ai/docs/api-reference/streaming (who stops when the line is closed)."""
_OWN: Final = {"bills_on_5xx": False, "cancel_stops_billing": True}
"""A server of one's own ends a request whose client is gone, and nobody sends a bill."""
PROVIDER_PRESETS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        # https://platform.openai.com/docs/api-reference/introduction
        "openai": {"base_url": "https://api.openai.com/v1", **_SELLER},
        # https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference: the address is the
        # resource's own; this is the last stable version of the deployments' API.
        "azure": {"api_version": "2024-10-21", **_SELLER},
        # https://console.groq.com/docs/openai
        "groq": {"base_url": "https://api.groq.com/openai/v1", **_SELLER},
        # https://docs.together.ai/docs/openai-api-compatibility
        "together": {"base_url": "https://api.together.xyz/v1", **_SELLER},
        # https://openrouter.ai/docs/quickstart
        "openrouter": {"base_url": "https://openrouter.ai/api/v1", **_SELLER},
        # https://docs.mistral.ai/api
        "mistral": {"base_url": "https://api.mistral.ai/v1", **_SELLER},
        # https://api-docs.deepseek.com
        "deepseek": {"base_url": "https://api.deepseek.com/v1", **_SELLER},
        # https://ai.google.dev/gemini-api/docs/openai; thoughts are billed as output
        # (https://ai.google.dev/gemini-api/docs/pricing) and stand in `total_tokens` alone.
        "gemini": {
            "base_url": "https://generativelanguage.googleapis.com/v1beta/openai",
            "reasoning_apart": True,
            **_SELLER,
        },
        # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
        "vllm": {"base_url": "http://localhost:8000/v1", **_OWN},
        # https://docs.ollama.com/openai
        "ollama": {"base_url": "http://localhost:11434/v1", **_OWN},
        # https://github.com/ggml-org/llama.cpp/tree/master/tools/server
        "llama_cpp": {"base_url": "http://localhost:8080/v1", **_OWN},
    }
)
"""What each says instead of the schema's defaults. What stands in the file goes over it."""
