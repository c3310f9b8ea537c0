"""What would have cost less: worked out from what calls really cost. Pure.

Each piece of advice has the money that it is about, as a month's worth of what was seen; and none
is given where too few calls were seen or it is about too little.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from cascaded.types.insight import Recommendation
from cascaded.types.records import UsageRecord, features

MONTH_DAYS = 30
LEAST_REQUESTS = 20
"""That something is concluded from."""
LEAST_SHARE = 0.01
"""Of all spend, that advice is about."""
REJECTED = 0.3
"""A draft that is kept less often costs more than it saves, as a rule."""
KEPT = 0.6
"""A ladder that keeps drafts so often is worth to be asked instead of its strongest model."""
LONG_SHARE = 0.05
"""Of the answers, the longest: a bound is set above all others."""
MAX_LENGTHS = 100_000
"""Of answers that are kept in memory for each model."""
MAX_PLACES = 10_000
"""Models, features and ladders told apart."""
MOST = 50


class _Ladder(msgspec.Struct):
    """What calls of one feature did on one ladder."""

    requests: int = 0
    kept: int = 0
    cost: int = 0
    saved: int = 0
    rejected_cost: int = 0
    draft: str = ""


class _Direct(msgspec.Struct):
    """What calls of one feature cost that asked for one model by its name."""

    requests: int = 0
    cost: int = 0


class _Cache(msgspec.Struct):
    """How one feature fared with the cache."""

    hits: int = 0
    misses: int = 0
    unasked: int = 0
    unasked_cost: int = 0


Place = tuple[str | None, str]
"""A feature, and a model or a ladder."""


class Adviser:
    """Gathers what advice is given from, one record after another."""

    def __init__(self) -> None:
        self._ladders: dict[Place, _Ladder] = {}
        self._direct: dict[Place, _Direct] = {}
        self._caches: dict[str | None, _Cache] = {}
        self._answers: dict[str, list[tuple[int, int]]] = {}
        self._strongest: dict[str, set[str]] = {}
        self._refused = 0
        self._cost = 0

    def add(self, record: UsageRecord) -> None:
        """One more call."""
        self._cost += record.cost_nano_usd
        if record.status == "budget_exceeded":
            self._refused += 1
        if record.status != "ok" or record.kind != "chat":
            return
        for feature in (None, *features(record)):
            self._count(feature, record)
        for attempt in record.attempts:
            answers = self._answers.setdefault(attempt.model, [])
            if attempt.output_tokens and len(answers) < MAX_LENGTHS:
                tokens = attempt.input_tokens + attempt.output_tokens
                answers.append((attempt.output_tokens, attempt.cost_nano_usd // max(tokens, 1)))

    def _count(self, feature: str | None, record: UsageRecord) -> None:
        if max(len(self._ladders), len(self._direct), len(self._caches)) >= MAX_PLACES:
            return
        tried = record.attempts
        cache = self._caches.setdefault(feature, _Cache())
        cache.hits += record.cache_state == "hit"
        cache.misses += record.cache_state == "miss"
        if record.cache_state == "off":
            cache.unasked += 1
            cache.unasked_cost += record.cost_nano_usd
        if not tried:
            return
        if record.ladder is None or record.ladder == tried[0].model:  # asked for by its name
            direct = self._direct.setdefault((feature, tried[0].model), _Direct())
            direct.requests += 1
            direct.cost += record.cost_nano_usd
            return
        self._climbed(self._ladders.setdefault((feature, record.ladder), _Ladder()), record)
        if record.model_used and max(one.rung for one in tried) > 0:
            self._strongest.setdefault(record.model_used, set()).add(record.ladder)

    def _climbed(self, ladder: _Ladder, record: UsageRecord) -> None:
        draft = record.attempts[0]
        ladder.requests += 1
        ladder.kept += draft.accepted
        ladder.cost += record.cost_nano_usd
        ladder.saved += record.saved_nano_usd
        ladder.draft = draft.model
        if not draft.accepted:
            ladder.rejected_cost += draft.cost_nano_usd

    def advice(self, days: int, over_limit: int) -> list[Recommendation]:
        """What these days say, the most money first. `over_limit`: by how much the prediction for
        the period is above its budget."""
        least = self._cost * LEAST_SHARE
        found = [
            msgspec.structs.replace(one, at_stake=one.at_stake * MONTH_DAYS // days)
            for one in (*self._models(), *self._drafts(), *self._cacheable(), *self._lengths())
            if one.at_stake > least
        ]
        if over_limit > 0:
            found.append(
                Recommendation(kind="upgrade_tier", at_stake=over_limit, requests=self._refused)
            )
        found.sort(key=lambda one: -one.at_stake)
        return found[:MOST]

    def _models(self) -> Iterator[Recommendation]:
        """A ladder in place of its strongest model, where the ladder keeps cheap answers of the
        same feature; or of all, where that feature has not been on it."""
        for (feature, model), direct in self._direct.items():
            if direct.requests < LEAST_REQUESTS:
                continue
            for name in self._strongest.get(model, ()):
                ladder = self._ladders.get((feature, name))
                if ladder is None or ladder.requests < LEAST_REQUESTS:
                    continue
                kept, full = ladder.kept / ladder.requests, ladder.cost + ladder.saved
                if kept >= KEPT and ladder.saved > 0 and full > 0:
                    yield Recommendation(
                        kind="cheaper_model",
                        at_stake=direct.cost * ladder.saved // full,
                        model=model,
                        instead=name,
                        feature=feature,
                        requests=direct.requests,
                        share=kept,
                    )

    def _drafts(self) -> Iterator[Recommendation]:
        """No draft where it is mostly thrown away."""
        for (feature, name), ladder in self._ladders.items():
            if ladder.requests < LEAST_REQUESTS:
                continue
            kept = ladder.kept / ladder.requests
            if kept < REJECTED and ladder.saved < 0:
                yield Recommendation(
                    kind="skip_draft",
                    at_stake=-ladder.saved,
                    model=ladder.draft,
                    instead=name,
                    feature=feature,
                    requests=ladder.requests,
                    share=kept,
                )

    def _cacheable(self) -> Iterator[Recommendation]:
        """The cache, for calls that do not ask it, of a feature whose others find answers there."""
        for feature, cache in self._caches.items():
            asked = cache.hits + cache.misses
            if min(asked, cache.unasked) >= LEAST_REQUESTS and cache.hits:
                yield Recommendation(
                    kind="cache",
                    at_stake=cache.unasked_cost * cache.hits // asked,
                    feature=feature,
                    requests=cache.unasked,
                    share=cache.hits / asked,
                )

    def _lengths(self) -> Iterator[Recommendation]:
        """A bound on answers, above all but the longest of a model."""
        for model, answers in self._answers.items():
            if len(answers) < LEAST_REQUESTS / LONG_SHARE:
                continue
            lengths = sorted(length for length, _ in answers)
            bound = lengths[int((1 - LONG_SHARE) * (len(lengths) - 1))]
            beyond = _beyond(answers, bound)
            yield Recommendation(
                kind="max_tokens",
                at_stake=beyond,
                model=model,
                requests=len(answers),
                max_tokens=bound,
                share=LONG_SHARE,
            )


def _beyond(answers: Iterable[tuple[int, int]], bound: int) -> int:
    """What tokens beyond a bound cost, at the mean price of a token of their call: output is
    dearer than that, so that it is at least so much."""
    return sum((length - bound) * price for length, price in answers if length > bound)


def without_repeats(advice: Sequence[Recommendation]) -> list[Recommendation]:
    """Of all features together only what none of them says for itself."""
    special = {(one.kind, one.model, one.instead) for one in advice if one.feature is not None}
    return [
        one
        for one in advice
        if one.feature is not None or (one.kind, one.model, one.instead) not in special
    ]
