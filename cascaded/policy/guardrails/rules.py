"""Which rules hold for a call: the operator's, and what tier, workspace and profile add to them."""

from collections.abc import Iterable
from functools import reduce
from typing import TypeVar

from msgspec.structs import replace

from cascaded.types.guarding import (
    ACTIONS,
    Action,
    GuardrailsConfig,
    Moderation,
    Pii,
    PromptInjection,
    Toxicity,
)

T = TypeVar("T")


def rules_of(
    base: GuardrailsConfig, added: Iterable[GuardrailsConfig | None], *, may_loosen: bool
) -> GuardrailsConfig:
    """All rules of a call. What is added only tightens: of two actions the harder, of two
    thresholds the lower, of two lists both. With `may_loosen` the last one that is there holds as
    it is."""
    asked = [one for one in added if one is not None]
    if may_loosen:
        return asked[-1] if asked else base
    return reduce(_tightened, (one for one in asked if one.enabled), base)


def _tightened(base: GuardrailsConfig, more: GuardrailsConfig) -> GuardrailsConfig:
    if not base.enabled:
        return more
    return GuardrailsConfig(
        pii=_pii(base.pii, more.pii),
        prompt_injection=_injection(base.prompt_injection, more.prompt_injection),
        moderation=_moderation(base.moderation, more.moderation),
        toxicity=_toxicity(base.toxicity, more.toxicity),
        custom_guardrails=_both(base.custom_guardrails, more.custom_guardrails),
    )


def _pii(base: Pii, more: Pii) -> Pii:
    if not (base.enabled and more.enabled):
        return base if base.enabled else more
    return Pii(
        action=_harder(base.action, more.action),
        types=_both(base.types, more.types),
        restore=base.restore and more.restore,
    )


def _injection(base: PromptInjection, more: PromptInjection) -> PromptInjection:
    if not (base.enabled and more.enabled):
        return base if base.enabled else more
    return PromptInjection(
        action=_harder(base.action, more.action),
        threshold=min(base.threshold, more.threshold),
        tool_threshold=min(base.tool_threshold, more.tool_threshold),
    )


def _moderation(base: Moderation, more: Moderation) -> Moderation:
    if not (base.enabled and more.enabled):
        return base if base.enabled else more
    return Moderation(
        action=_harder(base.action, more.action),
        categories=_both(base.categories, more.categories),
        threshold=min(base.threshold, more.threshold),
    )


def _toxicity(base: Toxicity, more: Toxicity) -> Toxicity:
    if not (base.enabled and more.enabled):
        return base if base.enabled else more
    threshold = min(base.threshold, more.threshold)
    return replace(base, action=_harder(base.action, more.action), threshold=threshold)


def _harder(one: Action, other: Action) -> Action:
    return max(one, other, key=ACTIONS.index)


def _both(one: tuple[T, ...], other: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*one, *other)))
