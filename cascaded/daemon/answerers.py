"""Who answers: providers and vocabularies, made from the configuration."""

import os
from pathlib import Path

from cascaded.config import Config, schema
from cascaded.daemon.errors import StartError
from cascaded.models.catalogue import UnknownModelError, find
from cascaded.models.folder import models_folder, weights_path
from cascaded.policy.tokens import Vocabularies
from cascaded.ports import Clock, Provider, ProviderTraits
from cascaded.providers.embedded.provider import (
    CONTEXT_TOKENS,
    TRAITS,
    EmbeddedModel,
    EmbeddedProvider,
)
from cascaded.providers.openai_compatible import Endpoint, OpenAICompatible
from cascaded.types.secret import Secret

EMBEDDED_FIRST_TOKEN_S = 300.0
"""A long prompt takes minutes on a busy machine without an accelerator."""
EMBEDDED_TOTAL_S = 600.0


def make_vocabularies(config: Config) -> Vocabularies:
    """The public vocabularies and those of the config's tokenizer files, named by their path."""
    paths = {model.tokenizer_file for model in config.models.values() if model.tokenizer_file}
    try:
        return Vocabularies({path: Path(path).read_bytes() for path in sorted(paths)})
    except (OSError, ValueError) as error:
        raise StartError(str(error)) from None


def make_providers(config: Config, clock: Clock) -> dict[str, Provider]:
    """Everybody who answers, by name. Raises `StartError`."""
    providers: dict[str, Provider] = {}
    for name, settings in config.providers.items():
        match settings:
            case schema.OpenAICompatible():
                providers[name] = _openai_compatible(name, settings, clock)
            case schema.Embedded():
                providers[name] = _embedded(name, settings, config, clock)
    return providers


def _embedded(name: str, settings: schema.Embedded, config: Config, clock: Clock) -> Provider:
    """The models that run here, with their sockets and logs beside the daemon's own socket."""
    folder = Path(settings.models_dir) if settings.models_dir else models_folder(os.environ)
    wanted = {
        model.upstream_name or model_name
        for model_name, model in config.models.items()
        if model.provider == name
    }
    try:
        models = {
            upstream_name: EmbeddedModel(
                weights=weights_path(find(upstream_name), folder),
                start=settings.start,
                context_tokens=settings.context_size or CONTEXT_TOKENS,
                threads=settings.threads,
            )
            for upstream_name in sorted(wanted)
        }

        def connect(uds: str, key: Secret) -> Provider:
            endpoint = Endpoint(
                base_url="http://embedded/v1",
                uds=uds,
                api_key=key,
                # llama.cpp's server drops kept-alive connections after it has answered.
                headers={"Connection": "close"},
                first_token_timeout_s=EMBEDDED_FIRST_TOKEN_S,
                idle_timeout_s=EMBEDDED_FIRST_TOKEN_S,
                total_timeout_s=EMBEDDED_TOTAL_S,
            )
            return OpenAICompatible(name, endpoint, TRAITS, clock)

        runtime_folder = Path(config.server.socket + ".d")
        return EmbeddedProvider(
            name, models, runtime_folder=runtime_folder, connect=connect, clock=clock
        )
    except (UnknownModelError, ValueError) as error:
        raise StartError(f"providers.{name}: {error}") from None


def _openai_compatible(name: str, settings: schema.OpenAICompatible, clock: Clock) -> Provider:
    organised = {
        "OpenAI-Organization": settings.organization,
        "OpenAI-Project": settings.project,
    }
    headers = {key: value for key, value in organised.items() if value is not None}
    headers |= {key: value.reveal() for key, value in settings.headers.items()}
    endpoint = Endpoint(
        base_url=settings.base_url,
        uds=settings.uds,
        api_key=settings.api_key,
        headers=headers,
        ca_file=settings.ca_file,
        proxy=settings.proxy.reveal() if settings.proxy else None,
        connect_timeout_s=settings.connect_timeout_s,
        first_token_timeout_s=settings.first_token_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        total_timeout_s=settings.total_timeout_s,
        max_connections=settings.max_connections,
        max_response_bytes=settings.max_response_bytes,
    )
    traits = ProviderTraits(
        max_retries=settings.max_retries,
        backoff_s=settings.backoff_s,
        backoff_max_s=settings.backoff_max_s,
        forward_caller_key=settings.forward_caller_key,
        bills_on_5xx=settings.bills_on_5xx,
        cancel_stops_billing=settings.cancel_stops_billing,
        logprobs=settings.logprobs,
    )
    return OpenAICompatible(name, endpoint, traits, clock)
