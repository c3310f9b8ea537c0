"""The configuration's rules, with what administrators set at run time over them."""

from functools import partial

from cascaded.config import Config
from cascaded.daemon.errors import StartError
from cascaded.pipeline.rules import Overriding, Rulebook, Rules
from cascaded.policy.access.identity import AccessRules
from cascaded.policy.limits import LimitBook, excess
from cascaded.types.overrides import Overrides


def rulebook_of(config: Config, overriding: Overriding) -> Rulebook:
    """Raises `StartError` where file and overrides together are more than a call can carry."""
    rulebook = Rulebook(partial(_rules, config), overriding)
    too_many = excess(rulebook.now.book)
    if too_many is not None:
        raise StartError(f"limits: with those set at run time, {too_many}")
    return rulebook


def _rules(config: Config, overrides: Overrides) -> Rules:
    own = {name: config.whole_tier(name, tier) for name, tier in overrides.tiers.items()}
    filed = config.tier_configs()
    book = LimitBook(
        base=config.limits.base,
        scopes=config.limits.scopes,
        tags=config.limits.tag_quotas,
        tiers={**filed, **own, **filed},  # the file's first, and nothing over them
        overrides=overrides.limits,
    )
    access = AccessRules(
        trusted=frozenset(config.access.trusted),
        default_tier=config.access.default_tier,
        tiers=frozenset(book.tiers),
        known_users=book.known_users,
        unknown_user=config.access.unknown_user,
        declared_tags=frozenset(config.limits.tags),
    )
    return Rules(access, book)
