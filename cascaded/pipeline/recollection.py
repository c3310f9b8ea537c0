"""The exact cache as a call meets it: what is kept, what is under way, what may be kept of it."""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from cascaded.pipeline.flights import Flights
from cascaded.policy.caching import Upstream, is_kept, is_wanted, key_of, tenant_of
from cascaded.ports import Answers
from cascaded.types.decision import Decision, Memo, Refusal
from cascaded.types.recalled import Recalled, Whole
from cascaded.types.request import Request
from cascaded.types.result import Result


class Recollection:
    """See `ports.Cache`, under one configuration."""

    def __init__(
        self,
        answers: Answers,
        flights: Flights,
        *,
        upstreams: Mapping[str, Upstream],
        wait_s: float,
        wall_ns: Callable[[], int],
    ) -> None:
        """`wait_s`: how long a call waits for an equal one before it is made itself."""
        self._answers = answers
        self._flights = flights
        self._upstreams = upstreams
        self._wait_s = wait_s
        self._wall_ns = wall_ns

    async def recall(self, request: Request, decision: Decision) -> Recalled | Decision:
        """See `ports.Cache.recall`."""
        if not is_wanted(request, decision):
            return decision
        assert decision.caller is not None
        figures = self._answers.figures
        tenant = tenant_of(decision.caller)
        key = key_of(tenant, request, decision, self._upstreams)
        anew = request.cache.max_age_s == 0
        found = None if anew else await self._answers.get(key, request.cache.max_age_s)
        if found is not None:
            figures.hits += 1
            return found
        leads = self._flights.lead(key)
        if not leads and not anew:
            landing = await self._flights.wait(key, self._wait_s)
            if isinstance(landing, Recalled):
                figures.hits += 1
                figures.shared += 1
                return landing
            leads = landing == "lead"
        figures.misses += 1
        return replace(decision, cache="miss", memo=Memo(key, tenant, leads))

    def conclude(
        self,
        request: Request,
        decision: Decision,
        end: Result | Refusal,
        whole: Whole | None,
    ) -> None:
        """See `ports.Cache.conclude`."""
        memo = decision.memo
        assert memo is not None
        answer: Recalled | None = None
        try:
            if isinstance(end, Result) and whole and is_kept(request, decision, end, whole):
                answer = self._made(memo, end, whole)
        finally:
            if memo.leads:
                failed = isinstance(end, Refusal)
                self._flights.land(memo.key, answer or ("lead" if failed else "alone"))
        if answer is not None:
            self._answers.put(memo.key, answer)

    def _made(self, memo: Memo, end: Result, whole: Whole) -> Recalled:
        by = end.answered_by
        assert by is not None
        return Recalled(
            tenant=memo.tenant,
            raw=whole.raw,
            form=whole.form,
            model=by.model.name,
            usage=by.usage,
            cost_nano_usd=end.full_nano_usd - end.saved_nano_usd,
            full_nano_usd=end.full_nano_usd,
            reference_priced=end.reference_priced,
            at_ns=self._wall_ns(),
        )
