"""The composition root: the only file that names adapters and providers."""

import asyncio
import os
import random
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import uvloop
from aiohttp import web
from msgspec.structs import asdict, replace

from cascaded.adapters import package_data
from cascaded.adapters.accounts import Administrators
from cascaded.adapters.clock import SystemClock
from cascaded.adapters.deferred import DeferredSinks
from cascaded.adapters.json_log import JsonLog
from cascaded.adapters.library_log import library_lines
from cascaded.adapters.lmdb_store import LmdbStore, read_through
from cascaded.adapters.nothing import NoCache, NoGuardrail
from cascaded.adapters.offload import ThreadOffload
from cascaded.adapters.prometheus import PrometheusMetrics
from cascaded.adapters.unix_socket import SocketError, listen
from cascaded.api.auth import Gate, digests
from cascaded.api.money import Desk
from cascaded.api.records import Records
from cascaded.api.server import Limits, Services, Status, application
from cascaded.api.upkeep import Upkeep
from cascaded.config import Config, schema
from cascaded.models.catalogue import UnknownModelError, find
from cascaded.models.folder import models_folder, weights_path
from cascaded.pipeline.cascade import Climber
from cascaded.pipeline.order import Parts, deciding, stages
from cascaded.pipeline.run import Pipeline
from cascaded.policy.access.identity import AccessRules
from cascaded.policy.limits import LimitBook, explain, limits_for, named_limits
from cascaded.policy.pricing import Catalogue, CatalogueEntry
from cascaded.policy.routing.book import ModelBook
from cascaded.policy.tokens import Vocabularies, vocabulary_of
from cascaded.ports import Clock, Provider, ProviderTraits
from cascaded.providers.embedded.provider import (
    CONTEXT_TOKENS,
    TRAITS,
    EmbeddedModel,
    EmbeddedProvider,
)
from cascaded.providers.openai_compatible import Endpoint, OpenAICompatible
from cascaded.state.audit_log import AuditLog
from cascaded.state.backup import Copy, back_up
from cascaded.state.ledger import DurableLedger
from cascaded.state.usage_log import UsageLog
from cascaded.types.decision import Refusal
from cascaded.types.errors import LedgerFaultError, LedgerOpenError, StoreError
from cascaded.types.limits import Caller, Denial
from cascaded.types.model import Ladder, Model, Rung
from cascaded.types.secret import Secret

LISTEN_BACKLOG = 4096
ID_BYTES = 12
BODY_TIMEOUT_S = 30.0
EMBEDDED_FIRST_TOKEN_S = 300.0
"""A long prompt takes minutes on a busy machine without an accelerator."""
EMBEDDED_TOTAL_S = 600.0
DRAIN_POLL_S = 0.02
CANCEL_AFTER_S = 0.001
"""What the server waits after the drain before it cancels; 0 would mean for ever."""
SETTLE_WITHIN_S = 2.0
"""What cancelled calls get to hang up and settle."""
EXPIRE_EVERY_S = 5.0
WATCH_EVERY_S = 1.0
MAX_UNDECLARED_MODELS = 1024
NS_PER_S = 1_000_000_000
PRICES = "prices.json.gz"
LEDGER, LOGS = "ledger", ("usage", "audit")
"""The folders of the state folder."""
FLUSH_WITHIN_S = 10.0
"""What the logs get to write what they were told, before they are copied."""

FindPrice = Callable[[str, str], CatalogueEntry | None]
"""What the catalogue knows of a provider's model, by their names."""


class StartError(RuntimeError):
    """The daemon cannot start; the message says why and what to do."""


class LedgerLostError(StartError):
    """The daemon cannot go on: what it spent now would be forgotten."""


def check(config: Config) -> None:
    """What the config's own check cannot see: models that the price catalogue does not know.

    Raises `StartError`.
    """
    model_book(config, _prices(config, SystemClock()))


def serve(config: Config) -> None:
    """Run the daemon until SIGTERM or SIGINT. Raises `StartError`."""
    uvloop.run(_serve(config))


def verify(folder: Path) -> dict[str, int]:
    """Read a whole state folder that no daemon has open, or a backup; what was found, by name.

    Raises `StartError` for the first thing that is damaged.
    """
    try:
        found = {f"ledger_{name}": n for name, n in DurableLedger.verify(folder / LEDGER).items()}
        return found | {f"{name}_keys": read_through(folder / name) for name in LOGS}
    except (LedgerOpenError, StoreError) as error:
        raise StartError(f"{folder}: {error}") from None


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(config, lost=stop.set):
        await stop.wait()


@asynccontextmanager
async def running(
    config: Config, lost: Callable[[], object] = lambda: None
) -> AsyncIterator[Services]:
    """A daemon that serves inside the block and drains at its end.

    `lost` is called when its ledger works no more: leave the block then, which raises
    `LedgerLostError`.
    """
    clock = SystemClock()
    with _log(config.log, clock) as log, library_lines(log.write):
        async with AsyncExitStack() as stack:
            services = await _services(config, clock, log, lost, stack)
            doors = await _open_doors(config.server, services, log, stack)
            for provider in services.pipeline.climber.providers.values():
                if isinstance(provider, EmbeddedProvider):
                    provider.boot()
            services.status.ready = True
            log.write("info", "ready", version=services.version, **doors)
            yield services
        log.write("info", "stopped")


@contextmanager
def _log(config: schema.Log, clock: Clock) -> Iterator[JsonLog]:
    with ExitStack() as stack:
        stream: BinaryIO = sys.stderr.buffer
        if config.file is not None:
            try:
                stream = stack.enter_context(open(config.file, "ab", buffering=0))
            except OSError as error:
                raise StartError(f"cannot open the log {config.file}: {error.strerror}") from None
        yield JsonLog(stream, clock, level=config.level, prompts=config.prompts)


async def _services(
    config: Config,
    clock: Clock,
    log: JsonLog,
    lost: Callable[[], object],
    stack: AsyncExitStack,
) -> Services:
    """Everything that the handlers need, put together."""
    status = Status()
    ledger = await _ledger(config.ledger, log, lost, stack)
    usage, audit, copies = _records(config, clock, log, stack)
    metrics = PrometheusMetrics(ledger.spend, lambda: status.in_flight)
    sinks = DeferredSinks(metrics, log, usage, report=log.fault)
    stack.callback(sinks.hand_on)
    offload, upkeep = ThreadOffload(), ThreadOffload()
    for threads in (offload, upkeep):
        stack.callback(threads.close)
    book = model_book(config, _prices(config, clock))
    vocabularies = _vocabularies(config)
    providers = _providers(config, clock)
    for provider in providers.values():
        stack.push_async_callback(provider.close)
    limit_book = LimitBook(
        base=config.limits.base,
        scopes=config.limits.scopes,
        tags=config.limits.tag_quotas,
        tiers=config.tier_configs(),
    )
    ledger.set_limits(named_limits(limit_book), reload=True)

    def explain_now(denial: Denial, caller: Caller) -> Refusal:
        return explain(denial, caller, limit_book, now_ns=clock.wall_ns())

    parts = Parts(
        access=AccessRules(
            trusted=frozenset(config.access.trusted),
            default_tier=config.access.default_tier,
            tiers=frozenset(limit_book.tiers),
            known_users=frozenset(config.limits.users.ids),
            unknown_user=config.access.unknown_user,
            declared_tags=frozenset(config.limits.tags),
        ),
        limits_for=partial(limits_for, book=limit_book),
        tiers=limit_book.tiers,
        explain=explain_now,
        choose=book.choose,
        cheap_models=frozenset(ladder.rungs[0].model.name for ladder in book.ladders.values()),
        guardrail=NoGuardrail(),
        cache=NoCache(),
        vocabularies=vocabularies,
        offload=offload,
        ledger=ledger,
        audit=audit,
        default_max_output_tokens=config.cascade.default_max_output_tokens,
        max_prompt_bytes=config.cascade.max_prompt_bytes,
    )
    desk = Desk(
        ledger=ledger,
        clock=clock,
        access=parts.access,
        limits_for=parts.limits_for,
        explain=explain_now,
        deciding=deciding(parts),
        audit=audit,
    )
    stack.callback(_Every(EXPIRE_EVERY_S, desk.expire).cancel)
    pipeline = Pipeline(
        stages=stages(parts),
        climber=Climber(
            providers=providers,
            vocabularies=vocabularies,
            clock=clock,
            random=random.Random().random,
        ),
        ledger=ledger,
        audit=audit,
        sink=sinks,
    )

    def scrape(accept: str) -> tuple[bytes, str]:
        sinks.hand_on()
        return metrics.scrape(accept)

    return Services(
        version=version("cascaded"),
        pipeline=pipeline,
        desk=desk,
        records=Records(usage=usage, trail=audit, clock=clock, offload=offload),
        # A backup takes its time, and long counts must not wait for it: a thread of its own.
        upkeep=Upkeep(
            back_up=partial(
                back_up, parts={**copies, LEDGER: ledger.backup}, own=_state(config.ledger)
            ),
            offload=upkeep,
        ),
        audit=audit,
        gate=_gate(config),
        limits=Limits(
            max_body_bytes=config.server.max_body_bytes,
            max_concurrency=config.server.max_concurrency,
            request_timeout_s=config.server.request_timeout_s,
            body_timeout_s=BODY_TIMEOUT_S,
        ),
        status=status,
        clock=clock,
        new_id=lambda: secrets.token_hex(ID_BYTES),
        models=partial(_model_rows, book),
        metrics=scrape,
        metrics_without_key=config.server.metrics_without_key,
        log_fault=log.fault,
    )


def _gate(config: Config) -> Gate:
    try:
        administers = Administrators(own_uid=os.getuid(), group=config.access.admin_group)
    except LookupError as error:
        raise StartError(f"access.admin_group: {error}") from None
    return Gate(administers=administers, tcp_key_digests=digests(config.server.tcp_keys))


async def _ledger(
    config: schema.Ledger, log: JsonLog, lost: Callable[[], object], stack: AsyncExitStack
) -> DurableLedger:
    """Open the state folder; a crash's open holds are charged, and said."""
    try:
        ledger = DurableLedger.open(_state(config) / LEDGER, asyncio.get_running_loop())
    except LedgerOpenError as error:
        raise StartError(f"ledger.dir {config.dir}: {error}") from None
    watch = _LedgerWatch(ledger, _state(config) / LEDGER, log, lost)
    stack.callback(watch.close)
    stack.callback(_Every(WATCH_EVERY_S, watch.look).cancel)
    recovered = ledger.recovered
    if recovered is not None:
        log.write("info", "ledger_open", dir=config.dir, **asdict(recovered))
    return ledger


def _state(config: schema.Ledger) -> Path:
    """The state folder: the ledger, and beside it the stores of the logs."""
    assert config.dir is not None  # the config's defaults fill it in
    return Path(config.dir)


def _records(
    config: Config, clock: Clock, log: JsonLog, stack: AsyncExitStack
) -> tuple[UsageLog, AuditLog, dict[str, Copy]]:
    """The usage and audit logs, beside the ledger in stores of their own, and how each of them
    is copied."""

    def trouble(message: str) -> None:
        log.write("error", "records", message=message)

    try:
        stores = [LmdbStore(_state(config.ledger) / name) for name in LOGS]
        for store in stores:
            stack.callback(store.close)
        days = config.records.retention_days
        usage = UsageLog(stores[0], clock, report=trouble, retention_days=days)
        level = config.records.audit_level
        audit = AuditLog(stores[1], clock, report=trouble, level=level, retention_days=days)
    except StoreError as error:
        raise StartError(f"ledger.dir {config.ledger.dir}: {error}") from None
    stack.callback(usage.close)
    stack.callback(audit.close)
    copies: list[Copy] = [partial(_copy, usage, stores[0]), partial(_copy, audit, stores[1])]
    return usage, audit, dict(zip(LOGS, copies, strict=True))


def _copy(kept: UsageLog | AuditLog, store: LmdbStore, folder: Path) -> None:
    """Copy a log with everything that it has been told up to now."""
    kept.flushed().result(FLUSH_WITHIN_S)
    store.copy_to(folder)


class _LedgerWatch:
    """Looks whether the ledger still works and its folder is still there, and says it once."""

    def __init__(
        self, ledger: DurableLedger, folder: Path, log: JsonLog, lost: Callable[[], object]
    ) -> None:
        self._ledger = ledger
        self._folder = folder
        self._id = _file_id(folder)
        self._log = log
        self._lost = lost
        self._why: str | None = None

    def look(self) -> None:
        """Tell of a fault that is new."""
        why = self._ledger.fault()
        if why is None and _file_id(self._folder) != self._id:
            why = f"{self._folder} was deleted, moved or replaced while the daemon ran"
        if why is not None and self._why is None:
            self._say(why)
            self._lost()

    def close(self) -> None:
        """Give the folder back. Raises `LedgerLostError` when not all of it is on the disk."""
        try:
            self._ledger.close()
        except LedgerFaultError as fault:
            if self._why is None:
                self._say(str(fault))
        if self._why is not None:
            raise LedgerLostError(f"the ledger works no more: {self._why}")

    def _say(self, why: str) -> None:
        self._why = why
        self._log.write("error", "ledger_lost", message=why)


def _file_id(path: Path) -> tuple[int, int] | None:
    """Device and inode; `None` for what is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Every:
    """Work that is done again and again on the event loop."""

    def __init__(self, seconds: float, work: Callable[[], object]) -> None:
        self._seconds = seconds
        self._work = work
        self._next = asyncio.get_running_loop().call_later(seconds, self._tick)

    def _tick(self) -> None:
        self._next = asyncio.get_running_loop().call_later(self._seconds, self._tick)
        self._work()

    def cancel(self) -> None:
        """No more of it."""
        self._next.cancel()


async def _open_doors(
    config: schema.Server, services: Services, log: JsonLog, stack: AsyncExitStack
) -> dict[str, str]:
    """Listen on the Unix socket, and on loopback TCP where that is asked for; where they are.

    What is entered last is left first: the doors close, the calls under way drain, those that
    take too long are cancelled, and their settlements are waited for.
    """
    runner = web.AppRunner(
        application(services),
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        keepalive_timeout=config.keepalive_timeout_s,
        shutdown_timeout=CANCEL_AFTER_S,
        max_line_size=config.max_header_bytes,
        max_field_size=config.max_header_bytes,
    )
    await runner.setup()
    stack.push_async_callback(_until_idle, services.status, SETTLE_WITHIN_S)
    stack.push_async_callback(runner.cleanup)
    stack.push_async_callback(_drain, services.status, config.drain_timeout_s, log)
    try:
        listener = stack.enter_context(
            listen(
                Path(config.socket),
                mode=config.socket_mode_bits,
                group=config.socket_group,
                backlog=LISTEN_BACKLOG,
            )
        )
    except SocketError as error:
        raise StartError(str(error)) from None
    sites: list[web.BaseSite] = [web.SockSite(runner, listener, backlog=LISTEN_BACKLOG)]
    if config.tcp_address is not None:
        host, port = config.tcp_address
        sites.append(web.TCPSite(runner, host, port, backlog=LISTEN_BACKLOG))
    for site in sites:
        try:
            await site.start()
        except OSError as error:
            raise StartError(f"cannot listen on {site.name}: {error}") from None
        stack.push_async_callback(site.stop)
    tcp = [f"{host}:{port}" for host, port, *_ in runner.addresses[1:]]
    return {"socket": config.socket} | ({"tcp": tcp[0]} if tcp else {})


async def _drain(status: Status, seconds: float, log: JsonLog) -> None:
    """Let the calls under way end, as long as the limit allows; the rest is then cancelled."""
    status.draining = True
    if not await _until_idle(status, seconds):
        log.write("warning", "drain_cut_short", in_flight=status.in_flight)


async def _until_idle(status: Status, seconds: float) -> bool:
    """Wait until no call is under way; whether that came about in time."""
    try:
        async with asyncio.timeout(seconds):
            while status.in_flight:  # noqa: ASYNC110 (an event would cost every call)
                await asyncio.sleep(DRAIN_POLL_S)
    except TimeoutError:
        return False
    return True


def _vocabularies(config: Config) -> Vocabularies:
    """The public vocabularies and those of the config's tokenizer files, named by their path."""
    paths = {model.tokenizer_file for model in config.models.values() if model.tokenizer_file}
    try:
        return Vocabularies({path: Path(path).read_bytes() for path in sorted(paths)})
    except (OSError, ValueError) as error:
        raise StartError(str(error)) from None


def _providers(config: Config, clock: Clock) -> dict[str, Provider]:
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


def model_book(config: Config, find_price: FindPrice) -> ModelBook:
    """The config's names, with what the price catalogue knows of their models."""
    models = {name: _model(name, settings, find_price) for name, settings in config.models.items()}
    ladders = {
        name: Ladder(
            name=name,
            rungs=tuple(
                Rung(model=models[rung], threshold=threshold)
                for rung, threshold in zip(settings.rungs, settings.rung_thresholds, strict=True)
            ),
            max_cost_nano_usd=settings.max_cost_nano_usd,
            strict=settings.strict,
            top_retries=settings.top_retries,
            stream_mode=settings.stream_mode,
        )
        for name, settings in config.ladders.items()
    }
    for ladder in ladders.values():
        _check_priced(ladder)
    upstreams = tuple(
        name
        for name, settings in config.providers.items()
        if isinstance(settings, schema.OpenAICompatible)
    )
    return ModelBook(
        models=models,
        ladders=ladders,
        aliases=config.routes(),
        undeclared=lru_cache(MAX_UNDECLARED_MODELS)(partial(_undeclared, upstreams, find_price)),
    )


def _check_priced(ladder: Ladder) -> None:
    """Raises `StartError` for a rung without a price: every call of the ladder would be refused."""
    for rung in ladder.rungs:
        if rung.model.price is None:
            raise StartError(
                f"ladders.{ladder.name}: the price of '{rung.model.name}' at provider"
                f" '{rung.model.provider}' is not known; in [models.\"{rung.model.name}\"] give"
                " input_usd_per_mtok and output_usd_per_mtok, or `free = true`, or correct its"
                " upstream_name"
            )


SELLERS_BY_HOST = {
    "api.openai.com": "openai",
    "api.groq.com": "groq",
    "api.together.xyz": "together",
    "openrouter.ai": "openrouter",
    "api.mistral.ai": "mistral",
    "api.deepseek.com": "deepseek",
    "generativelanguage.googleapis.com": "google",
}
"""Whose prices apply, whatever the operator calls the provider. Sources: their API documents."""


def _seller(name: str, settings: schema.Provider) -> str:
    """The catalogue's name for a provider: by its address, else by the name it was given."""
    if isinstance(settings, schema.OpenAICompatible):
        return SELLERS_BY_HOST.get(urlsplit(settings.base_url).hostname or "", name)
    return name


def _prices(config: Config, clock: Clock) -> FindPrice:
    """What the catalogue knows today, by the config's names of providers."""
    today = datetime.fromtimestamp(clock.wall_ns() / NS_PER_S, UTC).date().isoformat()
    catalogue = Catalogue.load(package_data.read(PRICES))
    sellers = {name: _seller(name, settings) for name, settings in config.providers.items()}

    def find_price(provider: str, model: str) -> CatalogueEntry | None:
        return catalogue.find(sellers.get(provider, provider), model, today)

    return find_price


def _model(name: str, settings: schema.Model, find_price: FindPrice) -> Model:
    """A declared model; the catalogue fills in what the config leaves out."""
    upstream_name = settings.upstream_name or name
    known = find_price(settings.provider, upstream_name) or CatalogueEntry(
        seller=settings.provider, name=upstream_name
    )
    reference = find_price("", settings.reference_model) if settings.reference_model else None
    if settings.reference_model and reference is None:
        raise StartError(
            f"models.{name}.reference_model: the price catalogue has no"
            f" {settings.reference_model!r}; name it with its seller, such as 'openai/gpt-4o'"
        )
    capabilities = settings.capabilities
    return Model(
        name=name,
        provider=settings.provider,
        upstream_name=upstream_name,
        # Fees that no token bound limits cannot be held, so only a declared price will do.
        price=settings.price or (None if known.fees_unbounded else known.price),
        reference_price=settings.reference_price or (reference.price if reference else None),
        reference_name=settings.reference_model or "declared",
        vocabulary=settings.tokenizer_file or settings.vocabulary or vocabulary_of(upstream_name),
        context_window=settings.context_window or known.context_window,
        max_output_tokens=settings.max_output_tokens or known.max_output_tokens,
        capabilities=known.capabilities if capabilities is None else capabilities,
    )


def _undeclared(upstreams: tuple[str, ...], find_price: FindPrice, name: str) -> Model | None:
    """A model that the config does not name: `provider/model`, or one that a provider is known
    to sell. With a single provider every name is taken to be its own (and then needs a price)."""
    head, slash, rest = name.partition("/")
    candidates = [(head, rest)] if slash and head in upstreams else []
    candidates += [(upstream, name) for upstream in upstreams]
    for provider, upstream_name in candidates:
        if find_price(provider, upstream_name) is not None or head == provider:
            settings = schema.Model(provider=provider, upstream_name=upstream_name)
            return replace(_model(upstream_name, settings, find_price), name=name)
    if len(upstreams) == 1:
        return _model(name, schema.Model(provider=upstreams[0]), find_price)
    return None


def _model_rows(book: ModelBook) -> list[dict[str, object]]:
    """What `/v1/models` lists, in OpenAI's shape."""
    owners = {name: model.provider for name, model in book.models.items()}
    return [
        {"id": name, "object": "model", "created": 0, "owned_by": owners.get(name, "cascaded")}
        for name in book.names()
    ]
