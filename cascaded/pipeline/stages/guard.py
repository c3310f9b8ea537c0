"""Guard: whether the prompt may be sent at all."""

from cascaded.ports import Guardrail, Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.request import Request


def guard(guardrail: Guardrail) -> Stage:
    """A stage that lets the guardrail refuse the prompt, or put another call in its place."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        return await guardrail.inspect(request, decision)

    return stage
