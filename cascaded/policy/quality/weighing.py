"""A verdict out of rules, one probability, and what was asked of other models."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from cascaded.policy.quality.judgement import Evidence, Judgement, traits
from cascaded.policy.quality.scale import FATAL, SERIOUS, found
from cascaded.policy.quality.verdict import read_answer
from cascaded.types.quality import QualityConfig
from cascaded.types.request import Asks
from cascaded.types.result import Check, Completion, Verdict

AGREEMENT_MIN: Final = 0.5
"""When fewer samples say the same, they disagree."""
DIGITS: Final = 4


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about an answer. `None` was not asked, or could not be."""

    similarity: float | None = None
    toxicity: float | None = None
    agreement: float | None = None
    judge: float | None = None
    unseen: tuple[str, ...] = ()


NOTHING: Final = Known()


class Weighing:
    """One answer, weighed again whenever more is known. The text is read once."""

    def __init__(
        self,
        config: QualityConfig,
        judgement: Judgement | None,
        question: str,
        answer: Completion,
        asks: Asks,
        *,
        model: str = "",
        domain: str = "",
    ) -> None:
        self._config = config
        self._judgement = judgement
        self._answer = answer
        self.reading, self.flawless, self._checks = read_answer(question, answer, asks)
        self._traits = traits(self.reading, self.flawless, Evidence(model=model, domain=domain))

    def verdict(self, known: Known = NOTHING) -> Verdict:
        """What is to be said of it so far. `score` is what the rules leave of the probability;
        without `combined`, what they leave of 1."""
        more = tuple(self._found(known))
        flawless = self.flawless
        for check in more:
            flawless *= check.score
        chance, parts = self._chance(known)
        return Verdict(
            score=round(flawless * chance, DIGITS),
            confidence=round(chance, DIGITS),
            checks=(*self._checks, *more),
            similarity=known.similarity,
            toxicity=known.toxicity,
            agreement=known.agreement,
            parts=parts,
            unseen=known.unseen,
        )

    def _chance(self, known: Known) -> tuple[float, Mapping[str, float]]:
        if self._judgement is None:
            return 1.0, {}
        evidence = Evidence(
            mean_logprob=self._answer.mean_logprob,
            least_logprob=self._answer.least_logprob,
            entropy=self._answer.entropy,
            agreement=known.agreement,
            similarity=known.similarity,
            judge=known.judge,
        )
        return self._judgement.chance(replace(self._traits, evidence=evidence.centred))

    def _found(self, known: Known) -> list[Check]:
        config, said = self._config, []
        similarity, toxicity, agreement = known.similarity, known.toxicity, known.agreement
        if _under(similarity, config.similarity_min):
            said.append(found("similarity", SERIOUS, "far from the question"))
        if (
            toxicity is not None
            and config.toxicity_max is not None
            and toxicity > config.toxicity_max
        ):
            said.append(found("toxicity", FATAL, "toxic"))
        if _under(agreement, AGREEMENT_MIN):
            said.append(found("self_consistency", SERIOUS, "samples say something else"))
        return said


def _under(value: float | None, least: float | None) -> bool:
    return value is not None and least is not None and value < least
