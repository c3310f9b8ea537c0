"""Route: which ladder the asked-for name means."""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from cascaded.ports import Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.model import Kind, Ladder, Model
from cascaded.types.request import Request
from cascaded.wire.openai_chat import last_question

_WHY_ONE: Mapping[Kind, str] = {
    "completion": "what continues a text cannot be judged as an answer",
    "embedding": "vectors of different models cannot be compared",
}


def route(choose: Callable[[str], Ladder | Refusal]) -> Stage:
    """A stage that sets the ladder, and the question that its answers will be judged against."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        ladder = choose(request.model)
        if not isinstance(ladder, Refusal) and request.kind != "chat":
            ladder = _about_texts(ladder, request)
        if isinstance(ladder, Refusal):
            return ladder
        if not request.judged:
            ladder = replace(ladder, checked=False)
        if request.in_batches:
            ladder = _in_batches(ladder)
        question = last_question(request.messages) if ladder.checked else ""
        return replace(decision, ladder=ladder, question=question, domain=request.domain)

    return stage


def _in_batches(ladder: Ladder) -> Ladder:
    """The ladder with those of its models that their providers have batches for."""

    def batched(model: Model) -> Model:
        return model.batched or model

    rungs = [
        replace(rung, model=batched(rung.model), fallbacks=tuple(map(batched, rung.fallbacks)))
        for rung in ladder.rungs
    ]
    return replace(ladder, rungs=tuple(rungs))


def _about_texts(ladder: Ladder, request: Request) -> Ladder | Refusal:
    """The one model to ask, whose answer is not judged."""
    if len(ladder.rungs) > 1:
        return Refusal(
            code="invalid_request",
            message=f"'{request.model}' is a ladder of {len(ladder.rungs)} models, and"
            f" {_WHY_ONE[request.kind]}. Ask for one model by its name.",
            param="model",
        )
    [rung] = ladder.rungs
    model = rung.model
    if request.kind not in model.kinds:
        return Refusal(
            code="invalid_request",
            message=f"Provider '{model.provider}' of model '{model.name}' has no route for"
            f" {request.kind}s. Ask for a model of another provider.",
            param="model",
        )
    asked = (model, *(one for one in rung.fallbacks if _can_stand_in(one, model, request.kind)))
    if len(request.texts) > 1:
        # Each text has the whole context window to itself, and its provider looks after it.
        asked = tuple(replace(one, context_window=None) for one in asked)
    rung = replace(rung, model=asked[0], fallbacks=asked[1:])
    return replace(ladder, rungs=(rung,), checked=False, top_retries=0)


def _can_stand_in(spare: Model, model: Model, kind: Kind) -> bool:
    """Vectors have to be the same model's, wherever it runs."""
    same = spare.upstream_name == model.upstream_name
    return kind in spare.kinds and (kind != "embedding" or same)
