"""Translate: the call in the words of whom it may be put to; what cannot be said is refused."""

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from cascaded.ports import Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.model import Form, Ladder
from cascaded.types.request import Request
from cascaded.wire.between.forms import OTHERS, name_of
from cascaded.wire.between.said import without_thoughts
from cascaded.wire.openai_chat import WireError


def translate() -> Stage:
    """A stage that says the call in every form that a model of the ladder is asked in. A fallback
    that cannot be asked is left out; any other model must be able to be."""

    async def stage(request: Request, decision: Decision) -> Decision | Refusal:
        ladder = decision.ladder
        assert ladder is not None
        own: Form = request.original.form if request.original else "chat"
        forms = {model.form for rung in ladder.rungs for model in rung.models} - {own}
        if not forms or request.kind != "chat":
            return decision
        bodies: dict[Form, Mapping[str, msgspec.Raw]] = {}
        for form in sorted(forms):
            try:
                bodies[form] = _said(request, form)
            except WireError as error:
                if any(rung.model.form == form for rung in ladder.rungs):
                    return Refusal(code="invalid_request", message=str(error), param=error.param)
                ladder = _without(ladder, form)
        return replace(decision, ladder=ladder, bodies=bodies)

    return stage


def _said(request: Request, form: Form) -> Mapping[str, msgspec.Raw]:
    """The body in another form than its own. Raises `WireError`."""
    original = request.original
    if original is not None and original.unsayable:
        what = original.unsayable
        raise WireError(
            f"{', '.join(what)} cannot be said in {name_of(form)}, by which a model of this call"
            f" is asked: leave it out, or name a model that takes {name_of(original.form)}",
            what[0],
        )
    fields = request.fields
    if form == "chat":
        return fields
    return OTHERS[form].from_chat(fields if original is None else without_thoughts(fields))


def _without(ladder: Ladder, form: Form) -> Ladder:
    """The ladder without the fallbacks that are asked so."""
    rungs = (
        replace(rung, fallbacks=tuple(one for one in rung.fallbacks if one.form != form))
        for rung in ladder.rungs
    )
    return replace(ladder, rungs=tuple(rungs))
