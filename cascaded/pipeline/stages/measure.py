"""Measure: how many tokens the prompt can be, in any of the ladder's vocabularies."""

from msgspec.structs import replace

from cascaded.policy.tokens import PromptError, Vocabularies, count_prompt
from cascaded.ports import Offload, Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.model import Model
from cascaded.types.request import Request


def measure(vocabularies: Vocabularies, offload: Offload, max_prompt_bytes: int) -> Stage:
    """A stage that counts the prompt: on the event loop when that is quick, off it when not.

    A prompt longer than `max_prompt_bytes` (messages and tools, as JSON) is refused uncounted.
    """

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        assert decision.ladder is not None
        # Models differ in their vocabulary, and by name in what an image costs.
        models = tuple(model for rung in decision.ladder.rungs for model in rung.models)
        messages = bytes(request.fields["messages"])
        tools = bytes(request.fields["tools"]) if "tools" in request.fields else None

        def count() -> int:
            return max(
                count_prompt(
                    model.vocabulary,
                    messages,
                    tools,
                    model_name=model.upstream_name,
                    vocabularies=vocabularies,
                )
                for model in models
            )

        nbytes = len(messages) + len(tools or b"")
        if nbytes > max_prompt_bytes:
            return Refusal(
                code="too_large",
                message=f"The prompt has {nbytes} bytes; at most {max_prompt_bytes} are taken"
                " (cascade.max_prompt_bytes).",
                param="messages",
            )
        try:
            tokens = await offload(count) if _takes_long(models, nbytes) else count()
        except PromptError as error:
            return Refusal(code="invalid_request", message=str(error), param="messages")
        return replace(decision, input_tokens=tokens)

    def _takes_long(models: tuple[Model, ...], nbytes: int) -> bool:
        return any(vocabularies.is_long(model.vocabulary, nbytes) for model in models)

    return stage
