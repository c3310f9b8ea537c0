"""Route: which ladder the asked-for name means."""

from collections.abc import Callable

from msgspec.structs import replace

from cascaded.ports import Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.model import Ladder
from cascaded.types.request import Request
from cascaded.wire.openai_chat import last_question


def route(choose: Callable[[str], Ladder | Refusal]) -> Stage:
    """A stage that sets the ladder, and the question that its answers will be judged against."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        ladder = choose(request.model)
        if isinstance(ladder, Refusal):
            return ladder
        question = last_question(request.messages) if ladder.checked else ""
        return replace(decision, ladder=ladder, question=question, domain=request.domain)

    return stage
