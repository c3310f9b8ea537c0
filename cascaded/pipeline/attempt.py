"""One attempt: one call to one provider, and its line in the books whatever becomes of it."""

from collections.abc import Mapping
from contextlib import aclosing

from msgspec import Raw

from cascaded.policy.pricing import cost, output_bound, worst_cost
from cascaded.policy.tokens import Vocabularies
from cascaded.ports import Call, Clock, Progress, Provider, ProviderTraits, Reply
from cascaded.types.decision import CacheState, Decision
from cascaded.types.errors import CallerLeftError, ProviderError
from cascaded.types.event import Event
from cascaded.types.model import Form, Model
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Billing, Completion, Role
from cascaded.types.usage import Usage
from cascaded.wire.between.forms import OTHERS
from cascaded.wire.between.said import suited
from cascaded.wire.openai_chat import Collector, upstream_fields

ALTERNATIVES = 5
"""Tokens whose probabilities are asked for beside the chosen one's, to see how sure it was."""


class HeldReply:
    """A gate that stays shut: keeps an attempt's events until its answer is accepted."""

    committed = False
    cache: CacheState = "off"

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def send(self, event: Event) -> None:
        """Keep it. The provider bounds how much that can be (`max_response_bytes`)."""
        self.events.append(event)


class Trial:
    """An attempt under way. Until it has ended well it counts as possibly billed."""

    def __init__(
        self,
        index: int,
        model: Model,
        request: Request,
        decision: Decision,
        vocabularies: Vocabularies,
        role: Role = "answer",
    ) -> None:
        self.fault: ProviderError | None = None
        self.ended = False
        """Whether the provider gave all of its answer."""
        self.with_callers_key = False
        self.spoke_ns: int | None = None
        """When the first of its answer came, by the monotonic clock."""
        self._index = index
        self._role = role
        self._model = model
        self._request = request
        self._decision = decision
        assert decision.ladder is not None
        self._ladder = decision.ladder
        self._input_tokens = decision.input_tokens
        ours = request.max_output_tokens is None
        self._bound = output_bound(
            model,
            decision.max_output_tokens,
            beside_input=decision.input_tokens if ours else None,
        )
        self._vocabularies = vocabularies
        self._collector = Collector()
        self._progress = Progress()
        self._begun = False
        self._billing: Billing = "unknown"

    async def run(self, provider: Provider, gate: Reply, clock: Clock, book: list[Attempt]) -> None:
        """Make the call and pass its events to the gate.

        A provider's fault is kept in `fault`. The attempt is booked in every case, a
        cancellation or a bug included. Where the caller leaves and the provider bills all the same,
        it is heard to its end, so that its bill is known; then this raises `CallerLeftError`.
        """
        self._begun = True
        started = clock.monotonic_ns()
        line = self._request.line
        if not provider.traits.cancel_stops_billing:
            line.is_sent = self._is_sent
        try:
            async with aclosing(provider.call(self._call(provider, len(book)))) as events:
                async for event in events:
                    if self.spoke_ns is None and event.speaks:
                        self.spoke_ns = clock.monotonic_ns()
                    self._collector.add(event)
                    if not line.left:
                        await self._pass_on(gate, event)
            self._billing = "billed"
            self.ended = True
        except ProviderError as fault:
            self.fault = fault
            self._billing = fault.billing
        finally:
            line.is_sent = None
            book.append(self._line(started, clock.monotonic_ns(), provider.traits))
        if line.left:
            raise CallerLeftError

    async def _pass_on(self, gate: Reply, event: Event) -> None:
        try:
            await gate.send(event)
        except CallerLeftError:
            line = self._request.line
            if line.is_sent is None:
                raise
            line.left = True

    def _is_sent(self) -> bool:
        return not self._progress.queued

    @property
    def unbilled(self) -> bool:
        """Whether it certainly costs nothing, also because it never began."""
        return not self._begun or self._billing == "not_billed"

    @property
    def completion(self) -> Completion:
        """The answer."""
        return self._collector.completion()

    def _call(self, provider: Provider, index: int) -> Call:
        request = self._request
        trace = request.trace
        form: Form = self._model.form if request.kind == "chat" else "chat"
        original = request.original
        key = request.caller_key if provider.traits.forward_caller_key else None
        self.with_callers_key = key is not None
        return Call(
            model=self._model,
            kind=request.kind,
            form=form,
            fields=self._as_openai(provider) if form == "chat" else self._otherwise(form),
            headers=original.headers if original and original.form == form else {},
            stream=request.stream,
            request_id=request.id,
            trace=trace.headers(trace.attempt_id(index)) if trace else {},
            caller_key=key,
            progress=self._progress,
        )

    def _as_openai(self, provider: Provider) -> Mapping[str, Raw]:
        request = self._request
        judged = self._ladder.checked
        translated = request.original is not None
        both = "max_tokens" in request.fields and "max_completion_tokens" in request.fields
        as_asked = self._bound == request.max_output_tokens and not (judged or both or translated)
        fields = request.fields
        return upstream_fields(
            suited("chat", fields, self._model) if translated else fields,
            self._model,
            output_bound=None if as_asked else self._bound,
            stream=request.stream,
            logprobs=self._logprobs(provider.traits),
            kind=request.kind,
        )

    def _logprobs(self, traits: ProviderTraits) -> bool | int:
        """Whether log-probabilities are asked for that the caller did not; with how many
        alternatives."""
        if not (self._ladder.checked and traits.logprobs) or self._request.wants_logprobs:
            return False
        return ALTERNATIVES if self._decision.quality.combined else True

    def _otherwise(self, form: Form) -> Mapping[str, Raw]:
        """The body in another form than chat completions: as it came, or as it was translated."""
        original = self._request.original
        if original is not None and original.form == form:
            fields = original.fields
        else:
            fields = self._decision.bodies[form]
            if original is not None:
                fields = suited(form, fields, self._model)
        stream = self._request.stream
        return OTHERS[form].upstream(fields, self._model, output_bound=self._bound, stream=stream)

    def _line(self, started_ns: int, ended_ns: int, traits: ProviderTraits) -> Attempt:
        self._billing = self._billed()
        usage = self._usage()
        return Attempt(
            rung=self._index,
            model=self._model,
            error=self.fault.code if self.fault else None,
            billing=self._billing,
            usage=usage,
            cost_nano_usd=self._cost(usage, traits),
            started_ns=started_ns,
            latency_ns=ended_ns - started_ns,
            first_token_ns=None if self.spoke_ns is None else self.spoke_ns - started_ns,
            role=self._role,
        )

    def _billed(self) -> Billing:
        """Whether it was billed, now that it has ended one way or another."""
        if self._progress.queued:
            return "not_billed"
        if self._collector.usage is not None and self._collector.finish_reason is not None:
            return "billed"  # the provider has said what it charges, however the line broke
        hidden = self._collector.usage is None and "reasoning" in self._model.capabilities
        return "unknown" if self._billing == "billed" and hidden else self._billing

    def _usage(self) -> Usage:
        """What the provider says of a call that it finished, else our own count."""
        if self._billing == "not_billed":
            return Usage()
        if self._collector.usage is not None and self._billing == "billed":
            return self._collector.usage
        said = self._vocabularies.count_text(self._model.vocabulary, self._collector.spoken)
        return Usage(
            input_tokens=self._input_tokens,
            output_tokens=said * self._request.choices,
            estimated=True,
        )

    def _seen_whole(self) -> bool:
        """Whether what is billed is what was streamed: of a plain answer nothing is seen before
        its end, and of one that thinks first not everything."""
        return self._request.stream and "reasoning" not in self._model.capabilities

    def _cost(self, usage: Usage, traits: ProviderTraits) -> int:
        """What it cost; where that is not known, the most that it can have cost."""
        price = self._model.price
        assert price is not None  # the price stage refuses models without one
        if self._billing == "not_billed":
            return 0
        if self._billing == "billed" or (traits.cancel_stops_billing and self._seen_whole()):
            return cost(price, usage)
        return worst_cost(price, self._input_tokens, self._bound, self._request.choices)
