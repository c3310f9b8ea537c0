"""How hard a query is for a cheap model, and how hard the code in it is to follow. Pure."""

from cascaded.policy.heads import Head
from cascaded.types.topics import Complexity
from cascaded.types.vectors import Vector

CODE_SIMPLE_MAX = 10
CODE_MODERATE_MAX = 20
_RANKS: tuple[Complexity, ...] = ("simple", "moderate", "hard")


class Difficulty:
    """Judges by heads that were fitted to what cheap models got wrong. Immutable."""

    def __init__(self, rules: Head, full: Head) -> None:
        """`rules` judges features alone, `full` a vector and the features behind it."""
        self._rules = rules
        self._full = full

    def of(self, features: Vector, vector: Vector | None, cyclomatic: int | None) -> Complexity:
        """Of a query; of one with code, no less than the code's."""
        head = self._rules if vector is None else self._full
        chances = head.probabilities(features if vector is None else vector + features)
        query = max(_RANKS, key=lambda rank: chances[rank])
        return query if cyclomatic is None else max(query, of_code(cyclomatic), key=_RANKS.index)


def of_code(cyclomatic: int) -> Complexity:
    """By the number of ways through it: up to 10 simple, up to 20 moderate, above that hard."""
    if cyclomatic <= CODE_SIMPLE_MAX:
        return "simple"
    return "moderate" if cyclomatic <= CODE_MODERATE_MAX else "hard"
