"""Who answers: providers and vocabularies, made from the configuration."""

import os
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from cascaded.config import Config, schema
from cascaded.daemon.errors import StartError
from cascaded.jobs.bulk import BulkProvider, Bulks
from cascaded.models.catalogue import UnknownModelError, find
from cascaded.models.folder import models_folder, weights_path
from cascaded.pipeline.watch import Tell, Watch
from cascaded.policy.outages import NEVER, Thresholds
from cascaded.policy.tokens import Vocabularies
from cascaded.ports import BulkApi, Clock, Counter, Provider, ProviderTraits
from cascaded.providers.anthropic import Anthropic
from cascaded.providers.embedded.provider import (
    CONTEXT_TOKENS,
    TRAITS,
    EmbeddedModel,
    EmbeddedProvider,
)
from cascaded.providers.litellm.provider import LiteLLMProvider
from cascaded.providers.openai_batches import OpenAIBulk
from cascaded.providers.openai_compatible import Endpoint, OpenAICompatible, OpenAISpeech
from cascaded.types.secret import Secret
from cascaded.types.times import NS_PER_S

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


class Answerer(NamedTuple):
    """Who answers, and what it was made from: of the same settings it is the same provider, with
    its open connections, its loaded models and what is known of its failures."""

    provider: Provider
    watch: Watch
    settings: tuple[object, ...]


BATCHES = "{} batches"
"""What a provider is called where its own batches are meant: the configuration has no such name."""


def make_answerers(
    config: Config,
    clock: Clock,
    former: Mapping[str, Answerer],
    number: int,
    tell: Tell,
    embeddings: Callable[[str], Provider],
    bulks: Bulks,
) -> dict[str, Answerer]:
    """Everybody who answers, by name; who is among the former with the same settings stays.

    `number` tells this configuration from those before it; `tell` hears of who is left alone;
    `embeddings` makes a provider of this name over the embedder of this configuration.
    Raises `StartError`.
    """
    answerers: dict[str, Answerer] = {}
    chance = random.Random().random
    for name, settings in config.providers.items():
        wanted = _upstream_names(config, name)
        match settings:
            case schema.OpenAICompatible() | schema.Anthropic():
                made_of: tuple[object, ...] = (settings, _trusted(name, settings))
                thresholds = _thresholds(settings)
                make = partial(_upstream, name, settings, clock)
            case schema.LiteLLM():
                made_of = (settings,)
                thresholds = _thresholds(settings)
                place = Path(config.server.socket + ".d")
                stem = f"litellm-{list(config.providers).index(name)}-{number}"
                make = partial(_litellm, name, settings, place / stem, clock)
            case schema.LocalEmbeddings():
                made_of = (number,)  # it keeps nothing
                thresholds = NEVER
                make = partial(embeddings, name)
            case schema.Embedded():
                made_of = (settings, wanted)
                thresholds = NEVER  # its supervisor sees to it
                place = Path(config.server.socket + ".d")
                stem = f"embedded-{number}" if number > 1 else "embedded"
                make = partial(_embedded, name, settings, wanted, place, stem, clock)
        same = name in former and former[name].settings == made_of
        if same:
            answerers[name] = former[name]
        else:
            watch = Watch(name, thresholds, clock, chance, tell)
            answerers[name] = Answerer(make(), watch, made_of)
        provider = answerers[name].provider
        batches = BATCHES.format(name)
        if same and batches in former:
            answerers[batches] = former[batches]
        elif isinstance(provider, OpenAICompatible) and _has_batches(settings):
            bulk = BulkProvider(batches, OpenAIBulk(batches, provider), bulks)
            watch = Watch(batches, NEVER, clock, chance, tell)
            answerers[batches] = Answerer(bulk, watch, made_of)
    return answerers


def _has_batches(settings: schema.Provider) -> bool:
    return isinstance(settings, schema.OpenAICompatible) and settings.batch_percent is not None


def bulk_apis(answerers: Mapping[str, Answerer]) -> dict[str, BulkApi]:
    """Those who have batches of their own, by the name they have there."""
    providers = {name: answerer.provider for name, answerer in answerers.items()}
    return {name: one.api for name, one in providers.items() if isinstance(one, BulkProvider)}


def _thresholds(settings: schema.Remote) -> Thresholds:
    return Thresholds(
        failures=settings.breaker_failures,
        open_ns=int(settings.breaker_pause_s * NS_PER_S),
        max_open_ns=int(settings.breaker_max_pause_s * NS_PER_S),
    )


def counters(answerers: Mapping[str, Answerer]) -> dict[str, Counter]:
    """Those who count a prompt's tokens for free."""
    providers = {name: answerer.provider for name, answerer in answerers.items()}
    return {name: one for name, one in providers.items() if isinstance(one, Anthropic)}


def _upstream_names(config: Config, provider: str) -> frozenset[str]:
    models = config.models.items()
    return frozenset(
        model.upstream_name or name for name, model in models if model.provider == provider
    )


def _trusted(name: str, settings: schema.Upstream) -> bytes | None:
    """The certificates to trust: a reload must see that they were exchanged."""
    try:
        return Path(settings.ca_file).read_bytes() if settings.ca_file else None
    except OSError as error:
        raise StartError(f"providers.{name}.ca_file: {error}") from None


def _embedded(
    name: str,
    settings: schema.Embedded,
    wanted: frozenset[str],
    place: Path,
    stem: str,
    clock: Clock,
) -> Provider:
    """The models that run here, with their sockets and logs beside the daemon's own socket."""
    folder = Path(settings.models_dir) if settings.models_dir else models_folder(os.environ)
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
                keep_alive=False,
                first_token_timeout_s=EMBEDDED_FIRST_TOKEN_S,
                idle_timeout_s=EMBEDDED_FIRST_TOKEN_S,
                total_timeout_s=EMBEDDED_TOTAL_S,
            )
            return OpenAICompatible(name, endpoint, TRAITS, clock)

        return EmbeddedProvider(
            name, models, runtime_folder=place, stem=stem, connect=connect, clock=clock
        )
    except (UnknownModelError, ValueError) as error:
        raise StartError(f"providers.{name}: {error}") from None


def _litellm(name: str, settings: schema.LiteLLM, stem: Path, clock: Clock) -> Provider:
    """Whatever LiteLLM reaches, with its socket and log beside the daemon's own socket."""

    def connect(uds: str, key: Secret) -> Provider:
        endpoint = Endpoint(
            base_url="http://litellm/v1",
            uds=uds,
            api_key=key,
            first_token_timeout_s=settings.first_token_timeout_s,
            idle_timeout_s=settings.idle_timeout_s,
            total_timeout_s=settings.total_timeout_s,
            max_connections=settings.max_connections,
            max_response_bytes=settings.max_response_bytes,
        )
        return OpenAICompatible(name, endpoint, _traits(settings), clock)

    try:
        return LiteLLMProvider(
            name,
            _traits(settings),
            environment=settings.environment,
            options=settings.options,
            timeout_s=settings.total_timeout_s,
            stem=stem,
            connect=connect,
            clock=clock,
        )
    except ValueError as error:
        raise StartError(f"providers.{name}: {error}") from None


def _upstream(
    name: str, settings: schema.OpenAICompatible | schema.Anthropic, clock: Clock
) -> Provider:
    headers = {key: value.reveal() for key, value in settings.headers.items()}
    if isinstance(settings, schema.OpenAICompatible):
        organised = {
            "OpenAI-Organization": settings.organization,
            "OpenAI-Project": settings.project,
        }
        named = {key: value for key, value in organised.items() if value is not None}
        endpoint, traits = _endpoint(settings, named | headers), _traits(settings)
        traits = replace(traits, logprobs=settings.logprobs)
        speech = OpenAISpeech(
            api_version=settings.api_version, reasoning_apart=settings.reasoning_apart
        )
        return OpenAICompatible(name, endpoint, traits, clock, speech)
    endpoint = _endpoint(settings, headers)
    return Anthropic(name, endpoint, _traits(settings), clock, settings.version)


def _endpoint(settings: schema.Upstream, headers: Mapping[str, str]) -> Endpoint:
    return Endpoint(
        base_url=settings.base_url,
        uds=settings.uds,
        api_keys=settings.keys,
        requests_per_second=settings.requests_per_second,
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


def _traits(settings: schema.Remote) -> ProviderTraits:
    return ProviderTraits(
        max_retries=settings.max_retries,
        backoff_s=settings.backoff_s,
        backoff_max_s=settings.backoff_max_s,
        forward_caller_key=isinstance(settings, schema.Upstream) and settings.forward_caller_key,
        bills_on_5xx=settings.bills_on_5xx,
        cancel_stops_billing=settings.cancel_stops_billing,
    )
