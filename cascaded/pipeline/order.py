"""The stages of a request, in order. The order is meaning: each line says why it stands there."""

from collections.abc import Callable

import msgspec

from cascaded.pipeline.stages.guard import guard
from cascaded.pipeline.stages.measure import measure
from cascaded.pipeline.stages.price import price
from cascaded.pipeline.stages.recall import recall
from cascaded.pipeline.stages.reserve import reserve, secure
from cascaded.pipeline.stages.route import route
from cascaded.policy.tokens import Vocabularies
from cascaded.ports import Cache, Guardrail, Ledger, Offload, Stage
from cascaded.types.decision import Refusal
from cascaded.types.model import Ladder


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the stages are made with."""

    choose: Callable[[str], Ladder | Refusal]
    guardrail: Guardrail
    cache: Cache
    vocabularies: Vocabularies
    offload: Offload
    ledger: Ledger
    default_max_output_tokens: int
    max_prompt_bytes: int


def stages(parts: Parts) -> tuple[Stage, ...]:
    """Every step before money is spent."""
    return (
        route(parts.choose),  # first: an unknown model must cost nothing
        guard(parts.guardrail),  # before the caches: a forbidden prompt is not answered from one
        recall(parts.cache),  # before the prompt is measured: a known answer needs no count
        measure(
            parts.vocabularies, parts.offload, parts.max_prompt_bytes
        ),  # after anything that may change the prompt
        price(parts.default_max_output_tokens),  # needs the count; may trim the ladder
        reserve(parts.ledger),  # takes the money; from here on the bracket settles
        secure(parts.ledger),  # nothing is sent before the hold is durable
    )
