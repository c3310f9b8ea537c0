"""Reserve: set the worst case aside before anything is spent, and wait until that is safe."""

from msgspec.structs import replace

from cascaded.ports import Ledger, Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.request import Request


def reserve(ledger: Ledger) -> Stage:
    """A stage that takes the hold. It never waits, so no cancellation can lose the hold."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        hold = ledger.reserve(request, decision.worst_nano_usd)
        return hold if isinstance(hold, Refusal) else replace(decision, hold=hold)

    return stage


def secure(ledger: Ledger) -> Stage:
    """A stage that returns once the hold survives a crash."""

    async def stage(request: Request, decision: Decision) -> Decision:  # noqa: ARG001
        assert decision.hold is not None
        await ledger.durable(decision.hold)
        return decision

    return stage
