"""The book of models: the configuration's names, with what the price catalogue knows of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import NamedTuple
from urllib.parse import urlsplit

from msgspec.structs import replace

from cascaded.adapters import package_data
from cascaded.adapters.clock import SystemClock
from cascaded.config import Config, schema
from cascaded.daemon.answerers import BATCHES
from cascaded.daemon.errors import StartError
from cascaded.policy.pricing import Catalogue, CatalogueEntry, percent_of
from cascaded.policy.routing.book import LADDER_PREFIX, ModelBook
from cascaded.policy.tokens import vocabulary_of
from cascaded.ports import Clock
from cascaded.types.decision import Refusal
from cascaded.types.model import KINDS, LOCAL_REGION, Form, Kind, Ladder, Model, Price, Rung
from cascaded.types.times import NS_PER_S

MAX_UNDECLARED_MODELS = 1024
PRICES = "prices.json.gz"

FindPrice = Callable[[str, str], CatalogueEntry | None]
"""What the catalogue knows of a provider's model, by their names."""
Describe = Callable[[str, schema.Model], Model]


class Fault(NamedTuple):
    """A setting that cannot be used, and why."""

    path: tuple[str, ...]
    message: str


def faults(config: Config) -> list[Fault]:
    """What the config's own check cannot see: models that the price catalogue does not know."""
    return list(_faults(config, prices_today(config, SystemClock())))


def _faults(config: Config, find_price: FindPrice) -> Iterator[Fault]:
    for name, model in config.models.items():
        if model.reference_model and find_price("", model.reference_model) is None:
            yield Fault(
                ("models", name, "reference_model"),
                f"the price catalogue has no {model.reference_model!r}; name it with its seller,"
                " such as 'openai/gpt-4o'",
            )
    asked: list[tuple[tuple[str, ...], tuple[str, ...]]]
    asked = [(("ladders", name), ladder.rungs) for name, ladder in config.ladders.items()]
    asked += [(("models", name), model.fallback) for name, model in config.models.items()]
    for name, domain in config.domains.routes.items():
        named = (domain.cost_model, domain.quality_model, domain.fallback)
        own = tuple(model for model in named if model is not None)
        asked.append((("domains", "routes", name), own))
    asked += [
        (("models", name), (name, *model.deployments))
        for name, model in config.models.items()
        if model.deployments
    ]
    for path, wanted in asked:
        for rung in dict.fromkeys(wanted):
            model = config.models[rung]
            if _price(model, find_price(model.provider, model.upstream_name or rung)) is None:
                # Every call of the ladder would be refused; of the model, no fallback could serve.
                yield Fault(
                    path,
                    f"the price of '{rung}' at provider '{model.provider}' is not known; in"
                    f' [models."{rung}"] give input_usd_per_mtok and output_usd_per_mtok, or'
                    " `free = true`, or correct its upstream_name",
                )


def _price(settings: schema.Model, known: CatalogueEntry | None) -> Price | None:
    """A declared price, else the catalogue's; fees that no token bound limits cannot be held."""
    return settings.price or (None if known is None or known.fees_unbounded else known.price)


def model_book(config: Config, find_price: FindPrice) -> ModelBook:
    """The config's names, with what the price catalogue knows of their models.

    Raises `StartError` for the first of its `faults`.
    """
    for fault in _faults(config, find_price):
        raise StartError(f"{'.'.join(fault.path)}: {fault.message}")
    describe = partial(_model, find_price, _regions(config), _kinds(config), _forms(config))
    describe = partial(_in_batches, _batch_percents(config), describe)
    alone = {name: describe(name, settings) for name, settings in config.models.items()}
    models = {
        name: _spread(alone[name], [alone[other] for other in settings.deployments])
        for name, settings in config.models.items()
    }
    fallbacks = {
        name: tuple(models[spare] for spare in settings.fallback)
        for name, settings in config.models.items()
        if settings.fallback
    }
    ladders = {
        name: Ladder(
            name=name,
            rungs=tuple(
                Rung(model=models[rung], threshold=threshold, fallbacks=fallbacks.get(rung, ()))
                for rung, threshold in zip(settings.rungs, settings.rung_thresholds, strict=True)
            ),
            max_cost_nano_usd=settings.max_cost_nano_usd,
            strict=settings.strict,
            top_retries=settings.top_retries,
            stream_mode=settings.stream_mode,
            cache=settings.cache,
        )
        for name, settings in config.ladders.items()
    }
    upstreams = tuple(
        name for name, settings in config.providers.items() if isinstance(settings, schema.Upstream)
    )
    return ModelBook(
        models=models,
        ladders=ladders,
        fallbacks=fallbacks,
        aliases=config.routes(),
        undeclared=lru_cache(MAX_UNDECLARED_MODELS)(
            partial(_undeclared, upstreams, find_price, describe)
        ),
    )


def _batch_percents(config: Config) -> dict[str, int]:
    """What calls in providers' own batches cost, in percent, by provider."""
    return {
        name: settings.batch_percent
        for name, settings in config.providers.items()
        if isinstance(settings, schema.OpenAICompatible) and settings.batch_percent is not None
    }


def _in_batches(
    percents: Mapping[str, int],
    describe: Callable[[str, schema.Model], Model],
    name: str,
    settings: schema.Model,
) -> Model:
    """A model, with what it is in its provider's own batches."""
    model = describe(name, settings)
    percent = percents.get(model.provider)
    if percent is None or model.price is None:
        return model
    price, provider = percent_of(model.price, percent), BATCHES.format(model.provider)
    return replace(model, batched=replace(model, price=price, provider=provider))


def _spread(model: Model, others: Sequence[Model]) -> Model:
    """The model with its other places: it is called the same there, and can what all of them can.

    Raises `StartError` where they are asked in another form.
    """
    if not others:
        return model
    places = (model, *others)
    for other in others:
        if other.form != model.form:
            raise StartError(
                f"models.{model.name}.deployments: '{other.name}' is asked in {other.form}, and"
                f" '{model.name}' in {model.form}; name it as a fallback"
            )
    alike = {
        "name": model.name,
        "vocabulary": model.vocabulary,
        "context_window": _least(place.context_window for place in places),
        "max_output_tokens": _least(place.max_output_tokens for place in places),
        "capabilities": frozenset.intersection(*(place.capabilities for place in places)),
        "kinds": frozenset.intersection(*(place.kinds for place in places)),
    }
    others = tuple(replace(one, **alike) for one in others)
    return replace(model, **alike, others=others, batched=None)


def _least(bounds: Iterable[int | None]) -> int | None:
    return min((bound for bound in bounds if bound is not None), default=None)


SELLERS_BY_HOST = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "api.groq.com": "groq",
    "api.together.xyz": "together",
    "openrouter.ai": "openrouter",
    "api.mistral.ai": "mistral",
    "api.deepseek.com": "deepseek",
    "generativelanguage.googleapis.com": "google",
}
"""Whose prices apply, whatever the operator calls the provider. Sources: their API documents."""
AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
"""How the addresses of Azure's resources end."""
SELLERS_BY_PRESET = {
    "openai": "openai",
    "azure": "azure",
    "groq": "groq",
    "together": "together",
    "openrouter": "openrouter",
    "mistral": "mistral",
    "deepseek": "deepseek",
    "gemini": "google",
}
"""The same for who is reached by another address, such as a proxy's."""


def _seller(name: str, settings: schema.Provider) -> str:
    """The catalogue's name for a provider: by its address, else by the name it was given."""
    if isinstance(settings, schema.Upstream):
        host = urlsplit(settings.base_url).hostname or ""
        if host.endswith(AZURE_HOSTS):
            return "azure"
        preset = settings.preset if isinstance(settings, schema.OpenAICompatible) else None
        return SELLERS_BY_HOST.get(host, SELLERS_BY_PRESET.get(preset or "", name))
    return name


def prices_today(config: Config, clock: Clock) -> FindPrice:
    """What the catalogue knows today, by the config's names of providers."""
    today = datetime.fromtimestamp(clock.wall_ns() / NS_PER_S, UTC).date().isoformat()
    catalogue = Catalogue.load(package_data.read(PRICES))
    sellers = {name: _seller(name, settings) for name, settings in config.providers.items()}

    def find_price(provider: str, model: str) -> CatalogueEntry | None:
        return catalogue.find(sellers.get(provider, provider), model, today)

    return find_price


def _regions(config: Config) -> dict[str, str | None]:
    """Where each provider keeps data."""
    return {
        name: LOCAL_REGION
        if isinstance(settings, schema.Embedded | schema.LocalEmbeddings)
        else settings.region
        for name, settings in config.providers.items()
    }


_KINDS: Mapping[type, frozenset[Kind]] = {
    schema.OpenAICompatible: KINDS,
    schema.LocalEmbeddings: frozenset({"embedding"}),
    schema.Embedded: KINDS - {"embedding"},  # its server is started for text alone
}
"""What providers have routes for; others only chat."""


def _kinds(config: Config) -> dict[str, frozenset[Kind]]:
    chat: frozenset[Kind] = frozenset({"chat"})
    return {name: _KINDS.get(type(settings), chat) for name, settings in config.providers.items()}


def _forms(config: Config) -> dict[str, Form]:
    """What each provider speaks."""
    return {
        name: "messages"
        if isinstance(settings, schema.Anthropic)
        else settings.api
        if isinstance(settings, schema.OpenAICompatible)
        else "chat"
        for name, settings in config.providers.items()
    }


def _model(
    find_price: FindPrice,
    regions: Mapping[str, str | None],
    kinds: Mapping[str, frozenset[Kind]],
    forms: Mapping[str, Form],
    name: str,
    settings: schema.Model,
) -> Model:
    """A declared model; the catalogue fills in what the config leaves out."""
    upstream_name = settings.upstream_name or name
    known = find_price(settings.provider, upstream_name) or CatalogueEntry(
        seller=settings.provider, name=upstream_name
    )
    reference = find_price("", settings.reference_model) if settings.reference_model else None
    capabilities = settings.capabilities
    return Model(
        name=name,
        provider=settings.provider,
        upstream_name=upstream_name,
        price=_price(settings, known),
        reference_price=settings.reference_price or (reference.price if reference else None),
        reference_name=settings.reference_model or "declared",
        vocabulary=settings.tokenizer_file or settings.vocabulary or vocabulary_of(upstream_name),
        context_window=settings.context_window or known.context_window,
        max_output_tokens=settings.max_output_tokens or known.max_output_tokens,
        region=regions.get(settings.provider),
        kinds=kinds[settings.provider],
        form=settings.api or forms.get(settings.provider, "chat"),
        capabilities=known.capabilities if capabilities is None else capabilities,
        weight=settings.weight,
    )


def _undeclared(
    upstreams: tuple[str, ...], find_price: FindPrice, describe: Describe, name: str
) -> Model | None:
    """A model that the config does not name: `provider/model`, or one that a provider is known
    to sell. With a single provider every name is taken to be its own (and then needs a price)."""
    head, slash, rest = name.partition("/")
    candidates = [(head, rest)] if slash and head in upstreams else []
    candidates += [(upstream, name) for upstream in upstreams]
    for provider, upstream_name in candidates:
        if find_price(provider, upstream_name) is not None or head == provider:
            settings = schema.Model(provider=provider, upstream_name=upstream_name)
            return replace(describe(upstream_name, settings), name=name)
    if len(upstreams) == 1:
        return describe(name, schema.Model(provider=upstreams[0]))
    return None


def model_rows(book: ModelBook) -> list[dict[str, object]]:
    """What `/v1/models` lists, in OpenAI's shape."""
    return [_row(name, book.models.get(name)) for name in book.names()]


def model_row(book: ModelBook, name: str) -> dict[str, object] | Refusal:
    """One row, also of a model that is not listed but that can be asked for: its price is known."""
    found = book.choose(name)
    if isinstance(found, Refusal):
        return found
    model = book.models.get(name)
    if model is None and name not in book.aliases and not name.startswith(LADDER_PREFIX):
        model = found.rungs[0].model
        if model.price is None:
            return book.unknown(name)
    return _row(name, model)


def _row(name: str, model: Model | None) -> dict[str, object]:
    """`created` is not known: models are the providers' own."""
    owner = "cascaded" if model is None else model.provider
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}
