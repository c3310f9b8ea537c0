"""What the floors need of the world, as protocols. Only the composition root (`daemon/`) knows who
fills them."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import msgspec

from cascaded.types.batch import BulkAnswer
from cascaded.types.decision import CacheState, Decision, Refusal
from cascaded.types.event import Event
from cascaded.types.guarding import Finding, Place
from cascaded.types.hooks import EnforcementContext, HookKind, HookTerms, Point
from cascaded.types.limits import (
    Admitted,
    CounterStatus,
    Demand,
    Denial,
    Existing,
    HoldStatus,
    Limits,
    Peek,
    Preview,
    Receipt,
    Scope,
)
from cascaded.types.model import Form, Kind, Model
from cascaded.types.profile import AuditLevel, OrganizationConfig, UserProfile, WorkspaceConfig
from cascaded.types.recalled import CacheFigures, Recalled, Whole
from cascaded.types.request import Request
from cascaded.types.result import Attempt, Billing, Completion, Outcome, Result
from cascaded.types.vectors import Unavailable, Vector

T = TypeVar("T")


class Clock(Protocol):
    """Time, injected so that tests own it."""

    def monotonic_ns(self) -> int:
        """Never goes back; for durations."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC; for records."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Offload(Protocol):
    """Runs pure, slow work (long token counts) off the event loop."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """The work's result."""
        ...


class Progress(msgspec.Struct):
    """How far a call has come, kept up by its provider while it runs."""

    queued: bool = False
    """Nothing of it has been sent yet (it waits for a connection), so nothing can be billed."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, as a provider receives it."""

    model: Model
    kind: Kind = "chat"
    form: Form = "chat"
    """What it is put in, and the answer will be told in."""
    fields: Mapping[str, msgspec.Raw]
    """The body to send, in the form of its kind, bounds and model already set."""
    headers: Mapping[str, str] = {}
    """Headers of the caller's that go upstream."""
    stream: bool
    request_id: str
    trace: Mapping[str, str] = {}
    """Headers of the trace that it is a part of."""
    caller_key: str | None = None
    """Present only where the provider is configured to forward it."""
    progress: Progress = msgspec.field(default_factory=Progress)


class ProviderTraits(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline must know of a provider to use it well."""

    max_retries: int = 2
    """Further tries of one attempt after a fault that is worth repeating."""
    backoff_s: float = 0.25
    """First wait between tries; doubles, with jitter, up to `backoff_max_s`."""
    backoff_max_s: float = 8.0
    forward_caller_key: bool = False
    bills_on_5xx: bool = False
    """Whether an answer of 5xx may have been billed."""
    cancel_stops_billing: bool = False
    """Whether hanging up stops the bill at what was streamed."""
    logprobs: bool = False
    """Whether it can be asked for log-probabilities."""


class Provider(Protocol):
    """Somebody who answers. One file each under `providers/`; the conformance suite is the law."""

    name: str
    traits: ProviderTraits

    def call(self, call: Call) -> AsyncGenerator[Event]:
        """One attempt: yields one whole event for a plain call, chunks for a stream.

        Raises `ProviderError` and nothing else; closing the iterator early hangs up.
        """
        ...

    async def close(self) -> None:
        """Give back connections and child processes."""
        ...


class BulkApi(Protocol):
    """A provider that takes many calls at once, for less, and answers within a day. Methods raise
    `ProviderError`."""

    name: str
    traits: ProviderTraits

    def url(self, call: Call) -> str:
        """What the call is for: those of one batch are for the same."""
        ...

    async def submit(self, name: str, calls: Sequence[Call]) -> str:
        """Hand them over under a name of ours; the provider's id of the batch."""
        ...

    async def find(self, name: str) -> str | None:
        """The id of the batch that was handed over under this name, if there is one."""
        ...

    async def answers(self, id: str) -> Mapping[str, BulkAnswer] | None:
        """What it says, by request id, once it has ended; `None` until then."""
        ...

    async def cancel(self, id: str) -> None:
        """No more of it is wanted."""
        ...

    def event(self, call: Call, body: bytes) -> Event:
        """An answer, read. Raises `WireError`."""
        ...


class Counter(Protocol):
    """A provider that counts a prompt's tokens, for free."""

    traits: ProviderTraits

    async def count(self, call: Call) -> int:
        """Tokens of the prompt. Raises `ProviderError`."""
        ...


class Reply(Protocol):
    """Where an answer goes. The first `send` is the commit point: from then on its rung is
    final, and a later failure can only end it with an error, never with another model's words."""

    @property
    def committed(self) -> bool:
        """Whether anything was sent."""
        ...

    cache: CacheState
    """To be told with the answer's head; known before the first `send`."""

    async def send(self, event: Event) -> None:
        """Pass one event on to the caller."""
        ...


class Ledger(Protocol):
    """Holds, spend and rates. Synchronous on purpose: a cancellation cannot split a settlement."""

    def admit(self, demand: Demand) -> Admitted | Existing | Denial | Refusal:
        """Take the first choice that every limit allows, money and rates together, or none.

        A `Refusal` says that the ledger itself cannot take it: full, at fault, or an idempotency
        key that was used for another body.
        """
        ...

    def peek(self, demand: Demand) -> Peek:
        """What `admit` would say, and how every limit looks. Takes nothing."""
        ...

    def denied(self, demand: Demand) -> Denial | None:
        """What `admit` would refuse it for."""
        ...

    def preview(self, demand: Demand) -> Preview:
        """As `peek`, to be shown."""
        ...

    async def durable(self, seq: int) -> None:
        """Return once this survives a crash. Raises `LedgerFaultError`."""
        ...

    def settle(self, hold: int, attempts: Sequence[Attempt]) -> Receipt:
        """Post what the attempts cost and give back the rest. A hold resolves once.

        Raises `HoldError` for a hold that is not open.
        """
        ...

    def post(self, hold: int, nano_usd: int, billing: Billing) -> Receipt:
        """Settle a hold at what somebody else's call cost, or may have cost. Raises `HoldError`."""
        ...

    def release(self, hold: int) -> Receipt:
        """Give a hold back, of which nothing was sent. Raises `HoldError`."""
        ...

    def adjust(
        self, hold: int, nano_usd: int, scopes: Sequence[tuple[Scope, str, int]] = ()
    ) -> Receipt:
        """What an unknown really cost, by later evidence; of what a crash lost, also whose it was.

        Raises `HoldError`.
        """
        ...

    def check(self, limits: Limits) -> None:
        """Raises `ValueError` for limits that cannot be enforced. Changes nothing."""
        ...

    def set_limits(self, limits: Limits, *, reload: bool) -> int:
        """Set limits, all at once; with `reload`, file limits that are absent end."""
        ...

    def counters(self, scope: Scope | None = None, id: str | None = None) -> list[CounterStatus]:
        """How budgets stand."""
        ...

    def unresolved(self) -> list[HoldStatus]:
        """Holds that are open, and those whose bill is unknown."""
        ...

    def hold(self, hold: int) -> HoldStatus | None:
        """One hold, if it is open or its bill is unknown."""
        ...

    def spend(self) -> dict[str, int]:
        """Nano-dollars by state: posted, held, unknown."""
        ...


class Profiles(Protocol):
    """Who knows users. What is known already is told without a wait; the disk or the network is
    read off the event loop."""

    async def find(self, user_id: str) -> UserProfile | None:
        """This user's profile, or `None`. Raises `StoreError` where that cannot be known."""
        ...


class Directory(Profiles, Protocol):
    """Who knows organisations and workspaces as well, also of users who are not known."""

    async def organization(self, id: str) -> OrganizationConfig | None:
        """As `find`."""
        ...

    async def workspace(self, id: str) -> WorkspaceConfig | None:
        """As `find`."""
        ...


class Cache(Protocol):
    """Earlier answers. The null one never has any."""

    async def recall(self, request: Request, decision: Decision) -> Recalled | Decision:
        """An earlier answer to the same question, or that of an equal call under way; else the
        decision, which then says under which `memo` its answer is awaited."""
        ...

    def conclude(
        self,
        request: Request,
        decision: Decision,
        end: Result | Refusal,
        whole: Whole | None,
    ) -> None:
        """How a call with a `memo` ended, and what its caller was sent, as one whole answer where
        it makes one. Must be told, whatever becomes of it: others may wait. Neither blocks nor
        raises."""
        ...


class Answers(Protocol):
    """Where earlier answers are kept, by one event loop."""

    figures: CacheFigures

    async def get(self, key: bytes, max_age_s: int | None) -> Recalled | None:
        """The answer, if it is there and no older than it may be. Does not raise."""
        ...

    def put(self, key: bytes, answer: Recalled) -> None:
        """Keep it. Neither blocks nor raises."""
        ...


class Screened(Reply, Protocol):
    """A reply that lets through only what may leave. `send` raises `BlockedError` for what may
    not."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What fired so far."""
        ...

    @property
    def answer(self) -> Completion:
        """What has left."""
        ...

    async def end(self) -> None:
        """Let go what is still waiting. Raises `BlockedError`."""
        ...


class Objection(msgspec.Struct, frozen=True):
    """Why a whole answer may not leave."""

    refusal: Refusal
    retry: bool
    """Whether another answer may be asked for."""


class Screening(Protocol):
    """How the answers of one call are looked through."""

    waits: bool
    """Only whole answers can be looked through: none streams as it is spoken."""

    def over(self, reply: Reply) -> Screened:
        """The way out to this reply."""
        ...

    async def objection(self, events: Sequence[Event]) -> Objection | None:
        """What there is to be said against a whole answer that nobody has seen yet."""
        ...


class CustomGuardrail(Protocol):
    """One of the operator's own guardrails. Its word is checked before it counts."""

    name: str

    async def check(self, text: str, place: Place) -> object:
        """What there is against a text: `None`, or a mapping with `action` (`warn`, `retry`,
        `block`) and perhaps a `category`. May raise any `Exception`, and take any time."""
        ...

    async def close(self) -> None:
        """Give back threads."""
        ...


class Guardrail(Protocol):
    """Judges what goes in and what comes out. The null one passes everything."""

    async def inspect(self, request: Request, decision: Decision) -> Decision | Refusal:
        """The decision, perhaps with another call in place of the one that was asked, and with
        findings; or the reason to stop."""
        ...

    def screening(self, request: Request, decision: Decision) -> Screening | None:
        """Who looks through the answers of this call; `None`: nobody."""
        ...


class Hook(Protocol):
    """One of the operator's hooks, a plug-in or a URL. Its word is checked before it counts."""

    name: str
    kind: HookKind
    terms: HookTerms
    points: frozenset[Point]
    """Where it has its say."""

    async def ask(
        self, point: Point, context: EnforcementContext, models: tuple[str, ...]
    ) -> object:
        """Whatever it answers. May raise any `Exception`, and take any time."""
        ...

    async def close(self) -> None:
        """Give back connections and threads."""
        ...


class Embedder(Protocol):
    """A small model that turns texts into vectors, off the event loop."""

    name: str
    """Of the model: heads are fitted for one model's vectors."""

    async def embed(self, texts: Sequence[str]) -> tuple[Vector, ...] | Unavailable:
        """A vector for each text, of which only the beginning counts; or why there are none. Does
        not raise. To ask again for the same text costs next to nothing."""
        ...


class Classifier(Protocol):
    """A small model that judges texts, off the event loop."""

    name: str
    labels: tuple[str, ...]

    async def classify(
        self, texts: Sequence[str | tuple[str, str]]
    ) -> tuple[tuple[float, ...], ...] | Unavailable:
        """The probability of each label, for each text or pair (premise, hypothesis); or why there
        are none. Does not raise."""
        ...


class CodeReader(Protocol):
    """Who reads the code in a prompt, off the event loop."""

    async def cyclomatic(self, text: str) -> int | None:
        """The number of ways through the most winding piece of code in it: one and the branches.
        `None` where there is no code in a language that is known. Does not raise."""
        ...


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A stage's early yes: this is the answer, and no model is asked."""

    recalled: Recalled
    source: str
    """Where it came from, such as `exact` for the exact cache."""
    decision: Decision


Vet = Callable[[Decision, str], Awaitable[Decision | Refusal | None]]
"""Asks the operator's hooks whether an earlier answer, of the model of this name, may be given;
`None`: not of that model."""


class Stage(Protocol):
    """One step of a request's life: a verb. Returns a new decision, or ends the list."""

    async def __call__(self, request: Request, decision: Decision) -> Decision | Refusal | Answer:
        """The next decision."""
        ...


class Sink(Protocol):
    """Who is told of every finished request: metrics, the request log, later the usage log."""

    def record(self, request: Request, outcome: Outcome) -> None:
        """Must neither block nor raise."""
        ...


class Rows(Protocol):
    """Ordered bytes to read: keys sort as bytes do. Thread-safe; every method is short and blocks
    on the disk. Raises `StoreError`, and nothing else, when the disk says no."""

    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The values at one moment, in the order of the keys; `None` where there is none."""
        ...

    def scan(
        self, start: bytes, end: bytes, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """The first `limit` pairs with `start <= key < end`; from the end, if `reverse`."""
        ...


class Store(Rows, Protocol):
    """The same to read and write. `StoreError` also when the store's bound says no; what was
    written before stays readable."""

    def put_many(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Write all or none; on disk when it returns. An existing key is replaced."""
        ...

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Forget these, all or none; how many there were."""
        ...

    def delete_range(self, start: bytes, end: bytes, limit: int) -> int:
        """Forget the first `limit` keys with `start <= key < end`; how many there were."""
        ...

    def count(self) -> int:
        """Keys in the store."""
        ...

    def size_bytes(self) -> int:
        """Bytes of the disk that it uses, with room that was given back to it."""
        ...

    def close(self) -> None:
        """Give everything back; later calls raise `StoreError`."""
        ...


class Report(msgspec.Struct, frozen=True):
    """An answer that comes in pieces."""

    head: Mapping[str, object]
    """What is known before the rest is."""
    pieces: AsyncIterator[bytes]
    """Raises `AnalystError` where it breaks off."""


class Analyst(Protocol):
    """Answers questions about what is remembered, outside of this process."""

    def ask(self, errand: bytes) -> AbstractAsyncContextManager[Report]:
        """The answer to an errand, which is given up when the context ends before it does. Raises
        `AnalystError`, and `BusyError` when too many are asked at once."""
        ...


class Audit(Protocol):
    """Who is told of every decision about money and access, for good. Neither blocks nor raises."""

    def reserved(
        self,
        step: Admitted | Denial,
        *,
        actor: str,
        user_id: str,
        request_id: str | None = None,
        level: AuditLevel | None = None,
    ) -> None:
        """What the ledger said to a demand. `level` is the profile's own, if it has one."""
        ...

    def settled(
        self,
        receipt: Receipt,
        *,
        actor: str,
        user_id: str,
        request_id: str | None = None,
        level: AuditLevel | None = None,
    ) -> None:
        """How a hold was resolved. `level` as above."""
        ...

    def adjusted(self, receipt: Receipt, *, actor: str, reason: str) -> None:
        """Somebody resolved an unknown with evidence."""
        ...

    def changed(
        self, subject: str, *, actor: str, reason: str = "", before: object, after: object
    ) -> None:
        """Somebody changed a limit, a tier, a profile, a key. `None`: there was, or is, none. No
        secrets."""
        ...

    def access(
        self,
        subject: str,
        *,
        actor: str,
        allowed: bool,
        reason: str,
        user_id: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Whether somebody may do something."""
        ...

    def guarded(
        self,
        findings: Sequence[Finding],
        *,
        actor: str,
        user_id: str | None,
        request_id: str,
        level: AuditLevel | None = None,
    ) -> None:
        """What guardrails found in a call, and what was done."""
        ...
