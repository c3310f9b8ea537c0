"""How long a prompt is, of Messages and of Responses. Free, and answered without a hold."""

from collections.abc import Mapping, Sequence

import msgspec
from aiohttp import web

from cascaded.api.dialects.base import Incoming
from cascaded.api.dialects.messages import Messages, ids
from cascaded.pipeline.cascade import refused
from cascaded.pipeline.run import Walk
from cascaded.ports import Call, Counter, Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.errors import ProviderError
from cascaded.types.model import Model
from cascaded.types.request import Original, Request
from cascaded.wire.anthropic import countable


class Counting:
    """Who counts: for Messages the provider of the first model of the ladder that can be asked;
    else the daemon, as for its own estimates (exact for public vocabularies, else a bound)."""

    def __init__(
        self, stages: Sequence[Stage], measure: Stage, counters: Mapping[str, Counter]
    ) -> None:
        """`stages` lead to a ladder; `counters` by the name of their provider."""
        self._stages = stages
        self._measure = measure
        self._counters = counters
        self._dialect = Messages()

    async def count(self, incoming: Incoming) -> web.Response:
        """`POST /messages/count_tokens`. Raises `WireError`."""
        request = self._dialect.read(incoming)
        counted = await self.of(request)
        if isinstance(counted, Refusal):
            return self._dialect.refuse(counted, request.id)
        return web.Response(
            body=msgspec.json.encode({"input_tokens": counted}),
            headers=ids(request),
            content_type="application/json",
        )

    async def of(self, request: Request) -> int | Refusal:
        """The tokens of its prompt."""
        walk = Walk(request)
        step = await walk.through(self._stages)
        if step is not None:
            assert isinstance(step, Refusal)  # only a cache answers, and none is asked
            return step
        ladder = walk.decision.ladder
        assert ladder is not None
        original = walk.request.original
        for rung in ladder.rungs:
            if (
                original
                and original.form == rung.model.form
                and rung.model.provider in self._counters
            ):
                return await self._ask(walk.request, original, rung.model)
        measured = await self._measure(walk.request, walk.decision)
        assert isinstance(measured, Decision | Refusal)
        return measured.input_tokens if isinstance(measured, Decision) else measured

    async def _ask(self, request: Request, original: Original, model: Model) -> int | Refusal:
        counter = self._counters[model.provider]
        call = Call(
            model=model,
            fields=countable(original.fields, model),
            headers=original.headers,
            stream=False,
            request_id=request.id,
            caller_key=request.caller_key if counter.traits.forward_caller_key else None,
        )
        try:
            return await counter.count(call)
        except ProviderError as fault:
            return refused(fault)
