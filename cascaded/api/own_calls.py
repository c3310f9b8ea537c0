"""What the usage log is told of calls that applications make themselves, and of later evidence."""

from typing import Protocol

from msgspec.structs import replace

from cascaded.types.limits import Caller, HoldStatus, Receipt
from cascaded.types.records import Correction, UsageRecord, without_attempts


class Notes(Protocol):
    """Who remembers what was spent."""

    def note(self, record: UsageRecord | Correction) -> None:
        """One more. Neither blocks nor raises."""
        ...


def own_call(
    receipt: Receipt, caller: Caller, *, principal: str, request_id: str, at_ns: int
) -> UsageRecord:
    """A hold of an application that was settled, or charged."""
    return replace(
        without_attempts(request_id, at_ns),
        principal=principal,
        user_id=caller.user_id or None,
        tier=caller.tier,
        organization_id=caller.organization_id,
        workspace_id=caller.workspace_id,
        team_id=caller.team_id,
        run_id=caller.run_id,
        tags=dict(caller.tags),
        hold=receipt.hold,
        cost_nano_usd=receipt.posted + receipt.unknown,
        unknown_nano_usd=receipt.unknown,
        kind="own",
    )


def correction(before: HoldStatus, receipt: Receipt) -> Correction:
    """What a bill says of a hold that was charged."""
    return Correction(
        hold=before.hold,
        at_ns=before.at_ns,
        request_id=before.request_id,
        user_id=before.user_id or None,
        charged_nano_usd=before.unknown,
        posted_nano_usd=receipt.posted,
    )
