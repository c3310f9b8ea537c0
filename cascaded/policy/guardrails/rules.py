"""Which rules hold for a call: the operator's, and what tier, workspace and profile add to them."""

from collections.abc import Callable, Iterable
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
R = TypeVar("R", Pii, PromptInjection, Moderation, Toxicity)


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
        pii=_joined(base.pii, more.pii, _pii),
        prompt_injection=_joined(base.prompt_injection, more.prompt_injection, _injection),
        moderation=_joined(base.moderation, more.moderation, _moderation),
        toxicity=_joined(base.toxicity, more.toxicity, _toxicity),
        custom_guardrails=_both(base.custom_guardrails, more.custom_guardrails),
    )


def _joined(base: R, more: R, tighter: Callable[[R, R], R]) -> R:
    """What is on of the two; where both are, what is tighter."""
    if base.enabled and more.enabled:
        return tighter(base, more)
    return base if base.enabled else more


def _pii(base: Pii, more: Pii) -> Pii:
    return Pii(
        action=_harder(base.action, more.action),
        types=_both(base.types, more.types),
        restore=base.restore and more.restore,
    )


def _injection(base: PromptInjection, more: PromptInjection) -> PromptInjection:
    return PromptInjection(
        action=_harder(base.action, more.action),
        threshold=min(base.threshold, more.threshold),
        tool_threshold=min(base.tool_threshold, more.tool_threshold),
    )


def _moderation(base: Moderation, more: Moderation) -> Moderation:
    return Moderation(
        action=_harder(base.action, more.action),
        categories=_both(base.categories, more.categories),
        threshold=min(base.threshold, more.threshold),
    )


def _toxicity(base: Toxicity, more: Toxicity) -> Toxicity:
    threshold = min(base.threshold, more.threshold)
    return replace(base, action=_harder(base.action, more.action), threshold=threshold)


def _harder(one: Action, other: Action) -> Action:
    return max(one, other, key=ACTIONS.index)


def _both(one: tuple[T, ...], other: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*one, *other)))
