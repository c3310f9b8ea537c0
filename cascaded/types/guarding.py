"""Guardrails: what operators ask of them, what they found. Never what was found itself."""

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from cascaded.types.tables import Name, Score

Action = Literal["warn", "redact", "retry", "block"]
"""The mildest first."""
ACTIONS: tuple[Action, ...] = get_args(Action)
PiiType = Literal["email", "phone", "ssn", "card", "iban", "ip", "passport", "secret"]
Harm = Literal["hate", "violence", "sexual", "self_harm"]
Place = Literal["prompt", "tool", "answer"]
"""Where something was found: in what the caller says, in what a tool or a document says, or in what
the model says."""
MAX_CUSTOM = 8


class Pii(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Personal data and secrets, in prompts and answers."""

    enabled: bool = True
    """Whether it is looked for."""
    action: Action = "redact"
    """`redact` sends a placeholder such as `[EMAIL_1]` in its place."""
    types: Annotated[tuple[PiiType, ...], Meta(max_length=len(get_args(PiiType)))] = (
        *("email", "phone", "ssn", "card"),
    )
    """What is looked for."""
    restore: bool = True
    """Whether the caller gets its own values back where the answer has their placeholders."""


class PromptInjection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Words of a user, a tool or a document that would give the model other orders."""

    enabled: bool = True
    """Whether it is looked for."""
    action: Action = "block"
    """What happens. There is nothing to be redacted: `redact` and `retry` block, too."""
    threshold: Score = 0.7
    """From which probability on a user's words count as one."""
    tool_threshold: Score = 0.5
    """The same for what tools and documents say, who have no orders to give."""


class Moderation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Harmful content, in prompts and answers."""

    enabled: bool = True
    """Whether it is looked for."""
    action: Action = "block"
    """What happens. There is nothing to be redacted: `redact` blocks, too."""
    categories: Annotated[tuple[Harm, ...], Meta(max_length=len(get_args(Harm)))] = get_args(Harm)
    """What is looked for."""
    threshold: Score = 0.5
    """From which probability on it counts."""


class Toxicity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Insults and contempt in answers."""

    enabled: bool = False
    """Whether it is looked for."""
    action: Action = "retry"
    """What happens; `retry` asks again, on the next rung where there is one."""
    threshold: Score = 0.8
    """From which probability on it counts."""


class GuardrailsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is looked for, and what happens then."""

    enabled: bool = True
    """Whether there are any."""
    pii: Pii = Pii()
    """Personal data and secrets."""
    prompt_injection: PromptInjection = PromptInjection()
    """Words that would give the model other orders."""
    moderation: Moderation = Moderation()
    """Harmful content."""
    toxicity: Toxicity = Toxicity()
    """Insults in answers."""
    custom_guardrails: Annotated[tuple[Name, ...], Meta(max_length=MAX_CUSTOM)] = ()
    """Plug-ins: entry points of the group `cascaded.guardrails`."""


OFF = GuardrailsConfig(enabled=False)


class Finding(msgspec.Struct, frozen=True):
    """What fired, how often, and what was done. Not what it said."""

    guardrail: str
    """`pii`, `prompt_injection`, `moderation`, `toxicity`, or a plug-in's name."""
    category: str
    """A type of personal data, a harm; of a plug-in its own word."""
    place: Place
    action: Action
    count: int = 1
    score: float | None = None
    """How certain a classifier is."""

    def __str__(self) -> str:
        return f"{self.guardrail}.{self.category} {self.action}"


class Guarding(msgspec.Struct, frozen=True, kw_only=True):
    """What guards one call's answer."""

    rules: GuardrailsConfig
    restored: Mapping[str, str] = {}
    """The caller's own values, by the placeholders that stand for them. Never kept beyond the call,
    never told to anybody else."""
