"""The routes for applications that call models themselves, and for looking at budgets."""

import hashlib
from collections.abc import Callable, Sequence
from typing import cast, get_args

import msgspec
from aiohttp import web
from msgspec.structs import replace

from cascaded.api.claims import from_headers, with_body
from cascaded.api.dialects.base import Incoming
from cascaded.api.dialects.native import Native
from cascaded.api.errors import error_object, error_response
from cascaded.api.own_calls import Notes, correction, own_call
from cascaded.api.replies import json_response
from cascaded.pipeline.run import Walk
from cascaded.pipeline.stages.peek import LEAST
from cascaded.pipeline.stages.resolve import Standing
from cascaded.pipeline.stages.tighten import Heed
from cascaded.policy.limits import RateHeaders
from cascaded.ports import Audit, Clock, Ledger, Stage
from cascaded.types.decision import Decision, Refusal
from cascaded.types.errors import HoldError, LedgerFaultError
from cascaded.types.limits import (
    Admitted,
    Caller,
    Choice,
    Demand,
    Denial,
    Existing,
    HoldStatus,
    LimitView,
    Preview,
    Receipt,
    Scope,
)
from cascaded.types.money import format_usd
from cascaded.types.request import Request
from cascaded.types.result import Outcome
from cascaded.types.times import NS_PER_S
from cascaded.wire import money
from cascaded.wire.native import parse_amount, routed, usd
from cascaded.wire.openai_chat import WireError, is_absent, member_names

Explain = Callable[[Denial, Caller], Refusal]
IDEMPOTENCY_KEY_MAX = 255
MAX_OUTSIDE_HOLDS = 100_000


class OutsideHold(msgspec.Struct, frozen=True):
    """A hold of an application that calls models itself."""

    principal: str
    user_id: str
    nano_usd: int
    expires_ns: int
    """Monotonic."""
    caller: Caller
    """Whom it is charged to."""
    request_id: str
    charged: bool = False
    """It expired, or was open when a daemon ended: what its owner says now is later evidence."""


OutsideHolds = dict[int, OutsideHold]
"""By the hold's number."""


class Desk:
    """Holds that were handed out, and the routes that take them back."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        stand: Standing,
        explain: Explain,
        deciding: Sequence[Stage],
        heed: Heed | None,
        audit: Audit,
        notes: Notes,
        holds: OutsideHolds,
    ) -> None:
        """`holds` is what was handed out: it outlives this desk's configuration."""
        self._audit = audit
        self._notes = notes
        self._ledger = ledger
        self._clock = clock
        self._stand = stand
        self._explain = explain
        self._deciding = deciding
        self._heed = heed
        self._holds = holds

    async def check(self, incoming: Incoming) -> web.Response:
        """`POST /check`: what would happen to this call, and why, for every limit. A prompt as
        for `/infer`, or just an amount (`cost`). Takes nothing."""
        if "cost" in member_names(incoming.body):
            asked = money.read(incoming.body, money.ReserveRequest)
            decision = await self._amount(incoming, asked)
        else:
            decision = await self._decide(Native().read(incoming))
        if isinstance(decision, Refusal):
            return json_response({"allowed": False, "reason": error_object(decision), "limits": []})
        preview = self._ledger.preview(Demand(menu=decision.choices, limits=decision.limits))
        return json_response(self._told(decision, preview))

    async def route(self, incoming: Incoming) -> web.Response:
        """`POST /route`: as `/check`, with all that the call's way up its ladder is decided by: its
        domain, how hard it is, each model with its threshold. Asks no model and takes nothing."""
        decision = await self._decide(Native().read(incoming))
        if isinstance(decision, Refusal):
            return json_response({"allowed": False, "reason": error_object(decision)})
        preview = self._ledger.preview(Demand(menu=decision.choices, limits=decision.limits))
        return json_response({**self._told(decision, preview), **routed(decision)})

    async def reserve(self, incoming: Incoming) -> web.Response:
        """`POST /reserve`: hold an amount. Answered once the hold survives a crash.

        A key that was used before gives its hold, whose `state` tells whether it is still open:
        what was resolved, or charged after a crash, covers no further call."""
        asked = money.read(incoming.body, money.ReserveRequest)
        decision = await self._amount(incoming, asked)
        if isinstance(decision, Refusal):
            return error_response(decision, incoming.request_id)
        caller = decision.caller
        assert caller is not None
        key = _idempotency(incoming, caller)
        if isinstance(key, Refusal):
            return error_response(key, incoming.request_id)
        if len(self._holds) >= MAX_OUTSIDE_HOLDS:
            full = Refusal(
                code="overloaded",
                message=f"{MAX_OUTSIDE_HOLDS} holds are open: settle or release some.",
                retry_after_s=1,
            )
            return error_response(full, incoming.request_id)
        answer = self._ledger.admit(
            Demand(
                menu=decision.choices,
                limits=decision.limits,
                idempotency=key,
                label=(incoming.request_id, caller.user_id, incoming.principal.id),
            )
        )
        if isinstance(answer, Admitted | Denial):
            self._audit.reserved(
                answer,
                actor=incoming.principal.id,
                user_id=caller.user_id,
                request_id=incoming.request_id,
                level=decision.audit_level,
            )
        if isinstance(answer, Denial):
            answer = self._explain(answer, caller)
        if isinstance(answer, Refusal):
            return error_response(answer, incoming.request_id)
        if not isinstance(answer, Existing):
            expires_ns = self._clock.monotonic_ns() + int(asked.expires_in_s * NS_PER_S)
            self._holds[answer.hold] = OutsideHold(
                incoming.principal.id,
                caller.user_id,
                answer.nano_usd,
                expires_ns,
                caller,
                incoming.request_id,
            )
        await self._ledger.durable(answer.seq)
        state = answer.state if isinstance(answer, Existing) else "open"
        return json_response({"hold": answer.hold, "cost": usd(answer.nano_usd), "state": state})

    async def settle(self, incoming: Incoming) -> web.Response:
        """`POST /settle`: what it really cost. Answered once that survives a crash.

        Of a hold that was charged meanwhile, because it expired or the daemon ended, it is what
        its owner knows better."""
        asked = money.read(incoming.body, money.SettleRequest)
        cost = None if is_absent(asked.cost) else money.call_cost(asked.cost)
        held = self._claim(incoming, asked.hold)
        if isinstance(held, Refusal):
            return error_response(held, incoming.request_id)
        if held.charged:
            return await self._corrected(incoming, asked.hold, held, cost)
        if cost is None:
            receipt = self._ledger.post(asked.hold, held.nano_usd, "unknown")
        else:
            receipt = self._ledger.post(asked.hold, cost, "billed")
        del self._holds[asked.hold]
        return await self._resolved(incoming, held, receipt)

    async def release(self, incoming: Incoming) -> web.Response:
        """`POST /release`: nothing was sent, so all of it is given back."""
        asked = money.read(incoming.body, money.ReleaseRequest)
        held = self._claim(incoming, asked.hold)
        if isinstance(held, Refusal):
            return error_response(held, incoming.request_id)
        if held.charged:
            return await self._corrected(incoming, asked.hold, held, 0)
        receipt = self._ledger.release(asked.hold)
        del self._holds[asked.hold]
        return await self._resolved(incoming, held, receipt)

    async def budgets(self, incoming: Incoming) -> web.Response:
        """`GET /budgets?scope=user&id=…`: how budgets stand. Others' are for administrators."""
        query = incoming.http.query
        scope, wanted = query.get("scope"), query.get("id")
        if not incoming.principal.admin:
            scope, wanted = "user", incoming.principal.user_id
        if scope is not None and scope not in get_args(Scope):
            wrong = Refusal(
                code="invalid_request",
                message=f"scope must be one of {', '.join(get_args(Scope))}",
                param="scope",
            )
            return error_response(wrong, incoming.request_id)
        counters = self._ledger.counters(cast("Scope | None", scope), wanted)
        shown = counters[:MAX_ROWS]
        rows = [money.budget_row(counter) for counter in shown]
        return json_response({"budgets": rows, "more": len(counters) - len(shown)})

    async def unknowns(self, incoming: Incoming) -> web.Response:  # noqa: ARG002
        """`GET /unknowns`: what is charged although nobody knows the bill, and open holds."""
        holds = self._ledger.unresolved()
        rows = [money.hold_row(hold) for hold in holds[:MAX_ROWS]]
        return json_response({"holds": rows, "more": max(0, len(holds) - MAX_ROWS)})

    async def resolve(self, incoming: Incoming) -> web.Response:
        """`POST /unknowns/{hold}`: what the provider's bill says of it."""
        asked = money.read(incoming.body, money.ResolveRequest)
        cost = parse_amount(asked.cost, "cost")
        scopes = [(one.scope, one.id, parse_amount(one.cost, "cost")) for one in asked.scopes]
        number = incoming.http.match_info["hold"]
        try:
            before = self._ledger.hold(int(number))
            receipt = self._ledger.adjust(int(number), cost, scopes)
        except (HoldError, ValueError):
            return error_response(_no_hold(number), incoming.request_id)
        return await self._adjusted(incoming, before, receipt, "the provider's bill")

    def left(self, decision: Decision) -> tuple[LimitView, ...]:
        """What is left of the limits that a call was charged to; nothing where nobody knows."""
        limits = decision.limits
        if not limits.rates and not limits.budgets:
            return ()
        try:
            return self._ledger.peek(Demand(menu=(LEAST,), limits=limits)).limits
        except LedgerFaultError:  # the call has ended; the ledger's watch tells of the fault
            return ()

    def headers(self, outcome: Outcome, told: RateHeaders) -> dict[str, str]:
        """The same, as headers."""
        limits = outcome.decision.limits
        if not limits.rates and not limits.hard:
            return {}
        return told(outcome.left, self._clock.wall_ns())

    def expire(self) -> int:
        """Charge holds in full whose time is up; how many there were. Never free money: an
        application that vanished may have made its call."""
        now = self._clock.monotonic_ns()
        late = [number for number, hold in self._holds.items() if hold.expires_ns <= now]
        for number in late:
            held = self._holds[number]
            receipt = self._ledger.post(number, held.nano_usd, "unknown")
            del self._holds[number]
            self._audit.settled(receipt, actor="expiry", user_id=held.user_id)
            self._note(held, receipt)
        return len(late)

    async def _resolved(
        self, incoming: Incoming, held: OutsideHold, receipt: Receipt
    ) -> web.Response:
        """How a hold was resolved, said once that survives a crash."""
        self._audit.settled(
            receipt,
            actor=incoming.principal.id,
            user_id=held.user_id,
            request_id=incoming.request_id,
        )
        self._note(held, receipt)
        await self._ledger.durable(receipt.seq)
        return json_response(money.receipt_row(receipt))

    def _claim(self, incoming: Incoming, number: int) -> OutsideHold | Refusal:
        """The hold, if it is this principal's. It stays on the desk until the ledger took its end:
        what could not be written may be told again, and expires."""
        held = self._holds.get(number) or self._charged(number)
        if held is None or not (
            incoming.principal.admin or incoming.principal.id == held.principal
        ):
            return _no_hold(number)
        return held

    def _charged(self, number: int) -> OutsideHold | None:
        """A hold of `/reserve` that was charged before its owner told how it ended."""
        found = self._ledger.hold(number)
        if found is None or found.state != "unknown" or not found.owner:
            return None
        caller = Caller(user_id=found.user_id)
        return OutsideHold(
            found.owner, found.user_id, found.unknown, 0, caller, found.request_id, charged=True
        )

    def _note(self, held: OutsideHold, receipt: Receipt) -> None:
        """Tell the usage log of a call that its owner made, if it made one."""
        if receipt.posted or receipt.unknown:
            self._notes.note(
                own_call(
                    receipt,
                    held.caller,
                    principal=held.principal,
                    request_id=held.request_id,
                    at_ns=self._clock.wall_ns(),
                )
            )

    async def _corrected(
        self, incoming: Incoming, number: int, held: OutsideHold, cost: int | None
    ) -> web.Response:
        """What the owner of a hold that is charged says of it; `None`: nothing new."""
        if cost is None:
            return json_response(money.receipt_row(_still_unknown(number, held.nano_usd)))
        before = self._ledger.hold(number)
        receipt = self._ledger.adjust(number, cost)
        return await self._adjusted(incoming, before, receipt, "its owner's own account")

    async def _adjusted(
        self, incoming: Incoming, before: HoldStatus | None, receipt: Receipt, reason: str
    ) -> web.Response:
        """What an unknown really cost, said once that survives a crash."""
        if before is not None:
            self._notes.note(correction(before, receipt))
        self._audit.adjusted(receipt, actor=incoming.principal.id, reason=reason)
        await self._ledger.durable(receipt.seq)
        return json_response(money.receipt_row(receipt))

    async def _amount(self, incoming: Incoming, asked: money.ReserveRequest) -> Decision | Refusal:
        """An amount, and the limits of whom it is for."""
        choice = _choice(asked)
        claims = with_body(from_headers(incoming.http.headers), asked)
        decision = await self._stand(incoming.principal, claims)
        if isinstance(decision, Refusal):
            return decision
        cap = decision.profile.max_cost_nano_usd if decision.profile else None
        if cap is not None and choice.nano_usd > cap:
            return Refusal(
                code="max_cost_exceeded",
                message=f"{format_usd(choice.nano_usd)} USD is more than the {format_usd(cap)} USD"
                " that one request of this user may cost (max_cost_per_query).",
                param="cost",
            )
        decision = replace(decision, choices=(choice,))
        return decision if self._heed is None else await self._heed(decision)

    async def _decide(self, request: Request) -> Decision | Refusal:
        walk = Walk(request)
        step = await walk.through(self._deciding)
        return step if isinstance(step, Refusal) else walk.decision

    def _told(self, decision: Decision, preview: Preview) -> dict[str, object]:
        reason = None
        if preview.denial is not None:
            assert decision.caller is not None
            reason = error_object(self._explain(preview.denial, decision.caller))
        plan = (
            decision.menu[preview.choice] if decision.menu and preview.choice is not None else None
        )
        choice = None if preview.choice is None else decision.choices[preview.choice]
        return {
            "allowed": preview.denial is None,
            "reason": reason,
            "models": [rung.model.name for rung in plan.ladder.rungs] if plan else [],
            "max_tokens": plan.max_output_tokens if plan else None,
            "worst_cost": usd(choice.nano_usd) if choice else None,
            "notices": [*decision.notices, *(plan.notices if plan else ())],
            "limits": preview.limits,
        }


MAX_ROWS = 1_000


def _choice(asked: money.ReserveRequest) -> Choice:
    if not 0 <= asked.tokens <= money.MAX_TOKENS:
        raise WireError(f"tokens must be from 0 to {money.MAX_TOKENS}", "tokens")
    if not 0 < asked.expires_in_s <= money.HOLD_TTL_MAX_S:
        raise WireError(f"expires_in_s must be at most {money.HOLD_TTL_MAX_S:g}", "expires_in_s")
    return Choice(nano_usd=money.call_cost(asked.cost), tokens=asked.tokens, cheap=True)


def _idempotency(incoming: Incoming, caller: Caller) -> tuple[bytes, bytes] | Refusal | None:
    """Hashes of the key, which is its principal's own, and of what is asked and for whom: a header
    may say that, too."""
    key = incoming.http.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 0 < len(key) <= IDEMPOTENCY_KEY_MAX or not key.isprintable():
        return Refusal(
            code="invalid_request",
            message=f"Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_MAX} printable characters.",
            param="Idempotency-Key",
        )
    owned = f"{incoming.principal.id}\n{key}".encode()
    return _hash(owned), _hash(f"{caller.user_id}\n".encode() + incoming.body)


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _still_unknown(hold: int, nano_usd: int) -> Receipt:
    return Receipt(
        hold=hold, seq=0, state="unknown", posted=0, unknown=nano_usd, returned=0, overrun=0
    )


def _no_hold(number: object) -> Refusal:
    return Refusal(
        code="not_found",
        message=f"There is no open hold {number} of yours. It may be settled or released already.",
        param="hold",
    )
