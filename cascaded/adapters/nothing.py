"""Ports that do nothing, for features that are not configured."""

from cascaded.ports import Answer
from cascaded.types.decision import Decision, Refusal
from cascaded.types.request import Request


class NoCache:
    """See `ports.Cache`. Remembers nothing."""

    async def recall(self, request: Request, decision: Decision) -> Answer | None:  # noqa: ARG002
        """Never has an answer."""
        return None


class NoGuardrail:
    """See `ports.Guardrail`. Passes everything."""

    async def inspect(self, request: Request, decision: Decision) -> Decision | Refusal:  # noqa: ARG002
        """The decision as it was."""
        return decision
