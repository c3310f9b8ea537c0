"""`Result`: what happened."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from cascaded.types.decision import Decision, Refusal
from cascaded.types.guarding import Finding
from cascaded.types.limits import LimitView
from cascaded.types.model import Model
from cascaded.types.recalled import Recalled
from cascaded.types.usage import Usage


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One quality check's finding. `score` is 0 (certainly bad) to 1 (nothing found)."""

    name: str
    score: float
    reason: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How good an answer looks. Kept when `score` reaches the rung's threshold."""

    score: float
    confidence: float
    """The score joined with the model's own certainty (log-probabilities) where it is known."""
    checks: tuple[Check, ...] = ()
    similarity: float | None = None
    """How probably it is an answer to this question rather than to another."""
    toxicity: float | None = None
    agreement: float | None = None
    """The share of further samples that say the same."""
    parts: Mapping[str, float] = {}
    """What speaks for it and against it: what each adds to the logarithm of the odds."""
    unseen: tuple[str, ...] = ()
    """What was to be looked at and could not be, and why."""

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that found something, worst first."""
        found = sorted((check for check in self.checks if check.score < 1), key=lambda c: c.score)
        return tuple(check.name for check in found)


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """One whole answer, read out of whatever the provider sent."""

    text: str = ""
    finish_reason: str | None = None
    tool_calls: tuple[tuple[str, str], ...] = ()
    """(name, arguments as JSON text) of each call in the first choice."""
    refusal: str | None = None
    mean_logprob: float | None = None
    least_logprob: float | None = None
    entropy: float | None = None
    """Mean over the tokens, in nats, as far as the provider told the alternatives."""
    usage: Usage | None = None


Role = Literal["answer", "sample", "judge"]
Billing = Literal["billed", "not_billed", "unknown"]


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One call made to a provider."""

    rung: int
    model: Model
    error: str | None = None
    """A code of the API's error table, or `None` for an answer."""
    billing: Billing = "billed"
    usage: Usage = Usage()
    cost_nano_usd: int = 0
    """What it cost; for `unknown`, the worst it can have cost."""
    started_ns: int = 0
    """Monotonic clock."""
    latency_ns: int = 0
    first_token_ns: int | None = None
    """From its start to the first of its answer; of a plain one that is the whole."""
    verdict: Verdict | None = None
    accepted: bool = False
    role: Role = "answer"
    """A sample is asked for to be compared with an answer, a judge to be asked of it."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a request that was answered."""

    answer: Completion
    answered_by: Attempt | None = None
    """`None`: a cache."""
    flagged: bool = False
    """The answer failed its check at the top of the ladder and is handed over all the same."""
    cache: str | None = None
    """Which cache it came from."""
    recalled: Recalled | None = None
    """The earlier answer, where it is one."""
    saved_nano_usd: int = 0
    """The strongest rung's price for the answer's tokens minus all that was spent; may be < 0."""
    full_nano_usd: int = 0
    """What the strongest rung would have cost for the answer."""
    reference_priced: bool = False
    """The saving is at reference prices, because the models themselves are free."""
    notices: tuple[str, ...] = ()
    """What the caller must be told of who answered."""
    spoke_ns: int | None = None
    """When the caller of a stream was given the first of it, by the monotonic clock."""
    findings: tuple[Finding, ...] = ()
    """What guardrails found in the answer."""

    @property
    def model_used(self) -> str | None:
        """Who gave the answer, now or earlier."""
        if self.answered_by:
            return self.answered_by.model.name
        return self.recalled.model if self.recalled else None

    @property
    def usage(self) -> Usage | None:
        """What the answer took, now or earlier."""
        source = self.answered_by or self.recalled
        return source.usage if source else None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a request ended, and what it took."""

    decision: Decision
    end: Result | Refusal
    attempts: tuple[Attempt, ...] = ()
    elapsed_ns: int = 0
    first_token_ns: int | None = None
    """From the arrival of a streamed call to the first of its answer that went to the caller."""
    left: tuple[LimitView, ...] = ()
    """What is left of the limits that it was charged to, once it is settled."""

    @property
    def user_nano_left(self) -> int | None:
        """Nano-dollars left in the user's own tightest budget; `None` where there is none."""
        own = (view for view in self.left if view.scope == "user" and view.window is not None)
        return min((view.remaining for view in own if view.remaining is not None), default=None)

    @property
    def notices(self) -> tuple[str, ...]:
        """Everything that the caller must be told."""
        told = self.end.notices if isinstance(self.end, Result) else ()
        return (*self.decision.notices, *told) if told else self.decision.notices

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What guardrails found, in the prompt and in the answer."""
        before, after = self.decision.findings, self.end.findings
        return (*before, *after) if before and after else before or after

    def unrestored(self, text: str) -> str:
        """Words of the answer, with placeholders for what was kept from the model."""
        guarding = self.decision.guarding
        for placeholder, value in guarding.restored.items() if guarding else ():
            text = text.replace(value, placeholder)
        return text

    @property
    def total_nano_usd(self) -> int:
        """Everything that was spent, also on answers that were not kept."""
        return sum(attempt.cost_nano_usd for attempt in self.attempts)

    @property
    def draft_nano_usd(self) -> int:
        """What the first of several rungs took."""
        if self.decision.ladder is None or len(self.decision.ladder.rungs) == 1:
            return 0
        return sum(attempt.cost_nano_usd for attempt in self.attempts if attempt.rung == 0)

    @property
    def overhead_ns(self) -> int:
        """Time that was not spent waiting for providers."""
        return max(self.elapsed_ns - sum(attempt.latency_ns for attempt in self.attempts), 0)
