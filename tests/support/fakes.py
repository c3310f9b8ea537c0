"""Time, chance and providers that tests own."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar, get_args

import msgspec

from cascaded.adapters import package_data
from cascaded.adapters.nothing import NoCache, NoGuardrail
from cascaded.pipeline.cascade import Climber
from cascaded.pipeline.order import Parts, stages
from cascaded.pipeline.rules import Rulebook, Rules
from cascaded.pipeline.run import Pipeline
from cascaded.pipeline.scrutiny import Scrutiny
from cascaded.pipeline.stages.resolve import standing
from cascaded.pipeline.watch import Watch
from cascaded.policy.access.identity import AccessRules
from cascaded.policy.limits import LimitBook
from cascaded.policy.outages import NEVER, State, Thresholds
from cascaded.policy.quality.judgement import Judgement, read_judgement
from cascaded.policy.routing.book import ModelBook
from cascaded.policy.tokens import Vocabularies
from cascaded.ports import Cache, Call, Directory, Guardrail, Provider, ProviderTraits
from cascaded.state.ledger import DurableLedger
from cascaded.types.decision import RULES, CacheState, Refusal
from cascaded.types.errors import CallerLeftError, ProviderError, StoreError
from cascaded.types.event import Event
from cascaded.types.guarding import Finding
from cascaded.types.limits import Admitted, BudgetLimit, Caller, Denial, Limits, Receipt
from cascaded.types.model import Ladder, Model, Price, Rates, Rung
from cascaded.types.overrides import Overrides
from cascaded.types.profile import AuditLevel, OrganizationConfig, UserProfile, WorkspaceConfig
from cascaded.types.quality import QualityConfig, QualityMode
from cascaded.types.quotas import OwnQuotas
from cascaded.types.request import Principal, Request
from cascaded.types.result import Outcome
from cascaded.types.tiers import TierConfig
from cascaded.wire.openai_chat import parse_event, parse_request
from tests.support.upstream import Says, chunks, whole


class FakeClock:
    """Stands still unless it is slept on."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.slept: list[float] = []

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return 1_700_000_000_000_000_000 + self.now_ns

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += int(seconds * 1e9)
        await asyncio.sleep(0)


class Script:
    """What a scripted provider does: say something, or fail at some point."""


@dataclass
class Answers(Script):
    """An answer."""

    says: Says = field(default_factory=Says)


@dataclass
class Faults(Script):
    """A fault, after so many events (`None`: before the first)."""

    code: str = "upstream_server_error"
    billing: Any = "not_billed"
    after: int = 0
    retry_after_s: float | None = None
    says: Says = field(default_factory=Says)


@dataclass
class Bug(Script):
    """An exception that no provider may raise."""


class ScriptedProvider:
    """Plays scripts by model name and keeps its own bill, in nano-dollars."""

    name = "fake"

    def __init__(self, **traits: Any) -> None:
        self.traits = ProviderTraits(**{"logprobs": True, "max_retries": 1, **traits})
        self.scripts: dict[str, list[Script]] = {}
        self.calls: list[Call] = []
        self.closed = 0

    def on(self, model: str, *scripts: Script) -> None:
        self.scripts[model] = list(scripts)

    async def call(self, call: Call) -> AsyncGenerator[Event]:
        self.calls.append(call)
        waiting = self.scripts.get(call.model.name) or [Answers()]
        script = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        await asyncio.sleep(0)
        if isinstance(script, Bug):
            raise RuntimeError("a bug")
        body = json.loads(msgspec.json.encode(call.fields))
        assert isinstance(script, Answers | Faults)
        says = script.says
        for seen, event in enumerate(events(body, says, stream=call.stream)):
            if isinstance(script, Faults) and seen >= script.after:
                break
            yield event
            await asyncio.sleep(0)
        if isinstance(script, Faults):
            raise ProviderError(
                script.code,
                "scripted",
                billing=script.billing,
                retry_after_s=script.retry_after_s,
            )

    async def close(self) -> None:
        self.closed += 1


def events(body: dict[str, Any], says: Says, *, stream: bool) -> Sequence[Event]:
    """The events of an answer, through the real parser."""
    if not stream:
        return [parse_event(json.dumps(whole(body, says)).encode(), whole=True)]
    return [parse_event(json.dumps(chunk).encode(), whole=False) for chunk in chunks(body, says)]


class Collected:
    """A reply that remembers, and may hang up after so many events."""

    def __init__(self, hang_up_after: int | None = None) -> None:
        self.committed = False
        self.cache: CacheState = "off"
        self.events: list[Event] = []
        self._hang_up_after = hang_up_after

    async def send(self, event: Event) -> None:
        if self._hang_up_after is not None and len(self.events) >= self._hang_up_after:
            raise CallerLeftError
        self.committed = True
        self.events.append(event)
        await asyncio.sleep(0)

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events)


class Recorded:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def record(self, request: Request, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Audited:
    """An audit log that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []
        self.levels: list[AuditLevel | None] = []

    def reserved(
        self,
        step: Admitted | Denial,
        *,
        actor: str,
        user_id: str,
        request_id: str | None = None,
        level: AuditLevel | None = None,
    ) -> None:
        self.levels.append(level)
        self.told.append((f"{actor} {user_id} {request_id}", step))

    def settled(
        self,
        receipt: Receipt,
        *,
        actor: str,
        user_id: str,
        request_id: str | None = None,
        level: AuditLevel | None = None,
    ) -> None:
        self.levels.append(level)
        self.told.append((f"{actor} {user_id} {request_id}", receipt))

    def adjusted(self, receipt: Receipt, *, actor: str, reason: str) -> None:
        self.told.append((f"{actor} {reason}", receipt))

    def changed(
        self, subject: str, *, actor: str, reason: str = "", before: object, after: object
    ) -> None:
        self.told.append((f"{actor} {subject} {reason}", (before, after)))

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
        self.told.append((f"{actor} {user_id} {request_id} {subject} {reason}", allowed))

    def guarded(
        self,
        findings: Sequence[Finding],
        *,
        actor: str,
        user_id: str | None,
        request_id: str,
        level: AuditLevel | None = None,
    ) -> None:
        self.told.append((f"{actor} {user_id} {request_id}", tuple(findings)))


def price(input_usd: int, output_usd: int) -> Price:
    """US dollars a million tokens."""
    return Price(rates=Rates(input=input_usd * 10**6, output=output_usd * 10**6))


def model(name: str, output_usd: int = 10, **fields: Any) -> Model:
    return Model(
        name=name,
        provider="fake",
        upstream_name=name,
        vocabulary="o200k_base",
        **{"price": price(1, output_usd), **fields},
    )


def ladder(*models: Model, threshold: float = 0.6, **fields: Any) -> Ladder:
    return Ladder(
        name="default",
        rungs=tuple(Rung(model=one, threshold=threshold) for one in models),
        **fields,
    )


T = TypeVar("T", UserProfile, OrganizationConfig, WorkspaceConfig)
COUNTED = Limits(
    budgets=(BudgetLimit(scope="global", id="*", window="total", limit_nano_usd=None),)
)
"""Everything is counted and nothing is refused."""


class Known:
    """A directory of these."""

    def __init__(self, *kept: UserProfile | OrganizationConfig | WorkspaceConfig) -> None:
        self.kept = list(kept)
        self.fails: StoreError | None = None

    async def find(self, user_id: str) -> UserProfile | None:
        return self._one(UserProfile, user_id)

    async def organization(self, id: str) -> OrganizationConfig | None:
        return self._one(OrganizationConfig, id)

    async def workspace(self, id: str) -> WorkspaceConfig | None:
        return self._one(WorkspaceConfig, id)

    def _one(self, kind: type[T], id: str) -> T | None:
        if self.fails:
            raise self.fails
        return next((one for one in self.kept if isinstance(one, kind) and one.id == id), None)


@lru_cache
def shipped_judgement() -> Judgement:
    """The one in the package."""
    return read_judgement(package_data.read("quality.json"))


LimitsFor = Callable[[Caller, OwnQuotas], Limits]


class World:
    """A pipeline over a scripted provider."""

    def __init__(
        self,
        climbed: Ladder,
        *,
        guardrail: Guardrail | None = None,
        cache: Cache | None = None,
        limits: Limits = COUNTED,
        access: AccessRules | None = None,
        directory: Directory | None = None,
        clock: Any = None,
        provider: Any = None,
        ledger: Any = None,
        limits_for: LimitsFor | None = None,
        providers: dict[str, Provider] | None = None,
        thresholds: Thresholds = NEVER,
        quality: QualityConfig = RULES,
        judge: Model | None = None,
        scrutiny: Scrutiny | None = None,
        **traits: Any,
    ) -> None:
        self.clock = clock or FakeClock()
        self.provider = provider or ScriptedProvider(**traits)
        self.ledger = ledger or DurableLedger.in_memory()
        self.sink = Recorded()
        self.audit = Audited()
        models = {one.name: one for rung in climbed.rungs for one in rung.models}
        self.book = ModelBook(
            models=models,
            ladders={climbed.name: climbed},
            aliases={"auto": "cascade/" + climbed.name},
            undeclared=lambda _: None,
            fallbacks={rung.model.name: rung.fallbacks for rung in climbed.rungs},
        )
        vocabularies = Vocabularies()
        providers = providers or {"fake": self.provider}
        self.told: list[tuple[str, State]] = []
        recollected = cache or NoCache()
        self.pipeline = Pipeline(
            stages=stages(
                Parts(
                    stand=standing(
                        rulebook(limits_for or (lambda _, __: limits), access), directory or Known()
                    ),
                    explain=_explain,
                    cheap_models=frozenset({climbed.rungs[0].model.name}),
                    choose=self.book.choose,
                    guardrail=guardrail or NoGuardrail(),
                    cache=recollected,
                    vocabularies=vocabularies,
                    offload=_inline,
                    ledger=self.ledger,
                    audit=self.audit,
                    price_hash=0,
                    default_max_output_tokens=100,
                    max_prompt_bytes=100_000,
                    quality=quality,
                    quality_modes={mode: QualityConfig.of(mode) for mode in get_args(QualityMode)},
                    judge=judge,
                )
            ),
            climber=Climber(
                providers=providers,
                watches={
                    name: Watch(name, thresholds, self.clock, lambda: 0.5, self._tell)
                    for name in providers
                },
                vocabularies=vocabularies,
                scrutiny=scrutiny or Scrutiny(offload=_inline, judgement=shipped_judgement),
                clock=self.clock,
                random=lambda: 0.5,
            ),
            ledger=self.ledger,
            audit=self.audit,
            sink=self.sink,
            cache=recollected,
            guardrail=guardrail or NoGuardrail(),
        )

    def _tell(self, provider: str, state: State, retry_after_s: float) -> None:
        self.told.append((provider, state))


class NoOverrides:
    """Nothing was set at run time."""

    now = Overrides()


def rulebook(
    limits_for: LimitsFor, access: AccessRules | None = None, **tiers: TierConfig
) -> Rulebook:
    """Rules with these limits, whatever a book would say."""
    rules = Rules(access or AccessRules(), LimitBook(tiers=tiers))
    rules.limits_for = lru_cache(limits_for)
    return Rulebook(lambda _: rules, NoOverrides())


def _explain(denial: Denial, caller: Caller) -> Refusal:
    return Refusal(code="budget_exceeded", message=f"{caller.user_id}: {denial.reason}")


async def _inline(work: Any) -> Any:
    return work()


def request(text: str = "What is the capital of France?", **members: Any) -> Request:
    """A request as the OpenAI dialect would make it; `model` is `auto` unless given."""
    ours: dict[str, Any] = {
        name: members.pop(name)
        for name in ("max_cost_nano_usd", "stream_mode", "deterministic", "caller_key")
        if name in members
    }
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **members}
    chat, fields = parse_request(json.dumps(body).encode())
    made: dict[str, Any] = {
        "id": "r1",
        "principal": Principal(kind="peer", id="uid:0"),
        "model": chat.model,
        "fields": fields,
        "messages": tuple(chat.messages),
        "stream": bool(chat.stream),
        "max_output_tokens": chat.output_bound,
        "choices": chat.n or 1,
        "deterministic": chat.temperature == 0,
        "asks": chat.asks,
        **ours,
    }
    return Request(**made)
