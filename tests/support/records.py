"""Requests and how they ended, as the logs are told of them."""

from typing import Any

from cascaded.types.decision import Decision, Hold, Refusal
from cascaded.types.limits import BudgetWarning, Caller
from cascaded.types.model import Ladder
from cascaded.types.records import AttemptRecord
from cascaded.types.request import Claims, Principal, Request
from cascaded.types.result import Attempt, Billing, Check, Completion, Outcome, Result, Verdict
from cascaded.types.usage import Usage
from tests.support.fakes import ladder, model

NS = 1_000_000_000
CHEAP, STRONG = model("cheap"), model("strong")
LADDER: Ladder = ladder(CHEAP, STRONG)
ALICE = Caller(user_id="alice", tier="pro")
WARNING = BudgetWarning(scope="user", id="alice", window="month", limit=9, spent=8, over=False)
SECRET = "the caller's own words"


def asked(
    number: int = 0, tags: dict[str, str] | None = None, model: str = "auto", stream: bool = False
) -> Request:
    """A request without its body's members, which the logs do not look at."""
    return Request(
        id=f"r{number}",
        principal=Principal(kind="peer", id="uid:1000"),
        model=model,
        fields={},
        messages=(),
        stream=stream,
        claims=Claims(user_id="somebody else", tags=tags or {}),
    )


def attempt(
    nano_usd: int = 100, *, rung: int = 0, billing: Billing = "billed", **fields: Any
) -> Attempt:
    """A call to the rung's model."""
    return Attempt(
        rung=rung,
        model=LADDER.rungs[rung].model,
        usage=Usage(input_tokens=10, output_tokens=20, reasoning_tokens=5),
        cost_nano_usd=nano_usd,
        billing=billing,
        latency_ns=NS // 10,
        first_token_ns=NS // 20,
        verdict=Verdict(score=0.9, confidence=0.9, checks=(Check(name="length", score=0.9),)),
        **fields,
    )


def attempt_record(model: str, provider: str, nano_usd: int) -> AttemptRecord:
    """A first call that was billed and kept, as the usage log has it."""
    return AttemptRecord(
        model=model,
        provider=provider,
        rung=0,
        billing="billed",
        error=None,
        cost_nano_usd=nano_usd,
        latency_ns=0,
        first_token_ns=None,
        score=None,
        failed=(),
        accepted=True,
        input_tokens=0,
        output_tokens=0,
        cache_read_tokens=0,
        cache_write_tokens=0,
        input_audio_tokens=0,
        output_audio_tokens=0,
        reasoning_tokens=0,
        cache_write_1h_tokens=None,
        output_image_tokens=None,
        estimated=False,
    )


def answered(*attempts: Attempt, saved_nano_usd: int = 0, caller: Caller | None = ALICE) -> Outcome:
    """An answer by the last attempt."""
    tried = attempts or (attempt(accepted=True),)
    return Outcome(
        decision=Decision(
            caller=caller,
            ladder=LADDER,
            question=SECRET,
            hold=Hold(id=7, seq=9, nano_usd=500),
            warnings=(WARNING,),
            notices=("clamped",),
        ),
        end=Result(
            answer=Completion(text=SECRET), answered_by=tried[-1], saved_nano_usd=saved_nano_usd
        ),
        attempts=tried,
        elapsed_ns=NS,
    )


def refused(code: str = "budget_exceeded", **details: object) -> Outcome:
    """A refusal before any call."""
    return Outcome(
        decision=Decision(question=SECRET),
        end=Refusal(code=code, message=SECRET, details=details),
        elapsed_ns=NS,
    )
