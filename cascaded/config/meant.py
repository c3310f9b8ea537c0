"""What people write who know other programs, and what they mean by it here.

Only words that are not near enough in letters for `nearest` to find, or nearer to a wrong one.
"""

from collections.abc import Collection, Mapping

KEYS: Mapping[str, str] = {
    "address": "tcp",
    "api_base": "base_url",
    "api_key_env": "api_key",
    "bind": "tcp",
    "budget": "limits",
    "budgets": "limits",
    "cost_limit": "daily_usd",
    "daily_limit": "daily_usd",
    "endpoint": "base_url",
    "host": "tcp",
    "input_cost_per_token": "input_usd_per_mtok",
    "input_price": "input_usd_per_mtok",
    "key": "api_key",
    "listen": "tcp",
    "logging": "log",
    "max_concurrency": "max_connections",
    "max_concurrent": "max_connections",
    "max_parallel_requests": "max_connections",
    "max_tokens": "max_output_tokens",
    "max_wait": "total_timeout_s",
    "model_list": "models",
    "models": "rungs",
    "output_cost_per_token": "output_usd_per_mtok",
    "output_price": "output_usd_per_mtok",
    "path": "socket",
    "port": "tcp",
    "providers": "rungs",
    "quality_mode": "mode",
    "rate_limits": "limits",
    "retries": "max_retries",
    "rpd": "requests_per_day",
    "rph": "requests_per_hour",
    "rpm": "requests_per_minute",
    "rps": "requests_per_second",
    "state_dir": "dir",
    "steps": "rungs",
    "timeout": "total_timeout_s",
    "timeout_ms": "total_timeout_s",
    "timeout_s": "total_timeout_s",
    "timeout_seconds": "total_timeout_s",
    "timezone": "zone",
    "token": "api_key",
    "tpd": "tokens_per_day",
    "tph": "tokens_per_hour",
    "tpm": "tokens_per_minute",
    "tz": "zone",
    "url": "base_url",
    "verbosity": "level",
}
"""Keys, and the settings that are meant, wherever such a setting may stand."""

WORDS: Mapping[str, str] = {
    "claude": "anthropic",
    "azure": "openai_compatible",
    "azure_openai": "azure",
    "deepseek": "openai_compatible",
    "deny": "block",
    "dry_run": "shadow",
    "groq": "openai_compatible",
    "google": "gemini",
    "hard": "block",
    "llama_cpp": "embedded",
    "local": "embedded",
    "mistral": "openai_compatible",
    "monitor": "shadow",
    "ollama": "openai_compatible",
    "openai": "openai_compatible",
    "openrouter": "openai_compatible",
    "refuse": "block",
    "reject": "block",
    "soft": "warn",
    "together": "openai_compatible",
    "trace": "debug",
    "vertex": "gemini",
    "vllm": "openai_compatible",
}
"""Values where one of a few words is expected."""


def familiar(word: str, known: Mapping[str, str], valid: Collection[str]) -> str | None:
    """What `word` means here, if that is valid here."""
    said = known.get(word.lower().replace("-", "_"))
    return said if said in valid else None
