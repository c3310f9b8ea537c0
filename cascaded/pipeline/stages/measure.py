"""Measure: how many tokens the prompt can be, in any of the ladder's vocabularies."""

from collections.abc import Mapping

from msgspec.structs import replace

from cascaded.policy.tokens import (
    PUBLIC_VOCABULARIES,
    PromptError,
    Vocabularies,
    count_prompt,
)
from cascaded.ports import Offload, Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.model import Kind, Model
from cascaded.types.request import Request

PROMPTS: Mapping[Kind, tuple[str, ...]] = {
    "chat": ("messages", "tools"),
    "completion": ("prompt", "suffix"),
    "embedding": ("input",),
}
"""The members that are the prompt; the first is always there."""
NOT_PROMPT = frozenset(
    {
        *("model", "messages", "tools", "tool_choice", "parallel_tool_calls", "function_call"),
        *("stream", "stream_options", "n", "stop", "seed", "user", "safety_identifier", "metadata"),
        *("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty"),
        *("repetition_penalty", "logit_bias", "logprobs", "top_logprobs", "max_tokens"),
        *("max_completion_tokens", "reasoning_effort", "verbosity", "store", "service_tier"),
        *("modalities", "audio", "prompt_cache_key", "prompt_cache_retention"),
        *("web_search_options", "prediction"),
    }
)
"""Members of a chat call of which a model reads nothing, or that are counted or refused by
themselves. What else comes (`response_format`, `functions`, what only some upstreams know) may be
put into the prompt, and counts as many tokens as it has bytes."""
FRAME_TOKENS = 2
"""What a model may put around a text: a mark at its beginning and one at its end. Models with a
public vocabulary have none."""


def measure(vocabularies: Vocabularies, offload: Offload, max_prompt_bytes: int) -> Stage:
    """A stage that counts the prompt: on the event loop when that is quick, off it when not.

    A prompt longer than `max_prompt_bytes` (as JSON, tools included) is refused uncounted.
    """

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        assert decision.ladder is not None
        # Models differ in their vocabulary, and by name in what an image costs.
        rungs = decision.ladder.rungs
        models = tuple(place for rung in rungs for model in rung.models for place in model.places)
        prompt, *more = (name for name in PROMPTS[request.kind] if name in request.fields)
        nbytes = sum(memoryview(request.fields[name]).nbytes for name in (prompt, *more))

        def count() -> int:
            return max(_count(request, model, vocabularies) for model in models)

        if nbytes > max_prompt_bytes:
            return Refusal(
                code="too_large",
                message=f"The prompt has {nbytes} bytes; at most {max_prompt_bytes} are taken"
                " (cascade.max_prompt_bytes).",
                param=prompt,
            )
        try:
            tokens = await offload(count) if _takes_long(models, nbytes) else count()
        except PromptError as error:
            return Refusal(code="invalid_request", message=str(error), param=prompt)
        unseen = request.original.unseen_tokens if request.original else 0
        return replace(decision, input_tokens=tokens + unseen)

    def _takes_long(models: tuple[Model, ...], nbytes: int) -> bool:
        return any(vocabularies.is_long(model.vocabulary, nbytes) for model in models)

    return stage


def _count(request: Request, model: Model, vocabularies: Vocabularies) -> int:
    """Tokens of the prompt as this model reads it. Raises `PromptError`."""
    if request.kind != "chat":
        frame = 0 if model.vocabulary in PUBLIC_VOCABULARIES else FRAME_TOKENS
        return sum(
            frame
            + (text if isinstance(text, int) else vocabularies.count_text(model.vocabulary, text))
            for text in request.texts
        )
    fields = request.fields
    beside = sum(memoryview(fields[name]).nbytes for name in fields.keys() - NOT_PROMPT)
    return beside + count_prompt(
        model.vocabulary,
        bytes(fields["messages"]),
        bytes(fields["tools"]) if "tools" in fields else None,
        model_name=model.upstream_name,
        vocabularies=vocabularies,
    )
