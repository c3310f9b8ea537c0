"""What an answer may say, piece by piece, whole or as it streams.

Of a stream only that leaves of which no later word can make something else: the end of what was
said so far waits while it may be the beginning of a match or of a placeholder. Words that are
judged as harmful or not wait until there are enough of them.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

import msgspec

from cascaded._core import tail_start
from cascaded.policy.guardrails.pii import BEGUN, PLACEHOLDER, Found, Seeker, anonymous
from cascaded.types.guarding import Action, Finding, GuardrailsConfig, Harm

CONTEXT_CHARS = 64
"""Of what has left: the words before a number tell what it is."""
JUDGED_CHARS = 240
"""Words wait for so many before they are judged; the delay of a moderated stream."""
WINDOW_CHARS = 800
"""How far back a judgement looks."""

Judge = Callable[[str], Mapping[Harm, float]]
"""Probabilities of harm in a text."""
Insults = Callable[[str], float]


class Rules(msgspec.Struct, frozen=True):
    """What one call's answer is looked through for."""

    config: GuardrailsConfig
    restored: Mapping[str, str]
    """The caller's values, by their placeholders."""
    judge: Judge
    insults: Insults


class Screen:
    """One answer's words, on their way out. After each step `objection` tells whether they may."""

    def __init__(self, rules: Rules, *, live: bool) -> None:
        """`live`: what is let through is gone, so that it cannot be asked for again."""
        config = rules.config
        self._rules = rules
        self._pii = config.pii if config.pii.enabled else None
        self._seeker = Seeker(config.pii.types) if self._pii else None
        self._live = live
        self._channels: dict[Hashable, _Channel] = {}
        self._counts: Counter[tuple[str, str, Action]] = Counter()
        self._scores: dict[tuple[str, str, Action], float] = {}
        self.objection: Action | None = None
        """`block` or `retry`, once there is one."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What fired so far."""
        return tuple(
            Finding(guardrail, category, "answer", action, count, self._scores.get(key))
            for key, count in self._counts.items()
            for guardrail, category, action in [key]
        )

    def feed(self, channel: Hashable, text: str, *, thought: bool, arguments: bool) -> str:
        """What may leave, now that this was said as well."""
        state = self._channels.get(channel)
        if state is None:
            restored = {} if thought else self._rules.restored
            state = self._channels[channel] = _Channel(restored, arguments=arguments)
        state.waiting += text
        return self._released(state, _held_from(state))

    def finish(self, channel: Hashable) -> str:
        """What was still waiting."""
        state = self._channels.pop(channel, None)
        return "" if state is None else self._released(state, len(state.waiting), last=True)

    @property
    def open_channels(self) -> tuple[Hashable, ...]:
        """Those that may have something waiting."""
        return tuple(self._channels)

    def _released(self, state: "_Channel", upto: int, *, last: bool = False) -> str:
        if self._judges and not state.arguments:
            upto = self._judged(state, upto, last=last)
        if not upto or self.objection:
            return ""
        found = self._found(state, upto)
        if self.objection:
            return ""
        return state.leave(upto, found if self._redacts else ())

    @property
    def _redacts(self) -> bool:
        return self._pii is not None and self._pii.action == "redact"

    def _found(self, state: "_Channel", upto: int) -> list[Found]:
        """Personal data in what is about to leave."""
        if self._seeker is None or self._pii is None:
            return []
        known = len(state.context)
        found = [
            Found(start - known, end - known, kind)
            for start, end, kind in self._seeker.find(state.context + state.waiting[:upto])
            if start >= known
        ]
        for one in found:
            self._fired("pii", one.kind, self._pii.action)
        return found

    @property
    def _judges(self) -> bool:
        config = self._rules.config
        return config.moderation.enabled or config.toxicity.enabled

    def _judged(self, state: "_Channel", upto: int, *, last: bool) -> int:
        """How far words may leave that have been judged."""
        if upto - state.judged < JUDGED_CHARS and not last:
            return state.judged
        words = (state.past + state.waiting[:upto])[-WINDOW_CHARS:]
        if upto > state.judged and not words.isspace():
            self._weigh(words)
        state.judged = upto
        return upto

    def _weigh(self, words: str) -> None:
        moderation, toxicity = self._rules.config.moderation, self._rules.config.toxicity
        if moderation.enabled:
            for harm, chance in self._rules.judge(words).items():
                if harm in moderation.categories and chance >= moderation.threshold:
                    self._fired("moderation", harm, moderation.action, chance)
        if toxicity.enabled:
            chance = self._rules.insults(words)
            if chance >= toxicity.threshold:
                self._fired("toxicity", "toxicity", toxicity.action, chance)

    def _fired(self, guardrail: str, category: str, action: Action, score: float = 0.0) -> None:
        done = self._done(guardrail, action)
        key = (guardrail, category, done)
        self._counts[key] += 1
        if score:
            self._scores[key] = round(max(score, self._scores.get(key, 0.0)), 4)
        if done in ("block", "retry") and self.objection != "block":
            self.objection = done

    def _done(self, guardrail: str, action: Action) -> Action:
        """What can be done: harm has no placeholder, and what has left is not asked for again."""
        if action == "redact" and guardrail != "pii":
            return "block"
        return "block" if action == "retry" and self._live else action


class _Channel:
    """One text under way."""

    def __init__(self, restored: Mapping[str, str], *, arguments: bool) -> None:
        self.waiting = ""
        self.context = ""
        """The last of what has left, as it was said."""
        self.past = ""
        """The same, as far back as is judged."""
        self.judged = 0
        """Of what waits."""
        self.arguments = arguments
        self._restored = restored
        self._in_string = False

    def leave(self, upto: int, found: Sequence[Found]) -> str:
        """Let so much go, without what was found and with the caller's own values."""
        text, self.waiting = self.waiting[:upto], self.waiting[upto:]
        self.judged = max(0, self.judged - upto)
        self.context = (self.context + text)[-CONTEXT_CHARS:]
        self.past = (self.past + text)[-WINDOW_CHARS:]
        pieces, at = [], 0
        for start, end, kind in found:
            pieces += [self._as_said(text[at:start]), self._stands_for(kind)]
            at = end
        return "".join([*pieces, self._as_said(text[at:])])

    def _as_said(self, text: str) -> str:
        """With the caller's values; and the place in the JSON remembered."""
        if self.arguments:
            plain = text.replace("\\\\", "").replace('\\"', "")
            self._in_string ^= plain.count('"') % 2 == 1
        if not self._restored or "[" not in text:
            return text
        return PLACEHOLDER.sub(lambda match: self._value(match[0]), text)

    def _value(self, placeholder: str) -> str:
        value = self._restored.get(placeholder, placeholder)
        return in_json(value) if self.arguments else value

    def _stands_for(self, kind: str) -> str:
        """A number of JSON becomes a text."""
        bare = self.arguments and not self._in_string
        return f'"{anonymous(kind)}"' if bare else anonymous(kind)


def in_json(value: str) -> str:
    """A text as it stands within the quotes of JSON."""
    return msgspec.json.encode(value).decode()[1:-1]


def _held_from(state: _Channel) -> int:
    """From where on what waits cannot leave yet."""
    known = len(state.context)
    start = max(0, tail_start(state.context + state.waiting) - known)
    begun = BEGUN.search(state.waiting)
    return start if begun is None else min(start, begun.start())
