"""The small models that travel with the package: orders in prompts, harm in texts.

Made by `scripts/fit_guardrails.py`, which says of what. Each head's log-odds are calibrated there.
"""

import math
from collections.abc import Mapping

from cascaded._core import TextModel
from cascaded.types.guarding import Harm

INJECTION_FILE = "guardrails_injection.bin"
HARM_FILE = "guardrails_harm.bin"
HARM_HEADS: tuple[Harm, ...] = ("hate", "violence", "sexual", "self_harm")
"""In the order of their heads; the insults of `toxicity` come last."""
MAX_CHARS = 20_000
"""Of a longer text its beginning and its end are judged as a whole; its sentences all are."""


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

    def __init__(self, weights: bytes) -> None:
        self._model = TextModel(weights)

    def judge(self, text: str) -> Mapping[Harm, float]:
        """From 0 to 1 for each harm."""
        scores = self._model.scores(_ends(text))
        return {harm: chance(score) for harm, score in zip(HARM_HEADS, scores, strict=False)}

    def insults(self, text: str) -> float:
        """From 0 to 1."""
        return chance(self._model.scores(_ends(text))[-1])


def _ends(text: str) -> str:
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else f"{text[:half]}\n{text[-half:]}"


def chance(log_odds: float) -> float:
    """As a probability."""
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, log_odds))))
