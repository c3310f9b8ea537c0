"""What one configuration makes: whatever a reload replaces, and nothing else."""

import os
import random
import secrets
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version

import msgspec

from cascaded.adapters.accounts import Administrators
from cascaded.adapters.json_log import JsonLog, Level
from cascaded.api.auth import Gate, digests
from cascaded.api.batches import BatchDesk, Bench
from cascaded.api.caches import Caches
from cascaded.api.counting import Counting
from cascaded.api.insight import Insight
from cascaded.api.keys import Keys
from cascaded.api.message_batches import MessageBatches
from cascaded.api.money import Desk
from cascaded.api.openai_batches import OpenAIBatches
from cascaded.api.people import People
from cascaded.api.records import Records
from cascaded.api.responses import Threads
from cascaded.api.server import Limits, Services, Tally
from cascaded.api.terms import Terms
from cascaded.api.upkeep import Reload, Upkeep
from cascaded.config import Config
from cascaded.daemon.answerers import Answerer, counters, make_answerers, make_vocabularies
from cascaded.daemon.book import model_book, model_row, model_rows, prices_today
from cascaded.daemon.cache import recollection
from cascaded.daemon.chance import new_id
from cascaded.daemon.errors import StartError
from cascaded.daemon.ground import Ground
from cascaded.daemon.guardrails import make_guardian
from cascaded.daemon.hooks import make_hooks
from cascaded.daemon.plans import KeptPlans, directory
from cascaded.daemon.quality import judge_of, make_scrutiny, modes
from cascaded.daemon.rules import rulebook_of
from cascaded.daemon.small_models import SmallModels, make_small_models
from cascaded.daemon.state import state_folder
from cascaded.daemon.topics import directing
from cascaded.pipeline.cascade import Climber
from cascaded.pipeline.customs import Customs
from cascaded.pipeline.guardian import Guardian
from cascaded.pipeline.hooks import Hooks
from cascaded.pipeline.order import Parts, deciding, laddering, measuring, stages
from cascaded.pipeline.rules import Rulebook
from cascaded.pipeline.run import Pipeline
from cascaded.pipeline.scrutiny import Scrutiny
from cascaded.pipeline.stages.resolve import standing
from cascaded.pipeline.stages.tighten import heeding
from cascaded.policy.limits import explain
from cascaded.policy.outages import State
from cascaded.policy.pricing import price_table_hash
from cascaded.policy.routing.balance import Balance
from cascaded.policy.routing.book import ModelBook
from cascaded.policy.tokens import Vocabularies
from cascaded.ports import Clock, Directory
from cascaded.providers.local_embeddings import LocalEmbeddings
from cascaded.state.backup import back_up
from cascaded.types.decision import Refusal
from cascaded.types.limits import Caller, Denial
from cascaded.types.request import Request

BODY_TIMEOUT_S = 30.0


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration, and everything made from it."""

    number: int
    """From 1; one more with each reload."""
    config: Config
    rulebook: Rulebook
    answerers: Mapping[str, Answerer]
    plans: KeptPlans | None
    hooks: Hooks | None
    small_models: SmallModels
    scrutiny: Scrutiny
    customs: Customs
    services: Services


def make_generation(
    config: Config,
    ground: Ground,
    former: Generation | None,
    reload: Reload,
    plans: KeptPlans | None,
) -> Generation:
    """Make all of it, without a word to the ledger or to anybody outside. Reads files.

    Raises `StartError`; then nothing is left to be closed: providers open at their first call.
    """
    number = former.number + 1 if former else 1
    rulebook = rulebook_of(config, ground.overrides)
    living = former.answerers if former else {}
    tell = partial(_tell, ground.log)
    small_models = make_small_models(config, former.small_models if former else None)
    vocabularies = make_vocabularies(config)
    embeddings = partial(
        LocalEmbeddings,
        embedder=small_models.embedder,
        count=vocabularies.count_text,
        clock=ground.clock,
    )
    answerers = make_answerers(config, ground.clock, living, number, tell, embeddings, ground.bulks)
    book = model_book(config, prices_today(config, ground.clock))
    hooks = make_hooks(config, ground, former.hooks if former else None)
    users = directory(config, ground, plans)
    balance = former.services.pipeline.climber.balance if former else Balance()
    scrutiny = make_scrutiny(config, small_models, ground.offload)
    guardian = make_guardian(config, ground, small_models.embedder)
    parts = _parts(
        config, ground, book, rulebook, users, hooks, small_models, vocabularies, guardian
    )
    bench = Bench(
        batches=ground.batches,
        stand=parts.stand,
        clock=ground.clock,
        offload=ground.spool,
        new_id=new_id,
        query_timeout_s=config.server.request_timeout_s,
    )
    counting = Counting(laddering(parts), measuring(parts), counters(answerers))
    services = Services(
        version=version("cascaded"),
        tally=Tally(),
        pipeline=_pipeline(parts, ground, answerers, balance, scrutiny),
        desk=Desk(
            ledger=ground.ledger,
            clock=ground.clock,
            stand=parts.stand,
            explain=parts.explain,
            deciding=deciding(parts),
            heed=None if hooks is None else heeding(hooks, ground.ledger),
            audit=ground.audit,
            notes=ground.usage,
            holds=ground.holds,
        ),
        counting=counting,
        threads=Threads(
            ground.responses,
            keep=config.responses.keep,
            stand=parts.stand,
            count=counting.of,
            clock=ground.clock,
            new_id=new_id,
            max_bytes=config.cascade.max_prompt_bytes,
            log_fault=ground.log.fault,
        ),
        terms=Terms(
            stored=ground.overrides,
            rulebook=rulebook,
            ledger=ground.ledger,
            audit=ground.audit,
            offload=ground.upkeep,
            uses=(ground.keys.users_of, ground.profiles.users_of),
        ),
        keys=Keys(
            ring=ground.keys,
            rulebook=rulebook,
            chance=secrets.token_bytes,
            clock=ground.clock,
            audit=ground.audit,
            offload=ground.upkeep,
        ),
        records=Records(
            usage=ground.usage,
            ledger=ground.ledger,
            trail=ground.audit,
            hand_on=ground.sinks.hand_on,
            clock=ground.clock,
            audit=ground.audit,
            offload=ground.offload,
            upkeep=ground.upkeep,
        ),
        insight=Insight(
            ask=ground.ask,
            ledger=ground.ledger,
            usage=ground.usage,
            hand_on=ground.sinks.hand_on,
            clock=ground.clock,
            log_fault=ground.log.fault,
        ),
        people=People(
            profiles=ground.profiles,
            tiers=lambda: rulebook.now.book.tiers,
            audit=ground.audit,
            offload=ground.lookups,
        ),
        upkeep=Upkeep(
            back_up=partial(back_up, parts=ground.copies, own=state_folder(config.ledger)),
            offload=ground.upkeep,
            reload=reload,
        ),
        caches=Caches(ground.cache, enabled=config.cache.enabled),
        batches=BatchDesk(bench),
        openai_batches=OpenAIBatches(bench),
        message_batches=MessageBatches(bench),
        audit=ground.audit,
        gate=_gate(config, ground),
        limits=Limits(
            max_body_bytes=config.server.max_body_bytes,
            request_timeout_s=config.server.request_timeout_s,
            body_timeout_s=BODY_TIMEOUT_S,
            heartbeat_s=config.server.heartbeat_s,
        ),
        status=ground.status,
        breakers=partial(breakers, answerers),
        deployments=partial(deployments, book, answerers, balance, ground.clock),
        room=ground.room,
        priority=partial(_priority, parts),
        clock=ground.clock,
        new_id=new_id,
        models=partial(model_rows, book),
        model=partial(model_row, book),
        in_batches=partial(_in_batches, book),
        metrics=ground.scrape,
        metrics_without_key=config.server.metrics_without_key,
        trace=ground.telemetry.trace if ground.telemetry and config.otel.traces else None,
        log_fault=ground.log.fault,
        count_refusal=ground.metrics.turned_away,
    )
    return Generation(
        number=number,
        config=config,
        rulebook=rulebook,
        answerers=answerers,
        plans=plans,
        hooks=hooks,
        small_models=small_models,
        scrutiny=scrutiny,
        customs=guardian.customs,
        services=services,
    )


def _parts(
    config: Config,
    ground: Ground,
    book: ModelBook,
    rulebook: Rulebook,
    users: Directory,
    hooks: Hooks | None,
    small_models: SmallModels,
    vocabularies: Vocabularies,
    guardian: Guardian,
) -> Parts:
    """What the stages are made with."""
    return Parts(
        stand=standing(rulebook, users),
        explain=partial(_explain, rulebook, ground.clock),
        choose=book.choose,
        direct=directing(config, book, small_models, ground.clock, ground.offload),
        cheap_models=frozenset(ladder.rungs[0].model.name for ladder in book.ladders.values()),
        guardrail=guardian,
        cache=recollection(config, ground.cache, ground.flights, ground.clock),
        vocabularies=vocabularies,
        offload=ground.offload,
        ledger=ground.ledger,
        audit=ground.audit,
        price_hash=price_table_hash({name: model.price for name, model in book.models.items()}),
        default_max_output_tokens=config.cascade.default_max_output_tokens,
        max_prompt_bytes=config.cascade.max_prompt_bytes,
        quality=config.quality.meant,
        quality_modes=modes(config),
        judge=judge_of(config, book),
        hooks=hooks,
    )


def _in_batches(book: ModelBook, name: str) -> bool:
    """Whether the first model of what a name means is asked in its provider's own batches."""
    ladder = book.choose(name)
    return not isinstance(ladder, Refusal) and ladder.rungs[0].model.batched is not None


def breakers(answerers: Mapping[str, Answerer]) -> dict[str, State]:
    """How every provider stands."""
    return {name: answerer.watch.state for name, answerer in answerers.items()}


def deployments(
    book: ModelBook, answerers: Mapping[str, Answerer], balance: Balance, clock: Clock
) -> list[dict[str, object]]:
    """How the places stand of models that are served in several."""
    now_ns = clock.monotonic_ns()
    return [
        {
            "model": model.name,
            "provider": place.provider,
            "upstream_name": place.upstream_name,
            "weight": place.weight,
            "state": balance.state(place, now_ns, well=answerers[place.provider].watch.asked),
            "in_flight": balance.load(place).in_flight,
        }
        for model in book.models.values()
        if model.others
        for place in model.places
    ]


def _tell(log: JsonLog, provider: str, state: State, retry_after_s: float) -> None:
    level: Level = "warning" if state == "open" else "info"
    log.write(level, "breaker", provider=provider, state=state, retry_after_s=retry_after_s)


async def _priority(parts: Parts, request: Request) -> int:
    """Of the caller's tier, as far as it is believed."""
    found = await parts.stand(request.principal, request.claims)
    tier = None if isinstance(found, Refusal) else found.tier
    return tier.queue_priority if tier else 0


def _explain(rulebook: Rulebook, clock: Clock, denial: Denial, caller: Caller) -> Refusal:
    return explain(denial, caller, rulebook.now.book, now_ns=clock.wall_ns())


def _pipeline(
    parts: Parts,
    ground: Ground,
    answerers: Mapping[str, Answerer],
    balance: Balance,
    scrutiny: Scrutiny,
) -> Pipeline:
    return Pipeline(
        stages=stages(parts),
        climber=Climber(
            providers={name: answerer.provider for name, answerer in answerers.items()},
            watches={name: answerer.watch for name, answerer in answerers.items()},
            vocabularies=parts.vocabularies,
            scrutiny=scrutiny,
            clock=ground.clock,
            random=random.Random().random,
            balance=balance,
        ),
        ledger=ground.ledger,
        audit=ground.audit,
        sink=ground.sinks,
        cache=parts.cache,
        guardrail=parts.guardrail,
    )


def _gate(config: Config, ground: Ground) -> Gate:
    try:
        administers = Administrators(own_uid=os.getuid(), group=config.access.admin_group)
    except LookupError as error:
        raise StartError(f"access.admin_group: {error}") from None
    return Gate(
        administers=administers,
        tcp_key_digests=digests(config.server.tcp_keys),
        issued=ground.keys,
        clock=ground.clock,
    )
