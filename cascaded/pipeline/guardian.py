"""Guardrails as a call meets them: its rules, its prompt, its answers."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from cascaded.pipeline.customs import Customs
from cascaded.pipeline.screening import Screening
from cascaded.policy.guardrails.answers import Insults, Rules
from cascaded.policy.guardrails.prompts import Looked, Orders, looked_through, refusal
from cascaded.policy.guardrails.rules import rules_of
from cascaded.ports import Embedder, Offload
from cascaded.types.decision import Decision, Refusal
from cascaded.types.guarding import (
    OFF,
    Finding,
    Guarding,
    GuardrailsConfig,
    Harm,
    Place,
)
from cascaded.types.request import CacheWish, Request
from cascaded.types.vectors import Unavailable, Vector
from cascaded.wire.openai_chat import WireError, messages_of
from cascaded.wire.openai_texts import texts_in
from cascaded.wire.texts import Heard, heard, said_anew

LONG_TEXT_CHARS = 16_384
"""Longer prompts are looked through off the event loop."""

MAX_KNOWN = 1_024
"""Rules that were put together; with one more they are put together anew."""


class Judge(Protocol):
    """How probably a text is harmful."""

    def __call__(self, text: str, vector: Vector | None = None) -> Mapping[Harm, float]:
        """From 0 to 1 for each harm."""
        ...


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
        embedder: Embedder | None,
        customs: Customs,
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
        self._embedder = embedder
        self.customs = customs
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
        asked = None if looked.texts is None else _asked_anew(request, looked)
        findings = looked.findings
        if rules.custom_guardrails and not looked.blocked:
            more = await self._own(request if asked is None else asked, rules)
            if isinstance(more, Refusal):
                return more
            findings = (*findings, *more)
            # They are not asked about an answer that is known already.
            asked = replace(request if asked is None else asked, cache=CacheWish(off=True))
        if any(finding.action == "block" for finding in findings):
            return refusal(findings)
        return replace(
            decision,
            asked=asked,
            guarding=Guarding(rules=rules, restored=looked.restored),
            findings=findings,
        )

    async def _own(
        self, request: Request, rules: GuardrailsConfig
    ) -> tuple[Finding, ...] | Refusal:
        """What the operator's own find in what is sent: in the user's last words, and in what
        tools and documents say."""
        original = request.original
        texts = heard(request.fields if original is None else original.fields)
        said = [one.text for one in texts if one.voice == "user"][-1:]
        told = [one.text for one in texts if one.voice == "tool"]
        found: tuple[Finding, ...] = ()
        pairs: tuple[tuple[list[str], Place], ...] = ((said, "prompt"), (told, "tool"))
        for parts, place in pairs:
            if parts:
                text = "\n".join(parts)
                more = await self.customs.findings(rules.custom_guardrails, text, place)
                if isinstance(more, Refusal):
                    return more
                found = (*found, *more)
        return found

    def screening(self, request: Request, decision: Decision) -> Screening | None:
        """See `ports.Guardrail.screening`."""
        guarding = decision.guarding
        if guarding is None or request.kind == "embedding":
            return None
        rules = Rules(guarding.rules, guarding.restored, self._judge, self._insults)
        return Screening(rules, request.created_s, self.customs)

    async def _looked(self, request: Request, rules: GuardrailsConfig) -> Looked:
        """Of a call in two forms that of the caller counts; the other is said anew with it."""
        told = heard(request.fields)
        first = told if request.original is None else heard(request.original.fields)
        again = () if request.original is None else told

        meant = await self._meanings(first, rules)

        def judge(text: str) -> Mapping[Harm, float]:
            return self._judge(text, meant.get(text))

        def look() -> Looked:
            return looked_through(first, again, rules, self._orders, judge)

        long = sum(len(one.text) for one in first) > LONG_TEXT_CHARS
        return await self._offload(look) if long else look()

    async def _meanings(
        self, texts: Sequence[Heard], rules: GuardrailsConfig
    ) -> Mapping[str, Vector]:
        """What the last of the user's words mean, where somebody knows."""
        said = [one.text for one in texts if one.voice == "user" and one.text.strip()]
        if self._embedder is None or not rules.moderation.enabled or not said:
            return {}
        found = await self._embedder.embed(said[-1:])
        return {} if isinstance(found, Unavailable) else {said[-1]: found[0]}

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
