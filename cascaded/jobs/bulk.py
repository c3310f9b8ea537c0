"""Calls in their provider's own batches: gathered, handed over, waited for, over restarts too.

To the pipeline this is a provider like any other, only slow: a call's hold is kept until its answer
is there. What is handed over is on the disk before, under a name that the provider is told, so that
after a crash it is found again and not handed over twice. A daemon that ends charges the holds of
calls that still wait as unknown; the next one asks each again, under the same id, and that call is
given the answer that was already paid for.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from cascaded.jobs.commits import Commits
from cascaded.ports import BulkApi, Call, Clock, ProviderTraits
from cascaded.state.batches import StoredBatches, handover_row
from cascaded.types.batch import FAILED_STATUS, BulkAnswer, Handover
from cascaded.types.errors import ProviderError, StoreError
from cascaded.types.event import Event
from cascaded.wire.openai_chat import WireError

LINGER_S = 1.0
"""How long a first call waits for company."""
MAX_TOGETHER = 5_000
"""Calls of one of our batches that wait together."""
LOOKS = 3
"""How often a batch is looked for that may not have been taken."""
SERVER_FAULT = 500
MISSING = BulkAnswer(status=0, body=b"")
"""The provider's batch ended without this call, or never began."""

Work = Coroutine[Any, Any, None]


class Bulks:
    """What is with providers, or on its way to them."""

    def __init__(
        self,
        *,
        stored: StoredBatches,
        commits: Commits,
        clock: Clock,
        new_id: Callable[[str], str],
        report: Callable[[str], None],
        poll_s: float,
    ) -> None:
        """`report` hears of trouble with providers' batches; `poll_s` is how often they are asked
        how one does."""
        self._stored = stored
        self._commits = commits
        self._clock = clock
        self._new_id = new_id
        self._report = report
        self._poll_s = poll_s
        self._answers: dict[str, asyncio.Future[BulkAnswer]] = {}
        self._handed: dict[str, tuple[Handover, BulkApi]] = {}
        self._tasks = set[asyncio.Task[None]]()

    def resume(self, apis: Mapping[str, BulkApi]) -> None:
        """Go on waiting for what a daemon before handed over; `apis` by their provider's name."""
        for handover in self._stored.handovers():
            api = apis.get(handover.provider)
            if api is None:
                self._report(
                    f"'{handover.provider}' has a batch of ours, and is asked for none now"
                )
            else:
                for id in handover.ids:
                    self.expect(id)
                self.own(self._take_up(handover, api))

    def waits(self, request_id: str) -> bool:
        """Whether this call is with a provider already."""
        return request_id in self._answers

    def expect(self, request_id: str) -> "asyncio.Future[BulkAnswer]":
        """Where the answer to this call comes."""
        if request_id not in self._answers:
            self._answers[request_id] = asyncio.get_running_loop().create_future()
        return self._answers[request_id]

    def taken(self, request_id: str) -> None:
        """Its answer was taken, or nobody waits for it any more."""
        self._answers.pop(request_id, None)

    async def cancel(self, batch: str) -> None:
        """Tell providers that no more of this batch is wanted. What they have answered comes."""
        for handover, api in list(self._handed.values()):
            if handover.batch == batch and handover.id is not None:
                with suppress(ProviderError):
                    await api.cancel(handover.id)

    async def hand_over(self, api: BulkApi, batch: str, calls: list[Call]) -> None:
        """Hand these calls over, and see to their answers."""
        ids = tuple(call.request_id for call in calls)
        name = self._new_id("cascaded-")
        handover = Handover(name=name, batch=batch, provider=api.name, ids=ids)
        try:
            await self._commits.put([handover_row(handover)])
        except StoreError as error:
            self._report(f"calls were not handed over: {error}")
            self._resolve(handover, {})
            return
        for call in calls:
            call.progress.queued = False  # from here on it may be billed
        id: str | None = None
        try:
            id = await api.submit(name, calls)
        except ProviderError as fault:
            self._report(f"a batch was not taken: {fault.message}")
            if fault.billing != "not_billed":
                id = await self._search(api, name)
        await self._follow(replace(handover, id=id), api)

    def own(self, work: Work) -> None:
        """Do it in the background."""
        task = asyncio.create_task(work)  # noqa: TID251  owned: `close` awaits it
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop waiting. What is with providers stays there."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take_up(self, handover: Handover, api: BulkApi) -> None:
        if handover.id is None:
            handover = replace(handover, id=await self._search(api, handover.name))
        await self._follow(handover, api)

    async def _search(self, api: BulkApi, name: str) -> str | None:
        """The batch that may have been taken under this name. A provider that cannot be asked is
        asked again: until it is known, nothing is handed over twice."""
        looks = 0
        while looks < LOOKS:
            with suppress(ProviderError):
                id = await api.find(name)
                if id is not None:
                    return id
                looks += 1
            await self._clock.sleep(self._poll_s)
        return None

    async def _follow(self, handover: Handover, api: BulkApi) -> None:
        """Wait for a batch's end, and give its answers to who waits for them."""
        answers: Mapping[str, BulkAnswer] | None = {} if handover.id is None else None
        if handover.id is not None:
            self._handed[handover.name] = handover, api
            with suppress(StoreError):  # it is found by its name, too
                await self._commits.put([handover_row(handover)])
        while answers is None:
            assert handover.id is not None
            await self._clock.sleep(self._poll_s)
            try:
                answers = await api.answers(handover.id)
            except ProviderError as fault:
                self._report(f"a batch cannot be asked for: {fault.message}")
        self._handed.pop(handover.name, None)
        self._resolve(handover, answers)

    def _resolve(self, handover: Handover, answers: Mapping[str, BulkAnswer]) -> None:
        for id in handover.ids:
            future = self._answers.get(id)
            if future is not None and not future.done():
                future.set_result(answers.get(id, MISSING))


class BulkProvider:
    """See `ports.Provider`: one provider's own batches."""

    def __init__(self, name: str, api: BulkApi, bulks: Bulks) -> None:
        self.name = name
        self.traits: ProviderTraits = replace(api.traits, max_retries=0, forward_caller_key=False)
        self.api = api
        self._bulks = bulks
        self._gathered: dict[tuple[str, str], list[Call]] = {}

    async def call(self, call: Call) -> AsyncGenerator[Event]:
        """See `ports.Provider.call`."""
        bulks, id = self._bulks, call.request_id
        waits = bulks.waits(id)
        answer = bulks.expect(id)
        if not waits:
            call.progress.queued = True
            self._gather(call)
        try:
            said = await answer
        finally:
            bulks.taken(id)
            self._forget(call)
        yield self._event(call, said)

    async def close(self) -> None:
        """The provider itself is closed by who made it."""

    def _gather(self, call: Call) -> None:
        """Have it handed over with others of its batch."""
        key = call.request_id.rpartition("-")[0], self.api.url(call)
        group = self._gathered.setdefault(key, [])
        group.append(call)
        if len(group) == 1:
            loop = asyncio.get_running_loop()
            loop.call_later(LINGER_S, self._hand_over, key)
        elif len(group) >= MAX_TOGETHER:
            self._hand_over(key)

    def _hand_over(self, key: tuple[str, str]) -> None:
        calls = self._gathered.pop(key, None)
        if calls:
            self._bulks.own(self._bulks.hand_over(self.api, key[0], calls))

    def _forget(self, call: Call) -> None:
        """Nobody waits for it: if it is still here, it is not handed over."""
        for group in self._gathered.values():
            group[:] = [one for one in group if one is not call]

    def _event(self, call: Call, said: BulkAnswer) -> Event:
        if not said.status:
            raise ProviderError(
                "upstream_unavailable",
                f"{self.name} did not answer this call",
                billing="not_billed",
            )
        if said.status >= FAILED_STATUS:
            fault = said.status >= SERVER_FAULT
            raise ProviderError(
                "upstream_server_error" if fault else "upstream_refused",
                f"{self.name} answered {said.status}",
                billing="not_billed",
                status=said.status,
                body=said.body,
            )
        try:
            return self.api.event(call, said.body)
        except WireError as error:
            raise ProviderError(
                "upstream_garbage", f"{self.name} sent nonsense: {error}", billing="unknown"
            ) from error
