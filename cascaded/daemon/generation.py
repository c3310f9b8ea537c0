"""What one configuration makes: whatever a reload replaces, and nothing else."""

import os
import random
import secrets
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version

import msgspec

from cascaded.adapters.accounts import Administrators
from cascaded.adapters.nothing import NoCache, NoGuardrail
from cascaded.api.auth import Gate, digests
from cascaded.api.money import Desk
from cascaded.api.records import Records
from cascaded.api.server import Limits, Services, Tally
from cascaded.api.upkeep import Reload, Upkeep
from cascaded.config import Config
from cascaded.daemon.answerers import Answerer, make_answerers, make_vocabularies
from cascaded.daemon.book import model_book, model_rows, prices_today
from cascaded.daemon.errors import StartError
from cascaded.daemon.ground import Ground
from cascaded.daemon.plans import KeptPlans, directory
from cascaded.daemon.state import state_folder
from cascaded.pipeline.cascade import Climber
from cascaded.pipeline.order import Parts, deciding, stages
from cascaded.pipeline.run import Pipeline
from cascaded.pipeline.stages.resolve import standing
from cascaded.policy.access.identity import AccessRules
from cascaded.policy.limits import LimitBook, explain, limits_for
from cascaded.policy.pricing import price_table_hash
from cascaded.policy.routing.book import ModelBook
from cascaded.ports import Clock, Directory
from cascaded.state.backup import back_up
from cascaded.types.decision import Refusal
from cascaded.types.limits import Caller, Denial
from cascaded.types.limits import Limits as CallLimits
from cascaded.types.quotas import OwnQuotas
from cascaded.types.request import Request

ID_BYTES = 12
BODY_TIMEOUT_S = 30.0


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration, and everything made from it."""

    number: int
    """From 1; one more with each reload."""
    config: Config
    limit_book: LimitBook
    answerers: Mapping[str, Answerer]
    plans: KeptPlans | None
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
    limit_book = _limit_book(config)
    answerers = make_answerers(config, ground.clock, former.answerers if former else {}, number)
    book = model_book(config, prices_today(config, ground.clock))
    parts = _parts(config, ground, book, limit_book, directory(config, ground, plans))
    services = Services(
        version=version("cascaded"),
        tally=Tally(),
        pipeline=_pipeline(parts, ground, answerers),
        desk=Desk(
            ledger=ground.ledger,
            clock=ground.clock,
            stand=parts.stand,
            explain=parts.explain,
            deciding=deciding(parts),
            audit=ground.audit,
            holds=ground.holds,
        ),
        records=Records(
            usage=ground.usage, trail=ground.audit, clock=ground.clock, offload=ground.offload
        ),
        upkeep=Upkeep(
            back_up=partial(back_up, parts=ground.copies, own=state_folder(config.ledger)),
            offload=ground.upkeep,
            reload=reload,
        ),
        audit=ground.audit,
        gate=_gate(config),
        limits=Limits(
            max_body_bytes=config.server.max_body_bytes,
            request_timeout_s=config.server.request_timeout_s,
            body_timeout_s=BODY_TIMEOUT_S,
        ),
        status=ground.status,
        room=ground.room,
        priority=partial(_priority, parts),
        clock=ground.clock,
        new_id=lambda: secrets.token_hex(ID_BYTES),
        models=partial(model_rows, book),
        metrics=ground.scrape,
        metrics_without_key=config.server.metrics_without_key,
        log_fault=ground.log.fault,
        count_refusal=ground.metrics.turned_away,
    )
    return Generation(
        number=number,
        config=config,
        limit_book=limit_book,
        answerers=answerers,
        plans=plans,
        services=services,
    )


def _limit_book(config: Config) -> LimitBook:
    return LimitBook(
        base=config.limits.base,
        scopes=config.limits.scopes,
        tags=config.limits.tag_quotas,
        tiers=config.tier_configs(),
    )


def _parts(
    config: Config, ground: Ground, book: ModelBook, limit_book: LimitBook, users: Directory
) -> Parts:
    """What the stages are made with."""
    return Parts(
        stand=standing(_access(config), users, partial(_limits_for, limit_book)),
        tiers=limit_book.tiers,
        explain=partial(_explain, limit_book, ground.clock),
        choose=book.choose,
        cheap_models=frozenset(ladder.rungs[0].model.name for ladder in book.ladders.values()),
        guardrail=NoGuardrail(),
        cache=NoCache(),
        vocabularies=make_vocabularies(config),
        offload=ground.offload,
        ledger=ground.ledger,
        audit=ground.audit,
        price_hash=price_table_hash({name: model.price for name, model in book.models.items()}),
        default_max_output_tokens=config.cascade.default_max_output_tokens,
        max_prompt_bytes=config.cascade.max_prompt_bytes,
    )


async def _priority(parts: Parts, request: Request) -> int:
    """Of the caller's tier, as far as it is believed."""
    found = await parts.stand(request.principal, request.claims)
    caller = None if isinstance(found, Refusal) else found.caller
    tier = parts.tiers.get(caller.tier or "") if caller else None
    return tier.queue_priority if tier else 0


def _access(config: Config) -> AccessRules:
    return AccessRules(
        trusted=frozenset(config.access.trusted),
        default_tier=config.access.default_tier,
        tiers=frozenset(config.tiers),
        known_users=frozenset(config.limits.users.ids),
        unknown_user=config.access.unknown_user,
        declared_tags=frozenset(config.limits.tags),
    )


def _limits_for(limit_book: LimitBook, caller: Caller, own: OwnQuotas) -> CallLimits:
    return limits_for(caller, limit_book, own)


def _explain(limit_book: LimitBook, clock: Clock, denial: Denial, caller: Caller) -> Refusal:
    return explain(denial, caller, limit_book, now_ns=clock.wall_ns())


def _pipeline(parts: Parts, ground: Ground, answerers: Mapping[str, Answerer]) -> Pipeline:
    return Pipeline(
        stages=stages(parts),
        climber=Climber(
            providers={name: answerer.provider for name, answerer in answerers.items()},
            vocabularies=parts.vocabularies,
            clock=ground.clock,
            random=random.Random().random,
        ),
        ledger=ground.ledger,
        audit=ground.audit,
        sink=ground.sinks,
    )


def _gate(config: Config) -> Gate:
    try:
        administers = Administrators(own_uid=os.getuid(), group=config.access.admin_group)
    except LookupError as error:
        raise StartError(f"access.admin_group: {error}") from None
    return Gate(administers=administers, tcp_key_digests=digests(config.server.tcp_keys))
