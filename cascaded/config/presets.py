"""Providers by their names: where each is, and in what it differs from OpenAI.

Whether hanging up stops the bill: only where a model runs on machines of one's own is that certain,
for they stop when the line is closed, and nobody writes a bill. OpenRouter's documents
(https://openrouter.ai/docs/api-reference/streaming) name OpenAI, Azure, Together and DeepSeek among
those that stop, and Groq, Google and Mistral among those that do not; the sellers themselves
promise nothing, so that a call that is left is charged at its worst until somebody says otherwise.

Whether an answer of 5xx is billed: by nobody here. Prices are for tokens of answers, and OpenRouter
says so in words (https://openrouter.ai/docs/features/zero-completion-insurance). A gateway of one's
own that tries again behind such an answer may differ: `bills_on_5xx` is there for it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

_STOPS: Final = {"cancel_stops_billing": True}
PROVIDER_PRESETS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        # https://platform.openai.com/docs/api-reference/introduction
        "openai": {"base_url": "https://api.openai.com/v1"},
        # https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference: the address is the
        # resource's own; this is the last stable version of the deployments' API.
        "azure": {"api_version": "2024-10-21"},
        # https://console.groq.com/docs/openai
        "groq": {"base_url": "https://api.groq.com/openai/v1"},
        # https://docs.together.ai/docs/openai-api-compatibility
        "together": {"base_url": "https://api.together.xyz/v1"},
        # https://openrouter.ai/docs/quickstart
        "openrouter": {"base_url": "https://openrouter.ai/api/v1"},
        # https://docs.mistral.ai/api
        "mistral": {"base_url": "https://api.mistral.ai/v1"},
        # https://api-docs.deepseek.com
        "deepseek": {"base_url": "https://api.deepseek.com/v1"},
        # https://ai.google.dev/gemini-api/docs/openai; thoughts are billed as output
        # (https://ai.google.dev/gemini-api/docs/pricing) and stand in `total_tokens` alone.
        "gemini": {
            "base_url": "https://generativelanguage.googleapis.com/v1beta/openai",
            "reasoning_apart": True,
        },
        # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
        "vllm": {"base_url": "http://localhost:8000/v1", **_STOPS},
        # https://docs.ollama.com/openai
        "ollama": {"base_url": "http://localhost:11434/v1", **_STOPS},
        # https://github.com/ggml-org/llama.cpp/tree/master/tools/server
        "llama_cpp": {"base_url": "http://localhost:8080/v1", **_STOPS},
    }
)
"""What each says instead of the schema's defaults. What stands in the file goes over it."""
