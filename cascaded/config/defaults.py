"""What the file does not say: built-in models, and values that follow from others."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

import msgspec

from cascaded.config.presets import PROVIDER_PRESETS
from cascaded.config.schema import (
    AUTO,
    BUILT_IN_MODELS,
    DEFAULT_LADDER,
    EMBEDDED,
    LADDER_PREFIX,
    PRESETS,
    Config,
    Embedded,
    Ladder,
    Model,
    OpenAICompatible,
    Provider,
)
from cascaded.config.toml import Node
from cascaded.types.tables import Tier
from cascaded.types.tiers import TIER_PRESETS

S = TypeVar("S", bound=msgspec.Struct)
V = TypeVar("V")

# Of each pair the first must not be longer than the second; unset, it follows it down.
PROVIDER_BOUNDS = (
    ("first_token_timeout_s", "total_timeout_s"),
    ("idle_timeout_s", "total_timeout_s"),
    ("connect_timeout_s", "first_token_timeout_s"),
    ("backoff_s", "backoff_max_s"),
    ("breaker_pause_s", "breaker_max_pause_s"),
)


def bounds_of(provider: Provider) -> list[tuple[str, str]]:
    """Those of settings that this kind of provider has."""
    return [pair for pair in PROVIDER_BOUNDS if hasattr(provider, pair[0])]


def complete(config: Config, document: Node, socket: str, state_dir: str | None) -> Config:
    """The configuration with everything filled in that the document leaves out.

    `socket` and `state_dir` are the paths for a daemon whose file names none.
    """
    config = _with_preset(config, document)
    server = config.server if config.server.socket else _with(config.server, socket=socket)
    built_in = config.preset is None and not _names(document, "models")
    models = BUILT_IN_MODELS if built_in else config.models
    ladders = config.ladders
    if built_in and not _names(document, "ladders"):
        ladders = _frozen({DEFAULT_LADDER: Ladder(rungs=tuple(models))})
    longest = min(config.cascade.max_prompt_bytes, server.max_body_bytes)
    ledger = config.ledger if config.ledger.dir else _with(config.ledger, dir=state_dir)
    prompt_set = document.has(("cascade", "max_prompt_bytes"))
    return _with(
        config,
        server=server,
        models=_frozen({name: _named(name, model) for name, model in models.items()}),
        ladders=ladders,
        providers=_providers(config, models, document),
        aliases=_aliases(config, ladders),
        ledger=ledger,
        tiers=_frozen({name: _preset(name, tier) for name, tier in config.tiers.items()}),
        cascade=config.cascade if prompt_set else _with(config.cascade, max_prompt_bytes=longest),
    )


def _with_preset(config: Config, document: Node) -> Config:
    """Under what stands in the document, what its preset says."""
    for (table, name), value in PRESETS.get(config.preset or "", {}).items():
        if not document.has((table, name)):
            config = _with(config, **{table: _with(getattr(config, table), **{name: value})})
    return config


def _named(name: str, model: Model) -> Model:
    return model if model.upstream_name else _with(model, upstream_name=name)


def _preset(name: str, tier: Tier) -> Tier:
    return _with(tier, preset=name) if tier.preset is None and name in TIER_PRESETS else tier


def _providers(
    config: Config, models: Mapping[str, Model], document: Node
) -> Mapping[str, Provider]:
    providers: dict[str, Provider] = {
        name: _bounded(_known(provider, name, document), name, document)
        for name, provider in config.providers.items()
    }
    wanted = any(model.provider == EMBEDDED for model in models.values())
    if wanted and not document.has(("providers", EMBEDDED)):
        providers[EMBEDDED] = Embedded()
    return _frozen(providers)


def _known(provider: Provider, name: str, document: Node) -> Provider:
    """Under what stands in the document, what its preset says."""
    if not isinstance(provider, OpenAICompatible) or provider.preset is None:
        return provider
    said = PROVIDER_PRESETS[provider.preset]
    missing = {key: said[key] for key in said if not document.has(("providers", name, key))}
    return _with(provider, **missing)


def _bounded(provider: Provider, name: str, document: Node) -> Provider:
    """Timeouts that are not set follow those that are."""
    for lesser, greater in bounds_of(provider):
        if not document.has(("providers", name, lesser)):
            least = min(getattr(provider, lesser), getattr(provider, greater))
            provider = _with(provider, **{lesser: least})
    return provider


def _aliases(config: Config, ladders: Mapping[str, Ladder]) -> Mapping[str, str]:
    taken = {*config.aliases, *(alias for ladder in ladders.values() for alias in ladder.aliases)}
    only = next(iter(ladders)) if len(ladders) == 1 else None
    name = DEFAULT_LADDER if DEFAULT_LADDER in ladders else only
    if name is None or AUTO in taken:
        return config.aliases
    return _frozen({**config.aliases, AUTO: LADDER_PREFIX + name})


def _names(document: Node, table: str) -> Mapping[str, Node]:
    node = document.child(table)
    return node.entries() if node else {}


def _with(struct: S, **changes: object) -> S:
    return msgspec.structs.replace(struct, **changes)


def _frozen(mapping: Mapping[str, V]) -> Mapping[str, V]:
    return MappingProxyType(dict(mapping))
