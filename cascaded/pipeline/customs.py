"""The bracket around the operator's own guardrails: deadlines, defaults, a word on what went wrong.

Whatever one does, a call gets its answer or the default that was stated for it.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from cascaded.ports import CustomGuardrail
from cascaded.types.decision import Refusal
from cascaded.types.guarding import Action, Finding, Place
from cascaded.types.hooks import OnFailure

CODE = "guardrail_unavailable"
ACTIONS = ("warn", "retry", "block")
_CATEGORY = re.compile(r"[a-z0-9_-]{1,32}\Z")
Report = Callable[..., object]
"""Writes a line to the log: level, event and its fields."""


class Customs:
    """Those of one configuration, by name."""

    def __init__(
        self,
        guardrails: Mapping[str, CustomGuardrail],
        *,
        deadline_s: float,
        on_failure: OnFailure,
        report: Report,
    ) -> None:
        self._guardrails = guardrails
        self._deadline_s = deadline_s
        self._on_failure = on_failure
        self._report = report
        self._failing = set[str]()

    async def findings(
        self, names: Sequence[str], text: str, place: Place
    ) -> tuple[Finding, ...] | Refusal:
        """What those of these names have against a text; a refusal where one fails that must
        not."""
        found = []
        for name in names:
            answer = await self._asked(name, text, place)
            if isinstance(answer, Refusal):
                return answer
            if answer is not None:
                found.append(answer)
        return tuple(found)

    async def close(self) -> None:
        """Close them all."""
        for guardrail in self._guardrails.values():
            await guardrail.close()

    async def _asked(self, name: str, text: str, place: Place) -> Finding | Refusal | None:
        guardrail = self._guardrails.get(name)
        if guardrail is None:
            return self._failed(name, "no such plug-in is configured")
        try:
            async with asyncio.timeout(self._deadline_s):
                said = await guardrail.check(text, place)
            finding = _read(name, said, place)
        except TimeoutError:
            return self._failed(name, "no answer within its deadline")
        except Exception as fault:  # not its words: they may quote the text
            return self._failed(name, type(fault).__name__)
        if name in self._failing:
            self._failing.discard(name)
            self._report("info", "guardrail_recovered", guardrail=name)
        return finding

    def _failed(self, name: str, why: str) -> Refusal | None:
        if name not in self._failing:
            self._failing.add(name)
            self._report("warning", "guardrail_failed", guardrail=name, why=why)
        if self._on_failure == "allow":
            return None
        return Refusal(
            code=CODE, message="A guardrail of this service does not answer. Call again later."
        )


def _read(name: str, said: object, place: Place) -> Finding | None:
    """Its answer. Raises `ValueError` for what is none."""
    if said is None:
        return None
    if not isinstance(said, Mapping) or said.get("action") not in ACTIONS:
        raise ValueError("not an answer")
    category = said.get("category", "custom")
    if not isinstance(category, str) or not _CATEGORY.match(category):
        raise ValueError("not a category")
    action = cast("Action", said["action"])
    return Finding(
        name, category, place, action if place == "answer" or action == "warn" else "block"
    )
