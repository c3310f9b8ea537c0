"""Measure: how many tokens the prompt can be, in any of the ladder's vocabularies."""

from msgspec.structs import replace

from cascaded.policy.tokens import LONG_PROMPT_BYTES, PromptError, count_prompt
from cascaded.ports import Offload, Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.request import Request


def measure(offload: Offload) -> Stage:
    """A stage that counts the prompt: on the event loop when it is short, off it when long."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        assert decision.ladder is not None
        vocabularies = {rung.model.vocabulary for rung in decision.ladder.rungs}
        messages, tools = request.fields["messages"], request.fields.get("tools")

        def count() -> int:
            return max(count_prompt(name, messages, tools) for name in vocabularies)

        try:
            long = len(bytes(messages)) > LONG_PROMPT_BYTES
            tokens = await offload(count) if long else count()
        except PromptError as error:
            return Refusal(code="invalid_request", message=str(error), param="messages")
        return replace(decision, input_tokens=tokens)

    return stage
