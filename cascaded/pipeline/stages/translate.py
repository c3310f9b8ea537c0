"""Translate: the call in the words of whom it may be put to; what cannot be said is refused."""

from msgspec.structs import replace

from cascaded.ports import Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.model import Form, Ladder
from cascaded.types.request import Request
from cascaded.wire.between.to_messages import to_messages
from cascaded.wire.openai_chat import WireError


def translate() -> Stage:
    """A stage that says the call in every form that a model of the ladder is asked in. A fallback
    that cannot be asked is left out; any other model must be able to be."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        ladder = decision.ladder
        assert ladder is not None
        other: Form = "messages" if request.original is None else "chat"
        if not any(model.form == other for rung in ladder.rungs for model in rung.models):
            return decision
        try:
            if request.original is None:
                return replace(decision, as_messages=to_messages(request.fields))
            if not request.original.unsayable:
                return decision
            raise _unsayable(request.original.unsayable)
        except WireError as error:
            if any(rung.model.form == other for rung in ladder.rungs):
                return Refusal(code="invalid_request", message=str(error), param=error.param)
            return replace(decision, ladder=_without(ladder, other))

    return stage


def _unsayable(what: tuple[str, ...]) -> WireError:
    return WireError(
        f"{', '.join(what)} cannot be said in OpenAI's chat completions, by which a model of this"
        " call is asked: leave it out, or name a model that takes Anthropic's Messages",
        what[0],
    )


def _without(ladder: Ladder, form: Form) -> Ladder:
    """The ladder without the fallbacks that are asked so."""
    rungs = (
        replace(rung, fallbacks=tuple(one for one in rung.fallbacks if one.form != form))
        for rung in ladder.rungs
    )
    return replace(ladder, rungs=tuple(rungs))
