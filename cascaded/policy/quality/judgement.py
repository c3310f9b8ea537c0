"""One probability that an answer is good, out of everything that is known of it.

A logistic regression over the signals (each as it is, and in which part of its range it lies), the
words of question and answer (hashed into a table), and evidence from elsewhere: log-probabilities,
how far other samples agree, how near the answer is to the question, whose answer it is. A sum of
terms can be taken apart: `Chance.parts` says what each group of terms adds.

`scripts/fit_quality.py` makes the one that travels with the package, `cascaded quality calibrate`
one of the operator's own traffic; `fitting` has the arithmetic of both.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from math import exp, log, sqrt
from typing import Annotated, Final, NamedTuple
from zlib import crc32

import msgspec

from cascaded.policy.quality.reading import Reading
from cascaded.policy.quality.signals import NAMES, signals

WORD_SLOTS: Final = 4_096
"""For the question's words, and as many for the answer's. Words that share a slot share a
weight."""
TAG_SLOTS: Final = 256
"""The same for who answered, and the domain."""
WORD_SCALE: Final = 4.0
BIN_SCALE: Final = 0.5
"""How readily words and parts of a range take a weight, against the signals themselves."""
CONSTANT: Final = 4.0
"""The constant term is this large, so that hardly anything holds its weight back."""
DEVIATIONS_MAX: Final = 4.0
"""A signal further out than that counts as if it were there."""
LOGIT_MAX: Final = 30.0

EVIDENCE: Final = ("certainty", "certainty_least", "spread", "agreement", "similarity", "judge")
LOGPROB_USUAL, LEAST_USUAL, ENTROPY_USUAL = 0.4, 2.0, 0.5
"""About where a small model is as often right as wrong."""
GROUPS: Final = {"q": "question", "a": "answer", "e": "sums", "f": "final_answer", "o": "options"}


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an answer besides its text. `None` is not known, and adds nothing."""

    mean_logprob: float | None = None
    """Of the answer's tokens, natural logarithm."""
    least_logprob: float | None = None
    entropy: float | None = None
    """Mean over the tokens, in nats, of the alternatives that the provider told."""
    agreement: float | None = None
    """The share of other samples that say the same, 0 to 1."""
    similarity: float | None = None
    """Between question and answer, 0 to 1."""
    judge: float | None = None
    """How probably it is right, as another model says."""
    model: str = ""
    domain: str = ""

    @property
    def centred(self) -> tuple[float, ...]:
        """In the order of `EVIDENCE`, each centred on what says nothing either way: 0 stands for
        what is not known."""
        certain, least, spread = self.mean_logprob, self.least_logprob, self.entropy
        return (
            0.0 if certain is None else _bounded(certain + LOGPROB_USUAL),
            0.0 if least is None else _bounded((least + LEAST_USUAL) / 2),
            0.0 if spread is None else _bounded(ENTROPY_USUAL - spread),
            *(0.0 if share is None else share - 0.5 for share in (self.agreement, self.similarity)),
            0.0 if self.judge is None else self.judge - 0.5,
        )


NO_EVIDENCE: Final = Evidence()

Vector = tuple[Sequence[int], Sequence[float]]
"""Ascending or not: the places that are not zero, and what stands there."""


class Traits(msgspec.Struct, frozen=True):
    """An answer as numbers, before any fitted scale."""

    signals: tuple[float, ...]
    asked: tuple[int, ...]
    """Slots of the question's words, each once."""
    said: tuple[int, ...]
    """Slots of the answer's."""
    evidence: tuple[float, ...]
    """In the order of `EVIDENCE`; 0 where it is not known."""
    tags: tuple[int, ...] = ()


def traits(reading: Reading, rules: float, evidence: Evidence = NO_EVIDENCE) -> Traits:
    """The numbers of one answer. `rules`: what the rules make of it."""
    return Traits(
        signals(reading, rules),
        _slots(reading.question_words),
        _slots(reading.words),
        evidence.centred,
        tuple(_tags(evidence)),
    )


def _slots(words: Sequence[str]) -> tuple[int, ...]:
    return tuple(sorted({_slot(word, WORD_SLOTS) for word in set(words)}))


def _slot(word: str, slots: int) -> int:
    return crc32(word.encode("utf-8", "replace")) % slots


def _bounded(value: float) -> float:
    return min(max(value, -2.0), 2.0) if value == value else -2.0


def _tags(known: Evidence) -> list[int]:
    named = (("model", known.model), ("domain", known.domain))
    return [_slot(f"{kind}:{name}", TAG_SLOTS) for kind, name in named if name]


class Scales(msgspec.Struct, frozen=True, kw_only=True):
    """How signals become terms: fitted once, kept by calibrations, so that weights stay
    comparable."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    edges: tuple[tuple[float, ...], ...]
    """Where each signal's range is cut, ascending."""

    @property
    def size(self) -> int:
        """How many weights there are: a constant, then signals, parts of their ranges, evidence,
        words, tags."""
        return self.words + 2 * WORD_SLOTS + TAG_SLOTS

    @property
    def evidence(self) -> int:
        """Where the weights of the evidence begin."""
        return 1 + len(self.mean) + sum(len(cuts) + 1 for cuts in self.edges)

    @property
    def words(self) -> int:
        """Where those of the words begin."""
        return self.evidence + len(EVIDENCE)

    def vector(self, of: Traits) -> Vector:
        """The terms of one answer; place 0 is the constant."""
        places, values = [0], [CONSTANT]
        part = 1 + len(self.mean)
        rows = zip(of.signals, self.mean, self.deviation, self.edges, strict=True)
        for number, (signal, mean, deviation, cuts) in enumerate(rows):
            far = (signal - mean) / deviation
            places += (1 + number, part + bisect_right(cuts, signal))
            values += (min(max(far, -DEVIATIONS_MAX), DEVIATIONS_MAX), BIN_SCALE)
            part += len(cuts) + 1
        for place, known in enumerate(of.evidence, part):
            if known:
                places.append(place)
                values.append(known)
        start = part + len(EVIDENCE)
        for slots in (of.asked, of.said):
            places += [start + slot for slot in slots]
            values += [WORD_SCALE / sqrt(len(slots))] * len(slots) if slots else []
            start += WORD_SLOTS
        places += [start + slot for slot in of.tags]
        values += [1.0] * len(of.tags)
        return places, values


class Chance(NamedTuple):
    """How probably an answer is good, and why."""

    probability: float
    parts: Mapping[str, float]
    """What each group of terms adds to the logarithm of the odds."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Fitted weights, and where they come from."""

    version: int = 1
    signals: tuple[str, ...] = NAMES
    source: str = ""
    """What it was fitted on, in words."""
    rows: int = 0
    good_share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    """Of those rows."""
    scales: Scales
    weights: tuple[float, ...]
    slope: float = 1.0
    offset: float = 0.0
    """The logit of "good" is offset + slope x the sum of the terms."""

    def __post_init__(self) -> None:
        if self.version != 1 or self.signals != NAMES:
            raise ValueError("made for other signals than these; calibrate again")
        counted = {len(self.scales.mean), len(self.scales.deviation), len(self.scales.edges)}
        if counted != {len(NAMES)} or len(self.weights) != self.scales.size:
            raise ValueError("its weights are not as many as its signals need")
        if not all(deviation > 0 for deviation in self.scales.deviation):
            raise ValueError("a deviation is not above zero")

    def chance(self, of: Traits) -> Chance:
        """The probability that such an answer is good."""
        places, values = self.scales.vector(of)
        parts = self._parts(places, values)
        logit = self.offset + self.slope * sum(parts.values())
        return Chance(squashed(logit), {name: round(part, 3) for name, part in parts.items()})

    def _parts(self, places: Sequence[int], values: Sequence[float]) -> dict[str, float]:
        groups = _groups(self.scales)
        parts: dict[str, float] = {}
        for place, value in zip(places, values, strict=True):
            group = groups[place] if place < len(groups) else "words"
            parts[group] = parts.get(group, 0.0) + self.weights[place] * value
        return parts


def read_judgement(content: bytes) -> Judgement:
    """Out of a file. Raises `msgspec.MsgspecError` or `ValueError`."""
    return msgspec.json.decode(content, type=Judgement)


def usually(judgement: Judgement, good_share: float) -> Judgement:
    """As it would be among answers of which this share is good (Bayes)."""
    shift = odds(good_share) - odds(judgement.good_share)
    return msgspec.structs.replace(
        judgement, offset=judgement.offset + shift, good_share=good_share
    )


def odds(share: float) -> float:
    """The logarithm of the odds."""
    return log(share / (1 - share))


def _groups(scales: Scales) -> list[str]:
    """The group of each place up to the words."""
    named = [GROUPS[name[0]] for name in NAMES]
    parted = [
        group for group, cuts in zip(named, scales.edges, strict=True) for _ in range(len(cuts) + 1)
    ]
    return ["base", *named, *parted, *EVIDENCE]


def squashed(logit: float) -> float:
    """The probability of a logit."""
    return 1 / (1 + exp(-min(max(logit, -LOGIT_MAX), LOGIT_MAX)))
