"""Ports that do nothing, for features that are not configured."""

from cascaded.types.decision import Decision, Refusal
from cascaded.types.recalled import Recalled, Whole
from cascaded.types.request import Request
from cascaded.types.result import Result


class NoCache:
    """See `ports.Cache`. Remembers nothing."""

    async def recall(self, request: Request, decision: Decision) -> Recalled | Decision:  # noqa: ARG002
        """Never has an answer."""
        return decision

    def conclude(
        self,
        request: Request,
        decision: Decision,
        end: Result | Refusal,
        whole: Whole | None,
    ) -> None:
        """Nobody waits."""


class NoGuardrail:
    """See `ports.Guardrail`. Passes everything."""

    async def inspect(self, request: Request, decision: Decision) -> Decision | Refusal:  # noqa: ARG002
        """The decision as it was."""
        return decision

    def screening(self, request: Request, decision: Decision) -> None:
        """Nobody looks."""
