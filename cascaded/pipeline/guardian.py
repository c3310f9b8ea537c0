"""Guardrails as a call meets them: its rules, its prompt, its answers."""

from collections.abc import Mapping

from msgspec.structs import replace

from cascaded.pipeline.screening import Screening
from cascaded.policy.guardrails.answers import Insults, Judge, Rules
from cascaded.policy.guardrails.prompts import Looked, Names, Orders, looked_through, refusal
from cascaded.policy.guardrails.rules import rules_of
from cascaded.ports import Offload
from cascaded.types.decision import Decision, Refusal
from cascaded.types.guarding import OFF, Guarding, GuardrailsConfig
from cascaded.types.request import Request
from cascaded.wire.openai_chat import WireError, messages_of
from cascaded.wire.openai_texts import texts_in
from cascaded.wire.texts import heard, said_anew

LONG_TEXT_CHARS = 16_384
"""Longer prompts are looked through off the event loop."""

MAX_KNOWN = 1_024
"""Rules that were put together; with one more they are put together anew."""


class Guardian:
    """See `ports.Guardrail`, under one configuration."""

    def __init__(
        self,
        base: GuardrailsConfig,
        tiers: Mapping[str, GuardrailsConfig],
        *,
        may_loosen: bool,
        orders: Orders,
        judge: Judge,
        insults: Insults,
        names: Names,
        offload: Offload,
    ) -> None:
        """`tiers`: what is added for each. `may_loosen`: whether what is stored of users and
        workspaces may take away from that."""
        self._base = base
        self._tiers = tiers
        self._may_loosen = may_loosen
        self._orders = orders
        self._judge = judge
        self._insults = insults
        self._names = names
        self._offload = offload
        self._known: dict[tuple[object, ...], GuardrailsConfig] = {}

    async def inspect(self, request: Request, decision: Decision) -> Decision | Refusal:
        """See `ports.Guardrail.inspect`."""
        rules = self._rules(decision)
        if not rules.enabled:
            return decision
        try:
            looked = await self._looked(request, rules)
        except WireError as error:
            return Refusal(code="invalid_request", message=str(error), param=error.param)
        if looked.blocked:
            return refusal(looked.findings)
        return replace(
            decision,
            asked=None if looked.texts is None else _asked_anew(request, looked),
            guarding=Guarding(rules=rules, restored=looked.restored),
            findings=looked.findings,
        )

    def screening(self, request: Request, decision: Decision) -> Screening | None:
        """See `ports.Guardrail.screening`."""
        guarding = decision.guarding
        if guarding is None or request.kind == "embedding":
            return None
        rules = Rules(guarding.rules, guarding.restored, self._judge, self._insults)
        return Screening(rules, request.created_s)

    async def _looked(self, request: Request, rules: GuardrailsConfig) -> Looked:
        """Of a call in two forms that of the caller counts; the other is said anew with it."""
        told = heard(request.fields)
        first = told if request.original is None else heard(request.original.fields)
        again = () if request.original is None else told

        def look() -> Looked:
            return looked_through(first, again, rules, self._orders, self._judge, self._names)

        long = sum(len(one.text) for one in first) > LONG_TEXT_CHARS
        return await self._offload(look) if long else look()

    def _rules(self, decision: Decision) -> GuardrailsConfig:
        """Those that hold for this caller, put together once."""
        tier, profile = decision.tier, decision.profile
        if tier is not None and not tier.guardrails:
            return OFF
        workspace = profile.workspace if profile else None
        added = (
            self._tiers.get(tier.name) if tier else None,
            workspace.workspace_guardrails if workspace else None,
            profile.guardrails if profile else None,
        )
        if not any(added):
            return self._base
        known = self._known.get(added)
        if known is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            base = rules_of(self._base, added[:1], may_loosen=False)
            known = rules_of(base, added[1:], may_loosen=self._may_loosen)
            self._known[added] = known
        return known


def _asked_anew(request: Request, looked: Looked) -> Request:
    """The call with other texts, in every form that it may go upstream in."""
    assert looked.texts is not None
    texts = iter(looked.texts)
    original = request.original
    if original is not None:
        original = replace(original, fields=said_anew(original.fields, texts))
    fields = said_anew(request.fields, texts)
    return replace(
        request,
        fields=fields,
        original=original,
        messages=messages_of(fields) if request.messages else (),
        texts=texts_in(fields) if request.texts else (),
    )
