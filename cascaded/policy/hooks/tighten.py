"""What a hook's word does to a decision. The outcome never allows more than the decision did."""

from msgspec.structs import replace

from cascaded.types.decision import Decision, Refusal
from cascaded.types.hooks import Advice, Point

_NAMES = {"budget_check": "budget check", "model_filter": "model filter"}


def heeded(decision: Decision, advice: Advice) -> Decision | Refusal:
    """A warning is told, a degraded call keeps what is cheap on its menu, a blocked one ends."""
    if advice.action == "allow":
        return decision
    if advice.action == "block":
        return blocked(advice.message)
    told = f": {advice.message}" if advice.message else "."
    if advice.action == "warn":
        return _noted(decision, "The operator's budget check warns" + told)
    cheap = [place for place, choice in enumerate(decision.choices) if choice.cheap]
    if not cheap:
        return blocked("only cheaper models may be asked, and none of them is on this call's menu")
    return replace(
        _noted(decision, "The operator's budget check allows only cheaper models" + told),
        menu=tuple(decision.menu[place] for place in cheap) if decision.menu else (),
        choices=tuple(decision.choices[place] for place in cheap),
    )


def blocked(message: str) -> Refusal:
    """A hook's no."""
    return Refusal(
        code="budget_exceeded",
        message="The operator's budget check blocks this call: "
        + (message or "it gives no reason; ask whoever runs this daemon."),
    )


def nothing_left(models: tuple[str, ...]) -> Refusal:
    """A filter took every model away."""
    return Refusal(
        code="model_forbidden",
        message=f"The operator's model filter leaves none of {', '.join(models)} for this call. Ask"
        " for another model.",
        param="model",
    )


def unavailable(point: Point) -> Refusal:
    """A hook that must be heard cannot be heard."""
    return Refusal(
        code="hook_unavailable",
        message=f"The operator's {_NAMES[point]} does not answer, and calls wait for its word. Try"
        " again later.",
    )


def _noted(decision: Decision, notice: str) -> Decision:
    return replace(decision, notices=(*decision.notices, notice))
