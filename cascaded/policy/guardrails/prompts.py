"""What a prompt may say: personal data put aside, orders and harm found."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cascaded.policy.guardrails.answers import Judge
from cascaded.policy.guardrails.pii import Seeker, StandIns
from cascaded.types.decision import Refusal
from cascaded.types.guarding import Action, Finding, GuardrailsConfig, Pii, Place
from cascaded.wire.texts import Heard

Orders = Callable[[str, bool], float]
"""How probably a text gives orders that its place has not to give; the second: it is what a tool or
a document says."""

CODE = "prompt_blocked"


class Looked(NamedTuple):
    """What was found in a prompt, and what it becomes."""

    texts: list[str] | None
    """In place of its own and of those told again; `None`: as they were."""
    restored: Mapping[str, str]
    findings: tuple[Finding, ...]

    @property
    def blocked(self) -> bool:
        """Whether it may not be sent."""
        return any(finding.action == "block" for finding in self.findings)


def looked_through(
    heard: Sequence[Heard],
    again: Sequence[Heard],
    config: GuardrailsConfig,
    orders: Orders,
    judge: Judge,
) -> Looked:
    """All texts of a call under these rules; those that say the same in another form are told
    `again`. Slow for long ones, and not for the event loop then."""
    findings: list[Finding] = []
    if config.prompt_injection.enabled:
        findings += _orders(heard, config, orders)
    if config.moderation.enabled:
        findings += _harm(heard, config, judge)
    texts, restored = None, dict[str, str]()
    if config.pii.enabled:
        texts, restored, found = _personal(heard, again, config.pii)
        findings += found
    return Looked(texts, restored, tuple(findings))


def refusal(findings: Sequence[Finding]) -> Refusal:
    """The no to a prompt, in words that quote nothing of it."""
    blocked = [finding for finding in findings if finding.action == "block"]
    what = ", ".join(dict.fromkeys(WORDS.get(one.guardrail, one.guardrail) for one in blocked))
    kinds = ", ".join(dict.fromkeys(finding.category for finding in blocked))
    where = "what a tool or a document says" if blocked[0].place == "tool" else "the prompt"
    return Refusal(
        code=CODE,
        message=f"A guardrail found {what} ({kinds}) in {where}, so nothing was sent to a model."
        " Take it out; the same prompt will be refused again.",
        findings=tuple(findings),
    )


WORDS = {
    "pii": "personal data",
    "prompt_injection": "a prompt injection",
    "moderation": "harmful content",
    "toxicity": "toxic words",
}


def _orders(heard: Sequence[Heard], config: GuardrailsConfig, orders: Orders) -> list[Finding]:
    rules = config.prompt_injection
    findings = []
    for place, voice, threshold in (
        ("prompt", "user", rules.threshold),
        ("tool", "tool", rules.tool_threshold),
    ):
        chances = [orders(one.text, voice == "tool") for one in heard if one.voice == voice]
        fired = [chance for chance in chances if chance >= threshold]
        if fired:
            findings.append(
                _finding("prompt_injection", voice, place, rules.action, len(fired), max(fired))
            )
    return findings


def _harm(heard: Sequence[Heard], config: GuardrailsConfig, judge: Judge) -> list[Finding]:
    """In the last words of the user: those before them were judged in their turn."""
    rules = config.moderation
    last = next((one.text for one in reversed(heard) if one.voice == "user"), "")
    if not last.strip():
        return []
    return [
        _finding("moderation", harm, "prompt", rules.action, 1, chance)
        for harm, chance in judge(last).items()
        if harm in rules.categories and chance >= rules.threshold
    ]


def _finding(
    guardrail: str, category: str, place: str, action: Action, count: int, score: float
) -> Finding:
    """Of what no placeholder can stand for, and nobody can be asked for again."""
    done: Action = "warn" if action == "warn" else "block"
    where: Place = "tool" if place == "tool" else "prompt"
    return Finding(guardrail, category, where, done, count, round(score, 4))


def _personal(
    heard: Sequence[Heard], again: Sequence[Heard], rules: Pii
) -> tuple[list[str] | None, dict[str, str], list[Finding]]:
    """The texts with placeholders, what they stand for, and what was found."""
    seeker = Seeker(rules.types)
    found = [(one, seeker.find(one.text)) for one in heard]
    action: Action = "redact" if rules.action == "retry" else rules.action
    counts = Counter((place.kind, _place(one)) for one, places in found for place in places)
    findings = [
        Finding("pii", kind, place, action, count) for (kind, place), count in counts.items()
    ]
    if action != "redact" or not counts:
        return None, {}, findings
    found += [(one, seeker.find(one.text)) for one in again]
    stand_ins = StandIns(one.text for one, _ in found)
    texts = [stand_ins.redacted(one.text, places) for one, places in found]
    return texts, dict(stand_ins.values) if rules.restore else {}, findings


def _place(one: Heard) -> Place:
    return "tool" if one.voice == "tool" else "prompt"
