"""The small models that travel with the package: orders in prompts, harm in texts.

Made by `scripts/fit_guardrails.py`, which says of what. Each head's log-odds are calibrated there.
"""

import math
from collections.abc import Mapping

from cascaded._core import TextModel
from cascaded.policy.guardrails.marks import marks
from cascaded.policy.heads import Head
from cascaded.types.guarding import Harm
from cascaded.types.vectors import Vector

INJECTION_FILE = "guardrails_injection.bin"
HARM_FILE = "guardrails_harm.bin"
HARM_HEADS: tuple[Harm, ...] = ("hate", "violence", "sexual", "self_harm")
"""In the order of their heads; the insults of `toxicity` come last."""
MAX_CHARS = 20_000
"""Of a longer text its beginning and its end are judged as a whole; its sentences all are."""


VECTOR_FILE = "guardrails_harm.head"
"""What a text's meaning says of it, where there is a model that knows meanings."""


WORDS_SHARE: Mapping[Harm, float] = {
    "hate": 0.0,
    "violence": 0.5,
    "sexual": 0.3,
    "self_harm": 0.3,
}
"""How much the words count beside the meaning. Hate is what is meant, not what is said."""


class Orders:
    """How probably a text gives orders that its place has not to give."""

    def __init__(self, weights: bytes) -> None:
        self._model = TextModel(weights)

    def __call__(self, text: str, foreign: bool) -> float:
        """From 0 to 1. Of a `foreign` text, of a tool or a document, each sentence is looked at as
        well: one is enough."""
        user, _ = self._model.scores(_ends(text))
        if not foreign:
            return chance(user)
        most = self._model.most(text)
        return chance(user if most is None else max(user, most[1]))


class Harms:
    """How probably a text is harmful."""

    def __init__(self, weights: bytes, head: Head) -> None:
        self._model = TextModel(weights)
        self._head = head

    def judge(self, text: str, vector: Vector | None = None) -> Mapping[Harm, float]:
        """From 0 to 1 for each harm."""
        scores = dict(zip(HARM_HEADS, self._model.scores(_ends(text)), strict=False))
        if vector is not None:
            meant = said_by(self._head, vector, text)
            for harm, share in WORDS_SHARE.items():
                scores[harm] = share * scores[harm] + (1 - share) * meant[harm]
        return {harm: chance(score) for harm, score in scores.items()}

    def insults(self, text: str) -> float:
        """From 0 to 1."""
        return chance(self._model.scores(_ends(text))[-1])


def said_by(head: Head, vector: Vector, text: str) -> dict[str, float]:
    """The head's log-odds of a text with this meaning, and these marks."""
    return {
        label: log_odds(share) for label, share in head.probabilities(vector + marks(text)).items()
    }


def _ends(text: str) -> str:
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else f"{text[:half]}\n{text[-half:]}"


def log_odds(share: float) -> float:
    """Of a probability."""
    share = min(max(share, 1e-9), 1 - 1e-9)
    return math.log(share / (1 - share))


def chance(log_odds: float) -> float:
    """As a probability."""
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, log_odds))))
