"""Price: the worst that this request can cost, and what must give for it to stay in bounds."""

from msgspec.structs import replace

from cascaded.policy.pricing import plan
from cascaded.ports import Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.request import Request


def price(default_max_output_tokens: int) -> Stage:
    """A stage that bounds the answer's length and trims the ladder to what the caps allow."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        assert decision.ladder is not None
        planned = plan(
            decision.ladder,
            input_tokens=decision.input_tokens,
            asked_max_output=request.max_output_tokens,
            choices=request.choices,
            max_cost_nano_usd=_tighter(
                request.max_cost_nano_usd, decision.ladder.max_cost_nano_usd
            ),
            default_max_output=default_max_output_tokens,
        )
        if isinstance(planned, Refusal):
            return planned
        return replace(
            decision,
            ladder=planned.ladder,
            max_output_tokens=planned.max_output_tokens,
            worst_nano_usd=planned.worst_nano_usd,
            notices=decision.notices + planned.notices,
        )

    return stage


def _tighter(one: int | None, other: int | None) -> int | None:
    caps = [cap for cap in (one, other) if cap is not None]
    return min(caps, default=None)
