"""A daemon from start to end, put together."""

import asyncio
import os
import random
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import lru_cache, partial
from importlib.metadata import version
from typing import BinaryIO

import uvloop

from cascaded.adapters.accounts import Administrators
from cascaded.adapters.clock import SystemClock
from cascaded.adapters.deferred import DeferredSinks
from cascaded.adapters.json_log import JsonLog
from cascaded.adapters.library_log import library_lines
from cascaded.adapters.nothing import NoCache, NoGuardrail
from cascaded.adapters.offload import ThreadOffload
from cascaded.adapters.prometheus import PrometheusMetrics
from cascaded.api.auth import Gate, digests
from cascaded.api.money import Desk
from cascaded.api.records import Records
from cascaded.api.server import Limits, Services, Status
from cascaded.api.upkeep import Upkeep
from cascaded.config import Config, schema
from cascaded.daemon.answerers import make_providers, make_vocabularies
from cascaded.daemon.book import model_book, model_rows, prices_today
from cascaded.daemon.doors import open_doors
from cascaded.daemon.errors import StartError
from cascaded.daemon.every import Every
from cascaded.daemon.state import LEDGER, open_ledger, open_records, state_folder
from cascaded.pipeline.cascade import Climber
from cascaded.pipeline.order import Parts, deciding, stages
from cascaded.pipeline.run import Pipeline
from cascaded.policy.access.identity import AccessRules
from cascaded.policy.limits import LimitBook, explain, limits_for, named_limits
from cascaded.policy.pricing import price_table_hash
from cascaded.ports import Clock
from cascaded.providers.embedded.provider import (
    EmbeddedProvider,
)
from cascaded.state.backup import back_up
from cascaded.types.decision import Refusal
from cascaded.types.limits import Caller, Denial

ID_BYTES = 12
BODY_TIMEOUT_S = 30.0
EXPIRE_EVERY_S = 5.0
MEMOISED_CALLERS = 65_536


def serve(config: Config) -> None:
    """Run the daemon until SIGTERM or SIGINT. Raises `StartError`."""
    uvloop.run(_serve(config))


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
            doors = await open_doors(config.server, services, log, stack)
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
    ledger = await open_ledger(config.ledger, log, lost, stack)
    usage, audit, copies = open_records(config, clock, log, stack)
    metrics = PrometheusMetrics(ledger.spend, lambda: status.in_flight)
    sinks = DeferredSinks(metrics, log, usage, report=log.fault)
    stack.callback(sinks.hand_on)
    offload, upkeep = ThreadOffload(), ThreadOffload()
    for threads in (offload, upkeep):
        stack.callback(threads.close)
    book = model_book(config, prices_today(config, clock))
    vocabularies = make_vocabularies(config)
    providers = make_providers(config, clock)
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
        limits_for=lru_cache(MEMOISED_CALLERS)(partial(limits_for, book=limit_book)),
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
        price_hash=price_table_hash({name: model.price for name, model in book.models.items()}),
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
    stack.callback(Every(EXPIRE_EVERY_S, desk.expire).cancel)
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
                back_up, parts={**copies, LEDGER: ledger.backup}, own=state_folder(config.ledger)
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
        models=partial(model_rows, book),
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
