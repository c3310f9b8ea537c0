"""The book of models: what a name that a caller types stands for."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches

import msgspec

from cascaded.types.decision import Refusal
from cascaded.types.model import Ladder, Model, Rung

LADDER_PREFIX = "cascade/"
MAX_NAME_CHARACTERS = 256
"""Longer names are nobody's: `provider/model` with the longest of both is shorter."""


class ModelBook(msgspec.Struct, frozen=True, kw_only=True):
    """Every name the operator has given a meaning."""

    models: Mapping[str, Model]
    ladders: Mapping[str, Ladder]
    aliases: Mapping[str, str]
    """A name, and the ladder (`cascade/<name>`) or model it stands for. An alias may shadow a
    real model's name; the config check has seen to it that none leads back to itself."""
    fallbacks: Mapping[str, tuple[Model, ...]] = {}
    """Who answers in place of a model of that name while its provider fails."""
    undeclared: Callable[[str], Model | None]
    """A model that the config does not name but one of its providers serves."""

    def choose(self, name: str) -> Ladder | Refusal:
        """The ladder to climb. A real model's name is a ladder of one rung, not second-guessed."""
        if len(name) > MAX_NAME_CHARACTERS:
            return self.unknown(name)
        target = self.aliases.get(name, name)
        if target.startswith(LADDER_PREFIX):
            ladder = self.ladders.get(target.removeprefix(LADDER_PREFIX))
            return ladder or self.unknown(name)
        model = self.models.get(target) or self.undeclared(target)
        if model is None:
            return self.unknown(name)
        return Ladder(name=model.name, rungs=(self.rung(model),), checked=False)

    def rung(self, model: Model, threshold: float = 0.0) -> Rung:
        """A rung with the model's fallbacks."""
        spare = self.fallbacks.get(model.name, ())
        return Rung(model=model, threshold=threshold, fallbacks=spare)

    def names(self) -> list[str]:
        """Everything that may be asked for by name, sorted."""
        ladders = {LADDER_PREFIX + name for name in self.ladders}
        return sorted({*self.models, *self.aliases, *ladders})

    def unknown(self, name: str) -> Refusal:
        """There is no such name; what is near it."""
        near = get_close_matches(name[:100], self.names(), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        return Refusal(
            code="model_not_found",
            message=f"No model, ladder or alias is called {name[:100]!r}.{hint}"
            " GET /v1/models lists what there is.",
            param="model",
        )
